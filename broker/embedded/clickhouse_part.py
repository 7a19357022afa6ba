"""The embedded ClickHouse engine, behind ClickHouse's own HTTP interface."""

import sys
from collections.abc import Sequence
from pathlib import Path

from broker.embedded.clickhouse_engine import DATABASE
from broker.embedded.part import HOST, Part, package_folder
from broker.embedded.probe import Probe, http_serves


class ClickHousePart(Part):
    """The engine in a process of its own, since it allows one process per data folder."""

    name = "clickhouse"

    def command(self, folder: Path, port: int) -> Sequence[str]:
        """Run the HTTP front with the engine inside."""
        package_folder("chdb", part=self.name)
        return [sys.executable, "-m", "broker.embedded.clickhouse_server", "--data", str(folder), "--port", str(port)]

    def address(self) -> str:
        """Return the DSN of the engine's durable database."""
        return f"clickhouse://{HOST}:{self.port}/{DATABASE}"

    @property
    def probe(self) -> Probe:
        """`GET /ping`."""
        return http_serves("/ping")
