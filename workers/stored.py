"""What the journal keeps of an end, and what becomes of an end that came second. No I/O."""

import orjson

from broker.ports import Answer, Copy, Ending
from schemas.usage import Outcome
from workers.work import Outgoing


def ending(outgoing: Outgoing) -> Ending:
    """Return what has to be stored before anything of `outgoing` is published."""
    work = outgoing.work
    answer = None
    if outgoing.body is not None:
        answer = Answer(work.job.request_id, outgoing.status, outgoing.body, outgoing.headers)
    records = [record for record in (outgoing.again, outgoing.dead) if record is not None]
    return Ending(
        lease=work.lease,
        place=work.place,
        answer=answer,
        usage=tuple(outgoing.usage),
        copies=tuple(Copy(record.topic, record.headers, record.value is not None) for record in records),
    )


def make_orphan(outgoing: Outgoing) -> None:
    """Leave of `outgoing` only its rows, as waste: another owner has answered, or is about to.

    Their ids are their own, since the other owner's rows count the same attempts.
    """
    lease = outgoing.work.lease
    mark = "orphan" if lease is None else f"orphan-{lease.fence}"
    rows = []
    for raw in outgoing.usage:
        event = orjson.loads(raw)
        event["usage_id"] = f"{event['usage_id']}:{mark}"
        event["billable"] = False
        if event["outcome"] == Outcome.ANSWERED:
            event["outcome"] = Outcome.ORPHAN
        rows.append(orjson.dumps(event))
    outgoing.usage = rows
    outgoing.orphan, outgoing.body, outgoing.again, outgoing.dead = True, None, None, None
