"""One upstream call of a request: streamed to its reader or not, ended by its answer, an error or a cut."""

import asyncio
import logging
from dataclasses import dataclass
from typing import Final

from broker.config import Deployment
from broker.errors import Cancelled, DeadlineExceeded, InternalError, RequestError, UpstreamTimeout
from workers.providers.base import Call, CallResult, Partial, Progress, ProviderClient
from workers.streams import ChunkWriter
from workers.work import Work

log = logging.getLogger(__name__)

SHORTEST_SECRET: Final = 8
"""Characters; shorter ones stand for no key (`none`, `EMPTY`) and may be a part of any word."""


@dataclass(slots=True)
class Made:
    """How a call ended; `outcome` None: cut off by a hard stop, so that another worker makes it again."""

    outcome: CallResult | RequestError | None
    delivered: bool = False
    """Whether any of its stream went to the reader."""
    partial: Partial | None = None
    """What the stream of a call without an answer had produced; None where nothing is known to be."""
    unsent: bool = False
    """Whether nothing went out to the provider."""


class Calls:
    """Makes calls; one per worker process. `stopping`: a call that is cut off from now on was not cancelled."""

    def __init__(self, provider: ProviderClient, chunks: ChunkWriter) -> None:
        self._provider = provider
        self._chunks = chunks
        self.stopping = False

    async def make(self, work: Work, deployment: Deployment, started: int) -> Made:
        """Call `deployment` for a work at `started`, unix milliseconds. Never raises."""
        job = work.job
        left = (work.deadline - started) / 1000
        timeout = min(deployment.timeout or work.alias.timeout, left)
        call = Call(deployment, job.endpoint, job.body, timeout, job.request_id, job.traceparent)
        if work.cut:
            # Between its permit and its first step: a task that is cancelled then never gives the permit back.
            return Made(self._cut_off(work), unsent=True)
        outcome = await self._outcome(work, call, in_time=timeout < left)
        if isinstance(outcome, CallResult):
            return Made(outcome)
        progress = call.progress
        return Made(outcome, progress.chunks > 0, progress.partial(), progress.unsent)

    async def _outcome(self, work: Work, call: Call, *, in_time: bool) -> CallResult | RequestError | None:
        """`in_time`: the call's timeout ends before the request's deadline."""
        work.calling = True
        try:
            return await self._made(work, call)
        except UpstreamTimeout as error:
            return error if in_time else DeadlineExceeded(_too_late(call.progress))
        except RequestError as error:
            return _without_secrets(error, call.deployment)
        except asyncio.CancelledError:
            return self._cut_off(work)
        except Exception as error:
            log.exception("request %s: the call failed in a way of our own", call.request_id)
            return InternalError(f"{type(error).__name__} during the call of {call.deployment.name}")
        finally:
            work.calling = False

    async def _made(self, work: Work, call: Call) -> CallResult:
        job = work.job
        if not job.streams or job.reply_to is None:
            return await self._provider.call(call)
        async with self._chunks.stream(job, job.attempt + 1) as on_chunk:
            return await self._provider.call(call, on_chunk)

    def _cut_off(self, work: Work) -> Cancelled | None:
        return Cancelled("the request was cancelled") if work.cancelled and not self.stopping else None


def _too_late(progress: Progress) -> str:
    came = f", after {progress.chunks} chunks of its stream" if progress.chunks else ""
    return f"the deadline passed while the request was running{came}"


def _without_secrets(error: RequestError, deployment: Deployment) -> RequestError:
    """Return the error with the deployment's credentials masked: an upstream may repeat them, and callers read it."""
    for text in deployment.secrets:
        if len(text) >= SHORTEST_SECRET and text in error.message:
            error.message = error.message.replace(text, "***")
    return error
