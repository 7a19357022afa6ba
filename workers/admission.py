"""From a record that was read to a work that may run: opened, claimed, judged. A batch costs one journal round trip.

What the journal already knows is not run: a stored outcome is published, a request of a live owner is kept as a peer.
Nothing here raises, and nothing is lost while the journal is away: works stand in line until it answers.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from broker.clock import Clock
from broker.config import Alias, OnUnknown
from broker.delivery.retry import Refuse, Reroute
from broker.delivery.tracker import PartitionTracker
from broker.envelope import Job, open_record
from broker.errors import (
    AnswerExpired,
    Cancelled,
    DeadlineExceeded,
    InternalError,
    InvalidApiKey,
    ModelNotFound,
    OutcomeUnknown,
    Poisoned,
    RequestError,
    RequestIdConflict,
    Unavailable,
)
from broker.keys import Caller
from broker.ledger.estimate import estimate
from broker.metrics import Metrics
from broker.ports import Claimed, Ending, Standing
from broker.records import Record
from broker.topics import Lane
from workers.callers import CallerLimits
from workers.endings import Endings
from workers.leases import Leases
from workers.policy import Policy
from workers.prechecks import PreCallChecks
from workers.rows import word
from workers.snapshot import Meter
from workers.work import Work

log = logging.getLogger(__name__)

MAX_AHEAD_MS: Final = 86_400_000
"""How far ahead of our clock a producer's may be before its time counts for nothing."""

LOOK_AGAIN: Final = 1.0
"""Seconds after which a peer, or a work that could not be claimed, asks the journal again (delivery.md)."""

ASK_TOGETHER: Final = 256
"""Works claimed in one round trip."""

MOST_STARTS: Final = 3
"""Calls without an outcome after which a request is taken for what kills its workers (delivery.md)."""

NOBODY: Final = Caller(tenant="", key_id="", team="", key=None)
"""The caller of a record whose key could not be told."""


