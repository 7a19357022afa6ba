"""One request's way through this worker: admitted, called, decided. The loop and the dispatcher carry it out."""

import asyncio
import logging
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Final

from broker.clock import Clock
from broker.config import Alias, Deployment, Settings
from broker.delivery.lifecycle import State
from broker.delivery.retry import Decision, Park, Refuse, Reroute, Retry, Situation, decide
from broker.delivery.tracker import PartitionTracker
from broker.envelope import Job, open_record
from broker.errors import (
    Cancelled,
    DeadlineExceeded,
    InternalError,
    InvalidApiKey,
    ModelNotFound,
    RequestError,
    UpstreamTimeout,
)
from broker.keys import Caller, KeyLimits, KeyRing
from broker.ledger.estimate import estimate_tokens
from broker.metrics import Metrics
from broker.records import Partition, Record
from broker.routing.catalog import Catalog
from broker.routing.router import Grant, Router
from broker.topics import Lane, TopicNames
from schemas.usage import Outcome
from workers.dispatcher import Dispatcher
from workers.endings import Endings, Timing, word
from workers.providers.base import Call, CallResult, ProviderClient
from workers.streams import ChunkWriter
from workers.work import Outgoing, Work

log = logging.getLogger(__name__)

MAX_AHEAD_MS: Final = 86_400_000
"""How far ahead of our clock a producer's may be before its time counts for nothing."""

SHORTEST_SECRET: Final = 8
"""Characters; shorter ones stand for no key (`none`, `EMPTY`) and may be a part of any word."""

NOBODY: Final = Caller(tenant="", key_id="", team="", key=None)
"""The caller of a record whose key could not be told."""


@dataclass(slots=True, kw_only=True)
class Policy:
    """What a request is judged by; fixed while the process runs."""

    settings: Settings
    names: TopicNames
    catalog: Catalog
    keys: KeyRing
    key_limits: KeyLimits
    secret: bytes = field(repr=False)


