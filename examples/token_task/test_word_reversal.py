"""What `maxrl-bench check task word-reversal` checks, under pytest, and what only this task promises."""

import pytest
from word_reversal import WordReversal

from maxrl_bench.testing import task_checks

SUBJECT = task_checks.Subject(WordReversal)


@pytest.mark.parametrize("check", task_checks.CHECKS)
def test_it_is_a_task(check):
    check(SUBJECT)


def test_a_demonstration_is_the_word_backwards():
    batch = WordReversal(size=4).batch("test", [0])
    assert batch.prompts.tolist() == [[*batch.demonstrations[0].tolist()[::-1], WordReversal.num_actions]]
