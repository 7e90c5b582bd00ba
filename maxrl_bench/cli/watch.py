"""One rollout of a policy on one instance, for human eyes: a GIF where the task shows frames, text otherwise."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from maxrl_bench.config import RunConfig
from maxrl_bench.rollouts.policies import make_policy
from maxrl_bench.storage.files import write_file
from maxrl_bench.storage.store import Store
from maxrl_bench.tasks import Task, check_index, make_task
from maxrl_bench.training import parameters
from maxrl_bench.training.feasible import check_device
from maxrl_bench.training.loop import precision
from maxrl_bench.training.warm_start import POLICY, base_name, make_base

FRAME_MILLISECONDS = 250
LAST_FRAME_MILLISECONDS = 1500
MOST_ATTEMPTS = 1000
FRAMES, TEXT = (".gif",), (".txt",)


def watch(
    task_name: str,
    split: str = "test",
    index: int = 0,
    policy_state: bytes | None = None,
    out: str | Path | None = None,
    *,
    seed: int = 0,
    attempts: int = 1,
    task_options: Mapping[str, Any] | None = None,
    sizes: Mapping[str, int] | None = None,
) -> str:
    """Roll out a policy on an instance, `attempts` times, and show it; returns the text to print.

    seed: of the rollouts, and of an untrained policy. policy_state: a stored policy (`policy.pt` of a run), or None for
    an untrained one; `task_options` and `sizes` are the run's. `out` is the file for the GIF (by default named after
    the task, in the working directory) or for the text (by default only returned). Raises ValueError on an unknown
    task, split or index, a policy that does not fit, and a file that cannot be written, or whose ending belongs to
    something else than what the task shows.
    """
    if not 0 <= seed < 2**63:
        raise ValueError(f"a seed is 0 or more and below 2^63, got {seed}")
    if not 1 <= attempts <= MOST_ATTEMPTS:
        raise ValueError(f"attempts must be from 1 to {MOST_ATTEMPTS}, got {attempts}")
    task = make_task(task_name, **(task_options or {}))
    index = check_index(index)
    policy = load_policy(task, policy_state, np.random.default_rng(seed), sizes or {})
    batch, rng = task.batch(split, [index]), np.random.default_rng(seed)
    shown, outcomes = [], []
    with torch.no_grad():
        for _ in range(attempts):
            # A single rollout is a path in the tree, so its edges are in the order in which the actions were taken.
            rollouts: Any = batch.sample(policy, 1, rng, grad=False)
            actions = [int(action) for action in rollouts.action]
            shown.append(task.render(split, index, actions))
            outcomes.append(f"{'success' if rollouts.successes[0] else 'failure'} after {len(actions)} actions")
        p = float(batch.log_pass_rate(policy).exp()[0]) if task.exact else None
    succeeded = sum(outcome.startswith("success") for outcome in outcomes)
    ending = outcomes[0] if attempts == 1 else f"{succeeded} of {attempts} attempts succeed"
    summary = f"{task.name}, {split} instance {index}: {ending}"
    summary += "" if p is None else f"; pass rate on this instance {p:.3g}"
    if attempts > 1 and isinstance(shown[0], str):
        shown = [
            f"{text}\nattempt {i}: {outcome}\n"
            for i, (text, outcome) in enumerate(zip(shown, outcomes, strict=True), 1)
        ]
    return _show(task.name, f"{split}-{index}", shown, summary, Path(out) if out is not None else None)


def load_policy(task: Task, state: bytes | None, rng: np.random.Generator, sizes: Mapping[str, int]) -> torch.nn.Module:
    """The policy that is stored as `state`, or an untrained one. Raises ValueError if it does not fit the task."""
    policy = make_policy(task.contexts, task.num_actions, rng, **sizes)
    if state is not None:
        try:
            stored = parameters.unpack(state)
            # A policy trained in float64 acts in float64.
            if any(isinstance(value, torch.Tensor) and value.dtype == torch.float64 for value in stored.values()):
                policy.double()
            parameters.load_policy(policy, stored)
        except ValueError as error:
            reason = f"the stored policy does not fit task '{task.name}' and its network's sizes: {error}"
            raise ValueError(reason) from error
    return policy


def base_state(config: RunConfig, store: Store) -> bytes:
    """The base policy that a run started from, as `policy_state`: out of the store, or else made again.

    The store is only read: nothing in it is written, locked or removed.
    """
    stored = store.read(base_name(config), POLICY, any_code=True) if config.warm_start_steps else None
    if stored is None:
        check_device(config.device, config.dtype)
        with precision(config):
            stored = parameters.pack(make_base(config, make_task(**config.task)).state_dict())
    return stored


def _show(task: str, which: str, shown: Sequence[Any], summary: str, out: Path | None) -> str:
    """shown: of each attempt its text, or its frames."""
    text = "\n".join([*shown, summary]) if isinstance(shown[0], str) else ""
    if text and out is None:
        return text
    kind, endings = ("text", TEXT) if text else ("a GIF", FRAMES)
    # A task's name may contain options, with characters that file names must not have.
    out = out or Path(f"{re.sub(r'[^A-Za-z0-9_.=-]+', '-', task).strip('-')}-{which}.gif")
    if out.suffix.lower() not in endings:
        raise ValueError(f"task '{task}' is shown as {kind}: the file must end in {endings[0]}, got '{out}'")
    try:
        write_file(out, f"{text}\n".encode() if text else _gif(shown))
    except OSError as error:
        raise ValueError(f"{out} cannot be written: {error.strerror or error}") from None
    return f"{summary}\n{out}"


def _gif(attempts: Sequence[Sequence[np.ndarray]]) -> bytes:
    """Frames of attempts, one after the other, with a rest at the end of each."""
    first, *rest = (Image.fromarray(frame) for frames in attempts for frame in frames)
    durations = [ms for f in attempts for ms in [FRAME_MILLISECONDS] * (len(f) - 1) + [LAST_FRAME_MILLISECONDS]]
    buffer = io.BytesIO()
    first.save(buffer, format="GIF", save_all=True, append_images=rest, duration=durations, loop=0)
    return buffer.getvalue()
