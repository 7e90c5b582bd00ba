"""Learning rates that are added until the best is inside the range: what comes first, and what may follow.

    learning_rate = { first = [3e-4, 1e-3, 3e-3], until = "inside" }

Rates are 1 or 3 times a power of ten. A *group* is the runs of one task, objective and number of rollouts. All groups
have the first rates; each look at the results (`maxrl_bench.cli.looks`) asks for one more beyond each end at which the
best rate of a group stands, on all its seeds, until none does. Which they are hangs on the results alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from maxrl_bench import inputs
from maxrl_bench.config import RunConfig, brief
from maxrl_bench.names import label

if TYPE_CHECKING:
    from maxrl_bench.sweeps.experiment import Experiment

LOWEST, HIGHEST = 1e-6, 1.0  # beyond which no rate is tried
LADDER = [float(f"{digit}e{decade}") for decade in range(-6, 1) for digit in (1, 3) if decade < 0 or digit == 1]
Group = tuple[str, str, int]  # task, objective, number of rollouts


def _ascending(rates: list[float]) -> list[float]:
    if any(later <= earlier for earlier, later in itertools.pairwise(rates)):
        raise ValueError("must be different rates in ascending order")
    return rates


class RateRule(BaseModel):
    """What stands for a list of learning rates where more may follow. Raises pydantic.ValidationError."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    first: Annotated[
        list[Annotated[float, Field(ge=LOWEST, le=HIGHEST)]], Field(min_length=1), AfterValidator(_ascending)
    ]
    until: Literal["inside"]

    @property
    def most(self) -> int:
        """How many rates there may be."""
        return len({*self.first, *LADDER})


def read_rate_rule(table: Mapping[str, Any], where: str) -> RateRule:
    """The rule of a table. Raises ValueError, in one line that begins with `where` and names the key."""
    try:
        return RateRule.model_validate(dict(table))
    except ValidationError as error:
        wrong = inputs.one_line(error, known=RateRule.model_fields)
        example = '{ first = [3e-4, 1e-3, 3e-3], until = "inside" }'
        raise ValueError(f"{where}: key 'learning_rate': {wrong} (as in {example}, or a list of rates)") from None


def group_of(config: RunConfig) -> Group:
    """What a rate is chosen for: the task, the objective with the knobs that are no defaults, and N."""
    return config.task_label, label(brief(config.objective)), config.num_rollouts


def beyond(rate: float, edge: str) -> float | None:
    """The next rate of the ladder beyond the "lowest" or the "highest" one, about 3 times away; None at its end."""
    if edge == "highest":
        return next((one for one in LADDER if one > 1.8 * rate), None)
    return next((one for one in reversed(LADDER) if one < rate / 1.8), None)


def with_rate(experiment: Experiment, group: Group, rate: float) -> list[RunConfig]:
    """The runs of a group at another rate: one for each of its seeds."""
    own = {config.seed: config for config in experiment.runs if group_of(config) == group}
    return [own[seed].model_copy(update={"learning_rate": rate}) for seed in sorted(own)]


def later_rates(experiment: Experiment) -> tuple[RunConfig, ...]:
    """All runs that may come after the present ones."""
    there = {config.hash for config in experiment.runs}
    one_rate: dict[str, RunConfig] = {}  # of each group and seed
    for config in experiment.runs:
        alike = config.model_copy(update={"learning_rate": LOWEST})
        one_rate.setdefault(alike.hash, alike)
    every = (config.model_copy(update={"learning_rate": rate}) for config in one_rate.values() for rate in LADDER)
    return tuple(config for config in every if config.hash not in there)
