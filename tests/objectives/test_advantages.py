"""advantages(): whatever holds zeros and ones gives weights of its kind, and stays as it was; the rest is refused."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from maxrl_bench.objectives.advantages import advantages
from maxrl_bench.objectives.table import OBJECTIVES

REWARDS = np.array([[1.0, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 0, 0]])
ALGORITHM_1 = [[1, -1, -1, 1], [0] * 4, [0] * 4, [-1, 3, -1, -1]]


class Arraylike:
    """As arrays of other libraries are."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return REWARDS.astype(np.float32)


class Tensorlike(torch.Tensor):
    """A tensor of somebody's own class."""


def reward_objects() -> dict[str, tuple[Any, Any]]:
    """What holds REWARDS, and the type that its weights have."""
    tensor, whole, frozen = torch.tensor(REWARDS), REWARDS.astype(int), REWARDS.copy()
    frozen.flags.writeable = False
    leaf = torch.tensor(REWARDS, requires_grad=True)
    masked = np.ma.array(REWARDS, mask=False)
    numpy_types = {np.float64: np.float64, np.float32: np.float32, np.longdouble: np.longdouble, np.float16: np.float32}
    numpy_types |= dict.fromkeys((bool, np.int8, np.uint8, np.int64, np.uint64, object), np.float64)
    torch_types = {torch.float64: torch.float64, torch.float32: torch.float32, torch.float16: torch.float32}
    torch_types |= dict.fromkeys((torch.bfloat16, torch.float8_e4m3fn), torch.float32)
    torch_types |= dict.fromkeys((torch.bool, torch.uint8, torch.int16, torch.int64), torch.float32)
    return {
        **{f"numpy {np.dtype(kind)}": (REWARDS.astype(kind), result) for kind, result in numpy_types.items()},
        **{f"{kind}": (tensor.to(kind), result) for kind, result in torch_types.items()},
        "list": (whole.tolist(), np.float64),
        "list of floats": (REWARDS.tolist(), np.float64),
        "list of bools": (REWARDS.astype(bool).tolist(), np.float64),
        "list of tensors": (list(tensor), np.float64),
        "tuple": (tuple(map(tuple, whole.tolist())), np.float64),
        "mixed list": ([[True, 0, 0.0, 1.0], *whole.tolist()[1:]], np.float64),
        "view": (np.repeat(REWARDS, 2, axis=1)[:, ::2], np.float64),
        "Fortran order": (np.asfortranarray(REWARDS), np.float64),
        "read-only": (frozen, np.float64),
        "big-endian": (REWARDS.astype(">f4"), np.dtype(">f4")),
        "unmasked": (masked, np.float64),
        "frame": (pd.DataFrame(whole), np.float64),
        "array-like": (Arraylike(), np.float64),
        "torch view": (torch.tensor(np.repeat(REWARDS, 2, axis=1))[:, ::2], torch.float64),
        "transposed": (torch.tensor(REWARDS.T.copy()).T, torch.float64),
        "expanded": (torch.tensor(REWARDS)[None].expand(3, 4, 4)[1], torch.float64),
        "shared": (torch.from_numpy(REWARDS.copy()), torch.float64),
        "leaf": (leaf, torch.float64),
        "computed": (leaf * 1, torch.float64),
        "parameter": (torch.nn.Parameter(torch.tensor(REWARDS)), torch.float64),
        "subclass": (torch.tensor(REWARDS).as_subclass(Tensorlike), torch.float64),  # type: ignore[no-untyped-call]
    }


CASES = reward_objects()


def content(rewards: Any) -> list[list[float]]:
    if isinstance(rewards, torch.Tensor):
        return rewards.detach().double().tolist()
    return [[float(value) for value in row] for row in (rewards if isinstance(rewards, list) else np.asarray(rewards))]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["maxrl_eq9", "maxrl_alg1"])
def test_zeros_and_ones_of_any_type_give_weights_and_stay_as_they_were(case: str, name: str) -> None:
    rewards, expected_type = CASES[case]
    before = content(rewards)
    result = advantages(rewards, name)
    assert content(rewards) == before == REWARDS.tolist()
    expected = ALGORITHM_1 if name == "maxrl_alg1" else [[2, 0, 0, 2], [0] * 4, [1] * 4, [0, 4, 0, 0]]
    assert result.tolist() == expected
    assert result.dtype == expected_type
    assert type(result) is (torch.Tensor if isinstance(rewards, torch.Tensor) else np.ndarray)
    if isinstance(rewards, torch.Tensor):
        assert not result.requires_grad
        assert result.data_ptr() != rewards.data_ptr()
        assert result.device == rewards.device
    result[:] = 7  # a copy: what is done to it stays its own
    assert content(rewards) == before


@pytest.mark.filterwarnings("ignore:the matrix subclass")
def test_matrices_are_arrays() -> None:
    result = advantages(np.asmatrix(REWARDS), "maxrl_alg1")
    assert type(result) is np.ndarray
    assert result.tolist() == ALGORITHM_1


@pytest.mark.parametrize("name", [name for name, row in OBJECTIVES.items() if row.count_based])
def test_no_objective_alters_the_rewards(name: str) -> None:
    knobs = {knob: 2 for knob in OBJECTIVES[name].knobs if OBJECTIVES[name].knobs[knob].default is None}
    tensor = torch.tensor([[1.0, 0, 0, 0]], dtype=torch.float64)
    array = tensor.numpy().copy()
    advantages(tensor, name, **knobs)
    advantages(array, name, **knobs)
    assert tensor.tolist() == array.tolist() == [[1, 0, 0, 0]]


