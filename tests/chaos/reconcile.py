"""Four counts that have to agree: requests accepted, final replies, billable rows, paid calls. What differs is told.

Read from outside: the log's confirmations, the reply topic, the ledger's table, the provider.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from broker.ports import Ledger

ROWS = """
SELECT request_id, countIf(billable) AS bills, countIf(outcome IN ('unknown', 'orphan')) AS waste
FROM attempts FINAL
WHERE startsWith(request_id, {prefix:String})
GROUP BY request_id
HAVING bills != 1 OR waste > 0
"""
COUNT = "SELECT uniqExact(request_id) FROM attempts FINAL WHERE billable AND startsWith(request_id, {prefix:String})"


@dataclass
class Result:
    """One fault and what became of the requests that were sent while it lasted."""

    fault: str
    requests: int = 0
    unanswered: int = 0
    unbilled: int = 0
    different: int = 0
    """Requests with two replies that say different things."""
    again: int = 0
    """Paid calls beyond the first of a request."""
    at_most: int = 0
    """Calls in flight where workers died or stood still."""
    hidden: int = 0
    """Of `again` those without a row of waste."""
    waste: int = 0
    bills: int = 0
    """Billable rows beyond the first of a request."""
    recovery: float = 0.0
    """Seconds from the end of the fault to the last answer to what had been accepted until then."""
    notes: list[str] = field(default_factory=list)

    @property
    def lost(self) -> int:
        """Requests without a reply or without a billable row."""
        return max(self.unanswered, self.unbilled)

    @property
    def good(self) -> bool:
        """Whether the promise was kept."""
        return not (self.lost or self.different or self.hidden or self.bills) and self.again <= self.at_most

    def wrong(self) -> list[str]:
        """Say what was not as promised."""
        said = {
            "requests without a reply": self.unanswered,
            "requests without a billable row": self.unbilled,
            "requests with two different replies": self.different,
            "paid calls beyond what was in flight at the fault": max(0, self.again - self.at_most),
            "duplicate calls that no row of waste shows": self.hidden,
            "billable rows too many": self.bills,
        }
        return [f"{count} {what}" for what, count in said.items() if count] + self.notes


async def billed(ledger: Ledger, prefix: str) -> int:
    """Count the requests of a phase that have a billable row."""
    return int((await ledger.query(COUNT, {"prefix": prefix})).rows[0][0])


async def judge(result: Result, ledger: Ledger, prefix: str, paid: Mapping[str, int]) -> None:
    """Fill in what the ledger and the provider say of the requests whose ids start with `prefix`.

    `paid` holds the calls of every request that was called more than once.
    """
    rows = (await ledger.query(ROWS, {"prefix": prefix})).rows
    waste = Counter({str(request_id): int(count) for request_id, _, count in rows})
    result.bills = sum(max(0, int(bills) - 1) for _, bills, _ in rows)
    result.unbilled = result.requests - await billed(ledger, prefix)
    result.waste = waste.total()
    extra = {request_id: calls - 1 for request_id, calls in paid.items() if request_id.startswith(prefix)}
    result.again = sum(extra.values())
    unseen = {request_id: count - waste[request_id] for request_id, count in extra.items() if count > waste[request_id]}
    result.hidden = sum(unseen.values())
    if unseen:
        result.notes.append(f"for instance {', '.join(sorted(unseen)[:3])}")
