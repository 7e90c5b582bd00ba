"""A claim as an experiment file states it: its values are checked one by one, and put into words.

What a reader sees (`Claim.test`) and what is tested (`Claim.margin_of`, `Claim.terms`) come from the same fields. The
module `claims` shows an example and judges; `claim_check` compares claims with the runs asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from maxrl_bench import inputs
from maxrl_bench.config import FIELDS, SETTINGS, Named, cell
from maxrl_bench.names import did_you_mean, label, shorten
from maxrl_bench.objectives.table import bind

MOST_CLAIMS = 200
_OBJECTIVE = ("objective", "objective_name", "name")  # ways of naming an objective in a side
_KEYS = (*_OBJECTIVE, *SETTINGS)
MARGIN = 0.02  # of pass@k: the smallest difference worth the name
MOMENTS = {
    "start": "first evaluation's",
    "final": "last evaluation's",
    "last_three": "mean of the last three evaluations of",
    "best": "best",
    "area": "mean over training of",
    "drop": "loss (best minus final) of",
    "rollouts_to": "log2 of the rollouts until",
    "collapsed": "share of runs that collapsed, by",
    "front": "at equal pass@1 along training, the highest attained",
    "samples": "log2 of how many times fewer samples reach the opponent's last",
}
# Moments that take some metrics alone: which, also in words.
_METRICS: dict[str, tuple[Callable[[str], object], str]] = {
    "collapsed": (lambda metric: metric == "pass@1", "pass@1 alone"),
    "front": (lambda metric: metric != "pass@1", "another than pass@1, such as pass@128,"),
    "samples": (lambda metric: metric.startswith("pass@") and metric != "pass@1", "pass@k for a k above 1"),
}
OF_PAIRS = ("front", "samples")  # scores of two runs, ours and theirs, of one task and seed
OWN_SCALE = ("rollouts_to", "collapsed", "samples")  # no differences of pass@k, whatever the metric


@dataclass(frozen=True)
class Side:
    """Which runs are meant: by objective (a label or name; or with knobs, as grids write it) and by settings."""

    objective: str | Named | None = None  # None: any
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        named = label(self.objective) if isinstance(self.objective, Named) else self.objective
        return ", ".join([*([named] if named else []), *(f"{key} = {cell(v)}" for key, v in self.settings.items())])

    @property
    def keys(self) -> set[str]:
        """The settings that this side of the claim fixes, "objective" among them."""
        return set(self.settings) | ({"objective"} if self.objective else set())

    def joined(self, other: Side) -> Side:
        """The side that names the runs that both name."""
        return Side(self.objective or other.objective, {**self.settings, **other.settings})

    def names(self, row: Mapping[str, Any]) -> bool:
        """Whether a run's objective is meant; row: its label `objective`, its `objective_name`, and `num_rollouts`."""
        if not isinstance(self.objective, Named):
            return self.objective in (None, row["objective"], row["objective_name"])
        name = self.objective.name
        if row["objective_name"] != name:
            return False
        try:
            bound = bind(name, int(row["num_rollouts"]), **self.objective.options)
        except ValueError:  # an order above this run's rollouts
            return False
        return row["objective"] in (bound.label, f"{bound.label} ({name})")

    def matches(self, row: Mapping[str, Any]) -> bool:
        """Whether a run is meant. A setting without a column is the same in all runs, as tables leave those out."""
        return self.names(row) and all(row.get(key, cell(v)) == cell(v) for key, v in self.settings.items())


