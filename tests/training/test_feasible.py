"""What a run cannot start with is told before the first run, in one line."""

from typing import Any

import numpy as np
import pytest
import torch

from maxrl_bench import tasks
from maxrl_bench.config import RunConfig
from maxrl_bench.rollouts.policies import make_policy, num_parameters, smallest
from maxrl_bench.tasks import make_task
from maxrl_bench.training.feasible import check_runs


def config(**changes: Any) -> RunConfig:
    return RunConfig(**{"task": "empty-8", "objective": "grpo", **changes})


HUGE = {"layers": 256, "width": 4096, "mlp": 4096}
REFUSED = [
    ({"policy": {"wdth": 8}}, r"key 'policy': task 'empty-8': the policy has no size 'wdth'; did you mean 'width'\?"),
    ({"policy": {"heads": 2}}, "the policy has no size 'heads'; accepted: width"),
    ({"task": "maze-7", "policy": {"width": 10}}, "width must be a multiple of 2 x heads"),
    ({"task": "maze-7", "policy": {"heads": 3}}, "heads of kv_heads; got width 128, heads 3"),
    ({"task": "maze-7", "policy": {"layers": 257}}, "'layers' must be a whole number from 1 to 256"),
    ({"task": "maze-7", "policy": HUGE}, "key 'policy': .* parameters need .* GB, more than this machine has"),
    ({"device": "cuda:99"}, "key 'device': 'cuda:99' is not on this machine; it has .* CUDA devices"),
    ({"learning_rate": 1e38}, r"key 'learning_rate': must be at most 3\.4e\+37 in float32"),
    ({"warm_start_learning_rate": 1e308, "dtype": "float64"}, "key 'warm_start_learning_rate': must be at most"),
    ({"task": "maze-7", "objective": "ml"}, "objective 'ml' needs exact pass rates; task 'maze-7' has none"),
    ({"estimator": "visited"}, "estimator 'visited' needs a task of tokens; task 'empty-8' is none"),
    ({"task": {"name": "maze-7", "size": 7.0}}, "option 'size' must be a whole number from 7 to 17, got 7.0"),
    ({"task": {"name": "maze-7", "size": True}}, "option 'size' must be a whole number .*, got True"),
    ({"task": {"name": "maze-7", "horizn": 9}}, r"task 'maze-7' has no option 'horizn'; did you mean 'horizon'\?"),
    (
        {"task": {"name": "empty-8", "crossings": 2}},
        "level 'empty' has no option 'crossings'; accepted: ",
    ),
    ({"task": {"name": "doorkey-5", "horizon": 1}}, "none of 100 levels can be solved within a horizon of 1 actions"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_what_cannot_start_is_refused_with_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as told:
        check_runs([config(), config(**changes)])
    assert "\n" not in str(told.value)
    assert len(str(told.value)) < 250


def test_runs_that_can_start_pass() -> None:
    check_runs([config(warm_start_steps=1), config(task="maze-7", warm_start_steps=1, policy={"width": 16})])


def test_what_only_the_workers_can_know_is_left_to_them() -> None:
    check_runs([config(task="maze-7", device="cuda:99", policy=HUGE)], here=False)


class Bare:
    """A token task without demonstrations."""

    def __init__(self) -> None:
        self._task = make_task("maze-7")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def batch(self, split: str, indices: Any) -> Any:
        batch = self._task.batch(split, indices)
        object.__setattr__(batch, "demonstrations", None)
        return batch


def test_a_warm_start_needs_demonstrations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tasks.TASKS, "bare", tasks.TaskEntry("toy", f"{__name__}:Bare", {}))
    check_runs([config(task="bare")])
    with pytest.raises(ValueError, match="task 'bare': this task has no demonstrations"):
        check_runs([config(task="bare"), config(task="bare", warm_start_steps=1)])


@pytest.mark.parametrize("name", ["maze-7", "empty-8", "digits-2"])
def test_parameters_are_counted_without_being_made(name: str) -> None:
    task = make_task(name)
    policy = smallest(task.contexts, task.num_actions)
    assert sum(p.numel() for p in policy.parameters()) < 10_000
    made = make_policy(task.contexts, task.num_actions, np.random.default_rng(0), width=16)
    counted = num_parameters(task.contexts, task.num_actions, width=16)
    assert counted == sum(p.numel() for p in made.parameters())
    assert all(p.device == torch.device("cpu") for p in made.parameters())
