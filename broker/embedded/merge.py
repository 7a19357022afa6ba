"""Many processes' metrics on one page: the families of each, told apart by a label `process`."""

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

LABEL = "process"
"""The label that tells one process's series from another's."""


class _Merged(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        return self._families


def merge(pages: Mapping[str, str]) -> bytes:
    """Return one page in Prometheus's text format from the text of each process's page, by process name."""
    families: dict[str, Metric] = {}
    for process, page in pages.items():
        for family in text_string_to_metric_families(page):
            merged = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            for sample in family.samples:
                merged.samples.append(sample._replace(labels={**sample.labels, LABEL: process}))
    registry = CollectorRegistry()
    registry.register(_Merged(families.values()))
    return generate_latest(registry)
