"""What may be fetched: which addresses are public, which hosts are allowed, where URLs stand, what bytes are."""

import copy
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from broker.config import Media
from workers.providers.media_rules import is_allowed, is_public, places, replaced, type_of

PUBLIC = ["1.1.1.1", "8.8.8.8", "93.184.216.34", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00:1450:4001::8a"]
PRIVATE = [
    "0.0.0.0",  # noqa: S104 - nothing is bound
    "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.255", "169.254.169.254",
    "169.254.170.2", "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.1.1",
    "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
    "168.63.129.16", "::", "::1", "::ffff:8.8.8.8", "::ffff:127.0.0.1", "::8.8.8.8", "64:ff9b::808:808",
    "64:ff9b:1::1", "100::1", "2001::1", "2001:db8::1", "2002:808:808::1", "3fff::1", "5f00::1", "fc00::1",
    "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "2606:4700::1111%2",
]  # fmt: skip


@pytest.mark.parametrize("text", PUBLIC)
def test_an_address_of_the_internet_is_public(text: str) -> None:
    assert is_public(ip_address(text))


@pytest.mark.parametrize("text", PRIVATE)
def test_an_address_of_an_inner_network_or_of_a_special_purpose_is_not(text: str) -> None:
    assert not is_public(ip_address(text))


@given(st.ip_addresses(v=4))
def test_no_ipv4_address_is_public_that_python_calls_anything_else(address: IPv4Address) -> None:
    special = address.is_private or address.is_multicast or address.is_reserved or address.is_link_local
    assert not is_public(address) or (address.is_global and not special)


@given(st.ip_addresses(v=6))
def test_no_ipv6_address_is_public_that_python_calls_anything_else(address: IPv6Address) -> None:
    inside = address.ipv4_mapped or address.sixtofour or address.teredo
    special = address.is_private or address.is_multicast or address.is_reserved or address.is_link_local
    assert not is_public(address) or (address.is_global and not special and inside is None)


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_inside_an_ipv6_one_is_never_public(address: IPv4Address) -> None:
    number = int(address)
    for wrapped in (0xFFFF << 32 | number, number, (0x64FF9B << 96) | number, (0x2002 << 112) | (number << 80)):
        assert not is_public(IPv6Address(wrapped))


@pytest.mark.parametrize(
    ("entry", "host", "port", "allowed"),
    [
        ("images.example.com", "images.example.com", 443, True),
        ("images.example.com", "IMAGES.example.com.", 80, True),
        ("images.example.com", "images.example.com", 8080, False),
        ("images.example.com", "a.images.example.com", 443, False),
        ("images.example.com", "images.example.com.evil.org", 443, False),
        ("images.example.com:8443", "images.example.com", 8443, True),
        ("images.example.com:8443", "images.example.com", 443, False),
        ("*.example.org", "a.b.example.org", 443, True),
        ("*.example.org", "example.org", 443, False),
        ("*.example.org", "badexample.org", 443, False),
        ("*", "anything.at.all", 80, True),
        ("*", "anything.at.all", 22, False),
        ("*:8080", "anything.at.all", 8080, True),
        ("93.184.216.34", "93.184.216.34", 80, True),
        ("[2606:4700::1111]:8080", "2606:4700:0::1111", 8080, True),
    ],
)
def test_a_host_is_allowed_by_an_entry(entry: str, host: str, port: int, *, allowed: bool) -> None:
    assert is_allowed(host, port, Media(allowed_hosts=(entry,))) is allowed


def test_no_host_is_allowed_unless_one_is_named() -> None:
    assert not is_allowed("example.com", 443, Media())


@pytest.mark.parametrize(
    "entry", ["https://example.com", "example.com/path", "a..b", "", "*.*.com", "x:0", "x:70000", "-x"]
)
def test_an_entry_that_is_no_host_is_refused(entry: str) -> None:
    with pytest.raises(ValidationError, match="is no host"):
        Media(allowed_hosts=(entry,))


def body_of(*parts: dict[str, Any], role: str = "user") -> dict[str, Any]:
    return {"messages": [{"role": "system", "content": "Be brief."}, {"role": role, "content": list(parts)}]}


URL = "https://x.example/a"
EVERY: list[tuple[dict[str, Any], str, str, dict[str, Any]]] = [
    ({"type": "image_url", "image_url": {"url": URL, "detail": "low"}}, "image_url.url", "image",
     {"type": "image_url", "image_url": {"url": "data:t/t;base64,eA==", "detail": "low"}}),
    ({"type": "image_url", "image_url": URL}, "image_url", "image",
     {"type": "image_url", "image_url": "data:t/t;base64,eA=="}),
    ({"type": "audio_url", "audio_url": {"url": URL}}, "audio_url.url", "audio",
     {"type": "audio_url", "audio_url": {"url": "data:t/t;base64,eA=="}}),
    ({"type": "video_url", "video_url": {"url": URL}}, "video_url.url", "video",
     {"type": "video_url", "video_url": {"url": "data:t/t;base64,eA=="}}),
    ({"type": "input_audio", "input_audio": {"data": URL, "format": "wav"}}, "input_audio.data", "audio",
     {"type": "input_audio", "input_audio": {"data": "eA==", "format": "wav"}}),
    ({"type": "file", "file": {"file_data": URL, "filename": "a"}}, "file.file_data", "file",
     {"type": "file", "file": {"file_data": "data:t/t;base64,eA==", "filename": "a"}}),
    ({"type": "file", "file": {"file_id": URL}}, "file.file_id", "file",
     {"type": "file", "file": {"file_data": "data:t/t;base64,eA=="}}),
]  # fmt: skip


@pytest.mark.parametrize(("part", "path", "kind", "after"), EVERY)
def test_a_url_is_found_and_replaced_in_a_copy(
    part: dict[str, Any], path: str, kind: str, after: dict[str, Any]
) -> None:
    body = body_of({"type": "text", "text": "Look:"}, part, {"type": "text", "text": URL}, role="tool")
    before = copy.deepcopy(body)
    (place,) = places(body)
    assert (place.url, place.param, place.kind) == (URL, f"messages[1].content[1].{path}", kind)
    told = replaced(body, [(place, "t/t", "eA==")])
    assert body == before
    expected = copy.deepcopy(before)
    expected["messages"][1]["content"][1] = after
    assert told == expected


def test_several_urls_of_one_message_are_all_replaced() -> None:
    body = body_of(*(part for part, _, _, _ in EVERY))
    before = copy.deepcopy(body)
    told = replaced(body, [(place, "t/t", "eA==") for place in places(body)])
    assert (told["messages"][1]["content"], body) == ([after for _, _, _, after in EVERY], before)


JUNK = st.recursive(
    st.none() | st.integers(0, 3) | st.sampled_from(["image_url", "file", "user", URL, "data:x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["messages", "content", "type", "image_url", "file", "url", "file_data"]), inner, max_size=3
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["messages", "input"]), JUNK, max_size=2))
def test_no_body_breaks_the_search(body: dict[str, Any]) -> None:
    told = replaced(body, [(place, "t/t", "eA==") for place in places(body)])
    assert places(told) == []


PNG, JPEG = b"\x89PNG\r\n\x1a\n" + b"\0" * 20, b"\xff\xd8\xff\xe0" + b"\0" * 20
WEBP, HEIC = b"RIFF\0\0\0\0WEBPVP8 ", b"\0\0\0\x18ftypheic\0\0\0\0"
PDF = b"%PDF-1.7\n"


@pytest.mark.parametrize(
    ("data", "told", "kind", "expected"),
    [
        (PNG, "image/png", "image", "image/png"),
        (PNG, "", "image", "image/png"),
        (PNG, "application/octet-stream", "image", "image/png"),
        (JPEG, "image/png; charset=x", "image", "image/jpeg"),  # the bytes decide between images
        (b"GIF89a...", "IMAGE/GIF", "image", "image/gif"),
        (WEBP, "image/webp", "image", "image/webp"),
        (HEIC, "image/heic", "image", "image/heic"),
        (PNG, "text/html", "image", None),
        (b"<html>", "image/png", "image", None),
        (b"<svg/>", "image/svg+xml", "image", None),
        (PDF, "application/pdf", "image", None),
        (PDF, "application/pdf", "file", "application/pdf"),
        (PDF, "binary/octet-stream", "file", "application/pdf"),
        (b"<html>", "application/pdf", "file", None),
        (PDF, "text/html", "file", None),
        (PNG, "image/png", "file", "image/png"),
        (b"<html>", "image/png", "file", None),
        (b"a,b", "text/csv; charset=utf-8", "file", "text/csv"),
        (b"???", "", "file", None),
        (b"RIFF\0\0\0\0WAVE", "audio/wav", "audio", "audio/wav"),
        (b"<html>", "text/html", "audio", None),
        (PNG, "audio/wav", "audio", None),
    ],
)
def test_what_was_fetched_is_what_its_bytes_and_its_server_say_alike(
    data: bytes, told: str, kind: str, expected: str | None
) -> None:
    assert type_of(data, told, kind) == expected
