"""Files fetched from servers on this machine, whose addresses a resolver of the test hands out as if public."""

import asyncio
import base64
import datetime as dt
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from broker.config import Media
from broker.errors import InvalidRequest
from workers.providers.media import MediaFetcher
from workers.providers.media_rules import Address, is_public

HERE = ip_address("127.0.0.1")
PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 40
PARAM = "messages[0].content[0].image_url.url"

Serve = Callable[[str, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Server:
    """What a local HTTP server was asked, and its port."""

    port: int = 0
    asked: list[str] = field(default_factory=list)


@asynccontextmanager
async def serving(serve: Serve, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    found = Server()
    open_now: set[asyncio.StreamWriter] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_now.add(writer)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            found.asked.append(head)
            await serve(head.split(" ")[1], writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()
        for writer in open_now:
            writer.close()


def answering(
    body: bytes = PNG, *, status: str = "200 OK", kind: str = "image/png", headers: Sequence[str] = ()
) -> Serve:
    async def serve(path: str, writer: asyncio.StreamWriter) -> None:
        del path
        lines = [f"HTTP/1.1 {status}", f"content-type: {kind}", f"content-length: {len(body)}", *headers]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)

    return serve


class Names:
    """A resolver: names to the addresses that each question is answered with, the last ones for ever."""

    def __init__(self, **answers: list[list[str]]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[Address]:
        del port
        self.asked.append(host)
        answers = self.answers.get(host.partition(".")[0])
        if answers is None:
            raise OSError("no such name")
        return [ip_address(text) for text in (answers.pop(0) if len(answers) > 1 else answers[0])]


def fetcher(port: int, names: Names | None = None, tls: ssl.SSLContext | None = None, **media: Any) -> MediaFetcher:
    settings = Media(**{"allowed_hosts": (f"*:{port}", "*"), **media})
    return MediaFetcher(
        settings,
        resolve=names or Names(x=[["127.0.0.1"]]),
        judge=lambda address: address == HERE or is_public(address),
        tls=tls,
    )


def body_of(*urls: str) -> dict[str, Any]:
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return {"messages": [{"role": "user", "content": parts}]}


async def inlined(found: MediaFetcher, *urls: str, timeout: float = 10.0) -> list[str]:
    body = body_of(*urls)
    try:
        told = await found.inlined(body, timeout)
    finally:
        await found.close()
    assert body == body_of(*urls)
    return [part["image_url"]["url"] for part in told["messages"][0]["content"]]


async def refusal(found: MediaFetcher, url: str, timeout: float = 10.0) -> str:
    with pytest.raises(InvalidRequest) as caught:
        await inlined(found, url, timeout=timeout)
    assert (caught.value.status, caught.value.param, caught.value.retriable) == (400, PARAM, False)
    assert "127.0.0.1" not in caught.value.message
    return caught.value.message.removeprefix(f"{PARAM}: ")


DATA = "data:image/png;base64," + base64.b64encode(PNG).decode()
NOT_PUBLIC = "its host has no address of the public internet"
NOT_ALLOWED = "its host is not allowed; media.allowed_hosts in the configuration says which are"


async def test_an_image_is_fetched_once_for_all_its_places_without_cookies_and_credentials() -> None:
    async with serving(answering(headers=["set-cookie: a=b"])) as server:
        url = f"http://x.example:{server.port}/a.png?size=2#top"
        assert await inlined(fetcher(server.port), url, url) == [DATA, DATA]
        (head,) = server.asked
    first, *lines = head.lower().strip().split("\r\n")
    assert first == "get /a.png?size=2 http/1.1"
    assert f"host: x.example:{server.port}" in lines
    assert {line.partition(":")[0] for line in lines} <= {
        "host",
        "user-agent",
        "accept",
        "accept-encoding",
        "connection",
    }


async def test_a_body_without_urls_is_given_back_as_it_is() -> None:
    found = MediaFetcher(Media())
    body = body_of(DATA)
    assert await found.inlined(body, 1.0) is body


async def test_without_a_list_the_error_says_which_setting_to_set() -> None:
    assert await refusal(MediaFetcher(Media()), "https://x.example/a.png") == NOT_ALLOWED


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("http://user:pw@x.example/a", "a URL with a user or a password is not fetched"),
        ("http://x.example:22/a", NOT_ALLOWED),
        ("http://nobody.example/a", NOT_PUBLIC),
        ("http://inner.example/a", NOT_PUBLIC),
        ("http://both.example/a", NOT_PUBLIC),
        ("http://[::1", "it is no URL"),
        ("http:///a", "only http and https are fetched"),
    ],
)
async def test_a_refusal_has_its_own_words(url: str, text: str) -> None:
    names = Names(inner=[["10.0.0.7"]], both=[["8.8.8.8", "169.254.169.254"]])
    found = MediaFetcher(Media(allowed_hosts=("*",)), resolve=names)
    assert await refusal(found, url) == text


@pytest.mark.parametrize("host", ["127.0.0.1", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]", "localhost"])
async def test_this_machine_by_any_name_is_not_public_for_the_systems_resolver(host: str) -> None:
    found = MediaFetcher(Media(allowed_hosts=("*", "[::1]", "localhost")))
    assert await refusal(found, f"http://{host}/a") in {NOT_PUBLIC, "it is no URL"}


async def test_the_connection_goes_to_the_address_that_was_judged_and_the_name_is_asked_once() -> None:
    names = Names(x=[["127.0.0.1"], ["10.0.0.7"]])
    async with serving(answering()) as server:
        assert await inlined(fetcher(server.port, names), f"http://x.example:{server.port}/") == [DATA]
    assert names.asked == ["x.example"]


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("http://inner.example/latest/meta-data", NOT_PUBLIC),
        ("http://x.example:22/", NOT_ALLOWED),
        ("ftp://x.example/", "only http and https are fetched"),
        ("http://a:b@x.example/", "a URL with a user or a password is not fetched"),
        ("/again", "it redirects more than 3 times"),
    ],
)
async def test_a_redirect_is_judged_like_the_first_url(place: str, text: str) -> None:
    async with serving(answering(b"", status="302 Found", headers=[f"location: {place}"])) as server:
        names = Names(x=[["127.0.0.1"]], inner=[["169.254.169.254"]])
        assert await refusal(fetcher(server.port, names), f"http://x.example:{server.port}/") == text
        assert len(server.asked) == (4 if "times" in text else 1)


async def test_a_redirect_to_a_name_that_turns_private_is_refused() -> None:
    async with serving(answering(b"", status="307 Temporary Redirect", headers=["location: /b"])) as server:
        names = Names(x=[["127.0.0.1"], ["192.168.0.1"]])
        assert await refusal(fetcher(server.port, names), f"http://x.example:{server.port}/") == NOT_PUBLIC


async def test_three_redirects_are_followed() -> None:
    async def serve(path: str, writer: asyncio.StreamWriter) -> None:
        step = int(path[1:])
        given = answering() if step == 3 else answering(b"", status="301 Moved", headers=[f"location: /{step + 1}"])
        await given(path, writer)

    async with serving(serve) as server:
        assert await inlined(fetcher(server.port), f"http://x.example:{server.port}/0") == [DATA]


@pytest.mark.parametrize(
    ("serve", "text", "times"),
    [
        (answering(status="404 Not Found"), "its server answered 404", 1),
        (answering(status="206 Partial Content"), "its server answered 206", 1),
        (answering(status="503 Busy"), "its server answered 503", 2),
        (answering(status="429 Slow"), "its server answered 429", 2),
        (answering(b"<html>"), "what stands there is no image that could be read", 1),
        (answering(kind="text/html"), "what stands there is no image that could be read", 1),
        (answering(PNG + b"\0" * 1000), "it is larger than 100 bytes (media.max_bytes)", 1),
        (answering(headers=["content-encoding: gzip"]), "its server compressed it unasked", 1),
    ],
)
async def test_what_a_server_gives_instead_of_an_image(serve: Serve, text: str, times: int) -> None:
    async with serving(serve) as server:
        assert await refusal(fetcher(server.port, max_bytes=100), f"http://x.example:{server.port}/") == text
        assert len(server.asked) == times


async def test_a_server_that_recovers_is_asked_again() -> None:
    first = [True]

    async def serve(path: str, writer: asyncio.StreamWriter) -> None:
        await answering(status="500 Oops" if first and first.pop() else "200 OK")(path, writer)

    async with serving(serve) as server:
        assert await inlined(fetcher(server.port), f"http://x.example:{server.port}/") == [DATA]


async def test_a_body_without_a_length_is_bounded_while_it_is_read() -> None:
    async def serve(path: str, writer: asyncio.StreamWriter) -> None:
        del path
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\n\r\n")
        for _ in range(1000):
            writer.write(b"\0" * 65_536)
            await writer.drain()

    async with serving(serve) as server:
        found = fetcher(server.port, max_bytes=1 << 20)
        assert await refusal(found, f"http://x.example:{server.port}/") == (
            "it is larger than 1048576 bytes (media.max_bytes)"
        )


async def test_the_files_of_a_request_are_bounded_together() -> None:
    async with serving(answering()) as server:
        urls = [f"http://x.example:{server.port}/{number}" for number in range(4)]
        with pytest.raises(InvalidRequest, match="together more than 3 times"):
            await inlined(fetcher(server.port, max_bytes=len(PNG)), *urls)


async def test_a_server_that_drips_is_left_when_the_time_is_over() -> None:
    async def serve(path: str, writer: asyncio.StreamWriter) -> None:
        del path
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"\0")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with serving(serve) as server:
        url = f"http://x.example:{server.port}/"
        assert await refusal(fetcher(server.port, timeout=0.1), url) == "it could not be fetched in 0.1 s"
        assert await refusal(fetcher(server.port), url, timeout=0.2) == "it could not be fetched in 0.2 s"


