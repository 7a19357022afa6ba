"""One request's way through this worker: admitted, called, decided. The loop and the dispatcher carry it out."""

import asyncio
import logging
import random
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Final

from broker.clock import Clock
from broker.delivery.lifecycle import FINAL, State
from broker.delivery.retry import Decision, Park, Refuse, Reroute, Retry, Situation, decide
from broker.delivery.tracker import PartitionTracker
from broker.errors import (
    Cancelled,
    DeadlineExceeded,
    InternalError,
    Poisoned,
    RequestError,
    UpstreamError,
)
from broker.limits.learned import learn
from broker.metrics import Metrics
from broker.records import Partition, Record
from broker.routing.health import SAYS_NOTHING, is_failure
from broker.routing.router import Grant, Router
from broker.topics import Lane
from schemas.usage import Outcome
from workers.admission import Admission
from workers.callers import CallerLimits
from workers.calls import Calls, Made
from workers.dispatcher import Dispatcher
from workers.endings import Endings
from workers.leases import Leases
from workers.policy import Policy
from workers.prechecks import PreCallChecks
from workers.providers.base import CallResult, ProviderClient
from workers.rows import Timing
from workers.snapshot import Meter
from workers.streams import ChunkWriter
from workers.work import Outgoing, Work

log = logging.getLogger(__name__)

JOURNAL_PAUSE: Final = 1.0
"""Seconds a call waits, without its permit, for a journal that does not answer."""


