"""The file of tuned rates is edited, not rewritten: what it held otherwise stays, to the letter."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maxrl_bench.analysis.rates_file import merge

OLD = """# Mine, chosen with care.

["maze-9"]  # small mazes
grpo = 0.5  # a guess
"maxrl_order(order=8)" = 1e-3 # = the paper's
# rloo is hopeless

[digits]
ml=0.25
"""


def test_comments_order_and_other_entries_stay() -> None:
    new = merge(
        OLD, {"maze-9": {"grpo": 0.000316227766, "maxrl_order(order=8)": 2e-05, "rloo": 0.1}, "a.b": {"ml": 1.0}}, "f"
    )
    assert new == (
        OLD.replace("grpo = 0.5", "grpo = 0.000316227766")
        .replace("= 1e-3", "= 2e-05")
        .replace("paper's\n", "paper's\nrloo = 0.1\n")
        + '\n["a.b"]\nml = 1.0\n'
    )
    assert merge(new, {"digits": {"ml": 0.25}}, "f") == new.replace("ml=0.25", "ml= 0.25")
    windows = OLD.replace("\n", "\r\n")
    assert merge(windows, {"digits": {"ml": 0.5}}, "f") == windows.replace("ml=0.25", "ml= 0.5")


NAMES = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=12).filter(str.isprintable)
RATES = st.dictionaries(
    NAMES, st.dictionaries(NAMES, st.floats(1e-300, 1e300), min_size=1, max_size=3), min_size=1, max_size=3
)


@given(RATES, RATES)
@settings(max_examples=60, deadline=None)
def test_any_names_and_rates_are_read_as_they_were_written(
    first: dict[str, dict[str, float]], second: dict[str, dict[str, float]]
) -> None:
    once = merge("", first, "f")
    assert tomllib.loads(once) == first
    expected = {task: {**first.get(task, {}), **second.get(task, {})} for task in {**first, **second}}
    assert tomllib.loads(merge(once, second, "f")) == expected


@pytest.mark.parametrize(
    "odd",
    ["digits = { ml = 0.5 }\n", "digits.ml = 0.5\n", 'digits = "x"\n', "[digits]\nml = '''\n0.5'''\n", "[digits\n"],
)
def test_what_cannot_be_edited_is_refused(odd: str) -> None:
    with pytest.raises(ValueError, match=r"^rates\.toml: ") as refused:
        merge(odd, {"digits": {"ml": 0.25}}, "rates.toml")
    assert len(str(refused.value).splitlines()) == 1