class Admission:
    """For one event loop. `run` takes a work that may start, after so many seconds; `refuse` ends one with an error."""

    def __init__(  # noqa: PLR0913 - what a request is judged by
        self,
        *,
        policy: Policy,
        leases: Leases,
        callers: CallerLimits,
        checks: PreCallChecks,
        endings: Endings,
        clock: Clock,
        metrics: Metrics,
        cancelled: Callable[[str], bool],
        run: Callable[[Work, float], None],
        refuse: Callable[[Work, RequestError], None],
        forget: Callable[[Work], None],
        worker: str,
        meter: Meter,
    ) -> None:
        self._policy = policy
        self._leases = leases
        self._callers = callers
        self._checks = checks
        self._endings = endings
        self._clock = clock
        self._metrics = metrics
        self._cancelled = cancelled
        self._run = run
        self._refuse = refuse
        self._forget = forget
        self._worker = worker
        self._meter = meter
        self._seq = 0
        self._standing: dict[str, Work] = {}
        """Works that ask again, by token: peers, and those that nobody could be asked about."""
        self._task: asyncio.Task[None] | None = None

    @property
    def standing(self) -> int:
        """Works that stand in line to ask the journal again."""
        return len(self._standing)

    @property
    def failing(self) -> str | None:
        """Why no new record may be taken, but for aliases that fail open; None while all parts answer."""
        return self._leases.failing or self._callers.failing

    def start(self) -> None:
        """Begin to look again."""
        self._task = asyncio.get_running_loop().create_task(self._look_again(), name="admission")

    async def stop(self) -> None:
        """Stop looking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def open(self, record: Record, alias: str, lane: Lane, tracker: PartitionTracker) -> Work:
        """Return the work of a record; whatever is wrong with the record is judged once it is claimed."""
        policy = self._policy
        job = open_record(
            record,
            alias=alias,
            lane=lane,
            replies_topic=policy.names.replies,
            secret=policy.secret,
            max_body_bytes=policy.settings.kafka.max_message_bytes,
        )
        self._metrics.records_total.labels(alias, lane).inc()
        self._meter.read(alias, lane)
        return self._work(job, tracker)

    async def take(self, works: Sequence[Work]) -> None:
        """Judge works that were opened; returns when each runs, has ended or stands in line. Never raises."""
        known = [work for work in works if self._knows_caller(work)]
        for start in range(0, len(known), ASK_TOGETHER):
            await self._take(known[start : start + ASK_TOGETHER])

    def drop(self, work: Work) -> None:
        """Let go of a work that stands in line."""
        self._standing.pop(work.token, None)

    def again(self, work: Work) -> None:
        """Take a work back whose lease went to another worker before its call: it is a peer now."""
        work.peer, work.lease = True, None
        self._standing[work.token] = work

    def _work(self, job: Job, tracker: PartitionTracker) -> Work:
        alias = self._policy.catalog.resolve(job.alias) or Alias(name=job.alias, deployments=())
        self._seq += 1
        now = self._clock.now_ms()
        if not 0 < job.first_seen <= now + MAX_AHEAD_MS:
            job.first_seen = now  # a producer may write any time into its record, or none
        deadline = job.deadline if job.deadline is not None else job.first_seen + int(alias.deadline * 1000)
        work = Work(
            job=job,
            tracker=tracker,
            epoch=tracker.epoch,
            alias=alias,
            caller=NOBODY,
            deadline=deadline,
            tokens=0,
            seq=self._seq,
            token=f"{self._worker}.{self._seq}",
        )
        if job.history:
            # A request that comes back from a delay topic has not got its retries back.
            ours = {word(deployment.name) for deployment in alias.deployments}
            work.tries = sum(entry.partition(" ")[0] in ours for entry in job.history)
        return work

    def _knows_caller(self, work: Work) -> bool:
        """Tell who calls; where nobody does, end the work without a look at what the id's owner has stored."""
        job, now = work.job, self._clock.now_ms()
        try:
            work.caller = self._policy.keys.tenant_of(job.authorization, now, job.requested, job.caller)
        except RequestError as error:
            work.unleased = True
            # An unreadable record says nothing of its key; what is wrong with the record goes first.
            self._refuse(work, job.problem if isinstance(error, InvalidApiKey) and job.problem else error)
            return False
        except Exception as error:  # no exception ends a worker
            log.exception("request %s cannot be admitted", job.request_id)
            work.unleased = True
            self._refuse(work, InternalError(f"{type(error).__name__} while the request was admitted"))
            return False
        return True

    async def _take(self, works: Sequence[Work]) -> None:
        works = [work for work in works if not work.closed]
        if self._leases.failing is not None:
            await self._without_journal(works)
            return
        try:
            found = await self._leases.claim(works)
        except Unavailable:
            await self._without_journal(works)
            return
        owned = [work for work, claimed in zip(works, found, strict=True) if self._follow(work, claimed)]
        await self._limit(owned)

    async def _without_journal(self, works: Sequence[Work]) -> None:
        served = [work for work in works if work.alias.fail_open and not work.peer]
        self._standing.update((work.token, work) for work in works if work not in served)
        await self._limit([work for work in served if self._judge(work)])

    def _follow(self, work: Work, claimed: Claimed) -> bool:
        """Do what the claim's answer asks for; True: the work is ours to run."""
        try:
            return self._followed(work, claimed)
        except Exception as error:  # no exception ends a worker
            log.exception("request %s cannot be admitted", work.job.request_id)
            self._refuse(work, InternalError(f"{type(error).__name__} while the request was admitted"))
            return False

    def _followed(self, work: Work, claimed: Claimed) -> bool:
        self._standing.pop(work.token, None)
        if work.closed:  # its partition went while the journal was asked
            self._leases.release(work)
            return False
        match claimed.standing:
            case Standing.OWNED:
                work.peer = False
                return self._judge(work, claimed.starts)
            case Standing.PEER:
                self.again(work)
            case Standing.DONE:
                self._done(work, claimed)
            case Standing.MOVED:
                self._publish_rest(work, claimed.ending)
            case Standing.FOREIGN:
                work.unleased = True
                self._refuse(work, RequestIdConflict("the request id is that of another tenant's request"))
        return False

    def _done(self, work: Work, claimed: Claimed) -> None:
        """End a work whose request has an outcome: never a second call."""
        if claimed.place == work.place and not claimed.published and work.peer and work.patient:
            work.patient = False
            self._standing[work.token] = work
        elif claimed.place == work.place:
            self._publish_rest(work, None if claimed.published else claimed.ending)
        elif claimed.ending is None or claimed.ending.answer is None:
            work.unleased = True
            self._refuse(work, AnswerExpired("the request was answered before; its answer is no longer kept"))
        else:
            self._endings.repeated(work, claimed.ending.answer, first=claimed.request_id)

    def _publish_rest(self, work: Work, ending: Ending | None) -> None:
        if ending is None:
            self._forget(work)
        else:
            self._endings.republished(work, ending)

    def _judge(self, work: Work, starts: int = 0) -> bool:
        """Whether the work may run; else end it."""
        job, alias, now = work.job, work.alias, self._clock.now_ms()
        for _ in range(starts):
            self._endings.unknown(work)
        error: RequestError | None = None
        if job.problem is not None:
            error = job.problem
        elif not alias.deployments:
            error = ModelNotFound(f"no alias is named {job.alias}")
        elif self._cancelled(job.request_id):
            error = Cancelled("the request was cancelled")
        elif starts and alias.on_unknown is OnUnknown.FAIL:
            error = OutcomeUnknown("a worker died during the call; this alias does not call again")
        elif starts >= MOST_STARTS:
            error = Poisoned(f"{starts} calls of this request had no outcome: its workers died or stalled each time")
        elif work.deadline <= now:
            error = DeadlineExceeded("the deadline had passed before the request was started")
        if error is not None:
            self._refuse(work, error)
            return False
        work.tokens, work.output_tokens = estimate(job.body)
        return not alias.enable_pre_call_checks or self._can_be_served(work)

    def _can_be_served(self, work: Work) -> bool:
        """Whether a deployment of the alias may serve the work; else end it here, or send it on, without a call."""
        error = self._checks.judge(work)
        if error is None:
            return True
        match self._checks.decide(work, error):
            case Reroute(alias):
                self._endings.skipped(work, error, alias)
            case Refuse(last):
                self._refuse(work, last)
        return False

    async def _limit(self, works: Sequence[Work]) -> None:
        """Take works out of their callers' limits, and hand them on."""
        try:
            refusals = await self._callers.take([(work.caller, work.tokens, work.token) for work in works])
        except Unavailable:
            refusals = [None] * len(works)
            if any(self._callers.limits(work.caller) and not work.alias.fail_open for work in works):
                refusals = await self._unlimited(works)
        now = self._clock.now_ms()
        for work, error in zip(works, refusals, strict=True):
            if work.closed:
                self._callers.refund(work.token)
                self._leases.release(work)
            elif work.token in self._standing:
                continue
            elif error is not None:
                self._refuse(work, error)
            elif work.cancelled:
                self._refuse(work, Cancelled("the request was cancelled"))
            else:
                self._run(work, max(0.0, ((work.job.not_before or 0) - now) / 1000))

    async def _unlimited(self, works: Sequence[Work]) -> list[RequestError | None]:
        """Give the leases of limited works up: they ask again once the limits can be told."""
        for work in works:
            if self._callers.limits(work.caller) and not work.alias.fail_open:
                self._leases.release(work)
                self._standing[work.token] = work
        return [None] * len(works)

    async def _look_again(self) -> None:
        while True:
            await asyncio.sleep(LOOK_AGAIN)
            works = [work for work in self._standing.values() if not work.closed]
            if self._leases.failing is not None:
                continue  # the leases' own task notices its return
            for start in range(0, len(works), ASK_TOGETHER):
                await self._take(works[start : start + ASK_TOGETHER])
