"""One rollout of a policy on one instance, for human eyes: a GIF where the task shows frames, text otherwise."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from maxrl_bench.config import RunConfig
from maxrl_bench.policies import make_policy
from maxrl_bench.store import Store
from maxrl_bench.tasks import Task, make_task
from maxrl_bench.train import base_policy

FRAME_MILLISECONDS = 250
LAST_FRAME_MILLISECONDS = 1500


def watch(
    task_name: str,
    split: str = "test",
    index: int = 0,
    policy_state: bytes | None = None,
    out: str | Path | None = None,
    *,
    seed: int = 0,
    task_options: Mapping[str, Any] | None = None,
    sizes: Mapping[str, int] | None = None,
) -> str:
    """Roll out a policy once on an instance and show it; returns the text to print.

    policy_state: a stored policy (`policy.pt` of a run), or None for an untrained one; `task_options` and `sizes` are
    the run's. `out` is the file for the GIF (by default named after the task, in the working directory) or for the text
    (by default only returned). Raises ValueError on an unknown task, split or index, or a policy that does not fit.
    """
    task = make_task(task_name, **(task_options or {}))
    policy = make_policy(task.contexts, task.num_actions, np.random.default_rng(seed), **(sizes or {}))
    if policy_state is not None:
        try:
            policy.load_state_dict(torch.load(io.BytesIO(policy_state), map_location="cpu", weights_only=True))
        except RuntimeError as error:
            raise ValueError(f"the stored policy does not fit task '{task.name}' and its network's sizes") from error
    batch = task.batch(split, [index])
    with torch.no_grad():
        # A single rollout is a path: its actions come in the order in which they were taken.
        rollouts: Any = batch.sample(policy, 1, np.random.default_rng(seed), grad=False)
        actions = [int(action) for action in rollouts.action]
        ending = f"{'success' if rollouts.successes[0] else 'failure'} after {len(actions)} actions"
        if task.exact:
            ending += f"; pass rate on this instance {float(batch.log_pass_rate(policy).exp()[0]):.3g}"
    summary = f"{task.name}, {split} instance {index}: {ending}"
    return _show(task, split, index, actions, summary, Path(out) if out is not None else None)


class _AsFound(Store):
    """A store that is only looked at: blobs are read whatever code wrote them, and none is written."""

    def read(self, run: str, name: str, *, any_code: bool = True) -> bytes | None:
        return super().read(run, name, any_code=True)

    def write(self, run: str, name: str, data: bytes) -> None:
        pass


def base_state(config: RunConfig, root: str | Path) -> bytes:
    """The base policy that a run started from, as `policy_state`: out of the store at `root`, or else made again."""
    policy = base_policy(config, make_task(**config.task), _AsFound(root))
    buffer = io.BytesIO()
    torch.save(policy.state_dict(), buffer)
    return buffer.getvalue()


def _show(task: Task, split: str, index: int, actions: Sequence[int], summary: str, out: Path | None) -> str:
    shown = task.render(split, index, actions)
    if isinstance(shown, str):
        text = f"{shown}\n{summary}"
        if out is None:
            return text
        _make_room(out)
        out.write_text(text + "\n", encoding="utf-8")
    else:
        out = out or Path(f"{task.name}-{split}-{index}.gif")
        if out.suffix.lower() != ".gif":
            raise ValueError(f"task '{task.name}' is shown as a GIF: the file must end in .gif, got '{out}'")
        _make_room(out)
        first, *rest = (Image.fromarray(frame) for frame in shown)
        durations = [FRAME_MILLISECONDS] * len(rest) + [LAST_FRAME_MILLISECONDS]
        first.save(out, format="GIF", save_all=True, append_images=rest, duration=durations, loop=0)
    return f"{summary}\n{out}"


def _make_room(out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
