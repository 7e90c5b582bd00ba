"""What every task promises (`tasks.Task`), as checks of a `Subject`. CHECKS has them all.

Each raises AssertionError with a counter-example (the split and index of an instance), unittest.SkipTest where it does
not apply. Sampled comparisons raise a false alarm less often than once in two million (`rates.FALSE_ALARM`).
"""

from __future__ import annotations

import unittest
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from maxrl_bench.names import shorten
from maxrl_bench.rollouts import policies
from maxrl_bench.rollouts.graphs import StateGraphs
from maxrl_bench.rollouts.tokens import RUNNING, SUCCEEDED, TokenBatch
from maxrl_bench.tasks import (
    SPLITS,
    Batch,
    Contexts,
    DrawingTask,
    Task,
)
from maxrl_bench.testing import fitting, rates, walking
from maxrl_bench.testing.subject import Subject as Subject

FAR = 2**40 + 7  # an index as runs with other seeds have them
MOST_NODES = 2_000_000  # of a search through all answers
NEAR = 32  # answers and actions of which answers with one action changed are made
MOST_LISTED = 2_000  # accepted answers of a batch that are replayed


def _at(split: str, index: int) -> str:
    return f"split '{split}', index {index}"


def fields_are_those_of_a_task(subject: Subject) -> None:
    """The task has a name, a family, a horizon, actions and contexts."""
    task = subject.task
    kinds: dict[str, Any] = {
        "name": str,
        "family": str,
        "horizon": int,
        "num_actions": int,
        "exact": bool,
        "contexts": Contexts,
    }
    for field, kind in kinds.items():
        value = getattr(task, field, None)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise AssertionError(f"'{field}' must be {getattr(kind, '__name__', 'a kind of contexts')}, is {value!r}")
    for field, least in (("horizon", 1), ("num_actions", 2)):
        if getattr(task, field) < least:
            raise AssertionError(f"'{field}' must be at least {least}, is {getattr(task, field)}")


def batches_fit_the_task(subject: Subject) -> None:
    """A batch has as many instances, actions and observations as the task says, and a policy can read it."""
    task = subject.task
    size = min(8, subject.instances)
    for split in subject.splits:
        batch = subject.batch(split, size)
        if not all(hasattr(batch, part) for part in ("num_instances", "sample")):
            raise AssertionError(
                f"split '{split}': `batch` must return a TokenBatch or StateGraphs, got {shorten(batch)}"
            )
        if batch.num_instances != size:
            raise AssertionError(f"split '{split}': a batch of {size} indices has {batch.num_instances} instances")
        for misfit in fitting.misfits(task, batch):
            raise AssertionError(f"split '{split}': {misfit}")
        policy = policies.smallest(task.contexts, task.num_actions)
        successes = np.asarray(batch.sample(policy, 3, np.random.default_rng(0), grad=False).successes)
        if successes.shape != (size,) or successes.dtype.kind not in "iu" or not np.isin(successes, range(4)).all():
            raise AssertionError(
                f"split '{split}': successes of 3 rollouts each must be {size} counts, got {successes!r}"
            )


def instances_are_pure(subject: Subject) -> None:
    """An instance is a pure function of its split and index, whatever the batch around it and the task object."""
    task, again = subject.task, subject.make()
    indices = [0, 1, FAR]
    for split in subject.splits:
        batch = task.batch(split, indices)
        first = walking.contents(batch)
        _check_same_rollouts(task, batch, task.batch(split, indices), split)
        if first is None:
            continue
        others = {
            "asked for again": walking.contents(task.batch(split, indices)),
            "of another task object": walking.contents(again.batch(split, indices)),
            "in another order": (walking.contents(task.batch(split, indices[::-1])) or [])[::-1],
            "asked for alone": [part for i in indices for part in walking.contents(task.batch(split, [i])) or ()],
        }
        for how, found in others.items():
            for index, one, other in zip(indices, first, found or (), strict=True):
                if one != other:
                    raise AssertionError(f"{_at(split, index)}: the instance is another one when it is {how}")


