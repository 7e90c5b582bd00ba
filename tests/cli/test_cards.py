"""Cards, the list of objectives, their looks and their figures."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from objective_cases import case_id, default_bound

from maxrl_bench.cli import cards
from maxrl_bench.cli.main import main
from maxrl_bench.objectives.table import OBJECTIVES, Objective
from maxrl_bench.report import objective_figures
from maxrl_bench.report.palette import shade, style_of
from maxrl_bench.report.style import Drawing, render

ALL_FIGURES = objective_figures.FIGURES  # of which other tests draw one


@pytest.mark.parametrize("objective", default_bound(8), ids=case_id)
def test_json_card(objective: Objective) -> None:
    numbers = json.loads(cards.card(objective.name, 8, dict(objective.knobs), True, None))
    assert (numbers["objective"], numbers["rollouts"], numbers["knobs"]) == (objective.name, 8, objective.knobs)
    p = np.array(numbers["pass_rate"])
    if objective.row.pooled:
        assert (numbers["on_success"], numbers["weight"], numbers["closed_form"]) == ([], None, None)
        return
    np.testing.assert_allclose(numbers["weight"], objective.population_weight(p))
    if objective.is_likelihood:
        assert (numbers["on_success"], numbers["order"]) == ([], None)
        np.testing.assert_allclose(numbers["closed_form"], 1 / p)
        return
    np.testing.assert_allclose(numbers["on_success"], objective.weights(np.arange(1, 9))[0])
    np.testing.assert_allclose(numbers["on_failure"], objective.weights(np.arange(8))[1])
    assert numbers["order"] == objective.order
    closed = objective.closed_form(p)
    if closed is None:
        assert numbers["closed_form"] is None
    else:
        np.testing.assert_allclose(numbers["closed_form"], numbers["weight"], rtol=1e-12)
    ratio = np.array(numbers["second_moment"]) / np.array(numbers["least_second_moment"])
    assert (ratio > 1 - 1e-12).all()


@pytest.mark.parametrize("objective", default_bound(8), ids=case_id)
def test_text_card_shows_formula_order_and_tables(objective: Objective) -> None:
    text = cards.card(objective.name, 8, dict(objective.knobs), False, None)
    row = objective.row
    assert all(part in text for part in (objective.label, row.paper, row.formula, row.edges))
    assert "nan" not in text.lower()
    assert "-0 " not in text
    if objective.name == "maxrl_alg1":
        lines = [line.split() for line in text.splitlines()]
        assert ["0", "-", "0"] in lines
        assert ["1", "7", "-1"] in lines
        assert ["8", "0", "-"] in lines
        assert "order    7: w(p) = (1 - (1-p)^7) / p" in text
        assert any(line[:3] == ["0.1", "5.217031", "5.217031"] and line[4] == "7" for line in lines if len(line) > 4)


@pytest.mark.parametrize("n", [1, 2, 1000])
def test_text_card_where_weights_vanish(n: int) -> None:
    """At one rollout some objectives learn nothing, and k q^(k-1) is below the smallest float: w = 0, not an error."""
    for objective in default_bound(n):
        everything = {knob: n for knob in objective.knobs if knob in ("order", "k")}
        text = cards.card(objective.name, n, {**objective.knobs, **everything}, False, None)
        assert "nan" not in text.lower()
        cards.card(objective.name, n, {**objective.knobs, **everything}, True, None)


def test_text_card_of_many_rollouts_stays_short() -> None:
    assert len(cards.card("maxrl_order", 100_000, {"order": 8}, False, None).splitlines()) < 50


def test_card_passes_on_what_bind_refuses() -> None:
    with pytest.raises(ValueError, match="needs the knob 'order'"):
        cards.card("maxrl_order", 8, {}, False, None)


def test_list_of_objectives() -> None:
    rows = {row["name"]: row for row in json.loads(cards.list_objectives(print, True))}
    assert list(rows) == list(OBJECTIVES)
    assert rows["maxrl_order"]["knobs"] == {
        "order": {"type": "int", "minimum": 1, "maximum": "rollouts", "default": None}
    }
    assert rows["f_grpo"]["knobs"]["gamma"] == {"type": "float", "minimum": 0, "maximum": None, "default": 1.0}
    assert next(name for name, row in rows.items() if not row["count_based"]) == "ml"
    text = cards.list_objectives(print, False)
    assert all(name in text and row.paper in text for name, row in OBJECTIVES.items())


def test_every_objective_has_a_look_of_its_own_also_without_colour() -> None:
    theirs = [style_of(f"plug-in-{i}") for i in range(300)]
    for key in ("color", "marker"):
        assert len({look[key] for look in theirs}) > 10
    colors = {look["color"] for look in theirs}
    looks = [look for look in map(style_of, OBJECTIVES) if look["color"] not in colors]
    assert len(looks) >= 20  # all that came with a row in the palette
    assert len({(look["marker"], str(look["linestyle"])) for look in looks}) == len(looks)
    assert len({look["color"] for look in looks}) == len(looks)
    pairs = [{(look["marker"], str(look["linestyle"])) for look in some} for some in (looks, theirs)]
    assert not pairs[0] & pairs[1]
    assert len(pairs[1]) > 50
    assert len({style_of("maxrl_order", rank)["color"] for rank in (0, 0.5, 1)}) == 3
    assert shade("#336699", 0.6) == "#336699"


def test_card_figures(tmp_path: Path) -> None:
    for objective in [o for o in default_bound(300) if o.name in ("ml", "raft", "pkpo_plain")]:
        file = tmp_path / f"{objective.name}.v1.svg"
        cards.card(objective.name, 300, dict(objective.knobs), True, file)
        assert file.read_bytes().startswith(b"<?xml")
        assert file.stat().st_size > 5000
    assert len(list(tmp_path.iterdir())) == 3  # the files asked for, and no others


def test_card_figure_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["card", "maxrl_alg1", "--rollouts", "8", "--figure", str(tmp_path / "new" / "card.png")]) == 0
    assert "order    7" in capsys.readouterr().out
    assert (tmp_path / "new" / "card.png").stat().st_size > 5000


def test_knobs_may_stand_on_either_side_of_options(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["order=2", "--rollouts", "4"], ["--rollouts", "4", "order=2"], ["--json", "order=2"]):
        assert main(["card", "maxrl_order", *words]) == 0
        assert "MaxRL T=2" in capsys.readouterr().out
    for words in (["card", "grpo", "--rollouts", "4", "ddof=1", "--wrong"], ["list", "objectives", "--json", "grpo"]):
        with pytest.raises(SystemExit) as stopped:
            main(words)
        assert stopped.value.code == 2
        assert f"unrecognized arguments: {words[-1]}\n" in capsys.readouterr().err


STRANGE_OPTIONS = [
    ["--rollouts", "0"], ["--rollouts", "-3"], ["--rollouts", "1048577"], ["--rollouts", "9" * 400],
    ["order=8"], ["ddof"], ["=1"], ["ddof="], ["ddof=nan"], ["ddof=inf"], ["ddof=1.0"], ["ddof=true"],
    ["ddof=" + "9" * 400],
    ["ddof=[[1]]"], ["ddof={a=1}"], ["ddof=2020-01-01"], ["ddof=\n1"], ["ddof=1\n[x]"], ["name=grpo"], ["ddof=\x00"],
    ["ddof=-1"], ["ddof=0x2"], ["ddof=" + "[" * 5000],
]  # fmt: skip


@pytest.mark.parametrize("options", STRANGE_OPTIONS, ids=lambda options: ascii(" ".join(options))[1:25])
def test_strange_options_are_refused_in_one_line(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["card", "grpo", *options]) == 2
    printed, error = capsys.readouterr()
    assert printed == ""
    assert error.startswith("maxrl-bench: ")
    assert error.count("\n") == 1
    assert len(error) < 400


@pytest.mark.parametrize("name", ["", "GRPO", "grpo ", "../grpo", "\udc80", "x" * 10_000, "grpo\n", "ml2"])
def test_strange_names_are_refused_in_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["card", name]) == 2
    error = capsys.readouterr().err
    assert error.startswith("maxrl-bench: unknown objective ")
    assert error.count("\n") == 1
    assert len(error) < 600  # with the names of all objectives


@pytest.mark.parametrize("objective", default_bound(64), ids=case_id)
def test_knobs_at_their_ends_have_cards(objective: Objective) -> None:
    """As JSON, which has no NaN and no infinity, and as text."""
    for knob, rule in objective.row.knobs.items():
        ends = [rule.low, 64 if rule.high is None else min(rule.high, 1e308)]
        for end in ends:
            knobs = {**objective.knobs, knob: rule.kind(end)}
            json.loads(cards.card(objective.name, 64, knobs, True, None), parse_constant=pytest.fail)
            assert "nan" not in cards.card(objective.name, 64, knobs, False, None).replace("finance", "")


def test_the_largest_card_has_every_weight() -> None:
    facts = json.loads(cards.card("maxrl_alg1", 2**20, {}, True, None))
    assert len(facts["on_success"]) == len(facts["on_failure"]) == 2**20
    assert facts["on_success"][0] == 2**20 - 1


@pytest.mark.parametrize(("name", "n"), [("mean_baseline", 1), ("maxrl_order_failures", 1000), ("raft", 4)])
def test_card_figures_at_the_edges(tmp_path: Path, name: str, n: int) -> None:
    objective = next(o for o in default_bound(n) if o.name == name)
    for suffix in (".png", ".svg"):
        assert len(render(objective_figures.draw_card(objective), suffix)) > 5000


def test_a_card_figure_replaces_nothing_but_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objective_figures, "draw_card", lambda objective: Drawing(Figure((1, 1)), "", ""))
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "mine.svg").write_text("mine")
    (tmp_path / "link.svg").symlink_to(tmp_path / "mine.svg")
    os.mkfifo(tmp_path / "pipe.png")
    refused = {"folder.png": "is a folder", "link.svg": "is a symbolic link", "pipe.png": "is a special file"}
    refused |= {
        "mine.svg/card.png": "Not a directory",
        "card.pdf": "file ends in .png or .svg",
        "card": "file ends in .png or .svg",
    }
    for name, why in refused.items():
        assert main(["card", "grpo", "--figure", str(tmp_path / name)]) == 2
        printed, error = capsys.readouterr()
        assert printed == ""
        assert why in error
        assert error.count("\n") == 1
    assert main(["card", "grpo", "--figure", ""]) == 2
    assert (tmp_path / "mine.svg").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.png", "link.svg", "mine.svg", "pipe.png"]


def test_figures_are_the_same_bytes_every_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objective_figures, "FIGURES", ALL_FIGURES)
    paths = objective_figures.draw_all(tmp_path / "a")
    assert sorted(path.suffix for path in paths) == [".html"] + [".png"] * 5
    again = objective_figures.rollouts_needed(tmp_path / "b")
    assert again.read_bytes() == (tmp_path / "a" / again.name).read_bytes()
