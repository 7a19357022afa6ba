"""Joins the rooms of one worker process: who calls whom. A composition root; nothing here runs."""

import logging
import os
import random
import secrets
import socket
from collections.abc import Mapping
from importlib.metadata import version

from broker.config import Pool, Settings
from broker.errors import ConfigError
from broker.keys import KeyRing
from broker.ledger.prices import PriceTable
from broker.metrics import Metrics
from broker.ports import Units
from broker.routing.catalog import Catalog
from broker.routing.router import Router
from broker.topics import TopicNames
from workers.admission import Admission
from workers.callers import CallerLimits
from workers.committer import Committer
from workers.control import Control
from workers.dispatcher import Dispatcher, Fairness
from workers.endings import Endings
from workers.exchange import PermitExchange
from workers.gauges import BacklogGauges
from workers.inference import Inference
from workers.leases import Leases
from workers.loop import RequestLoop
from workers.outbox import Outbox
from workers.policy import Policy
from workers.pool.parts import Parts
from workers.prechecks import PreCallChecks
from workers.snapshot import Identity, Meter
from workers.streams import ChunkWriter
from workers.watchdog import Watchdog
from workers.work import Outgoing, Work

log = logging.getLogger(__name__)


class Joined:
    """The rooms of one process, ready to be started."""

    def __init__(self, settings: Settings, pool: Pool, parts: Parts, metrics: Metrics | None = None) -> None:
        self.settings = settings
        self.pool = pool
        self.parts = parts
        self.metrics = metrics or Metrics()
        self.names = TopicNames(settings.kafka.topic_prefix)
        worker = f"{socket.gethostname()}-{os.getpid()}"
        self.name = f"{worker}-{secrets.token_hex(4)}"
        """Of this process to journal and limits: never used again, also where a process id is."""
        self.catalog = Catalog(settings)
        self.policy = Policy(
            settings=settings,
            names=self.names,
            catalog=self.catalog,
            keys=KeyRing(settings),
            secret=_signing_key(settings),
        )
        clock = parts.clock
        self.meter = Meter(clock.monotonic())
        self.gauges = BacklogGauges(self.metrics)
        self.identity = Identity(
            self.name, pool.name, socket.gethostname(), os.getpid(), clock.now_ms(), version("queue-inference-broker")
        )
        self._join_shared()
        self._join_endings(worker)
        self._join_serving()
        self._join_log()

    def _join_shared(self) -> None:
        """Join what workers share: leases, limits."""
        parts, settings = self.parts, self.settings
        self.leases = Leases(
            journal=parts.journal,
            metrics=self.metrics,
            lease_seconds=settings.redis.lease_seconds,
            lost=self._lost,
        )
        self.callers = CallerLimits(parts.callers, settings, parts.clock)
        self.router = Router(settings, random.random, shared=True)
        self.exchange = PermitExchange(
            store=parts.limits,
            router=self.router,
            worker=self.name,
            clock=parts.clock,
            demand=self._demand,
            changed=self._changed,
        )

    def _join_endings(self, worker: str) -> None:
        parts, settings = self.parts, self.settings
        deployments = [deployment for alias in settings.aliases.values() for deployment in alias.deployments]
        self.endings = Endings(
            prices=PriceTable.compile(deployments, settings.price_overrides, parts.clock.now_ms()),
            names=self.names,
            clock=parts.clock,
            metrics=self.metrics,
            secret=self.policy.secret,
            worker=worker,
            config_hash=settings.config_hash,
            put=self._put,
        )
        self.outbox = Outbox(
            journal=parts.journal,
            leases=self.leases,
            producer=parts.producer,
            names=self.names,
            metrics=self.metrics,
            done=self._done,
            stranded=self.endings.stranded,
            letter=self.endings.letter,
        )

    def _join_serving(self) -> None:
        parts, clock, metrics = self.parts, self.parts.clock, self.metrics
        self.control = Control(reader=parts.make_reader(), names=self.names, clock=clock, on_cancel=self._cancel)
        checks = PreCallChecks(self.policy)
        self.inference = Inference(
            policy=self.policy,
            leases=self.leases,
            callers=self.callers,
            checks=checks,
            router=self.router,
            provider=parts.provider,
            endings=self.endings,
            chunks=ChunkWriter(parts.producer),
            clock=clock,
            metrics=metrics,
            meter=self.meter,
            news=self.exchange.news,
        )
        self.admission = self.inference.admission = Admission(
            policy=self.policy,
            leases=self.leases,
            callers=self.callers,
            checks=checks,
            endings=self.endings,
            clock=clock,
            metrics=metrics,
            cancelled=self.control.cancelled,
            run=self.inference.run,
            refuse=self.inference.refuse,
            forget=self.inference.close,
            worker=self.name,
            meter=self.meter,
        )
        self.dispatcher = self.inference.dispatcher = Dispatcher(
            router=self.router,
            clock=clock,
            in_flight=self.pool.in_flight,
            start=self.inference.start,
            expire=self.inference.expire,
            surplus=self.inference.surplus,
            short=self.exchange.short,
            fairness=_fairness(self.settings, self.pool),
        )

    def _join_log(self) -> None:
        parts = self.parts
        self.committer = Committer(
            consumer=parts.consumer,
            clock=parts.clock,
            metrics=self.metrics,
            interval=self.pool.commit_interval,
            on_lost=self.inference.forget,
        )
        self.loop = RequestLoop(
            consumer=parts.consumer,
            committer=self.committer,
            dispatcher=self.dispatcher,
            admission=self.admission,
            outbox=self.outbox,
            names=self.names,
            clock=parts.clock,
            serve=self.inference.serve,
            fails_open=self._fails_open,
        )
        self.watchdog = Watchdog(
            consumer=parts.consumer,
            turned=lambda: self.loop.turned,
            adopted=lambda: bool(self.committer.assigned) or not parts.consumer.assignment(),
            make_reader=parts.make_reader,
            clock=parts.clock,
        )

    # Rooms that need each other; these bind late.
    def _put(self, outgoing: Outgoing) -> None:
        self.outbox.put(outgoing)

    def _demand(self) -> Mapping[str, tuple[int, Units, Units]]:
        return self.dispatcher.demand()

    def _changed(self) -> None:
        self.dispatcher.wake()

    def _done(self, outgoing: Outgoing) -> None:
        self.meter.lane(outgoing.work.job.alias, outgoing.work.lane).ended()
        self.inference.done(outgoing)

    def _cancel(self, request_id: str) -> None:
        self.inference.cancel(request_id)

    def _lost(self, work: Work) -> None:
        self.inference.lost(work)

    def _fails_open(self, alias: str) -> bool:
        found = self.catalog.resolve(alias)
        return found is not None and found.fail_open


def _fairness(settings: Settings, pool: Pool) -> Fairness:
    tenants = {key.tenant for key in settings.keys.values()} | settings.tenants.keys()
    if settings.anonymous_tenant is not None and settings.keys:
        tenants.add(settings.anonymous_tenant)
    weights = {name: tenant.weight for name, tenant in settings.tenants.items()}
    return Fairness(weights, pool.batch_share, several=len(tenants) > 1)


def _signing_key(settings: Settings) -> bytes:
    if settings.signing_key is not None:
        return settings.signing_key.get_secret_value().encode()
    if settings.keys:
        # A request that is sent on carries no key but our word for it, which every worker has to be able to check.
        raise ConfigError("keys need general_settings.signing_key, BROKER_SIGNING_KEY or a master_key to sign with")
    log.warning(
        "no signing key is configured (general_settings.signing_key or BROKER_SIGNING_KEY): a request that one worker "
        "reroutes or parks looks new to every other one; fit for a single process only"
    )
    return secrets.token_bytes(32)
