"""Arithmetic, judged by Python's own evaluation of the prompt."""

import re

import numpy as np
import pytest

from maxrl_bench.envs.arithmetic import TOKENS
from maxrl_bench.rollouts.tokens import RUNNING, SUCCEEDED, TokenBatch
from maxrl_bench.tasks import SPLITS, TASKS, make_task

NAMES = [name for name, entry in TASKS.items() if entry.family == "arithmetic"]


def prompt_of(batch: TokenBatch, row: int) -> str:
    return "".join(TOKENS[token] for token in batch.prompts[row].tolist())


def value_of(prompt: str, modulus: int) -> int:
    """What Python makes of the written expression."""
    written = re.sub(r"\b0+(?=\d)", "", prompt.removesuffix("="))
    assert re.fullmatch(r"[\d+*-]+", written)
    value = int(eval(written))
    return value % modulus if modulus else value


def read(text: str) -> int:
    """A written answer: digits, last one first, then a sign where answers are signed."""
    sign = -1 if text.endswith("-") else 1
    return sign * int(text.rstrip("+-")[::-1])


def outcome(batch: TokenBatch, row: int, actions: list[int]) -> int:
    states = batch.verifier.start()[row : row + 1]
    result = RUNNING
    for action in actions:
        if result != RUNNING:
            return int(result)
        states, results = batch.verifier.advance(states, np.array([action]))
        result = int(results[0])
    return result


def text(batch: TokenBatch, actions: list[int]) -> str:
    assert batch.actions is not None
    return "".join(TOKENS[int(batch.actions[action])] for action in actions)


@pytest.mark.parametrize("name", NAMES)
def test_exactly_the_value_is_accepted(name: str) -> None:
    batch = make_task(name).batch("test", range(60))
    assert batch.demonstrations is not None
    for row, answer in enumerate(batch.demonstrations.tolist()):
        given = text(batch, answer).split(">")[-1]
        assert read(given) == value_of(prompt_of(batch, row), TASKS[name].options.get("modulus", 0))
        assert outcome(batch, row, answer) == SUCCEEDED
        first = len(answer) - len(given)
        for place in range(first, len(answer)):
            for action in range(10):
                if action != answer[place]:
                    assert outcome(batch, row, [*answer[:place], action, *answer[place + 1 :]]) != SUCCEEDED
        assert outcome(batch, row, answer[:-1]) == RUNNING


def test_signs_are_right_and_zero_has_one_spelling() -> None:
    batch = make_task("subtract-2").batch("train", range(1500))
    texts = [text(batch, answer) for answer in batch.demonstrations.tolist()]  # type: ignore[union-attr]
    assert "00+" in texts
    assert "00-" not in texts
    assert {t[-1] for t in texts} == {"+", "-"}


def test_the_scratchpad_is_free_and_the_answer_is_not() -> None:
    task = make_task("multiply-2-scratchpad")
    batch = task.batch("train", range(20))
    assert not task.exact
    assert batch.solutions is None
    marker = task.num_actions - 1
    rng = np.random.default_rng(0)
    for row, demonstration in enumerate(batch.demonstrations.tolist()):  # type: ignore[union-attr]
        answer = demonstration[demonstration.index(marker) + 1 :]
        for length in range(5):
            latent = rng.integers(0, marker, length).tolist()
            assert outcome(batch, row, [*latent, marker, *answer]) == SUCCEEDED
            assert outcome(batch, row, [*latent, *answer]) == RUNNING
        wrong = [*answer[:-1], (answer[-1] + 1) % 10]
        assert outcome(batch, row, [marker, *wrong]) not in (SUCCEEDED, RUNNING)


def test_the_working_of_a_product_is_its_partial_product() -> None:
    batch = make_task("multiply-2-scratchpad").batch("train", range(30))
    for row, demonstration in enumerate(batch.demonstrations.tolist()):  # type: ignore[union-attr]
        left, right = prompt_of(batch, row).removesuffix("=").split("*")
        working, answer = text(batch, demonstration).split(">")
        assert read(working) == int(left) * int(right[-1])
        assert read(answer) == int(left) * int(right)


def test_scratchpad_and_direct_answers_ask_the_same_questions() -> None:
    direct, free = (make_task(name).batch("test", range(30)) for name in ("multiply-2", "multiply-2-scratchpad"))
    assert direct.prompts.tolist() == free.prompts.tolist()


def test_a_swapped_sum_is_in_the_same_split() -> None:
    seen = {}
    for split in SPLITS:
        batch = make_task("multiply-2").batch(split, range(1500))
        seen[split] = {
            tuple(sorted(prompt_of(batch, row).removesuffix("=").split("*"))) for row in range(batch.num_instances)
        }
    assert not seen["train"] & seen["test"]
    assert not seen["train"] & seen["validation"]
    assert not seen["validation"] & seen["test"]


def test_operands_fill_their_range() -> None:
    batch = make_task("add-2").batch("train", range(4000))
    left = batch.prompts[:, :2].numpy() @ np.array([10, 1])
    assert (left.min(), left.max()) == (0, 99)
    # The mean of 4,000 uniform numbers, five standard deviations: a false alarm in two million.
    assert abs(left.mean() - 49.5) < 5 * 28.9 / 4000**0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"operation": "plus"}, r"unknown 'plus'; accepted: \+, -, \*, mixed"),
        ({"digits": 0}, "'digits' must be a whole number from 1 to 9, got 0"),
        ({"digits": True}, "'digits' must be a whole number"),
        ({"digits": 2.0}, "'digits' must be a whole number"),
        ({"operands": 1}, "'operands' must be a whole number from 2 to 8, got 1"),
        ({"operation": "*", "digits": 7, "operands": 3}, "answers of 21 digits under '\\*'; at most 18 are accepted"),
        ({"modulus": 1}, "at least 2"),
        ({"modulus": -3}, "'modulus' must be a whole number"),
        ({"scratchpad": 1}, "'scratchpad' must be true or false, got 1"),
        ({"digits": 1, "scratchpad": True}, "nothing to work out"),
    ],
)
def test_bad_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        make_task("add-2", **options)
    assert "\n" not in str(caught.value)


def test_the_widest_answers_accepted_are_right() -> None:
    batch = make_task("add-2", operation="*", digits=9, operands=2).batch("train", range(20))
    for row, answer in enumerate(batch.demonstrations.tolist()):  # type: ignore[union-attr]
        assert read(text(batch, answer)) == value_of(prompt_of(batch, row), 0)
        assert outcome(batch, row, answer) == SUCCEEDED
