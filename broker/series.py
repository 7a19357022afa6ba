"""Counters, levels and histograms recorded by one thread: a tenth of the cost of prometheus_client's own, which lock.

Imports prometheus_client's exposition classes only. A scrape from another thread reads values that are at most one
update old; two threads that record into one series lose updates.
"""

from abc import abstractmethod
from bisect import bisect_left
from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector


class Count:
    """One series of a counter."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1) -> None:
        """Add `amount`, which must not be negative."""
        self.value += amount


class Level:
    """One series of a gauge that goes up and down."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self) -> None:
        """Add one."""
        self.value += 1

    def dec(self) -> None:
        """Take one away."""
        self.value -= 1


class Spread:
    """One series of a histogram: how many observations fell into each bucket, and their sum."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Add one observation; a value equal to a bound belongs to that bound's bucket."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value


class _Family(Collector):
    """A name, its labels, and a series for each combination of label values that was asked for."""

    def __init__(self, name: str, text: str, labels: Sequence[str], registry: CollectorRegistry) -> None:
        self._name = name
        self._text = text
        self._labels = tuple(labels)
        registry.register(self)

    def _key(self, values: tuple[str, ...]) -> tuple[str, ...]:
        if len(values) != len(self._labels):
            raise ValueError(f"{self._name} has the labels {self._labels}, not {len(values)} values")
        return tuple(map(str, values))

    @abstractmethod
    def collect(self) -> Iterable[Metric]:
        """Return the family as it stands now."""

    def describe(self) -> Iterable[Metric]:
        """Return the family; the registry takes its name from it."""
        return self.collect()


class CounterFamily(_Family):
    """A counter; without labels it is its own only series and starts at zero."""

    def __init__(self, name: str, text: str, labels: Sequence[str], registry: CollectorRegistry) -> None:
        self._series: dict[tuple[str, ...], Count] = {}
        super().__init__(name, text, labels, registry)
        if not labels:
            self.labels()

    def labels(self, *values: str) -> Count:
        """Return the series of these label values, the same object each time."""
        key = self._key(values)
        return self._series.get(key) or self._series.setdefault(key, Count())

    def inc(self, amount: float = 1) -> None:
        """Add to the only series of a counter without labels."""
        self.labels().inc(amount)

    def collect(self) -> Iterable[Metric]:
        """Return the family as it stands now."""
        family = CounterMetricFamily(self._name, self._text, labels=self._labels)
        for key, series in list(self._series.items()):
            family.add_metric(key, series.value)
        yield family


class LevelFamily(_Family):
    """A gauge with labels that counts what is going on."""

    def __init__(self, name: str, text: str, labels: Sequence[str], registry: CollectorRegistry) -> None:
        self._series: dict[tuple[str, ...], Level] = {}
        super().__init__(name, text, labels, registry)

    def labels(self, *values: str) -> Level:
        """Return the series of these label values, the same object each time."""
        key = self._key(values)
        return self._series.get(key) or self._series.setdefault(key, Level())

    def collect(self) -> Iterable[Metric]:
        """Return the family as it stands now."""
        family = GaugeMetricFamily(self._name, self._text, labels=self._labels)
        for key, series in list(self._series.items()):
            family.add_metric(key, series.value)
        yield family


class HistogramFamily(_Family):
    """A histogram with fixed bucket bounds."""

    def __init__(
        self, name: str, text: str, labels: Sequence[str], bounds: Sequence[float], registry: CollectorRegistry
    ) -> None:
        self._bounds = tuple(map(float, bounds))
        self._bound_texts = (*map(str, self._bounds), "+Inf")
        self._series: dict[tuple[str, ...], Spread] = {}
        super().__init__(name, text, labels, registry)
        if not labels:
            self.labels()

    def labels(self, *values: str) -> Spread:
        """Return the series of these label values, the same object each time."""
        key = self._key(values)
        return self._series.get(key) or self._series.setdefault(key, Spread(self._bounds))

    def observe(self, value: float) -> None:
        """Add to the only series of a histogram without labels."""
        self.labels().observe(value)

    def collect(self) -> Iterable[Metric]:
        """Return the family as it stands now."""
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        for key, series in list(self._series.items()):
            below = 0
            buckets: list[tuple[str, float]] = []
            for bound, count in zip(self._bound_texts, series.counts, strict=True):
                below += count
                buckets.append((bound, below))
            family.add_metric(key, buckets, series.total)
        yield family