def _check_same_rollouts(task: Task, batch: Batch, again: Batch, split: str) -> None:
    """Raises AssertionError if two batches of the same instances are rolled out differently by one generator."""
    policy = policies.smallest(task.contexts, task.num_actions)
    pair = [b.sample(policy, 32, np.random.default_rng(1), grad=False).successes for b in (batch, again)]
    if not np.array_equal(pair[0], pair[1]):
        raise AssertionError(
            f"split '{split}': two batches of the same indices succeed {pair[0]} and {pair[1]} times of 32"
        )


def splits_share_no_instance(subject: Subject) -> None:
    """No two splits share an instance."""
    graphs = isinstance(subject.known("train", 6), StateGraphs)
    count = subject.instances if graphs else 6 * subject.instances
    seen: dict[bytes, tuple[str, int]] = {}
    for split in SPLITS:
        for index, question in enumerate(walking.questions(subject.batch(split, count)) or ()):
            other, place = seen.setdefault(question, (split, index))
            if other != split:
                raise AssertionError(f"{_at(split, index)} is the same instance as {_at(other, place)}")


def bad_requests_are_refused(subject: Subject) -> None:
    """An unknown split and a negative index are refused with a ValueError of one line."""
    requests: list[tuple[str, Sequence[int]]] = [("tests", [0]), ("test", [-1])]
    for split, indices in requests:
        call = f"batch({split!r}, {indices})"
        try:
            subject.task.batch(split, indices)
        except ValueError as told:
            if "\n" in str(told):
                raise AssertionError(f"{call} is refused in several lines") from None
        except Exception as error:
            raise AssertionError(f"{call} must raise ValueError, raises {type(error).__name__}: {error}") from None
        else:
            raise AssertionError(f"{call} must raise ValueError, and returns a batch")


def drawn_instances_make_the_batch_again(subject: Subject) -> None:
    """A batch is built from its drawn arrays, which have one shape and type in all batches of a size."""
    task = subject.task
    if not isinstance(task, DrawingTask):
        raise unittest.SkipTest("it has no 'draw' and 'build'")
    first, second = (task.draw("train", indices) for indices in ([3, 1, 4], [1, 5, 9]))
    shapes = [{name: (values.shape, values.dtype) for name, values in drawn.items()} for drawn in (first, second)]
    if shapes[0] != shapes[1]:
        raise AssertionError(f"train [3, 1, 4] and [1, 5, 9] are drawn as {shapes[0]} and {shapes[1]}")
    if any(values.dtype.hasobject for values in first.values()):
        raise AssertionError("an array of objects is drawn, which cannot be kept")
    built, batch = (walking.contents(b) for b in (task.build(first), task.batch("train", [3, 1, 4])))
    if None not in (built, batch) and built != batch:
        raise AssertionError("build(draw('train', [3, 1, 4])) is not batch('train', [3, 1, 4])")


def every_rollout_has_an_outcome(subject: Subject) -> None:
    """Whatever actions are taken, each is answered by an outcome: going on, success or failure."""
    batch, task = subject.known("test", subject.instances), subject.task
    rng = np.random.default_rng(0)
    for _ in range(3):
        walk = walking.Walk(batch)
        for actions in rng.integers(0, task.num_actions, (batch.horizon, batch.num_instances)):
            walk.step(actions)


def demonstrations_succeed(subject: Subject) -> None:
    """Demonstrations succeed within the horizon when they are replayed, with their last action and not before."""
    for split in subject.splits:
        batch = subject.known(split, min(8, subject.instances))
        try:
            routes = walking.demonstrations(batch)
        except ValueError as unsolved:
            raise unittest.SkipTest(str(unsolved)) from None
        if routes is None:
            raise unittest.SkipTest("it has no demonstrations")
        outcome, taken = walking.replay(batch, np.arange(len(routes)), routes)
        for index, route in enumerate(routes):
            if not 0 < len(route) <= batch.horizon:
                raise AssertionError(
                    f"{_at(split, index)}: the demonstration {route} has no action, or more than the horizon"
                )
            if outcome[index] != SUCCEEDED or taken[index] != len(route):
                ended = {SUCCEEDED: "succeeds", RUNNING: "has not ended"}.get(int(outcome[index]), "fails")
                raise AssertionError(
                    f"{_at(split, index)}: the demonstration {route} {ended} after {taken[index]} actions"
                )


