"""Records of the usage topic as rows of the ledger, or as the reason why they are none."""

from pydantic import ValidationError

from broker.envelope import headers as h
from broker.ports import LedgerRow, Record
from schemas.usage import UsageEvent


def read_event(record: Record) -> LedgerRow | str:
    """Return the row of a record; a text says why it is not a usage event."""
    if record.value is None:
        return f"not readable: {_unreadable(record)}"
    try:
        event = UsageEvent.model_validate_json(record.value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        return f"not a usage event: {where + ': ' if where else ''}{first['msg']}"
    return LedgerRow(event, record.partition, record.offset)


def _unreadable(record: Record) -> str:
    return next((value.decode(errors="replace") for name, value in record.headers if name == h.UNREADABLE), "no value")
