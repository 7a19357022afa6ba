"""Fetches the images and files that a request names by URL, for providers that take bytes only.

A URL of a caller is where we connect to, from inside the network of whoever runs the broker: a host has to be allowed
by the configuration, every address it has has to be public, and the connection goes to the very address that was
judged. Imports httpx, configuration models and broker errors.
"""

import asyncio
import logging
import socket
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import urljoin

import httpx

from broker.config import Media
from broker.config.media import MOST_TOGETHER
from broker.errors import DeadlineExceeded, InvalidRequest
from workers.providers.media_rules import (
    DEFAULT_PORTS,
    Address,
    Place,
    is_allowed,
    is_public,
    places,
    replaced,
    type_of,
)
from workers.providers.transport import USER_AGENT

Resolve = Callable[[str, int], Awaitable[Sequence[Address]]]
"""Host and port to all addresses the host has; raises OSError where it has none."""

MOST_REDIRECTS: Final = 3
MOST_URLS: Final = 64
"""Of one request."""
AT_ONCE: Final = 4
"""Fetches of one request at the same time, and `AT_ONCE_IN_ALL` of a process; further requests wait for their turn."""
AT_ONCE_IN_ALL: Final = 32
TRIES: Final = 2
"""At a server that fails or does not answer."""
PAUSE: Final = 0.2
"""Seconds between two tries."""
MOST_ADDRESSES: Final = 3
"""Addresses of a host that are tried one after the other."""
_OFF_LOOP_BYTES: Final = 256 << 10
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_AGAIN: Final = frozenset({408, 425, 429})
_OK: Final = 200
_SERVER_ERROR: Final = 500


class _Refused(Exception):
    """The file will not be had, however often it is asked for; the text is for the caller."""


class _Failed(Exception):
    """The file was not had this time; the text is for the caller."""


