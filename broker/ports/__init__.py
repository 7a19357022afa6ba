"""The seams: what the core needs from a log, a journal, a ledger and a limiter. The contract stands on the method.

Every port has an adapter for the real technology and an in-memory twin in `broker.adapters`; one contract suite runs
over both.
"""

from broker.limits.terms import (
    SLICE_SECONDS,
    WINDOWS_S,
    WORKER_SECONDS,
    Granted,
    Learned,
    Need,
    Settle,
    Slice,
    Units,
)
from broker.ports.journal import Answer, Claim, Claimed, Copy, Ending, Journal, Lease, Standing
from broker.ports.ledger import Ledger, LedgerRow, Table
from broker.ports.limits import (
    CALLER_SECONDS,
    CallerClaim,
    CallerEnd,
    CallerRefusal,
    CallerStore,
    LimitStore,
    Scope,
)
from broker.ports.log import (
    AssignmentListener,
    LogAdmin,
    LogConsumer,
    LogProducer,
    LogReader,
    SendFailure,
    TopicState,
)
from broker.records import Commit, Headers, OutRecord, Partition, Record

__all__ = [
    "CALLER_SECONDS",
    "SLICE_SECONDS",
    "WINDOWS_S",
    "WORKER_SECONDS",
    "Answer",
    "AssignmentListener",
    "CallerClaim",
    "CallerEnd",
    "CallerRefusal",
    "CallerStore",
    "Claim",
    "Claimed",
    "Commit",
    "Copy",
    "Ending",
    "Granted",
    "Headers",
    "Journal",
    "Learned",
    "Lease",
    "Ledger",
    "LedgerRow",
    "LimitStore",
    "LogAdmin",
    "LogConsumer",
    "LogProducer",
    "LogReader",
    "Need",
    "OutRecord",
    "Partition",
    "Record",
    "Scope",
    "SendFailure",
    "Settle",
    "Slice",
    "Standing",
    "Table",
    "TopicState",
    "Units",
]