def listed_solutions_are_accepted(subject: Subject) -> None:
    """Each answer that a task lists as a solution, once, is accepted by its verifier."""
    batch = subject.known("train", min(8, subject.instances))
    for instance, answer in _solutions(batch)[:MOST_LISTED]:
        outcome, taken = walking.replay(batch, np.array([instance]), [answer])
        if outcome[0] != SUCCEEDED or taken[0] != len(answer):
            raise AssertionError(f"{_at('train', instance)}: the listed solution {list(answer)} is not accepted")


def _solutions(batch: object) -> list[tuple[int, tuple[int, ...]]]:
    """The listed solutions: instance and actions. Raises SkipTest without any, AssertionError if one comes twice."""
    if not isinstance(batch, TokenBatch) or batch.solutions is None:
        raise unittest.SkipTest("it lists no solutions")
    rows, answers = batch.solutions()
    listed = [
        (int(i), tuple(a for a in row if a >= 0)) for i, row in zip(rows, np.asarray(answers).tolist(), strict=True)
    ]
    if len(set(listed)) < len(listed):
        instance, answer = next(pair for place, pair in enumerate(listed) if pair in listed[:place])
        raise AssertionError(f"{_at('train', instance)}: the solution {list(answer)} is listed twice")
    return listed


def answers_like_the_listed_are_listed(subject: Subject) -> None:
    """An answer that differs from a listed one in one action is itself listed, or not accepted."""
    batch, actions = subject.known("train", min(8, subject.instances)), subject.task.num_actions
    solutions = _solutions(batch)
    listed, changed = set(solutions), set()
    for row, answer in solutions[:: max(1, len(solutions) // NEAR)]:
        for place, action in np.ndindex(len(answer), min(actions, NEAR)):
            changed.add((row, (*answer[:place], int(action), *answer[place + 1 :])))
    tried = sorted(changed - listed)[:: max(1, len(changed) // MOST_LISTED)]
    outcome, taken = walking.replay(batch, np.array([row for row, _ in tried]), [answer for _, answer in tried])
    for (row, answer), ended, length in zip(tried, outcome, taken, strict=True):
        if ended == SUCCEEDED and (row, answer[:length]) not in listed:
            told = f"the verifier accepts {list(answer[:length])}, which is not listed"
            raise AssertionError(f"{_at('train', row)}: {told}")


def accepted_answers_are_listed(subject: Subject) -> None:
    """Each answer that the verifier accepts is among the listed solutions, by trying all of them."""
    batch, actions = subject.known("train", 2), subject.task.num_actions
    listed = set(_solutions(batch))
    assert isinstance(batch, TokenBatch)
    for row in range(2):
        for answer in sorted(walking.accepted(batch, row, actions, MOST_NODES)):
            if (row, answer) not in listed:
                raise AssertionError(f"{_at('train', row)}: the verifier accepts {list(answer)}, which is not listed")


def sampled_rollouts_succeed_at_the_exact_pass_rate(subject: Subject) -> None:
    """Sampled rollouts succeed as often as the exact pass rate says."""
    task, count = subject.task, min(4, subject.instances)
    if not task.exact:
        raise unittest.SkipTest("its pass rates are sampled")
    batch, rng = subject.batch("train", count), np.random.default_rng(2)
    for stage, policy in enumerate(rates.policies_on_the_way(task, batch, subject.stages, rng)):
        with torch.no_grad():
            log_p = batch.log_pass_rate(policy)
            if tuple(log_p.shape) != (count,) or not bool((log_p <= 1e-5).all()):  # NaN compares false
                raise AssertionError(
                    f"log pass rates of {count} instances must be {count} numbers of at most 0, are {log_p}"
                )
            pass_rates = log_p.exp().double().cpu().numpy()
        successes = np.asarray(batch.sample(policy, subject.rollouts, rng, grad=False).successes)
        row = rates.differs(successes, subject.rollouts, pass_rates)
        if row is not None:
            steps = f"after {4 * stage} steps of imitation" if stage else "before training"
            raise AssertionError(
                f"{_at('train', row)}: {successes[row]} of {subject.rollouts} sampled rollouts succeed, the exact pass "
                f"rate is {pass_rates[row]:.4g}; over {count} instances {successes.mean() / subject.rollouts:.4g} and "
                f"{pass_rates.mean():.4g}, by a policy {steps}"
            )


def log_pass_rates_have_their_gradient(subject: Subject) -> None:
    """The gradient of the exact log pass rate is that of its finite differences."""
    task = subject.task
    if not task.exact:
        raise unittest.SkipTest("its pass rates are sampled")
    batch, rng = subject.batch("train", 3), np.random.default_rng(3)
    policy = policies.smallest(task.contexts, task.num_actions).double()
    parameters = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    direction = [torch.from_numpy(rng.normal(size=tuple(parameter.shape))) for parameter in parameters]

    def shifted(size: float) -> torch.Tensor:
        for parameter, part in zip(parameters, direction, strict=True):
            parameter.add_(part, alpha=size)
        return batch.log_pass_rate(policy).sum()

    with torch.no_grad():
        shifted(0.1)  # away from the start, where last layers are zero
    gradients = torch.autograd.grad(batch.log_pass_rate(policy).sum(), parameters, allow_unused=True)
    slope = sum(float((g * part).sum()) for g, part in zip(gradients, direction, strict=True) if g is not None)
    with torch.no_grad():
        step = 1e-7  # small, since a network of rectified units has kinks
        difference = float(shifted(step) - shifted(-2 * step)) / (2 * step)
    if not abs(slope - difference) <= 1e-3 * max(1.0, abs(difference)):
        raise AssertionError(
            f"along a random direction the gradient is {slope:.6g}, finite differences {difference:.6g}"
        )


def sampled_tasks_refuse_exact_pass_rates(subject: Subject) -> None:
    """A task without exact pass rates refuses them with a ValueError."""
    if subject.task.exact:
        raise unittest.SkipTest("its pass rates are exact")
    try:
        subject.batch("train", 3).log_pass_rate(policies.smallest(subject.task.contexts, subject.task.num_actions))
    except ValueError:
        return
    raise AssertionError("'exact' is False, and log_pass_rate returns something")


def rollouts_can_be_shown(subject: Subject) -> None:
    """A rollout is rendered for human eyes, as printable text or as RGB frames."""
    task = subject.task
    try:
        routes = walking.demonstrations(subject.batch("test", 4))
    except ValueError:
        routes = None
    for index, route in ((0, []), (3, routes[3] if routes else [0])):
        shown = task.render("test", index, route)
        where = f"render('test', {index}, {route})"
        if isinstance(shown, str):
            if not shown.strip() or not all(sign.isprintable() or sign == "\n" for sign in shown):
                raise AssertionError(f"{where} is empty, or no printable text: {shown[:60]!r}")
        elif not all(f.dtype == np.uint8 and f.ndim == 3 and f.shape[2] == 3 for f in map(np.asarray, shown)):
            raise AssertionError(f"{where} must be text or frames [H, W, 3] of uint8")
        elif not len(shown):
            raise AssertionError(f"{where} shows no frame")


# The cheap part, in the order in which one failure explains another; `first_look` runs it before every run.
CHEAP: tuple[Callable[[Subject], None], ...] = (
    fields_are_those_of_a_task,
    batches_fit_the_task,
    instances_are_pure,
    demonstrations_succeed,
    listed_solutions_are_accepted,
    answers_like_the_listed_are_listed,
    sampled_rollouts_succeed_at_the_exact_pass_rate,
)
CHECKS: tuple[Callable[[Subject], None], ...] = (
    *CHEAP,
    accepted_answers_are_listed,
    log_pass_rates_have_their_gradient,
    sampled_tasks_refuse_exact_pass_rates,
    splits_share_no_instance,
    every_rollout_has_an_outcome,
    drawn_instances_make_the_batch_again,
    bad_requests_are_refused,
    rollouts_can_be_shown,
)