class Inference:
    """Runs works. `dispatcher` and `admission` are set once, by the pool that joins the parts."""

    dispatcher: Dispatcher
    admission: Admission

    def __init__(  # noqa: PLR0913 - the parts a request meets
        self,
        *,
        policy: Policy,
        leases: Leases,
        callers: CallerLimits,
        checks: PreCallChecks,
        router: Router,
        provider: ProviderClient,
        endings: Endings,
        chunks: ChunkWriter,
        clock: Clock,
        metrics: Metrics,
        meter: Meter,
        news: Callable[[], None],
    ) -> None:
        """`news`: other workers have to hear of a deployment."""
        self._news = news
        self._meter = meter
        self._policy = policy
        self._leases = leases
        self._callers = callers
        self._checks = checks
        self._router = router
        self._calls = Calls(provider, chunks)
        self._endings = endings
        self._clock = clock
        self._metrics = metrics
        self._open: dict[str, list[Work]] = {}
        """By request id: two records with one id are two works, each with an offset of its own."""

    @property
    def running(self) -> list[asyncio.Task[None]]:
        """Tasks of calls under way."""
        return [work.task for work in self._works() if work.task is not None and not work.task.done()]

    def oldest(self) -> dict[tuple[str, Lane], int]:
        """Unix milliseconds of the oldest unfinished request, by alias and lane."""
        oldest: dict[tuple[str, Lane], int] = {}
        for work in self._works():
            place = work.alias.name, work.job.lane
            oldest[place] = min(oldest.get(place, work.job.first_seen), work.job.first_seen)
        return oldest

    def serve(self, record: Record, alias: str, lane: Lane, tracker: PartitionTracker) -> Work:
        """Open a record; the admission judges its work next."""
        work = self.admission.open(record, alias, lane, tracker)
        self._open.setdefault(work.job.request_id, []).append(work)
        return work

    def run(self, work: Work, seconds: float) -> None:
        """Take an admitted work, which may start after `seconds`."""
        work.move(State.ADMITTED)
        self._wait(work, seconds)

    def refuse(self, work: Work, error: RequestError) -> None:
        """End a work that is not running with an error."""
        work.move(_ended(error))
        self._end(work, error)

    def start(self, work: Work, grant: Grant) -> None:
        """Start a call that has its permit."""
        work.move(State.RUNNING)
        work.task = asyncio.get_running_loop().create_task(self._run(work, grant))

    def expire(self, work: Work) -> None:
        """End a work whose deadline passed while it waited."""
        self.refuse(work, DeadlineExceeded("the deadline passed while the request waited"))

    def cancel(self, request_id: str) -> None:
        """Cancel a request that is here; a running call is cut off. Of a peer its owner hears as well."""
        for work in list(self._open.get(request_id, ())):
            if work.closed:
                continue
            work.cancelled = True
            if work.state is State.WAITING:
                self.dispatcher.drop(work)
                self.refuse(work, Cancelled("the request was cancelled"))
            elif work.state is State.RUNNING:
                work.cut_off()

    def forget(self, partitions: frozenset[Partition]) -> None:
        """Let go of what waits here from partitions that went to another worker; running calls finish."""
        for work in list(self._works()):
            record = work.job.record
            if Partition(record.topic, record.partition) in partitions:
                self._let_go(work)

    def lost(self, work: Work) -> None:
        """Stand by where another worker took the lease of a work that waits here; a running call goes on."""
        if work.state is State.WAITING and not work.closed:
            self.dispatcher.drop(work)
            self._callers.refund(work.token)
            work.move(State.QUEUED)
            self.admission.again(work)

    def surplus(self, work: Work, seconds: float) -> None:
        """Put a work of a tenant away that has too many of them here; 0 seconds: to the end of its topic."""
        work.move(State.PARKED)
        self._callers.refund(work.token)
        if seconds > 0:
            self._endings.parked(work, self._clock.now_ms() + round(seconds * 1000))
        else:
            self._endings.requeued(work)

    def let_go(self) -> None:
        """Let go of everything that does not run; whoever comes next need not wait for its leases to expire."""
        for work in list(self._works()):
            self._let_go(work)

    def close(self, work: Work) -> None:
        """Finish the offset of a work that has nothing left to publish."""
        if work.state not in FINAL:
            work.move(State.ANSWERED)
        work.tracker.finish(work.job.record.offset, work.epoch)
        self._close(work)

    def done(self, outgoing: Outgoing) -> None:
        """Finish the offset of a work whose end is durable."""
        self.close(outgoing.work)

    def abort(self) -> None:
        """Cut every running call off; their offsets stay open, so nothing is lost."""
        self._calls.stopping = True
        for work in self._works():
            work.cut_off()

    def _works(self) -> Iterator[Work]:
        return chain.from_iterable(self._open.values())

    def _close(self, work: Work) -> None:
        works = self._open.get(work.job.request_id, [])
        if work in works:
            works.remove(work)
        if not works:
            self._open.pop(work.job.request_id, None)

    def _let_go(self, work: Work) -> None:
        if work.state is State.QUEUED:
            self.admission.drop(work)
        elif work.state is State.WAITING:
            self.dispatcher.drop(work)
        else:
            return
        work.dropped = True
        self._callers.refund(work.token)
        self._leases.release(work)
        self._close(work)

    def _wait(self, work: Work, seconds: float) -> None:
        work.move(State.WAITING)
        if seconds > 0:
            self.dispatcher.later(work, seconds)
        else:
            self.dispatcher.submit(work)

    def _end(self, work: Work, error: RequestError) -> None:
        self._callers.release(work.token)
        try:
            self._endings.refused(work, error)
        except Exception:  # no exception ends a worker; the loop, the dispatcher and the controls call this
            log.exception("request %s cannot be ended and stays open until a worker starts", work.job.request_id)

    async def _run(self, work: Work, grant: Grant) -> None:
        try:
            await self._attempt(work, grant)
        except Exception as error:
            log.exception("request %s cannot be ended", work.job.request_id)
            if not work.ended:
                # Without an end its offset, and the commit of its partition, would stay where they are for good.
                self._end(work, InternalError(f"{type(error).__name__} while the attempt was settled"))

    async def _attempt(self, work: Work, grant: Grant) -> None:
        deployment = grant.deployment
        children = self._metrics.attempt_children(
            work.alias.name, deployment.name, deployment.provider, work.caller.tenant, work.job.lane
        )
        if not work.begun and not await self._begins(work, grant):
            return
        started = self._clock.now_ms()
        begun = self._clock.monotonic()
        if work.tries == 0:
            children.request.waited(max(0.0, (started - work.job.first_seen) / 1000))
        children.started()
        made = await self._calls.make(work, deployment, started)
        outcome, partial = made.outcome, made.partial
        timing = Timing(started, self._clock.now_ms(), made.unsent)
        now = self._clock.monotonic()
        used = latency = error = None
        output = 0
        if isinstance(outcome, CallResult):
            output = outcome.usage.output_tokens
            used, latency = outcome.usage.input_tokens + output, now - begun
        else:
            # A call we cut off says nothing of the deployment's health.
            error = outcome or Cancelled("the worker stopped")
            if partial is not None:
                output = partial.usage.output_tokens
                used = partial.usage.input_tokens + output
        told = outcome.headers if isinstance(outcome, CallResult | UpstreamError) else None
        learned = learn(told, timing.finished) if told else None
        self._router.release(
            grant,
            now,
            used_tokens=used,
            latency=latency,
            error=error,
            # What never went out proves nothing of a deployment, unless its own token or address is to blame.
            started=not made.unsent or _is_to_blame(error),
            used_output=output,
            learned=learned,
        )
        if grant.probe or isinstance(error, UpstreamError):
            self._news()
        self.dispatcher.released(work.alias.name)
        if outcome is None:
            self._leases.release(work)
            return  # cut off by a hard stop; the offset stays open
        work.tries += 1
        if isinstance(outcome, CallResult):
            work.move(State.ANSWERED)
            cost = self._endings.answered(work, deployment, outcome, timing)
            self._callers.settle(work.token, tokens=used or 0, cost_pico=cost)
            self._meter.lane(work.alias.name, work.lane).took(used or 0, cost)
        else:
            self._decide(work, grant, outcome, timing, made)

    async def _begins(self, work: Work, grant: Grant) -> bool:
        """Tell the journal that a call is made; False: there is none, and the permit is given back."""
        begun = await self._leases.begin(work)
        if begun or (begun is None and work.alias.fail_open):
            return True
        self._router.release(grant, self._clock.monotonic(), used_tokens=None, latency=None, error=None, started=False)
        self.dispatcher.released(work.alias.name)
        if begun is None and not work.cut:
            self._wait(work, JOURNAL_PAUSE)
        elif begun is None:
            self.refuse(work, Cancelled("the request was cancelled"))
        else:
            self._callers.refund(work.token)
            work.move(State.QUEUED)
            self.admission.again(work)
        return False

    def _decide(self, work: Work, grant: Grant, error: RequestError, timing: Timing, made: Made) -> None:
        deployment, partial = grant.deployment, made.partial
        if isinstance(error, Cancelled | DeadlineExceeded | InternalError):
            decision: Decision = Refuse(error)
        else:
            decision = self._decision(work, deployment.name, error, delivered=made.delivered)
        match decision:
            case Retry(after):
                self._metrics.retries_total.labels(work.alias.name, self._metrics.reason(error.code)).inc()
                self._endings.failed(work, deployment, error, timing, Outcome.FAILED, partial)
                work.tried = work.tried | {deployment.name} if after <= 0 else frozenset()
                self._wait(work, after)
            case Reroute(alias, reason):
                work.move(State.REROUTED)
                self._callers.refund(work.token)
                self._endings.failed(work, deployment, error, timing, Outcome.REROUTED, partial)
                self._endings.rerouted(work, alias, reason)
            case Park(until_ms):
                work.move(State.PARKED)
                self._callers.refund(work.token)
                self._endings.failed(work, deployment, error, timing, Outcome.FAILED, partial)
                self._endings.parked(work, until_ms)
            case Refuse(last):
                work.move(_ended(last))
                cost = self._endings.refused(work, last, call=(deployment, timing), partial=partial)
                if partial is None:
                    self._callers.release(work.token)
                else:
                    tokens = partial.usage.input_tokens + partial.usage.output_tokens
                    self._callers.settle(work.token, tokens=tokens, cost_pico=cost)

    def _decision(self, work: Work, tried: str, error: RequestError, *, delivered: bool) -> Decision:
        job = work.job
        now = self._clock.monotonic()
        situation = Situation(
            error=error,
            tries=work.tries,
            now_ms=self._clock.now_ms(),
            deadline_ms=work.deadline,
            alias=work.alias.name,
            visited=job.visited,
            other_deployment=self._router.other_available(work.alias.name, work.tried | work.unfit | {tried}, now),
            wait_for_deployment=self._router.wait(work.alias.name, now, work.unfit),
            delivered=delivered,
        )
        return decide(
            work.alias,
            self._policy.settings.default_fallbacks,
            situation,
            random.random(),  # noqa: S311 - jitter, not a secret
            work.own_fallbacks,
            self._checks.serves(work),
        )


def _is_to_blame(error: RequestError | None) -> bool:
    """Whether the error of a call that never went out is its deployment's."""
    return error is not None and not isinstance(error, SAYS_NOTHING) and is_failure(error, busy=True)


def _ended(error: RequestError) -> State:
    if isinstance(error, Cancelled):
        return State.CANCELLED
    if isinstance(error, DeadlineExceeded):
        return State.EXPIRED
    if isinstance(error, InternalError | Poisoned):
        return State.DEAD
    return State.REFUSED
