"""The page on theory and what it links to say what the code computes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from documents import ROOT, read

from maxrl_bench import bind
from maxrl_bench.objectives.alike import excess_noise, weighed
from maxrl_bench.report import theory


def test_the_page_has_the_table_that_the_code_makes() -> None:
    assert theory.table() in read("docs/theory.md"), f"docs/theory.md should have:\n{theory.table()}"


def data(path: Path) -> dict[str, Any]:
    (text,) = re.findall(r"^const data = (.*);$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return dict(json.loads(text))


def test_the_sliders_show_the_codes_numbers(tmp_path: Path) -> None:
    path = theory.page(tmp_path)
    shown = data(path)
    assert path.stat().st_size < 150_000
    assert "http" not in path.read_text(encoding="utf-8")
    assert [row["name"] for row in shown["rows"]] == [one.name for one in weighed(4)]
    p = np.array(shown["rates"])
    j = [row["name"] for row in shown["rows"]].index("f_grpo")
    for n, at in zip(shown["sizes"], shown["at"], strict=True):
        np.testing.assert_allclose(at[j]["weight"], bind("f_grpo", n).population_weight(theory.rates()), rtol=6e-3)
        assert at[j]["excess"][7] == pytest.approx(excess_noise(bind("f_grpo", n), float(theory.rates()[7])), rel=6e-3)
    assert (np.diff(p) > 0).all()


def test_what_is_committed_is_what_is_drawn(tmp_path: Path) -> None:
    """Numbers, not bytes: the last digit may differ from machine to machine."""
    drawn, kept = data(theory.page(tmp_path)), data(ROOT / "plots" / "theory" / "theory.html")
    assert drawn["rows"] == kept["rows"], "`maxrl-bench plot` draws it anew"
    for ours, theirs in zip(drawn["at"], kept["at"], strict=True):
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(one["weight"], other["weight"], rtol=0.02)


def test_the_figure_has_every_row(monkeypatch: pytest.MonkeyPatch) -> None:
    drawings: list[Any] = []
    monkeypatch.setattr(theory, "save", lambda drawing, path: drawings.append(drawing) or path)
    theory.rows(Path())
    axes = drawings[0].figure.axes
    assert [text.get_text() for text in axes[0].get_yticklabels()] == [one.label for one in weighed(theory.ROLLOUTS)]
    weight = axes[0].collections[0].get_array().reshape(len(weighed(16)), -1)
    np.testing.assert_allclose(weight[0], 1)  # REINFORCE
