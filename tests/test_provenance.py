"""The fingerprint of the code: what changes it, and what it covers."""

from pathlib import Path

import pytest

from maxrl_bench import provenance
from maxrl_bench.provenance import code_fingerprint


def test_the_fingerprint_ignores_comments_and_sees_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fingerprint(trainer: str, helper: str) -> str:
        (tmp_path / "trainer_x.py").write_text(trainer)
        (tmp_path / "helper_x.py").write_text(helper)
        provenance._fingerprint.cache_clear()
        return provenance._fingerprint("trainer_x", "helper_x")

    monkeypatch.syspath_prepend(tmp_path)
    first = fingerprint("import helper_x\nx = 1", "def f():\n    return 1")
    assert fingerprint('"""Doc."""\nimport helper_x  # why\n\nx = 1', 'def f():\n    """Doc."""\n    return 1') == first
    assert fingerprint("import helper_x\nx = 2", "def f():\n    return 1") != first
    assert fingerprint("import helper_x\nx = 1", "def f():\n    return 2") != first


def test_the_fingerprint_of_training_covers_what_can_change_a_number_and_nothing_else() -> None:
    counted: list[str] = []
    provenance._fingerprint.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(provenance.importlib.util, "find_spec", _noting(provenance.importlib.util.find_spec, counted))
        code_fingerprint("fourrooms", "maxrl_bench.train:train")
    assert {"maxrl_bench.train", "maxrl_bench.objectives", "maxrl_bench.rollouts", "envs.navigation"} <= set(counted)
    assert not {"maxrl_bench.sweep", "maxrl_bench.figures", "maxrl_bench.results", "envs.maze"} & set(counted)


def _noting(function, names: list[str]):
    def noting(name: str):
        names.append(name)
        return function(name)

    return noting
