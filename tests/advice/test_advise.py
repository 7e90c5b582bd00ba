"""`maxrl_bench.advise`, from Python and from the command line: what it says, and what it refuses."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import maxrl_bench
from maxrl_bench import advise, bind
from maxrl_bench.advice import measured
from maxrl_bench.advice.effects import Prompts
from maxrl_bench.advice.mixture import known
from maxrl_bench.cli import main as cli
from maxrl_bench.report import advice_figure
from maxrl_bench.report.style import render


@pytest.fixture(scope="module")
def prompts() -> pd.DataFrame:
    """A thousand prompts, 4 to 16 attempts at each."""
    rng = np.random.default_rng(2)
    attempts = rng.integers(4, 17, 1000)
    return pd.DataFrame({"successes": rng.binomial(attempts, rng.beta(0.4, 0.8, 1000)), "attempts": attempts})


@pytest.fixture(scope="module")
def found(prompts: pd.DataFrame) -> Any:
    return advise(prompts, rollouts=(16, 64))


def test_known_pass_rates_give_numbers_that_can_be_checked_by_hand() -> None:
    advice = advise(0.01, rollouts=16, objectives=["reinforce", "maxrl_eq9"], goal="pass@1")
    at = advice.at[0]
    assert advice.reach.rollouts == math.ceil(math.log(0.1) / math.log(0.99)) == 230
    assert at.some_success.value == pytest.approx(1 - 0.99**16)
    assert at.mixed.value == pytest.approx(1 - 0.99**16 - 0.01**16)
    reinforce, maxrl = at.effects[:2]
    assert reinforce.ml_weight == pytest.approx(0.01)
    assert maxrl.ml_weight == pytest.approx(1 - 0.99**16)
    assert at.step(reinforce) == 1
    assert advice.table["step"][1] == pytest.approx(reinforce.length / maxrl.length)
    assert advice.table["objective"].tolist()[:2] == ["reinforce", "maxrl_eq9"]


def test_steps_are_alike_with_the_factor() -> None:
    """Twice the weights, half the rate: the commonest unfair comparison."""
    at = advise([0.1, 0.7], rollouts=8, objectives=["nsr", "w_reinforce", "pkpo_plain(k=1)", "reinforce"]).at[0]
    for one in at.effects:
        assert at.step(one) * one.length == pytest.approx(at.effects[0].length)


def test_the_three_sentences_say_what_they_rest_on(found: Any) -> None:
    assert len(found.sentences) == 3
    assert found.sentences[0].startswith("1. Theory: ")
    assert found.sentences[1].startswith("2. Theory, exact under the proxy: ")
    assert re.match("3. Measured, experiment '(.*)' of this suite: ", found.sentences[2])
    assert str(found).endswith("\n".join(found.sentences))
    best = max(found.at[-1].effects, key=lambda one: one.gain).objective.label
    assert f"gains most under {best}" in found.sentences[1]


def test_it_is_what_json_and_table_say(found: Any) -> None:
    read = json.loads(found.to_json())
    assert [at["rollouts"] for at in read["at"]] == [16, 64]
    assert read["prompts"] == 1000
    rows = [row for at in read["at"] for row in at["objectives"]]
    assert [row["gain"] for row in rows] == found.table["gain"].tolist()
    for share in (*read["shares"].values(), *(at["mixed"] for at in read["at"])):
        assert share["low"] <= share["value"] <= share["high"]
    assert {"goal", "proxy", "pass_rates", "reach", "advice"} < set(read)


def test_where_nothing_can_be_learned_it_says_so() -> None:
    assert "none of these objectives can raise pass@1" in advise(0.0, goal="pass@1").sentences[1]
    assert advise(0.0).reach.rollouts == math.inf
    json.loads(advise([0.0, 1.0]).to_json())


def test_measured_comparisons_are_those_of_the_claims() -> None:
    """Effects, limits and outcomes are the table's; theory is compared on the goal's own metric."""
    rows = measured.comparisons((1, 128), 64, Prompts(known(np.array([0.01, 0.3, 0.8]))))
    table = pd.read_csv(Path(__file__).parents[2] / "plots" / "claims" / "claims.csv")
    assert "objectives-reference" in {row.experiment for row in rows}
    for row in rows:
        same = table[(table["experiment"] == row.experiment) & (table["metric"] == row.metric)]
        same = same[(same["part"] == "claim") & (same["compare"].str.startswith(row.ours.row.label))]
        assert row.effect in same["effect"].tolist()
        assert row.agrees is (None if row.outcome not in ("better", "worse") else row.theory == row.outcome)
    assert {row.metric for row in measured.comparisons((1,), 64, Prompts(known(np.array([0.3]))))} == {"pass@1"}


def test_orders_beyond_n_are_n_and_a_missing_or_damaged_table_is_told(tmp_path: Path) -> None:
    prompts = Prompts(known(np.array([0.01, 0.3])))
    own = pd.read_csv(measured.PATH)[:1].assign(
        experiment="order", part="claim", task="all", when="final", metric="pass@128", compare="MaxRL LOO T=64",
        against="MaxRL LOO T=1",
    )  # fmt: skip
    own.to_csv(tmp_path / "orders.csv", index=False)
    (row,) = measured.comparisons((128,), 8, prompts, tmp_path / "orders.csv")
    assert row.ours == bind("maxrl_order_loo", 8, order=8)
    assert measured.comparisons((1,), 8, prompts, tmp_path / "none.csv") == []
    (tmp_path / "claims.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"claims.csv is damaged"):
        measured.comparisons((1,), 8, prompts, tmp_path / "claims.csv")


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "rate": (lambda: advise(1.5), r"pass rates must lie in \[0, 1\], got 1.5"),
    "text": (lambda: advise(["a"]), r"pass rates must be numbers in \[0, 1\], got \['a'\]"),  # type: ignore[list-item]
    "one rollout": (lambda: advise(0.1, rollouts=1), "rollouts must be whole numbers from 2 to 1048576, got 1"),
    "half a rollout": (lambda: advise(0.1, rollouts=[8, 2.5]), "rollouts must be whole numbers"),  # type: ignore[list-item]
    "no rollouts": (lambda: advise(0.1, rollouts=[]), "name at least one number of rollouts"),
    "goal": (lambda: advise(0.1, goal="pass@0"), r"the goal must be pass@1, pass@K for a number K \(pass@k: K = 128\)"),
    "objective": (lambda: advise(0.1, objectives=["grop"]), "unknown objective 'grop'; did you mean 'grpo'"),
    "no objective": (lambda: advise(0.1, objectives=[]), "name at least one objective"),
    "a number": (lambda: advise(0.1, objectives=[3]), "an objective is a name, or a table"),  # type: ignore[list-item]
    "knob": (lambda: advise(0.1, objectives=["maxrl_order"]), "needs the knob 'order'"),
    "pooled": (lambda: advise(0.1, objectives=["raft"]), "'raft' weighs a prompt by its whole batch"),
    "remembering": (lambda: advise(0.1, objectives=["curverl"]), "'curverl' weighs a prompt by the batches before"),
    "file": (lambda: advise("nowhere.csv"), "nowhere.csv: no such file"),
    "figure": (lambda: maxrl_bench.plot.advice(3), "plot.advice takes what maxrl_bench.advise returns, got 3"),  # type: ignore[arg-type]
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_uses_are_one_line(case: str) -> None:
    call, message = WRONG[case]
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_the_command_prints_what_the_call_returns(
    prompts: pd.DataFrame, found: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.csv"
    prompts.rename(columns={"successes": "right", "attempts": "n"}).to_csv(path, index=False)
    words = ["advise", "--rollouts", "16", "64", "--columns", "right", "n"]
    assert cli.main([*words, "--figure", str(tmp_path / "a.svg"), "--", str(path)]) == 0
    assert capsys.readouterr().out == f"{found}\n"
    assert (tmp_path / "a.svg").read_text(encoding="utf-8").count("MaxRL") >= 2
    assert cli.main(["advise", "--json", "--pass-rate", "0.2", "--goal", "pass@1"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(advise(0.2, goal="pass@1").to_json())
    assert cli.main(["advise", "--pass-rate", "0.01", "0.5", "--objectives", "rloo", "maxrl_order(order=4)"]) == 0
    assert "MaxRL T=4" in capsys.readouterr().out
    for wrong in ([], [str(path), "--pass-rate", "0.1"], [str(path), str(path)]):
        assert cli.main(["advise", *wrong]) == 2
        assert capsys.readouterr().err == "maxrl-bench: advise takes one file of counts, or --pass-rate\n"
    assert cli.main(["advise", "--pass-rate", "0.1", "--figure", "a.pdf"]) == 2
    assert "a figure's file ends in .png or .svg, got 'a.pdf'" in capsys.readouterr().err


def test_the_figure_shows_the_shares_and_gains(found: Any) -> None:
    drawing = advice_figure.draw_advice(found)
    parts: Any = drawing.figure.subfigs
    shares, gains = parts[1].axes
    at = found.at[-1]
    assert [text.get_text() for text in shares.get_yticklabels()] == [one.objective.label for one in at.effects]
    assert [bar.get_width() for bar in gains.patches] == pytest.approx([one.gain for one in at.effects])
    assert [bar.get_width() for bar in shares.patches[: len(at.effects)]] == pytest.approx(
        [one.hard for one in at.effects]
    )
    assert len(render(drawing)) > 5000


def test_a_stored_policy_is_counted(
    one_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its file has the counts of exact pass rates, is not written over, and is what `advise` reads."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(one_run, "results")
    (run,) = (path.name for path in Path("results/store").iterdir() if re.fullmatch("[0-9a-f]{16}", path.name))
    words = ["count", "c.csv", "--run", run[:8], "--instances", "70", "--attempts", "40"]
    assert cli.main(words) == 0
    assert "c.csv: 70 instances of empty-8, 40 attempts at each" in capsys.readouterr().out
    table = pd.read_csv("c.csv")
    assert table["prompt"].tolist() == list(range(70))
    assert (table["attempts"] == 40).all()
    assert cli.main([*words[:1], "again.csv", *words[2:]]) == 0
    assert Path("again.csv").read_bytes() == Path("c.csv").read_bytes()
    assert advise("c.csv").prompts == 70
    refused = {"c.csv": "c.csv exists already", "c.txt": "c.txt: counts are written as .csv, got '.txt'"}
    for name, message in refused.items():
        assert cli.main(["count", name, "--run", run]) == 2
        assert message in capsys.readouterr().err
    assert cli.main(["count", "d.csv", "--run", run, "--attempts", "0"]) == 2
    assert "--attempts must be from 1 to 100000, got 0" in capsys.readouterr().err


@pytest.fixture(scope="module")
def one_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("one") / "results"
    small = ["steps=1", "eval_every=1", "eval_instances=2", "batch_size=2", "warm_start_steps=0"]
    assert cli.main(["run", "task=empty-8", "objective=grpo", *small, "--results", str(results)]) == 0
    return results