def _listed(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


def _text(value: str) -> str:
    if not value.strip() or not value.isprintable():
        raise ValueError("must be text on one line, not empty")
    return value


def _side(value: Any) -> Side:
    if isinstance(value, Side):
        return value
    if not isinstance(value, Mapping):
        raise ValueError(f"compare, against and where are tables, {_EXAMPLE}")
    if not value:
        raise ValueError(f"an empty table says nothing of what runs are meant; write some, {_EXAMPLE}")
    extra: Iterable[str]
    given = [key for key in _OBJECTIVE if key in value]
    if len(given) > 1:
        raise ValueError(f"names the objective twice, by {' and '.join(given)}")
    settings = {key: _setting(key, v) for key, v in value.items() if key in SETTINGS}
    others = {key: v for key, v in value.items() if key not in SETTINGS}
    if "name" in others or isinstance(others.get("objective"), Mapping):
        table = others if "name" in others else others.pop("objective")
        extra = [] if table is others else list(others)
        objective: Any = _valid("objective", dict(table))
    else:
        objective, extra = next((others[key] for key in given), None), [k for k in others if k not in given]
        if given and not (isinstance(objective, str) and objective):
            raise ValueError(f"key '{given[0]}' must be the name or label of an objective, got {shorten(objective)}")
        objective = _by_name(objective) if given else objective
    for key in extra:
        raise ValueError(f"cannot select runs by {shorten(key)}; {did_you_mean(key, _KEYS)}")
    return Side(objective, settings)


def _by_name(text: str) -> str | Named:
    """A name, also one that stands for another, with knobs if it has any; a label of legends as it is."""
    try:
        named: Named = _valid("objective", text)
    except ValueError:
        return text
    return named if named.options else named.name


def _setting(key: str, value: Any) -> Any:
    if key not in SETTINGS:
        raise ValueError(f"cannot select runs by {shorten(key)}; {did_you_mean(key, SETTINGS)}")
    return _valid(key, value)


def _valid(key: str, value: Any) -> Any:
    try:
        return FIELDS[key].validate_python(value)
    except ValidationError as error:
        raise ValueError(inputs.one_line(error, key)) from None


def _gain(value: Any) -> tuple[Side, Side]:
    if isinstance(value, tuple):
        return value
    if not isinstance(value, Mapping) or not value:
        raise ValueError("must be a table such as { num_rollouts = [4, 256] }")
    for key, pair in value.items():
        if not isinstance(pair, list | tuple) or len(pair) != 2 or pair[0] == pair[1]:
            raise ValueError(
                f"needs two values per setting, such as {{ num_rollouts = [4, 256] }}; {shorten(key)} has not"
            )
    first, second = ({key: _setting(key, pair[end]) for key, pair in value.items()} for end in (0, 1))
    return Side(None, first), Side(None, second)


def _task(value: Any) -> str:
    return label(_valid("task", value)) if isinstance(value, Mapping) else str(_typed(value))


def _typed(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("must be a list of names of tasks")
    return value


def _metric(name: str) -> str:
    k = name.removeprefix("pass@")
    if k != name and not (k.isascii() and k.isdecimal() and k[0] != "0"):
        raise ValueError("pass@k needs a whole number k, such as pass@128")
    return name


def _distinct(values: list[Any]) -> list[Any]:
    for number, value in enumerate(values):
        if value in values[:number]:
            raise ValueError(f"holds {shorten(str(value))} twice")
    return values


_EXAMPLE = 'such as { objective = "grpo" }'
Text = Annotated[str, Field(max_length=1000), AfterValidator(_text)]
Number = Annotated[float, Field(allow_inf_nan=False, ge=-1e12, le=1e12)]
OneSide = Annotated[Side, BeforeValidator(_side)]
Metric = Annotated[Text, AfterValidator(_metric)]


class Claim(BaseModel):
    """One [[claims]] table. Raises pydantic.ValidationError, a ValueError; `read_claims` makes one line of it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, arbitrary_types_allowed=True)

    id: Text
    statement: Text
    metric: Annotated[
        list[Metric], Field(min_length=1, max_length=20), BeforeValidator(_listed), AfterValidator(_distinct)
    ]
    compare: OneSide
    against: Annotated[
        list[OneSide], Field(min_length=1, max_length=50), BeforeValidator(_listed), AfterValidator(_distinct)
    ]
    when: Literal[
        "start", "final", "last_three", "best", "area", "drop", "rollouts_to", "collapsed", "front", "samples"
    ] = "final"
    where: OneSide = Side()
    gain: Annotated[tuple[Side, Side] | None, BeforeValidator(_gain)] = None
    tasks: (
        Annotated[
            list[Annotated[str, BeforeValidator(_task)]],
            Field(min_length=1, max_length=1000),
            AfterValidator(_distinct),
        ]
        | None
    ) = None
    every_task: bool = False
    direction: Literal["higher", "lower", "equal"] = "higher"
    margin: Annotated[Number, Field(gt=0)] | None = None
    by_margin: bool = False
    level: Number | None = None

    @model_validator(mode="before")
    @classmethod
    def _default_margin(cls, table: Any, info: ValidationInfo) -> Any:
        """The experiment's margin is one of pass@k; shares of runs, and log2 of rollouts, are of another scale."""
        if not isinstance(table, dict) or "margin" in table or table.get("when") in OWN_SCALE:
            return table
        if any(isinstance(metric, str) and metric.startswith("pass@") for metric in _listed(table.get("metric"))):
            return {**table, "margin": (info.context or {}).get("margin", MARGIN)}
        return table

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.when == "rollouts_to") != (self.level is not None):
            raise ValueError("key 'level' goes with when = \"rollouts_to\", and only with it")
        if self.when in OF_PAIRS and self.gain is not None:
            raise ValueError(f"key 'gain' does not go with when = \"{self.when}\", which is a score of two runs")
        self._fits_metric()
        if self.by_margin and self.direction == "equal":
            raise ValueError('by_margin goes with direction = "higher" or "lower"')
        lacking = [metric for metric in self.metric if self.margin_of(metric) is None]
        if lacking and (self.by_margin or self.direction == "equal"):
            key = "by_margin" if self.by_margin else 'direction = "equal"'
            raise ValueError(f"{key} needs a margin above 0 for {lacking[0]} (one of pass@k holds for pass@k alone)")
        gained = self.gain[0].keys if self.gain else set()
        for side in (self.compare, *self.against):
            twice = (side.keys & self.where.keys) | (side.keys & gained) | (self.where.keys & gained)
            if twice:
                raise ValueError(f"'{min(twice)}' is fixed twice, by two of compare, against, where and gain")
            if not (side.objective or self.where.objective) and not side.settings:
                raise ValueError("compare and against must say what runs are meant")
        if self.compare in self.against:
            raise ValueError("compares a side with itself")
        return self

    def _fits_metric(self) -> None:
        fits, needs = _METRICS.get(self.when, (str, ""))
        for metric in self.metric:
            if not fits(metric):
                raise ValueError(f'when = "{self.when}" takes {needs} as its metric; got {shorten(metric)}')

    def margin_of(self, metric: str) -> float | None:
        """The smallest difference of a metric that is worth the name; None: none is too small.

        The claim's margin is one of pass@k, or, where it names no pass@k, of all its metrics.
        """
        of_pass = [name.startswith("pass@") for name in self.metric]
        return self.margin if metric.startswith("pass@") or not any(of_pass) else None

    def terms(self, against: Side) -> list[tuple[float, Side]]:
        """What is summed, with signs: ours and minus theirs; with a gain, each at its second value minus its first."""
        ends = [(1.0, Side())] if self.gain is None else [(-1.0, self.gain[0]), (1.0, self.gain[1])]
        return [
            (sign * factor, side.joined(self.where).joined(end))
            for sign, side in ((1.0, self.compare), (-1.0, against))
            for factor, end in ends
        ]

    @property
    def test(self) -> str:
        """The test in words: "last evaluation's pass@1: maxrl_alg1 minus grpo, above 0; practically equal: ..."."""
        what = f"{MOMENTS[self.when]} {' and '.join(self.metric)}"
        if self.level is not None:
            what += f" reaches {number(self.level)}"
        if self.gain is not None:
            what += "".join(
                f", gained from {key} = {cell(first)} to {cell(self.gain[1].settings[key])}"
                for key, first in self.gain[0].settings.items()
            )
        minus = "against" if self.when == "samples" else "minus"  # of a ratio
        sides = f"{self.compare} {minus} {' and '.join(map(str, self.against))}"
        if self.where.keys:
            sides += f" ({self.where})"
        on = ("each of " if self.tasks else "each task") * self.every_task + ", ".join(self.tasks or ())
        on = f" on {on}" if on else ""
        margin = "" if self.margin is None else f"±{number(self.margin)}"
        if self.direction == "equal":
            bound = f"within {margin}"
        elif self.by_margin:
            bound = f"above {margin[1:]}" if self.direction == "higher" else f"below -{margin[1:]}"
        else:
            bound = "above 0" if self.direction == "higher" else "below 0"
        if margin and self.direction != "equal":
            bound += f"; practically equal: within {margin}"
        return f"{what}: {sides}{on}, {bound}"


def number(value: float) -> str:
    """A number without needless digits: 0.05, 1, -0.25."""
    return str(int(value)) if value == int(value) and abs(value) < 1e12 else repr(float(value))


def read_claim(table: Mapping[str, Any] | Claim, position: int = 1, margin: float = MARGIN) -> Claim:
    """A claim from its table; margin: of pass@k, where the claim has none of its own.

    Raises ValueError, in one line that names the claim and the key.
    """
    if isinstance(table, Claim):
        return table
    name = f"claim {shorten(table.get('id', position))}"
    try:
        return Claim.model_validate(dict(table), context={"margin": margin})
    except ValidationError as error:
        raise ValueError(f"{name}: {inputs.one_line(error, known=Claim.model_fields)}") from None


def read_claims(tables: Sequence[Mapping[str, Any] | Claim], margin: float = MARGIN) -> tuple[Claim, ...]:
    """All claims of an experiment. Raises ValueError as `read_claim` does, and where ids repeat or claims are many."""
    if len(tables) > MOST_CLAIMS:
        raise ValueError(f"{len(tables)} claims; at most {MOST_CLAIMS} are accepted")
    claims = tuple(read_claim(table, position, margin) for position, table in enumerate(tables, 1))
    _differ(claim.id for claim in claims)
    return claims


def _differ(ids: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in ids:
        if name in seen:
            raise ValueError(f"claim {shorten(name)}: this id is taken; ids must differ")
        seen.add(name)