class SystemResolver:
    """The system's resolver, in threads of its own.

    A name server that does not answer holds a thread for as long as the system asks it, even where nobody waits any
    more; in the loop's own few threads large answers and signatures would then stand behind a caller's URLs.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(AT_ONCE_IN_ALL, thread_name_prefix="media-names")

    async def __call__(self, host: str, port: int) -> Sequence[Address]:
        """Return the addresses of a host; raises OSError where it has none."""
        look = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        found = await asyncio.get_running_loop().run_in_executor(self._threads, look)
        return [ip_address(entry[4][0]) for entry in found]

    def close(self) -> None:
        """Ask no more; what is under way is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class MediaFetcher:
    """Puts bytes in the place of URLs. One per worker process; keeps no connection, no cookie and no answer.

    `resolve`, `judge` and `tls` are a `SystemResolver`, `is_public` and the system's authorities unless given.
    """

    def __init__(
        self,
        settings: Media,
        *,
        resolve: Resolve | None = None,
        judge: Callable[[Address], bool] = is_public,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._settings = settings
        self._system = SystemResolver()  # it starts no thread before it is asked
        self._resolve = resolve or self._system
        self._judge = judge
        self._tls = tls
        self._client: httpx.AsyncClient | None = None
        self._all = asyncio.Semaphore(AT_ONCE_IN_ALL)
        self._line = asyncio.Lock()

    def serves(self, provider: str) -> bool:
        """Whether the configuration asks to fetch for a provider that would take URLs itself."""
        return provider in self._settings.fetch_for

    async def inlined(self, body: Mapping[str, Any], timeout: float) -> Mapping[str, Any]:
        """Return the body with data URLs for its http and https URLs; `timeout` is seconds for all of them.

        The time of the configuration runs from the request's turn on: that others are before it is not its own fault.
        Raises `DeadlineExceeded` where its turn did not come in `timeout`, and `InvalidRequest` naming the place of the
        URL: it is not allowed, leads nowhere public, is too large or not what it should be, or its server does not give
        it. That is the caller's fault even where the server is to blame: an error of the upstream would count against
        the deployment, and whoever names a slow host could put it out of service for everyone. A server that fails is
        asked twice instead.
        """
        found = places(body)
        if not found:
            return body
        if len(found) > MOST_URLS:
            raise InvalidRequest(f"messages: at most {MOST_URLS} URLs are fetched for one request", param="messages")
        by_url: dict[str, list[Place]] = {}
        for place in found:
            by_url.setdefault(place.url, []).append(place)
        fetched = await self._in_turn(by_url, timeout)
        done = []
        for place in found:
            data, content_type = fetched[place.url]
            media_type = type_of(data, content_type, place.kind)
            if media_type is None:
                raise _invalid(place, f"what stands there is no {place.kind} that could be read")
            done.append((place, media_type, await _encoded(data)))
        return replaced(body, done)

    async def close(self) -> None:
        """Close what is open."""
        if self._client is not None:
            await self._client.aclose()
        self._system.close()

    async def _in_turn(self, by_url: Mapping[str, list[Place]], timeout: float) -> dict[str, tuple[bytes, str]]:
        loop = asyncio.get_running_loop()
        end, taken = loop.time() + timeout, 0
        try:
            try:
                async with asyncio.timeout_at(end), self._line:  # one takes all it needs, then the next
                    while taken < min(AT_ONCE, len(by_url)):
                        await self._all.acquire()
                        taken += 1
            except TimeoutError:
                raise DeadlineExceeded("files of other requests were fetched until its time was over") from None
            return await self._together(by_url, min(end - loop.time(), self._settings.timeout))
        finally:
            for _ in range(taken):
                self._all.release()

    async def _together(self, by_url: Mapping[str, list[Place]], bound: float) -> dict[str, tuple[bytes, str]]:
        budget = _Budget(self._settings.max_bytes * MOST_TOGETHER)
        mine = asyncio.Semaphore(AT_ONCE)
        fetched: dict[str, tuple[bytes, str]] = {}

        async def fetch(url: str, place: Place) -> None:
            async with mine:
                try:
                    fetched[url] = await self._tried(url, budget)
                except (_Refused, _Failed) as error:
                    raise _invalid(place, str(error)) from None

        tasks = [asyncio.create_task(fetch(url, found[0])) for url, found in by_url.items()]
        try:
            async with asyncio.timeout(bound):
                await asyncio.gather(*tasks)
        except TimeoutError:
            late = next((url for url in by_url if url not in fetched), next(iter(by_url)))
            raise _invalid(by_url[late][0], f"it could not be fetched in {bound:.3g} s") from None
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return fetched

    async def _tried(self, url: str, budget: "_Budget") -> tuple[bytes, str]:
        for _ in range(TRIES - 1):
            try:
                return await self._followed(url, budget)
            except _Failed:
                await asyncio.sleep(PAUSE)
        return await self._followed(url, budget)

    async def _followed(self, url: str, budget: "_Budget") -> tuple[bytes, str]:
        for _ in range(MOST_REDIRECTS + 1):
            target = _target(url, self._settings)
            async with self._sent(target) as answer:
                if answer.status_code not in _REDIRECTS:
                    return await self._read(answer, budget), answer.headers.get("content-type", "")
                url = urljoin(str(target), answer.headers.get("location", ""))
        raise _Refused(f"it redirects more than {MOST_REDIRECTS} times")

    async def _addresses(self, target: httpx.URL) -> list[Address]:
        """Return addresses to connect to: all that the host has, or nothing where one of them is not public."""
        host = target.raw_host.decode("ascii").strip("[]")
        port = target.port or DEFAULT_PORTS[target.scheme]
        try:
            found = list(dict.fromkeys(await self._resolve(host, port)))
        except (OSError, ValueError):
            found = []
        # One answer for a name that is unknown and for one of an inner network: the difference is nobody's business.
        if not found or not all(self._judge(address) for address in found):
            raise _Refused("its host has no address of the public internet")
        return found[:MOST_ADDRESSES]

    @asynccontextmanager
    async def _sent(self, target: httpx.URL) -> AsyncIterator[httpx.Response]:
        answer = await self._connected(target)
        try:
            yield answer
        finally:
            await answer.aclose()

    async def _connected(self, target: httpx.URL) -> httpx.Response:
        client = self._opened()
        host = target.raw_host.decode("ascii")
        headers = {"host": target.netloc.decode("ascii"), "user-agent": USER_AGENT, "accept": "*/*",
                   "accept-encoding": "identity"}  # fmt: skip
        for address in await self._addresses(target):
            request = httpx.Request(
                "GET",
                target.copy_with(host=str(address)),
                headers=headers,
                extensions={
                    "sni_hostname": host.strip("[]"),
                    "timeout": httpx.Timeout(self._settings.timeout).as_dict(),
                },
            )
            try:
                return await client.send(request, stream=True, follow_redirects=False)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue
            except (httpx.HTTPError, httpx.InvalidURL, ValueError):
                break
        raise _Failed("its server cannot be reached")

    def _opened(self) -> httpx.AsyncClient:
        """Return the client; a connection serves one request, for the pool does not tell names of one address apart."""
        if self._client is None:
            logging.getLogger("httpx").setLevel(logging.WARNING)  # at INFO it writes every URL, signatures included
            self._client = httpx.AsyncClient(
                trust_env=False,
                verify=self._tls or True,
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
            )
        return self._client

    async def _read(self, answer: httpx.Response, budget: "_Budget") -> bytes:
        status = answer.status_code
        if status != _OK:
            text = f"its server answered {status}"
            raise _Failed(text) if status >= _SERVER_ERROR or status in _AGAIN else _Refused(text)
        if answer.headers.get("content-encoding", "identity").lower() != "identity":
            raise _Refused("its server compressed it unasked")
        limit = self._settings.max_bytes
        told = answer.headers.get("content-length", "")
        if told.isascii() and told.isdigit() and (len(told) > len(str(limit)) or int(told) > limit):
            raise _Refused(f"it is larger than {limit} bytes (media.max_bytes)")
        data = bytearray()
        try:
            async for piece in answer.aiter_raw():
                data += piece
                if len(data) > limit:
                    raise _Refused(f"it is larger than {limit} bytes (media.max_bytes)")
                budget.take(len(piece))
        except (httpx.HTTPError, httpx.StreamError):
            raise _Failed("its server broke off") from None
        return bytes(data)


class _Budget:
    """Bytes that the files of one request may still have together."""

    def __init__(self, left: int) -> None:
        self._left = left

    def take(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise _Refused(f"the files of the request are together more than {MOST_TOGETHER} times media.max_bytes")


def _target(url: str, settings: Media) -> httpx.URL:
    """Return the parsed URL, which the configuration allows."""
    try:
        target = httpx.URL(url.strip()).copy_with(fragment=None)
        host, port = target.raw_host.decode("ascii").strip("[]"), target.port
    except (httpx.InvalidURL, ValueError, TypeError):
        raise _Refused("it is no URL") from None
    if target.scheme not in DEFAULT_PORTS or not host:
        raise _Refused("only http and https are fetched")
    if target.userinfo:
        raise _Refused("a URL with a user or a password is not fetched")
    if not is_allowed(host, port or DEFAULT_PORTS[target.scheme], settings):
        raise _Refused("its host is not allowed; media.allowed_hosts in the configuration says which are")
    return target


def _invalid(place: Place, text: str) -> InvalidRequest:
    return InvalidRequest(f"{place.param}: {text}", param=place.param)


async def _encoded(data: bytes) -> str:
    encoded = await asyncio.to_thread(b64encode, data) if len(data) > _OFF_LOOP_BYTES else b64encode(data)
    return encoded.decode("ascii")
