"""What a running stack leaves in its folder so that other commands find it: addresses, and a lock that tells it lives.

`.broker/lock` is held by the running process, so the kernel frees it whatever way that process ends;
`.broker/run.json` holds the configuration's path and the addresses of embedded parts, never a secret.
"""

import contextlib
import json
import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from pydantic import SecretStr

from broker.config import Settings
from broker.embedded.part import PartError, make_folder

if sys.platform != "win32":
    import fcntl

FOLDER: Final = ".broker"
RUN_FILE: Final = "run.json"
LOCK_FILE: Final = "lock"
KEY_FILE: Final = "signing-key"


class Lock:
    """The right of one process to use a data folder."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK_FILE
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take it; raises `PartError` when another process has it."""
        make_folder(self._path.parent, part="data folder")
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
            os.close(descriptor)
            raise PartError(
                f"a stack already runs in this folder (process {holder or 'unknown'}, data in {self._path.parent}); "
                "stop it with Ctrl-C, or start in another folder"
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Give it back. Harmless when it was not taken."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _is_held(folder: Path) -> bool:
    try:
        descriptor = os.open(folder / LOCK_FILE, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def write(folder: Path, content: dict[str, Any]) -> None:
    """Write the run file so that no reader sees half of it."""
    draft = folder / f"{RUN_FILE}.new"
    draft.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    draft.replace(folder / RUN_FILE)


def remove(folder: Path) -> None:
    """Remove the run file. Harmless when there is none."""
    (folder / RUN_FILE).unlink(missing_ok=True)


def discover(cwd: Path) -> dict[str, Any] | None:
    """Return the run file of the stack that runs in `cwd` or the nearest folder above it; None when none runs.

    Its keys: `config` and `signing_key_file` (paths, or None), `health` (URL), and of the embedded parts only `kafka`,
    `redis`, `clickhouse` and `model` (addresses). The file of a stack that was killed does not count.
    """
    for folder in (cwd, *cwd.parents):
        data = folder / FOLDER
        with contextlib.suppress(OSError, ValueError):
            content = json.loads((data / RUN_FILE).read_text(encoding="utf-8"))
            if isinstance(content, dict) and _is_held(data):
                return content
    return None


def signing_key(folder: Path) -> str:
    """Return the folder's signing key; it is drawn at the first call and readable by its owner only."""
    path = folder / KEY_FILE
    try:
        return path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        key = secrets.token_hex(32)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(key + "\n")
        return key


def with_run(settings: Settings, run: Mapping[str, Any]) -> Settings:
    """Return `settings` completed from a run file: addresses they do not name, and the stack's signing key."""
    path = run.get("signing_key_file")
    if settings.signing_key is None and path is not None:
        with contextlib.suppress(OSError):  # another user's stack: its key is not ours to read
            key = Path(path).read_text(encoding="ascii").strip()
            settings = settings.model_copy(update={"signing_key": SecretStr(key)})
    return with_addresses(settings, run)


def with_addresses(settings: Settings, addresses: Mapping[str, str]) -> Settings:
    """Return `settings` with the addresses filled in (`kafka`, `redis`, `clickhouse`) that they do not name."""
    changes: dict[str, Any] = {}
    if settings.kafka.bootstrap_servers is None and "kafka" in addresses:
        changes["kafka"] = settings.kafka.model_copy(update={"bootstrap_servers": addresses["kafka"]})
    if settings.redis.url is None and "redis" in addresses:
        changes["redis"] = settings.redis.model_copy(update={"url": SecretStr(addresses["redis"])})
    if settings.clickhouse.dsn is None and "clickhouse" in addresses:
        changes["clickhouse"] = settings.clickhouse.model_copy(update={"dsn": SecretStr(addresses["clickhouse"])})
    return settings.model_copy(update=changes)
