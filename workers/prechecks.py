"""`enable_pre_call_checks`: whether an alias can serve a request and where it goes when not, before any call.

For an alias that does not ask for it nothing here is called but `serves`, which then answers None.
"""

from broker.delivery.retry import Refuse, Reroute, Serves, decide_uncalled
from broker.errors import RequestError
from broker.routing.fitness import Fitness
from broker.routing.needs import needs_of
from workers.policy import Policy
from workers.work import Work


class PreCallChecks:
    """For one configuration."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._fitness = Fitness(policy.settings)

    def judge(self, work: Work) -> RequestError | None:
        """Note which deployments cannot serve a work whose tokens were estimated; return why none can, if so."""
        job = work.job
        needs = work.needs = needs_of(job.endpoint, job.body, work.tokens - work.output_tokens)
        verdict = self._fitness.judge(work.alias, needs, job.body)
        work.unfit = verdict.unfit
        return verdict.error

    def decide(self, work: Work, error: RequestError) -> Reroute | Refuse:
        """Decide for a work that no deployment of its alias can serve."""
        defaults = self._policy.settings.default_fallbacks
        return decide_uncalled(work.alias, defaults, error, work.job.visited, work.own_fallbacks, self.serves(work))

    def serves(self, work: Work) -> Serves | None:
        """Return what tells whether another alias can serve the work; None where its own does not check."""
        needs = work.needs
        if needs is None:
            return None

        def can(name: str) -> bool:
            alias = self._policy.settings.aliases.get(name)
            return alias is not None and self._fitness.judge(alias, needs, work.job.body).error is None

        return can
