"""What may be fetched for a request, and what it is: addresses, hosts, the places of URLs in a body, magic bytes. Pure.

Addresses: the special-purpose registries of IANA for IPv4 and IPv6, and the addresses at which clouds serve the
credentials of their machines.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any, Final, Literal

from broker.config import Media
from broker.config.media import host_and_port

Address = IPv4Address | IPv6Address

DEFAULT_PORTS: Final = {"http": 80, "https": 443}
WEB: Final = ("http://", "https://")

_NEVER_4: Final = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24",
        "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
        "168.63.129.16/32",  # Azure's own services to a machine, a public address
    )
)  # fmt: skip
_UNICAST_6: Final = IPv6Network("2000::/3")
"""All that IANA has given out for use in the internet; what lies outside is local, mapped, translated or unassigned."""
_NEVER_6: Final = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments, Teredo among them
        "2001:db8::/32", "3fff::/20",  # documentation
        "2002::/16",  # 6to4: an IPv4 address inside
        "2620:4f:8000::/48",
    )
)  # fmt: skip


def is_public(address: Address) -> bool:
    """Whether an address is one of the public internet, so that a caller may have us connect to it.

    No IPv6 address that carries an IPv4 one (mapped, 6to4, NAT64, Teredo) is.
    """
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NEVER_4)
    return address.scope_id is None and address in _UNICAST_6 and not any(address in network for network in _NEVER_6)


def is_allowed(host: str, port: int, settings: Media) -> bool:
    """Whether the configuration allows to fetch from `host`, a name in ASCII or an address without brackets."""
    name = host.lower().rstrip(".")
    for entry in settings.allowed_hosts:
        wanted, only = host_and_port(entry)
        if port not in (DEFAULT_PORTS.values() if only is None else (only,)):
            continue
        if wanted == "*" or _same(wanted, name):
            return True
        if wanted.startswith("*.") and name.endswith(wanted[1:]) and len(name) > len(wanted) - 1:
            return True
    return False


def _same(wanted: str, name: str) -> bool:
    if wanted == name:
        return True
    try:
        return ip_address(wanted) == ip_address(name)
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Place:
    """Where a URL stands in a body. `param` is its path in OpenAI's words, `keys` the same as steps."""

    url: str
    param: str
    keys: tuple[str | int, ...]
    kind: Literal["image", "file", "audio", "video"]


_KINDS: Final[Mapping[str, Literal["image", "file", "audio", "video"]]] = {
    "image_url": "image", "audio_url": "audio", "video_url": "video",
}  # fmt: skip


def places(body: Mapping[str, Any]) -> list[Place]:
    """Return every http and https URL of a file in the messages of a body, in their order."""
    messages = body.get("messages")
    if not isinstance(messages, list):
        return []
    found: list[Place] = []
    for index, message in enumerate(messages):
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list):
            for number, part in enumerate(content):
                if isinstance(part, dict):
                    found += _of_part(part, ("messages", index, "content", number))
    return found


def _of_part(part: Mapping[str, Any], keys: tuple[str | int, ...]) -> Iterator[Place]:
    kind = part.get("type")
    if not isinstance(kind, str):
        return
    value = part.get(kind)
    if kind in _KINDS and isinstance(value, dict):
        yield from _place(value.get("url"), (*keys, kind, "url"), _KINDS[kind])
    elif kind in _KINDS:
        yield from _place(value, (*keys, kind), _KINDS[kind])
    elif isinstance(value, dict) and kind == "file":
        # `file_id` holds a URL where bodies are written for LiteLLM.
        for name in ("file_data", "file_id"):
            yield from _place(value.get(name), (*keys, "file", name), "file")
    elif isinstance(value, dict) and kind == "input_audio":
        yield from _place(value.get("data"), (*keys, kind, "data"), "audio")


def _place(
    url: object, keys: tuple[str | int, ...], kind: Literal["image", "file", "audio", "video"]
) -> Iterator[Place]:
    if isinstance(url, str) and url[:8].lower().startswith(WEB):
        param = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).removeprefix(".")
        yield Place(url, param, keys, kind)


def replaced(body: Mapping[str, Any], found: Sequence[tuple[Place, str, str]]) -> dict[str, Any]:
    """Return a copy of a body with data URLs in the places; each comes with its media type and its base64.

    What does not lie on the way to a place is shared with the body, which stays as it is.
    """
    copy: dict[str, Any] = dict(body)
    own: set[tuple[str | int, ...]] = set()
    for place, media_type, data in found:
        at: Any = copy
        for depth, key in enumerate(place.keys[:-1], start=1):
            way = place.keys[:depth]
            if way not in own:
                at[key] = at[key].copy()
                own.add(way)
            at = at[key]
        url = f"data:{media_type};base64,{data}"
        last = place.keys[-1]
        if last == "file_id":
            del at["file_id"]
            at["file_data"] = url
        else:
            at[last] = data if place.keys[-2] == "input_audio" else url
    return copy


_BRANDS: Final = {
    b"heic": "image/heic", b"heix": "image/heic", b"hevc": "image/heic", b"hevx": "image/heic", b"mif1": "image/heif",
    b"msf1": "image/heif", b"avif": "image/avif", b"avis": "image/avif",
}  # fmt: skip
"""Of the box `ftyp` that an ISO base media file begins with (ISO/IEC 23008-12)."""
_STARTS: Final = (
    (b"\xff\xd8\xff", "image/jpeg"), (b"\x89PNG\r\n\x1a\n", "image/png"), (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"), (b"II*\0", "image/tiff"), (b"MM\0*", "image/tiff"), (b"%PDF-", "application/pdf"),
)  # fmt: skip
UNTOLD: Final = frozenset({"", "application/octet-stream", "binary/octet-stream"})
"""Content types by which a server says nothing of what it sends."""


def _seen(data: bytes) -> str | None:
    """Return the type that the first bytes tell: of an image or a PDF; None for everything else."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    if data[4:8] == b"ftyp" and data[8:12] in _BRANDS:
        return _BRANDS[data[8:12]]
    if data[:2] == b"BM" and len(data) > 25 and data[6:10] == b"\0\0\0\0":  # noqa: PLR2004 - both headers' length
        return "image/bmp"
    return next((kind for start, kind in _STARTS if data.startswith(start)), None)


def type_of(data: bytes, content_type: str, kind: str) -> str | None:
    """Return the media type of what was fetched; None where it is not what it should be, or says it is what it is not.

    Of images and PDF the bytes decide, which servers often label as another image; whatever else is left is what its
    server says it is.
    """
    told, seen = content_type.partition(";")[0].strip().lower(), _seen(data)
    family = told.partition("/")[0]
    if seen is not None and (seen.startswith("image/") or kind == "file"):
        labelled = told in UNTOLD or family == seen.partition("/")[0]
        return seen if labelled and kind in {"image", "file"} else None
    if kind == "image" or family == "image" or told == "application/pdf":
        return None
    if kind in {"audio", "video"}:
        return told if family in {"audio", "video"} else None
    return None if told in UNTOLD else told
