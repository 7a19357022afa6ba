"""Log set-up: text or JSON lines on stderr, with secrets masked. Imports the standard library and orjson.

Nothing in this project logs a line per request above debug: at 4,000 requests a second a line each costs more than
the request.
"""

import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any, Final, TextIO

import orjson

MASK: Final = "***"
SECRETS: Final = re.compile(
    r"(?P<head>Bearer\s+|Basic\s+|x-api-key['\"]?\s*[:=]\s*['\"]?)[^\s'\"\\,]+"
    r"|(?P<url>[a-z][a-z0-9+]*://[^\s:/@]*:)[^\s/@\"\\]+(?=@)"
    r"|\b(?:sk|pk|rk)-[A-Za-z0-9_-]{4,}"
    r"|\bAIza[A-Za-z0-9_-]{30,}",
    re.IGNORECASE,
)
"""Credentials as they show up in messages: authorization headers, passwords in URLs, keys by their published heads.

No match takes a quote or a backslash, so that a JSON line stays one.
"""

QUIET: Final = dict.fromkeys(("aiokafka", "httpx", "httpcore", "uvicorn"), logging.WARNING)
"""Libraries that log a line per call at info."""

OWN_FIELDS: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


def mask(text: str) -> str:
    """Return `text` with every credential it shows replaced by `***`."""
    return SECRETS.sub(lambda found: (found["head"] or found["url"] or "") + MASK, text)


class TextFormatter(logging.Formatter):
    """`12:00:01.250 WARNING broker.relay: message`, UTC, secrets masked."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        at = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S.%f")[:-3]
        text = f"{at} {record.levelname:<7} {record.name}: {record.getMessage()}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return mask(text)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `at` (ISO 8601, UTC), `level`, `logger`, `message`, `error`, and `extra` fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update({name: value for name, value in record.__dict__.items() if name not in OWN_FIELDS})
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return mask(orjson.dumps(line, default=str).decode())


def setup(level: str = "info", *, json: bool = False, stream: TextIO | None = None) -> None:
    """Send every logger's lines to `stream` (stderr when None), replacing what was set up before.

    Raises `ValueError` for a level that is none.
    """
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ValueError(f"no such log level: {level}")
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if json else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
    for name, least in QUIET.items():
        logging.getLogger(name).setLevel(max(number, least))
