"""The embedded Kafka-protocol log: a stand-in for one machine, not a reference of Kafka's behaviour."""

from collections.abc import Sequence
from pathlib import Path

from broker.embedded.part import Part, package_folder
from broker.embedded.probe import Probe, kafka_serves


class KafkaPart(Part):
    """`noida-db` with only its Kafka service. It saves its log about once a second and when it is stopped."""

    name = "kafka"
    grace = 120.0  # it rewrites its whole log once more: about 6 s for 120,000 records of 1 kB

    def command(self, folder: Path, port: int) -> Sequence[str]:
        """Run in the foreground."""
        binary = package_folder("noida_db", part=self.name, needs="noida-db") / "noida-db"
        return [str(binary), "start", "--only", "kafka", "--kafka-port", str(port), "--data-dir", str(folder)]

    @property
    def probe(self) -> Probe:
        """ApiVersions."""
        return kafka_serves
