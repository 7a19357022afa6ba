"""How a request, or one attempt of it, ends: its ledger row, its reply, its metrics, and what goes to the outbox.

Exactly one row of a request is billable: that of the ending its caller is told. A row's cost is 0 where nothing was
generated, unknown (NULL) where a call broke off and the provider may have charged it; a stream that broke or was cut
off costs what it had produced.
"""

from collections.abc import Callable
from decimal import Decimal
from typing import Final

from broker.clock import Clock
from broker.config import Deployment
from broker.delivery.lifecycle import State
from broker.envelope import Job, encode_again, sealed_caller
from broker.envelope import headers as h
from broker.envelope.dead import dead_letter, replay_hop
from broker.errors import (
    BadUpstreamResponse,
    Cancelled,
    DeadlineExceeded,
    InternalError,
    Poisoned,
    RequestError,
    Undecodable,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from broker.ledger.attempt import Attempt, encode
from broker.ledger.money import to_text
from broker.ledger.prices import PriceTable
from broker.metrics import AttemptChildren, Metrics
from broker.ports import Answer, Ending
from broker.records import OutRecord
from broker.topics import DELAYS_S, TopicNames
from schemas.usage import Outcome
from workers.providers.base import CallResult, Partial
from workers.rows import Timing, entry_of, fill_usage, note, trace_id
from workers.work import Outgoing, Work

MAX_TEXT: Final = 256
"""Characters of a caller's own text that a row keeps: an event must never be too large for its topic."""

_MAYBE_CHARGED: Final = (UpstreamTimeout, UpstreamUnreachable, BadUpstreamResponse, DeadlineExceeded, Cancelled)
"""Errors after which the provider may have generated, and charged, something that we never saw."""


class Endings:
    """Writes endings; one per worker process."""

    def __init__(  # noqa: PLR0913 - what an ending is made from
        self,
        *,
        prices: PriceTable,
        names: TopicNames,
        clock: Clock,
        metrics: Metrics,
        secret: bytes,
        worker: str,
        config_hash: str,
        put: Callable[[Outgoing], None],
    ) -> None:
        self._prices = prices
        self._names = names
        self._clock = clock
        self._metrics = metrics
        self._secret = secret
        self._worker = worker
        self._config_hash = config_hash
        self._put = put

    def answered(self, work: Work, deployment: Deployment, result: CallResult, timing: Timing) -> int | None:
        """End with a good answer; return what it cost in pico-dollars, None when no price is known."""
        event = self._event(work, Outcome.ANSWERED, 200, timing, deployment)
        event.billable = True
        self._fill(work, event, deployment, result)
        ttft = None if result.ttft_ms is None else result.ttft_ms / 1000
        children = self._children(work, deployment)
        children.finished(Outcome.ANSWERED, timing.took / 1000, ttft)
        children.request.final(Outcome.ANSWERED)
        reply = self._reply_headers(work, 200, event.queue_ms, timing.took)
        reply[h.SERVED_BY] = deployment.name
        reply[h.MODEL] = result.model
        reply[h.COST] = "" if event.cost_pico is None else to_text(event.cost_pico)
        outgoing = self._outgoing(work, event)
        outgoing.body, outgoing.headers, outgoing.status = result.body, reply, 200
        self._hand_over(outgoing)
        return event.cost_pico

    def failed(  # noqa: PLR0913, PLR0917 - what a row of a call is made from
        self,
        work: Work,
        deployment: Deployment,
        error: RequestError,
        timing: Timing,
        outcome: Outcome,
        partial: Partial | None = None,
    ) -> None:
        """Note a call that failed; its row goes out with whatever ends the request in this worker."""
        work.events.append(encode(self._failed_call(work, deployment, error, timing, outcome, partial)))

    def unknown(self, work: Work) -> None:
        """Note a call of a worker that died: nobody knows how it ended, and the provider may have charged it."""
        now = self._clock.now_ms()
        event = self._event(work, Outcome.UNKNOWN, 0, Timing(now, now), None)
        event.cost_pico = None
        work.events.append(encode(event))
        self._metrics.unknown_total.labels(work.alias.name).inc()

    def refused(
        self,
        work: Work,
        error: RequestError,
        *,
        call: tuple[Deployment, Timing] | None = None,
        partial: Partial | None = None,
    ) -> int | None:
        """End with an error reply; return what it cost in pico-dollars, None when that is not known.

        `call` is the upstream call that this error is the outcome of, if there was one; `partial` what its stream had
        produced by then.
        """
        job = work.job
        outcome = _outcome(error, called=call is not None)
        if call is None:
            event = self._uncalled(work, outcome, error)
        else:
            event = self._failed_call(work, call[0], error, call[1], outcome, partial)
        event.billable = True
        children = self._metrics.request_children(work.alias.name, job.lane, work.caller.tenant)
        children.final(outcome)
        reply = self._reply_headers(work, error.status, event.queue_ms, event.upstream_ms)
        reply[h.SERVED_BY] = event.deployment
        reply[h.MODEL] = "" if partial is None else event.model
        if event.cost_pico is not None:
            reply[h.COST] = to_text(event.cost_pico) if event.cost_pico else "0"
        if error.retry_after is not None:
            reply[h.RETRY_AFTER] = f"{error.retry_after:.3f}"
        body = error.encode(attempts=[entry_of(entry) for entry in job.history]) if job.history else error.encode()
        dead = None
        if isinstance(error, Undecodable | InternalError | Poisoned):
            dead = self.letter(job, error)
            self._metrics.dead_letters_total.labels(self._metrics.reason(error.code)).inc()
        outgoing = self._outgoing(work, event)
        outgoing.body, outgoing.headers, outgoing.status, outgoing.dead = body, reply, error.status, dead
        self._hand_over(outgoing)
        return event.cost_pico

    def rerouted(self, work: Work, alias: str, reason: str) -> None:
        """Send the request to a fallback alias's topic; its attempts so far go to the ledger."""
        job = work.job
        topic = self._names.lane(alias, job.lane)
        again = encode_again(job, topic, secret=self._secret, visited=(*job.visited, work.alias.name))
        self._metrics.reroutes_total.labels(work.alias.name, alias, self._metrics.reason(reason)).inc()
        self._hand_over(Outgoing(work, work.events, again=again))

    def skipped(self, work: Work, error: RequestError, alias: str) -> None:
        """Send the request to a fallback alias without a call: no deployment of its own can serve it, says `error`."""
        work.move(State.REROUTED)
        work.events.append(encode(self._uncalled(work, Outcome.REROUTED, error)))
        self.rerouted(work, alias, error.code)

    def parked(self, work: Work, until_ms: int) -> None:
        """Put the request on the longest delay topic that is not too long; it comes back to the topic it is in."""
        job = work.job
        now = self._clock.now_ms()
        suffix, seconds = min(DELAYS_S.items(), key=lambda item: item[1])
        for name, delay in DELAYS_S.items():
            if seconds < delay <= (until_ms - now) / 1000:
                suffix, seconds = name, delay
        again = encode_again(
            job,
            self._names.delay(suffix),
            secret=self._secret,
            visited=job.visited,
            not_before=now + seconds * 1000,
            target=job.record.topic,
        )
        self._metrics.parked_total.labels(work.alias.name).inc()
        self._hand_over(Outgoing(work, work.events, again=again))

    def requeued(self, work: Work) -> None:
        """Put the request at the end of the topic it is in."""
        job = work.job
        again = encode_again(job, job.record.topic, secret=self._secret, visited=job.visited)
        self._metrics.requeued_total.labels(work.alias.name).inc()
        self._hand_over(Outgoing(work, work.events, again=again))

    def stranded(self, outgoing: Outgoing, reason: str) -> Outgoing:
        """Turn a request that the log does not take for another topic into an end with a reply and a dead letter."""
        work = outgoing.work
        error = InternalError(f"the request cannot be sent on: {reason}")
        event = self._uncalled(work, Outcome.FAILED, error)
        event.billable = True
        self._metrics.request_children(work.alias.name, work.job.lane, work.caller.tenant).final(Outcome.FAILED)
        ended = Outgoing(work, [encode(event)], body=error.encode(), status=error.status)
        ended.headers = self._reply_headers(work, error.status, event.queue_ms, 0)
        ended.dead = self.letter(work.job, error)
        return ended

    def repeated(self, work: Work, answer: Answer, first: str) -> None:
        """End with the outcome of request `first`, which is this one sent again or has its idempotency key.

        A request with an id of its own gets a row of its own, which costs nothing.
        """
        job = work.job
        work.move(State.ANSWERED)
        self._metrics.repeated_total.labels(work.alias.name).inc()
        usage: list[bytes] = []
        if first != job.request_id:
            event = self._uncalled(work, Outcome.CACHED, None)
            event.billable, event.status = True, answer.status
            usage.append(encode(event))
            self._metrics.request_children(work.alias.name, job.lane, work.caller.tenant).final(Outcome.CACHED)
        headers = {**answer.headers, h.REQUEST_ID: job.request_id, h.REPLAY_OF: first, h.COST: "0"}
        self._hand_over(Outgoing(work, usage, body=answer.body, headers=headers, status=answer.status))

    def republished(self, work: Work, ending: Ending) -> None:
        """Publish what an earlier owner stored and may not have published."""
        record = work.job.record
        work.move(State.ANSWERED if ending.answer is not None else State.REROUTED)
        outgoing = Outgoing(work, list(ending.usage), replayed=ending.lease)
        if ending.answer is not None:
            answer = ending.answer
            outgoing.body, outgoing.headers, outgoing.status = answer.body, answer.headers, answer.status
        for copy in ending.copies:
            copied = OutRecord(copy.topic, record.value if copy.keep_value else None, record.key, copy.headers)
            if copy.topic == self._names.dead:
                outgoing.dead = copied
            else:
                outgoing.again = copied
        self._hand_over(outgoing)

    def letter(self, job: Job, error: RequestError) -> OutRecord:
        """Write the dead letter of a request that ends with `error`."""
        return dead_letter(
            job.record,
            reason=error.message,
            code=error.code,
            now_ms=self._clock.now_ms(),
            topic=self._names.dead,
            caller=sealed_caller(job, self._secret),
            hop=replay_hop(job, self._secret),
        )

    def _hand_over(self, outgoing: Outgoing) -> None:
        outgoing.work.ended = True
        self._put(outgoing)

    def _failed_call(  # noqa: PLR0913, PLR0917 - what a row of a call is made from
        self,
        work: Work,
        deployment: Deployment,
        error: RequestError,
        timing: Timing,
        outcome: Outcome,
        partial: Partial | None,
    ) -> Attempt:
        work.job.history = (*work.job.history, note(deployment, error))
        event = self._event(work, outcome, error.status, timing, deployment)
        event.error_code = error.code
        if partial is None:
            event.cost_pico = None if isinstance(error, _MAYBE_CHARGED) and not timing.unsent else 0
        else:
            self._fill(work, event, deployment, partial)
        self._children(work, deployment).finished(outcome, timing.took / 1000)
        return event

    def _fill(self, work: Work, event: Attempt, deployment: Deployment, came: CallResult | Partial) -> None:
        """Write what came of a call into its row: the model, its tokens, its price."""
        usage = came.usage
        priced = self._prices.price(
            deployment.name, came.model, usage, came.service_tier, work.job.lane, event.finished_ms
        )
        event.model, event.ttft_ms = came.model, came.ttft_ms
        event.cost_pico, event.price_version = priced.cost_pico, priced.price_version
        fill_usage(event, usage)
        self._children(work, deployment).used(
            None if priced.cost_pico is None else Decimal(to_text(priced.cost_pico)),
            input=usage.input_tokens,
            cached=usage.cached_tokens,
            cache_write=usage.cache_write_tokens,
            output=usage.output_tokens,
            reasoning=usage.reasoning_tokens,
            audio=usage.audio_tokens,
        )

    def _uncalled(self, work: Work, outcome: Outcome, error: RequestError | None) -> Attempt:
        """Return the row of a decision not to call, which costs nothing."""
        now = self._clock.now_ms()
        event = self._event(work, outcome, 0 if error is None else error.status, Timing(now, now), None)
        event.error_code = "" if error is None else error.code
        event.cost_pico = 0
        if work.unleased:
            # The id is another request's, or nobody's: the row must not take the place of that request's own.
            event.usage_id = f"{event.request_id}:{work.place}"
        return event

    @staticmethod
    def _outgoing(work: Work, event: Attempt) -> Outgoing:
        return Outgoing(work, [*work.events, encode(event)])

    def _children(self, work: Work, deployment: Deployment) -> AttemptChildren:
        return self._metrics.attempt_children(
            work.alias.name, deployment.name, deployment.provider, work.caller.tenant, work.job.lane
        )

    def _event(
        self, work: Work, outcome: Outcome, status: int, timing: Timing, deployment: Deployment | None
    ) -> Attempt:
        job, caller, record = work.job, work.caller, work.job.record
        job.attempt += 1
        requested = job.body.get("model")
        user = job.body.get("user")
        return Attempt(
            request_id=job.request_id,
            attempt=job.attempt,
            alias=work.alias.name,
            endpoint=job.endpoint,
            lane=job.lane,
            outcome=outcome,
            billable=False,
            status=status,
            created_ms=job.first_seen,
            started_ms=timing.started,
            finished_ms=timing.finished,
            tenant=caller.tenant,
            key_id=caller.key_id,
            team=caller.team,
            user=user[:MAX_TEXT] if isinstance(user, str) else "",
            requested_model=requested[:MAX_TEXT] if isinstance(requested, str) else "",
            provider=deployment.provider if deployment is not None else "",
            deployment=deployment.name if deployment is not None else "",
            model=deployment.model if deployment is not None else "",
            tags=job.tags,
            queue_ms=max(0, timing.started - job.first_seen),
            upstream_ms=timing.took,
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            worker=self._worker,
            config_hash=self._config_hash,
            trace_id=trace_id(job.traceparent),
        )

    @staticmethod
    def _reply_headers(work: Work, status: int, queue_ms: int, upstream_ms: int) -> dict[str, str]:
        job = work.job
        return {
            h.REQUEST_ID: job.request_id,
            h.STATUS: str(status),
            h.ALIAS: job.requested,
            h.SERVED_BY: "",
            h.MODEL: "",
            h.ATTEMPTS: str(job.attempt),
            h.FALLBACKS: str(len(job.visited)),
            h.COST: "",
            h.QUEUE_MS: str(queue_ms),
            h.UPSTREAM_MS: str(upstream_ms),
            h.FINAL: "1",
        }


def _outcome(error: RequestError, *, called: bool) -> Outcome:
    if isinstance(error, Cancelled):
        return Outcome.CANCELLED
    if isinstance(error, DeadlineExceeded):
        return Outcome.EXPIRED
    return Outcome.FAILED if called else Outcome.REFUSED
