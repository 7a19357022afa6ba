"""The section `media`: from where images and files that a request names by URL may be fetched. Imports no I/O."""

import re
from typing import Final

from pydantic import Field, field_validator

from broker.config.clouds import Section

_ENTRY: Final = re.compile(
    r"(?P<host>\*|\[[0-9a-f:.]+\]|(\*\.)?[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*)"
    r"(:(?P<port>\d{1,5}))?"
)
"""A host name, an address, `*.` and a name, or `*`; with a port or without."""

MOST_PORTS: Final = 65_535


class Media(Section):
    """What is fetched for providers that take an image or a file as bytes only."""

    allowed_hosts: tuple[str, ...] = ()
    """Hosts to fetch from: `images.example.com`, `*.example.org` (names below it, not itself), `*` for every one.

    Ports 80 and 443, unless the entry names another one, and then that one only. None are allowed unless named.
    """
    max_bytes: int = Field(default=20 << 20, ge=1, le=64 << 20)
    """Of one file, and of all files of one request together at most `MOST_TOGETHER` of it."""
    timeout: float = Field(default=10.0, gt=0, allow_inf_nan=False)
    """Seconds for all files of a request, at most what is left of the call's own timeout."""
    fetch_for: tuple[str, ...] = ()
    """Providers for which URLs are fetched here although they take them: servers that reach no network, say."""

    @field_validator("allowed_hosts")
    @classmethod
    def _hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        entries = tuple(entry.strip().lower().rstrip(".") for entry in value)
        for entry in entries:
            found = _ENTRY.fullmatch(entry)
            if found is None or not 0 < int(found["port"] or 1) <= MOST_PORTS:
                raise ValueError(
                    f"{entry!r} is no host: images.example.com, *.example.com, * or one of them with :port is needed"
                )
        return entries


MOST_TOGETHER: Final = 3
"""Times `max_bytes` that the files of one request may have together."""


def host_and_port(entry: str) -> tuple[str, int | None]:
    """Return the host of an entry of `allowed_hosts`, without brackets, and its port."""
    found = _ENTRY.fullmatch(entry)
    if found is None:
        raise ValueError(entry)
    return found["host"].strip("[]"), int(found["port"]) if found["port"] else None
