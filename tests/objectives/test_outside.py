"""Objectives of other packages: found by name, bound and weighed like ours; what is broken is one line and left out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from outside_package import OBJECTIVES as THEIR_MODULE
from outside_package import forget, install

from maxrl_bench import advantages, bind, plugins
from maxrl_bench.cli import main as cli
from maxrl_bench.config import RunConfig, brief
from maxrl_bench.objectives import outside
from maxrl_bench.objectives.formula import Formula, Knob
from maxrl_bench.objectives.table import OBJECTIVES, find_row
from maxrl_bench.report.palette import style_of

GROUP = outside.ENTRY_POINTS
BROKEN = {
    "no-module": ("theirs_absent:row", "cannot be loaded: ModuleNotFoundError: No module named 'theirs_absent'"),
    "no-row": ("theirs_rows:missing", "cannot be loaded: AttributeError: "),
    "raising": ("theirs_raising:row", "cannot be loaded: RuntimeError: no data"),
    "leaving": ("theirs_leaving:row", "cannot be loaded: SystemExit: no licence"),
    "half": ("theirs_half:row", "cannot be loaded: ValueError: objective labelled 'Half': give both "),
    "a-number": ("sys:maxsize", "is no objective: it must be a Formula, got int"),
    "likelihood": ("theirs_rows:nothing", "has no weights: only 'ml' needs none"),
}
LEFT_OUT = {
    "grpo": ("theirs_rows:centred", "this name is built in"),
    "../up": ("theirs_rows:centred", "a name has at most 100 characters"),
    "no-colon": ("json", "it must be given as module:attribute"),
}
FILES = {
    "theirs_rows.py": THEIR_MODULE + "\nnothing = Formula('No', 'x', 'x', 'x', None, None)\n",
    "theirs_raising.py": "raise RuntimeError('no\\ndata')\n",
    "theirs_leaving.py": "raise SystemExit('no licence')\n",
    "theirs_half.py": "from maxrl_bench import Formula\nrow = Formula('Half', 'x', 'x', 'x', abs, None)\n",
}


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    points = {name: value for name, (value, _) in {**BROKEN, **LEFT_OUT}.items()}
    folder = install(tmp_path / "site", FILES, {GROUP: {**points, "centred": "theirs_rows:centred", "twice": "a:b"}})
    install(folder, {}, {GROUP: {"twice": "c:d"}}, name="others")
    for name in list(sys.modules):
        if name.startswith("theirs_"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(folder))
    forget()
    yield folder
    forget()


@pytest.mark.usefixtures("theirs")
def test_a_row_from_outside_is_bound_and_weighed_like_ours() -> None:
    bound = bind("centred", 4, share=1.0)
    mean_baseline = bind("mean_baseline", 4)
    np.testing.assert_array_equal(bound.weights(np.arange(5)), mean_baseline.weights(np.arange(5)))
    p = np.array([0.1, 0.7])
    np.testing.assert_allclose(bound.population_weight(p), mean_baseline.population_weight(p))
    rewards = np.array([[1.0, 0, 0, 0]])
    np.testing.assert_array_equal(advantages(rewards, "centred", share=0.0), rewards)
    assert bind("centred", 4).label == "Centred"
    assert bound.label == "Centred c=1"
    config = RunConfig(task="fourrooms", objective="centred")
    assert config.objective == {"name": "centred", "share": 0.5}
    assert brief(config.objective) == {"name": "centred"}
    with pytest.raises(ValueError, match="knob 'share' must be a number of at least 0 and at most 1, got 2"):
        bind("centred", 4, share=2)
    with pytest.raises(ValueError, match="does not read the knob 'order'; accepted: share"):
        RunConfig(task="fourrooms", objective={"name": "centred", "order": 2})
    with pytest.raises(ValueError, match="did you mean 'centred'"):
        bind("centered", 4)


@pytest.mark.usefixtures("theirs")
def test_what_cannot_be_an_objective_is_left_out_with_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    for name, (value, reason) in BROKEN.items():
        with pytest.raises(ValueError, match="plug-in objective") as told:
            bind(name, 4)
        assert f"plug-in objective '{name}' ({value}) {reason}" in str(told.value)
        assert "\n" not in str(told.value)
    assert cli.main(["list", "objectives", "--json"]) == 0
    printed = capsys.readouterr()
    rows = {row["name"]: row for row in json.loads(printed.out)}
    assert list(rows) == [*OBJECTIVES, "centred"]
    assert {name: row["plug_in"] for name, row in rows.items() if row["plug_in"]} == {"centred": "theirs_rows:centred"}
    assert rows["centred"]["knobs"]["share"]["default"] == 0.5
    lines = printed.err.splitlines()
    assert len(lines) == len(BROKEN) + len(LEFT_OUT) + 1
    for name, (_, reason) in {**BROKEN, **LEFT_OUT, "twice": ("", "more than one package offers this name")}.items():
        (line,) = [line for line in lines if f"'{name}'" in line]
        assert reason in line
    assert find_row("grpo") is OBJECTIVES["grpo"]
    assert cli.main(["list", "objectives"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "centred" in line]
    assert line.split() == ["centred", "share=0.5", "yes", "plug-in", "Doe", "2031"]


@pytest.mark.usefixtures("theirs")
def test_a_row_from_outside_has_a_card(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["card", "centred", "share=1", "--rollouts", "4"]) == 0
    text = capsys.readouterr().out
    assert "Centred c=1  (centred, 4 rollouts)" in text
    assert "Doe 2031" in text


def test_a_row_from_outside_is_drawn_the_same_everywhere_and_unlike_ours() -> None:
    look = style_of("centred")
    assert look == style_of("centred")
    for name in OBJECTIVES:
        own = style_of(name)
        assert own["color"] != look["color"]
        assert (own["marker"], own["linestyle"]) != (look["marker"], look["linestyle"])


def test_naming_objectives_imports_no_package_and_listing_no_torch(theirs: Path) -> None:
    code = (
        "import sys\nfrom maxrl_bench import bind\nfrom maxrl_bench.cli.main import main\n"
        "from maxrl_bench.objectives import outside\n"
        "assert 'centred' in outside.names({}) and not [m for m in sys.modules if m.startswith('theirs')]\n"
        "bind('grpo', 4)\nassert not [m for m in sys.modules if m.startswith('theirs')]\n"
        "main(['list', 'objectives'])\nassert 'theirs_rows' in sys.modules and 'torch' not in sys.modules\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(theirs)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "centred" in done.stdout


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ({"label": ""}, "an objective's 'label' must be a text of one line, got ''"),
        ({"edges": "a\nb"}, "'edges' must be a text of one line"),
        ({"on_failure": None}, "give both 'on_success' and 'on_failure'"),
        ({"order": 3}, "'order' must be a function, got 3"),
        ({"knobs": {"c": 0.5}}, "'knobs' must be a table of Knob by name"),
        ({"knobs": {"N": Knob(int, 0, 1, "N")}}, "a knob's name must be a word other than name, "),
        ({"min_rollouts": 0}, "'min_rollouts' must be from 1 to"),
        ({"entropy_bonus": "c"}, "'entropy_bonus' must name one of its knobs, got 'c'"),
    ],
)
def test_a_row_that_no_objective_can_have_is_refused_where_it_is_made(parts: dict, told: str) -> None:
    whole = {"label": "L", "paper": "P", "formula": "F", "edges": "E", "on_success": abs, "on_failure": abs}
    with pytest.raises(ValueError, match=told) as caught:
        Formula(**{**whole, **parts})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ((str, 0, 1, "c"), "kind must be int or float"),
        ((int, 0, 1, ""), "symbol must be a text"),
        ((int, "0", 1, "c"), "a bound must be a number, got '0'"),
        ((int, 2, 1, "c"), "its bounds, 2 and 1, leave no value"),
        ((int, 0, 1, "c", 2), "its default must be an integer of at least 0 and at most 1, got 2"),
    ],
)
def test_a_knob_that_takes_no_value_is_refused_where_it_is_made(parts: tuple, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Knob(*parts)


def test_nothing_is_offered_where_nothing_is_installed() -> None:
    assert plugins.find(GROUP, OBJECTIVES) == ({}, [])
