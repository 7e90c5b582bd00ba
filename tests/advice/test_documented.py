"""docs/advise.md: theory on the reference runs' base policies beside what these runs measured, recomputed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from documents import read

from maxrl_bench import bind, load
from maxrl_bench.advice.effects import Prompts
from maxrl_bench.advice.mixture import known

NAMES = ("reinforce", "rloo", "grpo", "maxrl_alg1")


def leader(values: dict[str, float], near: float) -> str:
    """Who has the largest value, with all within `near` of it (a share of it)."""
    top = max(values.values())
    return ", ".join(label for label, value in values.items() if value >= top * (1 - near))


def table() -> str:
    """For each task of the experiment `objectives`: who gains most by theory, and who ended first."""
    tables = load(Path(__file__).parents[2] / "results" / "objectives")
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
        cells = []
        for k in (1, 128):
            gains = {bind(name, n).label: prompts.gain(bind(name, n), [k]) for name in NAMES}
            ended = {bind(name, n).label: float(ends.get_group(name)[f"pass@{k}"].mean()) for name in NAMES}
            who = leader(gains, 0.02)
            cells += ["no difference" if who.count(",") == len(NAMES) - 1 else who]
            cells += [f"{leader(ended, 0)} ({max(ended.values()):.3f})"]
        lines.append(f"| {task} | {' | '.join(cells)} |")
    return "\n".join(lines)


def test_the_page_says_what_theory_says_and_what_was_measured() -> None:
    assert table() in read("docs/advise.md"), f"docs/advise.md should have:\n{table()}"
