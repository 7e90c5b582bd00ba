"""docs/advise.md: theory on the reference runs' base policies beside what these runs measured, recomputed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from documents import read
from scipy.stats import spearmanr

from maxrl_bench import bind, load
from maxrl_bench.advice.effects import SHARED, Prompts
from maxrl_bench.advice.mixture import known
from maxrl_bench.objectives.population import Scores, second_moment, tabulated

RESULTS = Path(__file__).parents[2] / "results" / "objectives-reference"
NAMES = ("rloo", "grpo", "f_grpo", "maxrl_alg1")


def leader(values: dict[str, float], near: float) -> str:
    """Who has the largest value, with all within `near` of it (a share of it)."""
    top = max(values.values())
    return ", ".join(label for label, value in values.items() if value >= top * (1 - near))


def table() -> str:
    """For each task of the experiment `objectives`: who gains most by theory, and who ended first."""
    tables = load(RESULTS)
    metrics, rates = tables.metrics, tables.pass_rates
    lines = [
        "| task | pass@1: theory now | pass@1: measured | pass@128: theory now | pass@128: measured |",
        "|---" * 5 + "|",
    ]
    for task in metrics["task"].unique():
        runs = metrics[(metrics["task"] == task) & metrics["objective_name"].isin(NAMES)]
        base = rates[(rates["run"] == runs["run"].iloc[0]) & (rates["step"] == 0)]["pass_rate"].to_numpy()
        prompts, n = Prompts(known(np.asarray(base))), int(runs["num_rollouts"].iloc[0])
        ends = runs[runs["step"] == runs["step"].max()].groupby("objective_name")
        names = [name for name in NAMES if name in ends.groups]
        cells = []
        for k in (1, 128):
            gains = {bind(name, n).label: prompts.gain(bind(name, n), [k]) for name in names}
            ended = {bind(name, n).label: float(ends.get_group(name)[f"pass@{k}"].mean()) for name in names}
            who = leader(gains, 0.02)
            cells += ["no difference" if who.count(",") == len(names) - 1 else who]
            cells += [f"{leader(ended, 0)} ({max(ended.values()):.3f})"]
        lines.append(f"| {task} | {' | '.join(cells)} |")
    return "\n".join(lines)


def test_the_proxy_orders_measured_gradients_roughly() -> None:
    """Rank correlations of sqrt(E|g|^2) by the proxy with the norms that the reference runs measured."""
    tables = load(RESULTS)
    measured = tables.pass_rates.dropna(subset=["grad_norm"]).merge(
        tables.metrics.drop_duplicates("run")[["run", "task", "objective_name", "num_rollouts"]], on="run"
    )
    measured = measured[measured["objective_name"].isin(NAMES) & (measured["grad_norm"] > 0)]
    found = []
    for (_, name, n), rows in measured.groupby(["task", "objective_name", "num_rollouts"]):
        objective, p = tabulated(bind(name, int(n))), rows["pass_rate"].to_numpy()
        moments = np.array([second_moment(objective, Scores(float(x), signal=SHARED * (x * (1 - x)) ** 2)) for x in p])
        if (moments > 0).sum() >= 50:
            found.append(float(spearmanr(moments[moments > 0], rows["grad_norm"][moments > 0]).statistic))
    assert len(found) >= 10
    assert min(found) > 0
    assert 0.35 < np.median(found) < 0.65


def test_the_page_says_what_theory_says_and_what_was_measured() -> None:
    assert table() in read("docs/advise.md"), f"docs/advise.md should have:\n{table()}"
