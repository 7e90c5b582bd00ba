"""What a task and an objective promise, as checks that anyone can run: `maxrl-bench check`, or under pytest.

    from maxrl_bench.testing import objective_checks, task_checks

    MINE = task_checks.Subject(MyTask)  # or lambda: make_task("my-task", size=9)

    @pytest.mark.parametrize("check", task_checks.CHECKS)
    def test_my_task(check):
        check(MINE)

    @pytest.mark.parametrize("check", objective_checks.CHECKS)
    def test_my_objective(check):
        check(my_row)  # a Formula, installed or not

A check returns nothing where what its docstring says holds; it raises AssertionError with a counter-example where it
does not, and unittest.SkipTest, with the reason, where it does not apply. `results` makes a table of many; `first_look`
is the cheap part that looks at the task of every run; `rates` compares samples with exact pass rates, and says how rare
its false alarms are; `walking` walks a batch by hand.

Comes in: a task or a row of weights. Goes out: what holds and what fails, with the counter-example.
"""

__all__ = ["first_look", "objective_checks", "rates", "results", "task_checks", "walking"]
