"""examples/: packages of somebody else's, short as the documentation promises, that are found, hold and train."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from documents import ROOT
from outside_package import install_project

from maxrl_bench.cli import main as cli
from maxrl_bench.objectives.table import bind
from maxrl_bench.rollouts.policies import make_policy
from maxrl_bench.tasks import make_task

EXAMPLES = ROOT / "examples"
SMALL = ["steps=2", "eval_every=2", "eval_instances=4", "batch_size=2", "num_rollouts=8"]


@pytest.mark.parametrize(
    ("file", "lines"),
    [("token_task/word_reversal.py", 60), ("graph_task/thin_ice.py", 90), ("objective/capped_maxrl.py", 30)],
)
def test_an_example_is_short(file: str, lines: int) -> None:
    assert len((EXAMPLES / file).read_text(encoding="utf-8").splitlines()) <= lines


@pytest.mark.parametrize(("folder", "name"), [("token_task", "word-reversal"), ("graph_task", "thin-ice")])
def test_a_task_trains_and_its_pass_rates_are_exact(folder: str, name: str, outside: Path, tmp_path: Path) -> None:
    install_project(EXAMPLES / folder, outside)
    options = {"size": 3}
    task = make_task(name, **options)
    policy = make_policy(task.contexts, task.num_actions, np.random.default_rng(0))
    batch = task.batch("test", range(4))
    sampled = batch.sample(policy, 20_000, np.random.default_rng(1)).successes / 20_000
    exact = batch.log_pass_rate(policy).exp().detach().numpy()
    assert np.all(np.abs(sampled - exact) < 5 * np.sqrt(exact / 20_000))
    assert 0 < exact.min() < exact.max() < 1
    assert task.render("test", 0, [0, 1])
    words = [f'task={{ name = "{name}", size = 3 }}', "objective=maxrl_alg1", "warm_start_steps=2", *SMALL]
    assert cli.main(["run", *words, "--results", str(tmp_path)]) == 0


def test_they_keep_their_promises(outside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("token_task", "graph_task", "objective"):
        install_project(EXAMPLES / folder, outside)
    for words in ("task word-reversal size=3", "task thin-ice", "objective capped_maxrl"):
        assert cli.main(["check", *words.split()]) == 0, capsys.readouterr().out


@pytest.mark.parametrize(("name", "size"), [("word-reversal", 0), ("word-reversal", 2.0), ("thin-ice", 99)])
def test_a_task_refuses_what_it_cannot_be(name: str, size: object, outside: Path) -> None:
    for folder in ("token_task", "graph_task"):
        install_project(EXAMPLES / folder, outside)
    with pytest.raises(ValueError, match="option 'size' must be a whole number from"):
        make_task(name, size=size)


def test_an_objective_is_what_it_says(outside: Path, tmp_path: Path) -> None:
    install_project(EXAMPLES / "objective", outside)
    on_success, on_failure = bind("capped_maxrl", 16, cap=4).weights(np.array([0, 1, 8, 16]))
    np.testing.assert_array_equal(on_success[1:], [4, 2, 1])
    np.testing.assert_array_equal(on_failure, 0)
    assert cli.main(["run", "task=empty-8", "objective=capped_maxrl", *SMALL, "--results", str(tmp_path)]) == 0
