"""Looks at the results where seeds follow the claims: what is decided by now, and which runs come next.

A look judges the claims of one experiment on the runs that it has asked for so far, all of which have ended, as the
page judges them from the tables. Claims of other experiments count in the family of the profile, as ones that nothing
is known of: so which runs come next is a function of this experiment's results, in whatever order, on whatever machine
and after whatever interruption the runs were done. What they turn out to be can only make adjusted p values smaller.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Container, Mapping, Sequence
from typing import NamedTuple

from maxrl_bench.analysis.claims import Verdict, judge
from maxrl_bench.analysis.compare import CANNOT, UNDECIDED, settle
from maxrl_bench.analysis.evidence import Evidence
from maxrl_bench.analysis.tune import next_rates
from maxrl_bench.cli.publish import claims_beside
from maxrl_bench.config import RunConfig
from maxrl_bench.storage.store import Finished
from maxrl_bench.sweeps import taken
from maxrl_bench.sweeps.experiment import Experiment
from maxrl_bench.sweeps.plan import Plan
from maxrl_bench.sweeps.seeds import next_runs
from maxrl_bench.sweeps.tabulate import join, taking


class Look(NamedTuple):
    """What a look has found: each claim by itself, its verdict in the family, and the runs that come next for it."""

    claims: list[tuple[Verdict, str, tuple[RunConfig, ...]]]
    problem: str = ""  # why there could be none

    @property
    def more(self) -> list[RunConfig]:
        """The runs that come next."""
        return list({config.hash: config for _, _, more in self.claims for config in more}.values())

    def lines(self, *, going: bool = False) -> list[str]:
        """A line for each claim (or each that is `going` on): its seeds, its least certain interval, its verdict."""
        if self.problem:
            return [self.problem]
        return [_line(verdict, "goes on" if more else word) for verdict, word, more in self.claims if more or not going]


class RateLook(NamedTuple):
    """What a look at learning rates has found: the runs that come next, and a line for each rate that they try."""

    more: list[RunConfig]
    told: list[str]

    def lines(self, *, going: bool = False) -> list[str]:
        """What is tried next; where all is inside the range, that."""
        inside = "learning rates: the best of each task, objective and N is inside the range, or at its end for good"
        return self.told or ([] if going else [inside])


class Looks:
    """The looks at the experiments of a plan."""

    def __init__(self, plan: Plan):
        self._plan = plan
        codes = {run: "" if plan.keep_stale else plan.code(run) for run in plan.configs}
        self._stored = taking(plan.store, codes)
        self._take = functools.cache(self._from_store_or_tables)
        self._beside: dict[str, int] = {}

    def _from_store_or_tables(self, run: str) -> Finished | None:
        return self._stored(run) or self._in_tables.get(run)

    @functools.cached_property
    def _in_tables(self) -> dict[str, Finished]:
        """The runs that the plan counts as done by tables; a sweep that begins puts them into the store."""
        return dict(taken.read(self._plan.held, self._plan.root))

    def look(self, experiment: Experiment) -> Look | RateLook:
        """Judge the claims (or rates) of an experiment on its runs, all of which have ended, done or failed.

        Without tables that can be judged nothing comes next.
        """
        try:
            tables = join(experiment, self._plan.root, self._take)
            if tables is None:
                return Look([], "no run is done, so nothing can be judged")
            if experiment.extends:
                return RateLook(*next_rates(experiment, tables.metrics))
            verdicts = judge(Evidence.of(tables, experiment.name), experiment.claims)
        except ValueError as error:
            return Look([], f"nothing can be judged: {error}")
        if experiment.profile not in self._beside:
            self._beside[experiment.profile] = claims_beside(
                experiment.profile, self._plan.experiments, self._plan.root
            )
        others = self._beside[experiment.profile] - len(experiment.claims)
        family = [(v.verdict, v.p_value) for v in verdicts] + [(CANNOT, math.nan)] * others
        words = [word for word, _ in settle(family)][: len(verdicts)]
        more = [next_runs(experiment, v.id) if w == UNDECIDED else () for v, w in zip(verdicts, words, strict=True)]
        return Look(list(zip(verdicts, words, more, strict=True)))

    def next_runs(self, tell: Callable[[str], None], experiment: Experiment, done: set[str]) -> Sequence[RunConfig]:
        """For `Sweep`: the runs that come next, none where seeds are fixed; `tell` gets what the look has found."""
        if not experiment.grows:
            return ()
        look = self.look(experiment)
        more = f"{len(look.more)} runs more: {'; '.join(look.lines(going=True))}"
        for line in [more] if look.more else look.lines():
            tell(f"{experiment.name}: {line}")
        return look.more

    def follow(self, ended: Container[str] = ("done",)) -> dict[str, Look | RateLook]:
        """Extend the plan by the runs that the results call for; returns the last look at each experiment, by name.

        It ends where runs are asked for that have not `ended`.
        """
        found: dict[str, Look | RateLook] = {}
        for experiment in [e for e in self._plan.experiments if e.grows]:
            while all(self._plan.found[config.hash].state in ended for config in experiment.runs):
                found[experiment.name] = look = self.look(experiment)
                if not look.more:
                    break
                experiment = self._plan.extend(experiment, look.more)
        return found


def grows(plan: Plan, found: Mapping[str, Look | RateLook]) -> bool:
    """Whether runs may be added to a plan after these last looks."""
    return any(e.grows and (e.name not in found or found[e.name].more) for e in plan.experiments)


def _line(verdict: Verdict, ends: str) -> str:
    results = [c for c in verdict.comparisons if not math.isnan(c.result.p)]
    if not results:
        return f"claim {verdict.id}: {ends}" + "".join(f" ({note})" for note in verdict.notes[-1:])
    least = max(results, key=lambda c: c.result.p)
    low, high = least.result.low, least.result.high
    seeds, first = min(c.result.seeds for c in verdict.comparisons), least.result.first or 0
    on = f" on {least.task}" if least.task else ""
    none = f"no interval below {first} seeds" if seeds < first else "no interval yet"
    interval = f"interval [{low:+.3g}, {high:+.3g}]" if math.isfinite(low) else none
    return f"claim {verdict.id}: {seeds} seeds, {interval} of {least.metric} against {least.theirs}{on}, {ends}"
