"""The checks of tasks find what each of many unsound tasks does wrong, say where, and let sound ones pass."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toy_tasks
from scipy import stats

from maxrl_bench import tasks
from maxrl_bench.cli.main import main
from maxrl_bench.config import RunConfig
from maxrl_bench.storage.store import Store
from maxrl_bench.testing import first_look, rates, task_checks
from maxrl_bench.testing.results import DOES_NOT_APPLY, FAILS, run_checks, table
from maxrl_bench.training import loop
from maxrl_bench.training.feasible import check_runs

UNSOUND: dict[str, tuple[str, str]] = {
    "Listing": ("accepted_answers_are_listed", "split 'train', index 0: the verifier accepts [1, "),
    "ListsWrong": ("listed_solutions_are_accepted", "split 'train', index 1: the listed solution [4, "),
    "ListsTwice": ("listed_solutions_are_accepted", "split 'train', index 0: the solution [0, "),
    "Misleading": ("demonstrations_succeed", "split 'train', index 2: the demonstration [0, "),
    "OutOfOrder": ("instances_are_pure", "the instance is another one when it is in another order"),
    "Forgetful": ("instances_are_pure", "the instance is another one when it is of another task object"),
    "Moody": ("instances_are_pure", "split 'train'"),
    "OneMore": ("batches_fit_the_task", "the batch has 6 actions, the task's num_actions is 7"),
    "TooLong": ("batches_fit_the_task", "prompt and answer take 5 tokens, max_length is 4"),
    "Foreign": ("batches_fit_the_task", "prompts hold tokens from 0 to 5, the vocabulary is 0 to 4"),
    "Leaking": ("splits_share_no_instance", "split 'test', index 0 is the same instance as split 'train', index 0"),
    "Lenient": ("bad_requests_are_refused", "batch('tests', [0]) must raise ValueError, and returns a batch"),
    "Sayer": ("sampled_tasks_refuse_exact_pass_rates", "'exact' is False, and log_pass_rate returns something"),
    "Undecided": ("every_rollout_has_an_outcome", "the verifier's outcomes must be 0, 1 or 2"),
    "Fractional": ("every_rollout_has_an_outcome", "the verifier's states must be integers [24, 3], got float64"),
    "Raising": ("every_rollout_has_an_outcome", "IndexError: list index out of range"),
    "Unseen": ("rollouts_can_be_shown", "render('test', 0, []) is empty, or no printable text"),
    "NoHorizon": ("fields_are_those_of_a_task", "'horizon' must be at least 1, is 0"),
    "Gradientless": ("log_pass_rates_have_their_gradient", "the gradient is 0, finite differences "),
    "Shapeless": ("drawn_instances_make_the_batch_again", "train [3, 1, 4] and [1, 5, 9] are drawn as"),
    "Colourful": ("batches_fit_the_task", "a feature is beyond its cardinality"),
    "Overstepping": ("batches_fit_the_task", "the graph has 2 actions, the task's num_actions is 3"),
    "Boasting": ("sampled_rollouts_succeed_at_the_exact_pass_rate", "sampled rollouts succeed, the exact pass rate is"),
}


def subject(name: str) -> task_checks.Subject:
    return task_checks.Subject(getattr(toy_tasks, name), rollouts=500, stages=3)


@pytest.mark.parametrize("check", task_checks.CHECKS)
@pytest.mark.parametrize("name", ["SumTo", "Steps", "Unknown"])
def test_a_sound_task_passes(name: str, check: Any) -> None:
    check(subject(name))  # as a user's own test would


@pytest.mark.parametrize("name", UNSOUND)
def test_an_unsound_task_is_found_with_the_counter_example(name: str) -> None:
    check, told = UNSOUND[name]
    results = run_checks(task_checks.CHECKS, subject(name))
    by_name = dict(zip([check.__name__ for check in task_checks.CHECKS], results, strict=True))
    assert by_name[check].state == FAILS
    assert told in by_name[check].why
    text = table(results)
    assert by_name[check].why.splitlines()[0] in text
    assert text.endswith(f"{sum(r.state == FAILS for r in results)} fail")


def test_one_accepted_answer_too_many_is_found_by_its_likeness() -> None:
    seen = subject("AlsoZero")
    task_checks.listed_solutions_are_accepted(seen)
    with pytest.raises(AssertionError, match=r"index \d+: the verifier accepts \[0, 0\], which is not listed"):
        task_checks.answers_like_the_listed_are_listed(seen)


def test_incomplete_solutions_are_found_by_sampling_too() -> None:
    """The example that a report gave: a small pass rate is reported where a large one is true."""
    with pytest.raises(AssertionError, match=r"of 500 sampled rollouts succeed, the exact pass rate is 0\.0\d+"):
        task_checks.sampled_rollouts_succeed_at_the_exact_pass_rate(subject("Listing"))


def test_what_does_not_apply_says_why() -> None:
    results = run_checks(task_checks.CHECKS, subject("Unknown"))
    whys = {result.why for result in results if result.state == DOES_NOT_APPLY}
    assert whys == {"a Sampler can only be sampled", "its pass rates are exact"}


@pytest.mark.parametrize("p", [0.0, 1e-3, 0.3, 0.97, 1.0])
@pytest.mark.parametrize("n", [1, 64, 2000])
def test_false_alarms_are_as_rare_as_stated(n: int, p: float) -> None:
    """Summed over all counts of two instances with different pass rates."""
    other = 1 - p / 2
    counts = [np.flatnonzero(stats.binom.pmf(range(n + 1), n, rate) > 1e-14) for rate in (p, other)]
    ends = [np.unique(np.r_[kept[:6], kept[-6:]]) for kept in counts]  # those in between raise none
    chance = 0.0
    for pair in itertools.product(*ends):
        if rates.differs(np.array(pair), n, np.array([p, other])) is not None:
            chance += float(np.prod([stats.binom.pmf(k, n, rate) for k, rate in zip(pair, (p, other), strict=True)]))
    assert chance <= 6 * rates.CHANCE
    assert rates.differs(np.round([n * p, n * other]).astype(int), n, np.array([p, other])) is None


def test_what_differs_is_found() -> None:
    assert rates.differs(np.array([12, 11, 9, 14]), 64, np.full(4, 6e-4)) == 3
    assert rates.differs(np.array([0, 0, 0, 0]), 64, np.full(4, 0.183)) is not None
    small = rates.differs(np.full(30, 5), 256, np.full(30, 1e-3))  # no instance by itself is out of the ordinary
    assert small is not None
    assert rates.differs(np.array([5]), 256, np.array([1e-3])) is None


class Counted(toy_tasks.SumTo):
    made = 0

    def __init__(self) -> None:
        type(self).made += 1


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SumTo", *UNSOUND):
        monkeypatch.setitem(tasks.TASKS, name, tasks.TaskEntry("toy", f"toy_tasks:{name}", {}))
    monkeypatch.setitem(tasks.TASKS, "Counted", tasks.TaskEntry("toy", f"{__name__}:Counted", {}))
    first_look._look.cache_clear()


def config(task: str) -> RunConfig:
    return RunConfig(
        task=task, objective="maxrl_alg1", steps=2, eval_every=2, num_rollouts=8, eval_instances=4,
        policy={"width": 16, "layers": 1}, warm_start_steps=1, batch_size=2,
    )  # fmt: skip


CHEAP = {check.__name__ for check in task_checks.CHEAP}
STOPPED = sorted({"Listing", "Moody", "Raising", *(name for name, (check, _) in UNSOUND.items() if check in CHEAP)})


@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize("name", STOPPED)
def test_a_run_on_an_unsound_task_does_not_start(name: str, tmp_path: Path) -> None:
    for start in (lambda run: loop.train(run, Store(tmp_path)), lambda run: check_runs([run])):
        with pytest.raises(ValueError, match=f"task '{name}'") as told:
            start(config(name))
        assert "\n" not in str(told.value)
        assert len(str(told.value)) < 400
    assert not list(tmp_path.glob("*/metrics.csv*"))


@pytest.mark.usefixtures("toys")
def test_the_command_says_which_instance_contradicts_and_what_tells_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "task=Listing", "objective=grpo", "--results", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("maxrl-bench: run: task 'Listing' contradicts itself: split 'train', index ")
    assert "of 64 sampled rollouts succeed, the exact pass rate is 0.0" in error
    assert error.endswith("(see: maxrl-bench check task Listing)\n")
    assert not list(tmp_path.rglob("config.json"))
    assert main(["check", "task", "Listing"]) == 1
    printed = capsys.readouterr().out
    assert "FAILS           Each answer that the verifier accepts is among the listed solutions" in printed
    assert "checks hold, 2 fail\n" in printed
    assert "false alarm in less than one of 2,000,000 tasks" in printed
    assert main(["check", "task", "SumTo"]) == 0
    assert "0 fail\n" in capsys.readouterr().out


@pytest.mark.usefixtures("toys")
def test_a_task_is_looked_at_once_and_no_number_depends_on_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first_look.look({"name": "Counted"})
    made = Counted.made
    first_look.look({"name": "Counted"})
    assert Counted.made == made > 0
    assert torch.equal(torch.get_rng_state(), state)
    run = config("SumTo")
    loop.train(run, Store(tmp_path / "looked"))
    monkeypatch.setattr(first_look, "look", lambda named: None)
    loop.train(run, Store(tmp_path / "blind"))
    kept = [Store(tmp_path / name).tables(run.hash)[0].drop(columns="seconds") for name in ("looked", "blind")]
    assert kept[0].equals(kept[1])