class Inference:
    """Serves records. `dispatcher` and `cancelled` are set once, by the pool that joins the parts."""

    dispatcher: Dispatcher

    def __init__(  # noqa: PLR0913 - the parts a request meets
        self,
        *,
        policy: Policy,
        router: Router,
        provider: ProviderClient,
        endings: Endings,
        chunks: ChunkWriter,
        clock: Clock,
        metrics: Metrics,
        cancelled: Callable[[str], bool],
    ) -> None:
        self._policy = policy
        self._router = router
        self._provider = provider
        self._endings = endings
        self._chunks = chunks
        self._clock = clock
        self._metrics = metrics
        self._cancelled = cancelled
        self._open: dict[str, list[Work]] = {}
        """By request id: two records with one id are two works, each with an offset of its own."""
        self._seq = 0
        self._stopping = False

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

    def serve(self, record: Record, alias: str, lane: Lane, tracker: PartitionTracker) -> None:
        """Take a record; never raises. It ends at once, or waits in the dispatcher."""
        policy = self._policy
        job = open_record(
            record,
            alias=alias,
            lane=lane,
            replies_topic=policy.names.replies,
            secret=policy.secret,
            max_body_bytes=policy.settings.kafka.max_message_bytes,
        )
        work = self._work(job, tracker)
        self._metrics.records_total.labels(alias, lane).inc()
        try:
            self._admit(work)
        except RequestError as error:
            self._refuse(work, error)
        except Exception as error:  # no exception ends a worker
            log.exception("request %s cannot be admitted", job.request_id)
            self._refuse(work, InternalError(f"{type(error).__name__} while the request was admitted"))

    def start(self, work: Work, grant: Grant) -> None:
        """Start a call that has its permit."""
        work.move(State.RUNNING)
        work.task = asyncio.get_running_loop().create_task(self._run(work, grant))

    def expire(self, work: Work) -> None:
        """End a work whose deadline passed while it waited."""
        self._refuse(work, DeadlineExceeded("the deadline passed while the request waited"))

    def cancel(self, request_id: str) -> None:
        """Cancel a request that is here; a running call is cut off."""
        for work in list(self._open.get(request_id, ())):
            if work.closed:
                continue
            work.cancelled = True
            if work.state is State.WAITING:
                self.dispatcher.drop(work)
                self._refuse(work, Cancelled("the request was cancelled"))
            else:
                work.cut_off()

    def forget(self, partitions: frozenset[Partition]) -> None:
        """Let go of what waits here from partitions that went to another worker; running calls finish."""
        for work in list(self._works()):
            record = work.job.record
            if work.state is State.WAITING and Partition(record.topic, record.partition) in partitions:
                self.dispatcher.drop(work)
                work.dropped = True
                self._policy.key_limits.refund(work.caller)
                self._close(work)

    def done(self, outgoing: Outgoing) -> None:
        """Finish the offset of a work whose end is durable."""
        work = outgoing.work
        work.tracker.finish(work.job.record.offset, work.epoch)
        self._close(work)

    def abort(self) -> None:
        """Cut every running call off; their offsets stay open, so nothing is lost."""
        self._stopping = True
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
        )
        if job.history:
            # A request that comes back from a delay topic has not got its retries back.
            ours = {word(deployment.name) for deployment in alias.deployments}
            work.tries = sum(entry.partition(" ")[0] in ours for entry in job.history)
        self._open.setdefault(job.request_id, []).append(work)
        return work

    def _admit(self, work: Work) -> None:
        job, policy, now = work.job, self._policy, self._clock.now_ms()
        try:
            work.caller = policy.keys.tenant_of(job.authorization, now, job.requested, job.caller)
        except InvalidApiKey:
            if job.problem is None:
                raise
        if job.problem is not None:
            raise job.problem
        if not work.alias.deployments:
            raise ModelNotFound(f"no alias is named {job.alias}")
        if self._cancelled(job.request_id):
            raise Cancelled("the request was cancelled")
        if work.deadline <= now:
            raise DeadlineExceeded("the deadline had passed before the request was read")
        work.tokens = estimate_tokens(job.body)
        policy.key_limits.take(work.caller, work.tokens, self._clock.monotonic())
        work.move(State.ADMITTED)
        self._wait(work, max(0.0, ((job.not_before or 0) - now) / 1000))

    def _wait(self, work: Work, seconds: float) -> None:
        work.move(State.WAITING)
        if seconds > 0:
            self.dispatcher.later(work, seconds)
        else:
            self.dispatcher.submit(work)

    def _refuse(self, work: Work, error: RequestError) -> None:
        work.move(_ended(error))
        self._end(work, error)

    def _end(self, work: Work, error: RequestError) -> None:
        self._policy.key_limits.release(work.caller)
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
        started = self._clock.now_ms()
        begun = self._clock.monotonic()
        if work.tries == 0:
            children.request.waited(max(0.0, (started - work.job.first_seen) / 1000))
        children.started()
        outcome = await self._call(work, grant, started)
        timing = Timing(started, self._clock.now_ms())
        now = self._clock.monotonic()
        used = latency = error = None
        if isinstance(outcome, CallResult):
            used, latency = outcome.usage.input_tokens + outcome.usage.output_tokens, now - begun
        else:
            # A call we cut off says nothing of the deployment's health.
            error = outcome or Cancelled("the worker stopped")
        self._router.release(grant, now, used_tokens=used, latency=latency, error=error, started=True)
        self.dispatcher.released(work.alias.name)
        if outcome is None:
            return  # cut off by a hard stop; the offset stays open
        work.tries += 1
        if isinstance(outcome, CallResult):
            work.move(State.ANSWERED)
            cost = self._endings.answered(work, deployment, outcome, timing)
            self._policy.key_limits.settle(work.caller, tokens=used or 0, cost_pico=cost)
        else:
            self._decide(work, grant, outcome, timing)

    async def _call(  # noqa: PLR0911 - one return an outcome
        self, work: Work, grant: Grant, started: int
    ) -> CallResult | RequestError | None:
        job, deployment = work.job, grant.deployment
        left = (work.deadline - started) / 1000
        timeout = min(deployment.timeout or work.alias.timeout, left)
        call = Call(deployment, job.endpoint, job.body, timeout, job.request_id, job.traceparent)
        if work.cut:
            # Between its permit and its first step: a task that is cancelled then never gives the permit back.
            return self._cut_off(work)
        work.calling = True
        try:
            if job.streams and job.reply_to is not None:
                async with self._chunks.stream(job, job.attempt + 1) as on_chunk:
                    return await self._provider.call(call, on_chunk)
            return await self._provider.call(call)
        except UpstreamTimeout as error:
            if timeout >= left:
                return DeadlineExceeded("the deadline passed while the request was running")
            return error
        except RequestError as error:
            return _without_secrets(error, deployment)
        except asyncio.CancelledError:
            return self._cut_off(work)
        except Exception as error:
            log.exception("request %s: the call failed in a way of our own", job.request_id)
            return InternalError(f"{type(error).__name__} during the call")
        finally:
            work.calling = False

    def _cut_off(self, work: Work) -> Cancelled | None:
        return Cancelled("the request was cancelled") if work.cancelled and not self._stopping else None

    def _decide(self, work: Work, grant: Grant, error: RequestError, timing: Timing) -> None:
        deployment = grant.deployment
        if isinstance(error, Cancelled | DeadlineExceeded | InternalError):
            decision: Decision = Refuse(error)
        else:
            decision = self._decision(work, deployment.name, error)
        match decision:
            case Retry(after):
                self._metrics.retries_total.labels(work.alias.name, self._metrics.reason(error.code)).inc()
                self._endings.failed(work, deployment, error, timing, Outcome.FAILED)
                work.tried = work.tried | {deployment.name} if after <= 0 else frozenset()
                self._wait(work, after)
            case Reroute(alias, reason):
                work.move(State.REROUTED)
                self._policy.key_limits.refund(work.caller)
                self._endings.failed(work, deployment, error, timing, Outcome.REROUTED)
                self._endings.rerouted(work, alias, reason)
            case Park(until_ms):
                work.move(State.PARKED)
                self._policy.key_limits.refund(work.caller)
                self._endings.failed(work, deployment, error, timing, Outcome.FAILED)
                self._endings.parked(work, until_ms)
            case Refuse(last):
                work.move(_ended(last))
                self._policy.key_limits.release(work.caller)
                self._endings.refused(work, last, call=(deployment, timing))

    def _decision(self, work: Work, tried: str, error: RequestError) -> Decision:
        job = work.job
        now = self._clock.monotonic()
        own, disabled = job.body.get("fallbacks"), job.body.get("disable_fallbacks") is True
        named = tuple(name for name in own if isinstance(name, str)) if isinstance(own, list) else None
        situation = Situation(
            error=error,
            tries=work.tries,
            now_ms=self._clock.now_ms(),
            deadline_ms=work.deadline,
            alias=work.alias.name,
            visited=job.visited,
            other_deployment=self._router.other_available(work.alias.name, work.tried | {tried}, now),
            wait_for_deployment=self._router.wait(work.alias.name, now),
        )
        return decide(
            work.alias,
            self._policy.settings.default_fallbacks,
            situation,
            random.random(),  # noqa: S311 - jitter, not a secret
            () if disabled else named,
        )


def _without_secrets(error: RequestError, deployment: Deployment) -> RequestError:
    """Return the error with the deployment's credentials masked: an upstream may repeat them, and callers read it."""
    for secret in (deployment.api_key, *deployment.headers.values()):
        text = "" if secret is None else secret.get_secret_value()
        if len(text) >= SHORTEST_SECRET and text in error.message:
            error.message = error.message.replace(text, "***")
    return error


def _ended(error: RequestError) -> State:
    if isinstance(error, Cancelled):
        return State.CANCELLED
    if isinstance(error, DeadlineExceeded):
        return State.EXPIRED
    if isinstance(error, InternalError):
        return State.DEAD
    return State.REFUSED
