"""examples/one_step.py: it runs, its two gradients agree, it notices wrong weights, and README quotes it."""

from __future__ import annotations

import runpy
from types import SimpleNamespace

import numpy as np
import pytest
from documents import ROOT, blocks

import maxrl_bench

EXAMPLE = ROOT / "examples" / "one_step.py"


def test_textbook_and_engine_agree(capsys: pytest.CaptureFixture[str]) -> None:
    values = runpy.run_path(str(EXAMPLE))
    pairs = list(zip(values["textbook"], values["engine"], strict=True))
    assert max(float(ours.abs().max()) for _, ours in pairs) > 0.01
    for theirs, ours in pairs:
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=0, atol=1e-12)
    # Instances with and without success, so that the weights of both kinds matter.
    assert 0 in values["successes"]
    assert (values["successes"] > 1).any()
    assert "largest difference" in capsys.readouterr().out


def test_wrong_advantages_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = maxrl_bench.advantages
    monkeypatch.setattr(maxrl_bench, "advantages", lambda rewards, _: right(rewards, "grpo"))
    with pytest.raises(SystemExit, match="differ"):
        runpy.run_path(str(EXAMPLE))


def test_wrong_weights_of_the_engine_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = maxrl_bench.bind

    def slightly_wrong(name: str, num_rollouts: int) -> SimpleNamespace:
        def weights(successes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            on_success, on_failure = right(name, num_rollouts).weights(successes)
            return on_success * (1 + 1e-9), on_failure

        return SimpleNamespace(weights=weights)

    monkeypatch.setattr(maxrl_bench, "bind", slightly_wrong)
    with pytest.raises(SystemExit, match="differ"):
        runpy.run_path(str(EXAMPLE))


def test_the_first_python_of_the_readme_is_the_examples() -> None:
    quoted = next(block for block in blocks("README.md") if block.language == "python")
    assert quoted.text in EXAMPLE.read_text(encoding="utf-8")
    assert sum(bool(line) for line in quoted.text.splitlines()) == 8