async def test_a_server_that_breaks_off_or_is_not_there_says_nothing_of_where_it_was() -> None:
    async def serve(path: str, writer: asyncio.StreamWriter) -> None:
        del path
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\ncontent-length: 900\r\n\r\nhalf")

    async with serving(serve) as server:
        assert await refusal(fetcher(server.port), f"http://x.example:{server.port}/") == "its server broke off"
    assert await refusal(fetcher(server.port), f"http://x.example:{server.port}/") == "its server cannot be reached"


async def test_the_next_address_is_tried_where_one_does_not_answer() -> None:
    names = Names(x=[["::1", "127.0.0.1"]])
    async with serving(answering()) as server:
        media = Media(allowed_hosts=(f"*:{server.port}",))
        found = MediaFetcher(media, resolve=names, judge=lambda address: address.is_loopback)
        assert await inlined(found, f"http://x.example:{server.port}/") == [DATA]


async def test_too_many_urls_are_refused_before_any_is_fetched() -> None:
    names = Names(x=[["127.0.0.1"]])
    with pytest.raises(InvalidRequest, match="at most 64 URLs"):
        await inlined(fetcher(80, names), *(f"http://x.example/{number}" for number in range(65)))
    assert names.asked == []


def certificate(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Make a certificate of `name`; contexts of a server that has it and of a client that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return server, ssl.create_default_context(cafile=str(folder / "cert.pem"))


async def test_the_name_is_verified_though_the_connection_goes_to_an_address(tmp_path: Path) -> None:
    with_it, trusting = certificate(tmp_path, "x.example")
    names = Names(x=[["127.0.0.1"]], y=[["127.0.0.1"]])
    async with serving(answering(), with_it) as server:
        found = fetcher(server.port, names, trusting)
        assert await inlined(found, f"https://x.example:{server.port}/") == [DATA]
        for url, context in (
            (f"https://y.example:{server.port}/", trusting),
            (f"https://x.example:{server.port}/", None),
        ):
            found = fetcher(server.port, names, context)
            assert await refusal(found, url) == "its server cannot be reached"
        assert len(server.asked) == 1


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with serving(answering()) as server:
        assert await inlined(fetcher(server.port), f"http://x.example:{server.port}/") == [DATA]


async def test_no_url_is_written_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with serving(answering()) as server:
        await inlined(fetcher(server.port), f"http://x.example:{server.port}/?signature=secret")
    assert "secret" not in caplog.text
