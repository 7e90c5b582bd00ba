"""Files of counts: what is read, and what is refused in one line that names the place."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from maxrl_bench.advice.counts import from_frame, read_counts

CSV = "prompt,successes,attempts\na,0,8\nb,3,4\nc,2,2\n"
LINES = """{"successes": 0, "attempts": 8}

{"attempts": 4, "successes": 3, "text": "x"}
{"successes": 2.0, "attempts": 2}
"""


def write(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize(
    ("name", "text"), [("a.csv", CSV), ("a.CSV", "\ufeff" + CSV), ("a.jsonl", LINES), ("a.ndjson", LINES)]
)
def test_counts_are_read(name: str, text: str, tmp_path: Path) -> None:
    counts = read_counts(write(tmp_path, name, text))
    assert counts.successes.tolist() == [0, 3, 2]
    assert counts.attempts.tolist() == [8, 4, 2]


def test_parquet_is_read_or_its_remedy_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "a.parquet", b"PAR1 no more")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pyarrow", None)
        with pytest.raises(ValueError, match=re.escape("Parquet needs pyarrow: pip install 'maxrl-bench[parquet]'")):
            read_counts(path)
    pytest.importorskip("pyarrow", reason="the optional extra 'parquet' is not installed")
    with pytest.raises(ValueError, match=r"a.parquet: is not Parquet: "):
        read_counts(path)
    pd.DataFrame({"successes": [1, 0], "attempts": [2, 3], "prompt": ["x", "y"]}).to_parquet(path)
    assert read_counts(path).successes.tolist() == [1, 0]
    with pytest.raises(ValueError, match=r"has no column 'n' \(it has: 'successes', 'attempts', 'prompt'\)"):
        read_counts(path, ("successes", "n"))


def test_rows_of_one_prompt_are_added_up_and_columns_may_have_other_names(tmp_path: Path) -> None:
    rows = "n,prompt,right\n4,x,1\n2,y,0\n4,x,4\n"
    counts = read_counts(write(tmp_path, "a.csv", rows), ("right", "n"))
    assert counts.successes.tolist() == [5, 0]
    assert counts.attempts.tolist() == [8, 2]
    numbers = read_counts(write(tmp_path, "b.csv", "prompt,successes,attempts\n01,1,2\n1,1,2\n"))
    assert numbers.attempts.tolist() == [2, 2]  # texts, not numbers: 01 is another prompt than 1


WRONG: dict[str, tuple[str, str, str]] = {
    "suffix": ("a.txt", CSV, r"a.txt: counts cannot be read from '.txt'; accepted: .csv, .parquet, .jsonl, .ndjson"),
    "json": ("a.json", LINES, r"counts cannot be read from '.json'"),
    "no file": ("none.csv", "", r"none.csv: no such file"),
    "empty": ("a.csv", "", r"a.csv is empty"),
    "head alone": ("a.csv", "successes,attempts\n", r"a.csv holds no prompts"),
    "no lines": ("a.jsonl", "\n\n", r"a.jsonl holds no prompts"),
    "two in a line": ("a.jsonl", LINES + '{"successes": 1}, {"successes": 2}', r"line 5: is not JSON: Extra"),
    "column": ("a.csv", "correct,attempts\n1,2\n", r"no column 'successes' \(it has: 'correct', 'attempts'\); --col"),
    "above": ("a.csv", "successes,attempts\n1,2\n5,4\n", r"a.csv: row 2 has 5 successes in 4 attempts"),
    "negative": ("a.csv", "successes,attempts\n-1,2\n", r"column 'successes': row 1 must not be negative, got -1"),
    "no attempt": ("a.csv", "successes,attempts\n0,0\n", r"column 'attempts': row 1 must be 1 or more, got 0"),
    "nan": ("a.csv", "successes,attempts\n1,2\n,4\n", r"column 'successes': row 2 has no number"),
    "half": ("a.csv", "successes,attempts\n1,2\n1.5,4\n", r"column 'successes': row 2 must be a whole number, got 1.5"),
    "text": ("a.csv", "successes,attempts\n1,2\nfew,4\n", r"'successes': row 2 must be a whole number, got 'few'"),
    "infinite": ("a.csv", "successes,attempts\n1,inf\n", r"column 'attempts': row 1 must be a whole number, got inf"),
    "huge": ("a.csv", "successes,attempts\n1,1e18\n", r"column 'attempts': row 1 must be a whole number, got 1e\+18"),
    "many": ("a.csv", "successes,attempts\n1,2000000\n", r"attempts: row 1 must be at most 1048576, got 2000000"),
    "bool": ("a.jsonl", '{"successes": true, "attempts": 2}', r"row 1 must be a whole number, got True"),
    "null": ("a.jsonl", '{"successes": null, "attempts": 2}', r"column 'successes': row 1 has no number"),
    "bad line": ("a.jsonl", LINES + "{", r"a.jsonl: line 5: is not JSON"),
    "no object": ("a.jsonl", LINES + "[1, 2]", r"a.jsonl: line 5 must be an object such as .*, got \[1, 2\]"),
    "missing key": ("a.jsonl", LINES + '{"successes": 1}', r"a.jsonl: line 5 has no 'attempts'"),
    "not text": ("a.csv", "successes,attempts\n\xff", r"a.csv"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_file_of_counts_is_one_line(case: str, tmp_path: Path) -> None:
    name, text, message = WRONG[case]
    path = tmp_path / name if case == "no file" else write(tmp_path, name, text.encode("latin-1"))
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        read_counts(path)
    assert "\n" not in str(caught.value)


def test_columns_are_two_names() -> None:
    table = pd.DataFrame({"successes": [1], "attempts": [2]})
    assert from_frame(table).attempts.dtype == np.int64
    for wrong in (["successes"], "ab", [1, 2]):
        with pytest.raises(ValueError, match="columns are two names"):
            from_frame(table, wrong)  # type: ignore[arg-type]
