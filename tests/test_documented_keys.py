"""The documentation has every key, column, figure and part that the code has, with its default, and no other."""

from __future__ import annotations

import ast
import inspect
import json
import re
from dataclasses import MISSING, fields
from typing import Any, get_args

import pandas as pd
import pytest
from documents import ROOT, table

from maxrl_bench.analysis.evidence import Evidence
from maxrl_bench.analysis.rates import choices, row_of
from maxrl_bench.config import RunConfig
from maxrl_bench.inputs import read_toml
from maxrl_bench.objectives.formula import Formula
from maxrl_bench.report.figures import FIGURES
from maxrl_bench.report.folder import Comparison
from maxrl_bench.report.room import flat, room
from maxrl_bench.rollouts.graphs import StateGraphs
from maxrl_bench.rollouts.policies import ObservationPolicy
from maxrl_bench.rollouts.tokens import TokenBatch, Verifier
from maxrl_bench.rollouts.transformer import TokenPolicy
from maxrl_bench.storage.columns import METRICS
from maxrl_bench.storage.tables import IDENTITY, PASS_RATE_COLUMNS
from maxrl_bench.sweeps import experiment
from maxrl_bench.sweeps.claim_model import Claim
from maxrl_bench.sweeps.seeds import SeedRule
from maxrl_bench.tasks import Task

PAGE = "docs/experiments.md"
FOLLOWING = "Seeds that follow the claims"


@pytest.mark.parametrize(
    ("heading", "model"),
    [("The file", experiment._File), ("Settings of a run", RunConfig), ("Claims", Claim), (FOLLOWING, SeedRule)],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_every_key_is_there_with_its_default(heading: str, model: Any) -> None:
    first = "key of the table" if heading == FOLLOWING else "key"
    documented = {key: cells[0] for key, cells in table(PAGE, heading, first).items()}
    assert set(documented) == set(model.model_fields)
    for key, field in model.model_fields.items():
        written = documented[key].strip("`")
        if field.is_required():
            assert written == "required", key
        elif field.default is None:
            assert written == "none", key
        elif written == "{}":
            assert not getattr(field.default, "settings", field.default), key  # an empty table, or the side that it is
        else:
            assert ast.literal_eval(written) == field.default, key


def test_every_size_of_a_network_is_there() -> None:
    networks = [inspect.signature(network).parameters.values() for network in (TokenPolicy, ObservationPolicy)]
    sizes = {p.name: p.default for parameters in networks for p in list(parameters)[2:]}
    documented = table(PAGE, "Settings of a run", "size in `policy`")
    assert {key: ast.literal_eval(cells[0].strip("`")) for key, cells in documented.items()} == sizes


def test_every_moment_and_direction_of_a_claim_is_there() -> None:
    assert list(table(PAGE, "Claims", "`when`")) == list(get_args(Claim.model_fields["when"].annotation))
    says = table(PAGE, "Claims", "key")["direction"][1]
    assert all(f'`"{direction}"`' in says for direction in get_args(Claim.model_fields["direction"].annotation))


def test_every_part_of_a_task_and_of_its_batches_is_there() -> None:
    page = "docs/tasks.md"
    methods = [name for name, part in vars(Task).items() if callable(part) and not name.startswith("_")]
    assert list(table(page, "What a task has", "attribute")) == [*Task.__annotations__, *methods]
    assert list(table(page, "A batch of tokens", "field")) == [field.name for field in fields(TokenBatch)]
    assert list(table(page, "A batch of tokens", "method")) == [name for name in vars(Verifier) if name[0] != "_"]
    assert list(table(page, "A batch of graphs", "field")) == [field.name for field in fields(StateGraphs)]


def test_every_part_of_a_row_is_there() -> None:
    documented = table("docs/objectives.md", "An objective of your own", "part")
    assert list(documented) == [part.name for part in fields(Formula)]
    for part in fields(Formula):
        optional = not (part.default is MISSING and part.default_factory is MISSING)
        assert documented[part.name][0].startswith("optional:") == optional, part.name


def test_every_figure_is_there() -> None:
    assert list(table(PAGE, "Figures", "name")) == list(FIGURES)


def test_every_profile_of_ours_is_there() -> None:
    used = {name for file in (ROOT / "experiments").glob("*.toml") for name in read_toml(file).get("profiles", {})}
    blocks = [block for file in (ROOT / "experiments").glob("*.toml") for block in read_toml(file).get("grid", [])]
    used |= {name for block in blocks for name in block.get("profiles", [])}
    assert set(table(PAGE, "The file", "profile")) == used | {experiment.DEFAULT_PROFILE}


def test_every_column_of_results_is_there() -> None:
    measured = dict.fromkeys("pass@k" if name.startswith("pass@") else name for name in METRICS)
    assert list(table(PAGE, "metrics.csv.xz", "column")) == [*IDENTITY, *measured]
    assert list(table(PAGE, "pass_rates.csv.xz", "column")) == list(PASS_RATE_COLUMNS)
    written = json.loads((ROOT / "results" / "objectives-reference" / "provenance.json").read_text(encoding="utf-8"))
    assert set(table(PAGE, "provenance.json", "key")) == {*written, "seeds", "eval_splits"}


def test_every_column_of_plots_is_there() -> None:
    drawn = ROOT / "plots" / "objectives-reference"
    rates = pd.read_csv(ROOT / "results" / "learning_rate-tune" / "metrics.csv.xz")
    columns = [name for name in pd.read_csv(drawn / "summary.csv") if not name.endswith((" low", " high"))]
    assert set(table(PAGE, "summary.csv", "column")) == set(columns)
    assert list(table(PAGE, "collapse.csv", "column")) == list(pd.read_csv(drawn / "collapse.csv"))
    rooms = flat(room(Evidence.load("objectives-reference", ROOT / "results")))
    generic = dict.fromkeys(re.sub(r"^(?!base).*? (?=(share of )?pass@)", "OBJECTIVE ", name) for name in rooms[0])
    assert list(table(PAGE, "room.csv", "column")) == list(generic)
    assert list(table(PAGE, "rates.csv", "column")) == list(row_of(choices(rates)[0]))
    documented = list(table(PAGE, "claims.csv", "column"))
    assert documented == list(pd.read_csv(ROOT / "plots" / "claims" / "claims.csv"))
    assert set(documented) > set(Comparison.model_fields)