def test_gradients_flow_into_log_probabilities_alone() -> None:
    rewards = torch.tensor(REWARDS, requires_grad=True)
    log_probs = torch.zeros(4, 4, dtype=torch.float64, requires_grad=True)
    (advantages(rewards, "maxrl_alg1") * log_probs).mean().backward()
    assert rewards.grad is None
    assert log_probs.grad is not None
    assert (log_probs.grad * 16).tolist() == ALGORITHM_1


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, np.float16], ids=str)
def test_narrow_types_lose_no_weight(kind: Any) -> None:
    """float16 ends at 65,504, and bfloat16 rounds 999 to 1000."""
    for n in (1000, 100_000):
        rewards = np.zeros((1, n))
        rewards[0, 0] = 1
        result = advantages(
            rewards.astype(kind) if kind is np.float16 else torch.tensor(rewards).to(kind), "maxrl_alg1"
        )
        assert result[0, 0].item() == n - 1
        assert result[0, 1].item() == -1


def test_torch_default_type_is_taken_for_integers_unless_it_is_too_narrow() -> None:
    whole = torch.tensor(REWARDS).long()
    try:
        for default, expected in ((torch.float64, torch.float64), (torch.bfloat16, torch.float32)):
            torch.set_default_dtype(default)
            assert advantages(whole, "grpo").dtype == expected
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("make", [lambda x: x.astype(np.float32), lambda x: torch.tensor(x).float()], ids=["np", "pt"])
def test_weights_beyond_the_type_are_refused(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    row = OBJECTIVES["reinforce"]
    huge = type(row)(**{**vars(row), "on_success": lambda K, N: np.full_like(K, 1e300)})
    monkeypatch.setitem(OBJECTIVES, "huge", huge)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"float32 cannot hold the weight 1e\+300; give the rewards as float64"):
        advantages(make(REWARDS), "huge")
    assert advantages(REWARDS, "huge").max() == 1e300


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_advantages_stay_on_their_device() -> None:
    result = advantages(torch.tensor(REWARDS, device="cuda", dtype=torch.float32), "maxrl_alg1")
    assert (result.device.type, result.dtype) == ("cuda", torch.float32)
    assert result.tolist() == ALGORITHM_1


@pytest.mark.parametrize("make", [np.array, torch.tensor, list], ids=["numpy", "torch", "list"])
@pytest.mark.parametrize(
    ("rewards", "message"),
    [
        ([[1.0, 0.5]], "exactly 0 or 1, got 0.5 (1 of 2 are neither)"),
        ([[1.0, -1.0]], "exactly 0 or 1, got -1"),
        ([[1, 2]], "exactly 0 or 1, got 2 (1 of 2 are neither)"),
        ([[1.0, 1 + 1e-12]], "exactly 0 or 1, got 1"),
        ([[1.0, math.nan]], "exactly 0 or 1, got NaN"),
        ([[1.0, math.inf]], "exactly 0 or 1, got inf"),
        ([1.0, 0.0], "shape [instances, rollouts], got [2]"),
        ([], "shape [instances, rollouts], got [0]"),
        ([[[1.0, 0.0]]], "shape [instances, rollouts], got [1, 1, 2]"),
        ([[], []], "the number of rollouts must be an integer of at least 1 and at most 1048576, got 0"),
    ],
)
def test_advantages_refuse(make: Any, rewards: list, message: str) -> None:
    if make is torch.tensor and rewards == [[1.0, 1 + 1e-12]]:
        rewards = np.array(rewards)  # in float64
    with pytest.raises(ValueError, match=re.escape(message)):
        advantages(make(rewards), "grpo")


STRANGE = {
    "nothing": None,
    "number": 1,
    "text": "0101",
    "texts": [["1", "0"]],
    "bytes": b"01",
    "dictionary": {"rewards": REWARDS},
    "set": {1, 0},
    "generator": (row for row in REWARDS),
    "ragged": [[1, 0], [1]],
    "endless": [endless := []],
    "missing value": [[None, 1]],
    "huge integer": [[10**400, 0]],
    "object": np.array([[object(), 1]], dtype=object),
    "complex": REWARDS.astype(complex),
    "dates": np.array([["2020-01-01"]], "M8[D]"),
    "structured": np.zeros((2, 2), [("won", int)]),
    "masked": np.ma.array(REWARDS, mask=REWARDS == 1),
    "masked rows": [np.ma.array([1, 0], mask=[1, 0]), [0, 1]],
    "nullable": pd.DataFrame({"won": pd.array([True, None], dtype="boolean")}),
    "scalar tensor": torch.tensor(1.0),
    "complex tensor": torch.tensor(REWARDS).to(torch.complex64),
    "sparse tensor": torch.tensor(REWARDS).to_sparse(),
    "meta tensor": torch.tensor(REWARDS).to("meta"),
    "tensors with gradient": [torch.ones(2, requires_grad=True), torch.ones(2)],
}
endless.append(endless)


@pytest.mark.parametrize("case", STRANGE)
def test_what_is_no_group_of_rewards_is_refused_in_one_line(case: str) -> None:
    with pytest.raises(ValueError, match="^rewards must ") as caught:
        advantages(STRANGE[case], "maxrl_alg1")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


def test_no_instances_give_no_weights() -> None:
    for rewards in (np.zeros((0, 4)), torch.zeros(0, 4)):
        for name in ("grpo", "raft"):
            assert advantages(rewards, name).shape == (0, 4)


def test_what_rewards_do_not_determine_is_refused() -> None:
    for name in ("grpo_entropy", "differential_smoothing"):
        with pytest.raises(ValueError, match="needs more than rewards"):
            advantages(REWARDS, name)
    with pytest.raises(ValueError, match="needs more than rewards: the batches before"):
        advantages(REWARDS, "curverl")
    with pytest.raises(ValueError, match="no weights"):
        advantages(REWARDS, "ml")
