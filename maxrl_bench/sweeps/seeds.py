"""Seeds that follow the claims: how many come first, how many there may be, and which are next.

    seed = { first = 5, most = 20, until = "decided" }

Seeds are 0, 1, 2, ... A *cell* is the runs that differ in nothing but their seed. All cells have the first seeds. After
that each look at the results (`maxrl_bench.cli.looks`) asks for one more seed of the cells that an undecided claim
compares, until all claims are decided or the cells have the most. One at a time, so that none is trained in vain; which
they are hangs on the claims' verdicts alone, and so on the results, never on the number of workers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from maxrl_bench import inputs
from maxrl_bench.config import RunConfig
from maxrl_bench.sweeps.claim_check import Row, rows_of, select
from maxrl_bench.sweeps.claim_model import Claim
from maxrl_bench.sweeps.rate_rule import later_rates

if TYPE_CHECKING:
    from maxrl_bench.sweeps.experiment import Experiment

FEWEST = 4  # of fewer seeds the confidence sequence has no limits (`maxrl_bench.analysis.sequential`)
Count = Annotated[int, Field(ge=FEWEST, le=2**20)]


class SeedRule(BaseModel):
    """What stands for a list of seeds where seeds follow the claims. Raises pydantic.ValidationError."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    first: Count
    most: Count
    until: Literal["decided"]

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.most < self.first:
            raise ValueError(f"most = {self.most} lies below first = {self.first}")
        return self


def read_rule(table: Mapping[str, Any], where: str) -> SeedRule:
    """The rule of a table. Raises ValueError, in one line that begins with `where` and names the key."""
    try:
        return SeedRule.model_validate(dict(table))
    except ValidationError as error:
        wrong = inputs.one_line(error, known=SeedRule.model_fields)
        raise ValueError(
            f"{where}: key 'seed': {wrong} (as in {{ first = 5, most = 20, until = \"decided\" }}, or a list of seeds)"
        ) from None


def compared(claim: Claim, rows: Sequence[Row]) -> list[Row]:
    """The cells that a claim compares, of the rows of `claim_check.rows_of`: on tasks on which all sides have runs."""
    cells: dict[int, Row] = {}
    own = [row for row in rows if claim.tasks is None or row["task"] in claim.tasks]
    for against in claim.against:
        sides = [select(side, own, f"claim '{claim.id}'").values() for _, side in claim.terms(against)]
        tasks = set.intersection(*({row["task"] for row in side} for side in sides))
        cells |= {id(row): row for side in sides for row in side if row["task"] in tasks}
    return list(cells.values())


def next_runs(experiment: Experiment, claim: str) -> tuple[RunConfig, ...]:
    """The runs that come next while the claim of this id is undecided; none where its cells have all seeds.

    A cell with fewer seeds than others of its claim catches up before these get more.
    """
    rule, rows = experiment.seeds, rows_of(experiment.runs)
    cells = [row for own in experiment.claims if own.id == claim for row in compared(own, rows)]
    if rule is None or not cells:
        return ()
    count = min(rule.most, min(len(row["seeds"]) for row in cells) + 1)
    return tuple(_with_seed(row["run"], seed) for row in cells for seed in range(len(row["seeds"]), count))


def later_runs(experiment: Experiment) -> tuple[RunConfig, ...]:
    """All runs that may come after the present ones: every claim is undecided to the end, or all rates are tried."""
    if experiment.extends:
        return later_rates(experiment)
    rule, rows = experiment.seeds, rows_of(experiment.runs)
    if rule is None:
        return ()
    cells = {id(row): row for claim in experiment.claims for row in compared(claim, rows)}
    return tuple(_with_seed(row["run"], seed) for row in cells.values() for seed in range(len(row["seeds"]), rule.most))


def grown(experiment: Experiment, more: Sequence[RunConfig]) -> Experiment:
    """The experiment with more runs, cell by cell (where rates are added: group by group), by rate and seed."""

    def cell(config: RunConfig) -> str:
        alike = {"learning_rate": 1.0} if experiment.extends else {}
        return config.model_copy(update={"seed": 0, **alike}).hash

    place: dict[str, int] = {}
    for config in experiment.runs:
        place.setdefault(cell(config), len(place))
    runs = sorted(
        (*experiment.runs, *more), key=lambda config: (place[cell(config)], config.learning_rate, config.seed)
    )
    return dataclasses.replace(experiment, runs=tuple(runs))


def _with_seed(config: RunConfig, seed: int) -> RunConfig:
    return config.model_copy(update={"seed": seed})
