"""`maxrl-bench bench`: the rollout engine against common practice, in one run on one core.

Times are processor seconds, so that other work on the machine disturbs them little; each is the median of several
repetitions. A step samples rollouts, weighs them, and makes one backward pass and one optimiser step. The learning rate
is 0, so that the policy remains the warm-started one.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import platform
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from maxrl_bench.bench.baselines import textbook_step, trl_seconds, vector_step
from maxrl_bench.bench.parts import parts_of_a_step
from maxrl_bench.bench.table import draw, table
from maxrl_bench.bench.timing import PeakMemory, matrix_peak, median_seconds, seconds
from maxrl_bench.bench.versions import CELLS, OBJECTIVE, QUICK_CELLS, STILL, compare
from maxrl_bench.inputs import read_bytes
from maxrl_bench.objectives.table import bind
from maxrl_bench.rollouts.policies import ObservationPolicy, make_policy
from maxrl_bench.rollouts.tokens import TokenBatch, TokenRollouts
from maxrl_bench.rollouts.transformer import TokenPolicy
from maxrl_bench.storage.files import write_file
from maxrl_bench.tasks import Batch, Task, make_task
from maxrl_bench.training import parameters

GROUPS = (16, 64, 256, 1024, 4096, 65_536, 1_000_000)
QUICK_GROUPS = (16, 64, 4096)
PAPER = {"layers": 4, "width": 256, "mlp": 1024}  # the paper's maze policy, about 3 M parameters
# The speed that the engine has to keep: (claim, name of the measured ratio, bound, True: at least, False: at most).
BARS: tuple[tuple[str, str, float, bool], ...] = (
    *(
        (f"a step of {task} at N = {n} over the previous version's", f"previous_{task}", bound, False)
        for task, n, _, bound in CELLS
    ),
    ("a step at N = 4096 over one at N = 16", "step_4096_over_16", 1.6, False),
    ("a step at N = 65,536 over one at N = 16", "step_65536_over_16", 2.5, False),
    ("MiB for a step with a million rollouts", "million_mib", 256, False),
    ("share of the matrix peak, maze-9 at N = 64", "peak_64", 0.55, True),
    ("rollouts per second over the textbook loop's, N = 64", "textbook_64", 50, True),
    ("rollouts per second over the textbook loop's, N = 1024", "textbook_1024", 500, True),
    ("rollouts per second over TRL's, 3 M parameters, 17x17, N = 16", "trl_16", 15, True),
    ("rollouts per second over TRL's, 3 M parameters, 17x17, N = 1024", "trl_1024", 500, True),
    ("rollouts per second over SyncVectorEnv's, FourRooms, N = 64", "vector_env_64", 200, True),
)


def run_bench(quick: bool = False, out: Path = Path("build/bench"), previous: Path | None = None) -> str:
    """Measure, write bench.json and bench.png into `out`, and return the table.

    `quick`: the main ratios, in about a minute, from a base policy of fewer demonstrations, whose rollouts differ more;
    the textbook loop and SyncVectorEnv, whose time per rollout is constant, get an eighth of the instances.
    `previous`: a checkout of an older version, to be timed in turn with this one. Warm-started base policies are kept
    in `out` and used again. Raises ValueError if `previous` is no such checkout.
    """
    out.mkdir(parents=True, exist_ok=True)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        measured = _measure(quick, out, previous)
    finally:
        torch.set_num_threads(threads)
    (out / "bench.json").write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    draw(measured, out / "bench.png")
    return table(measured) + f"\n\nwritten: {out / 'bench.json'}, {out / 'bench.png'}"


def _measure(quick: bool, out: Path, previous: Path | None) -> dict[str, Any]:
    repeats = 3 if quick else 5
    versions = compare(previous, quick) if previous else []  # first, since the path may be wrong
    peak = matrix_peak()
    measured: dict[str, Any] = {
        "torch": torch.__version__, "processor": platform.processor() or platform.machine(), "quick": quick,
        "objective": OBJECTIVE, "peak_gflops": peak / 1e9, "ratios": {}, "versions": versions,
    }  # fmt: skip
    maze = make_task("maze-9")
    policy = base_policy(maze, out, steps=60, demonstrations=8) if quick else base_policy(maze, out, steps=300)
    batch = maze.batch("test", range(16))
    groups = QUICK_GROUPS if quick else GROUPS
    engine = {n: engine_row(policy, batch, n, repeats, peak) for n in groups}
    measured["engine"] = list(engine.values())
    ratios = measured["ratios"]
    for row in versions:
        ratios[f"previous_{row['task']}"] = row["step"][1] / row["step"][0]
    # Not judged on the quick bench's base policy, from which larger N reads many more contexts.
    for n in () if quick else (4096, 65_536):
        ratios[f"step_{n}_over_16"] = engine[n]["seconds"] / engine[16]["seconds"]
    ratios["peak_64"] = engine[64]["peak_share"]
    if 1_000_000 in engine:
        ratios["million_mib"] = engine[1_000_000]["peak_mib"]
    measured["parts"] = {
        task: parts_of_a_step(
            {
                "task": task, "objective": OBJECTIVE, "num_rollouts": n, "learning_rate": STILL,
                "warm_start_steps": steps,
            },
            3 if quick else 10,
        )
        for task, n, steps, _ in (QUICK_CELLS if quick else CELLS)
    }  # fmt: skip
    measured["textbook"] = [
        textbook_row(policy, maze, n, repeats=1 if quick else 3, most=128 if quick else 1024)
        for n in ((64,) if quick else (16, 64, 1024))
    ]
    for row in measured["textbook"]:
        ratios[f"textbook_{row['rollouts']}"] = engine[row["rollouts"]]["per_second"] / row["per_second"]
    measured["navigation"] = navigation(
        repeats, vector_groups=(64,) if quick else (4, 64), vector_levels=2 if quick else 16
    )
    for row in measured["navigation"]["vector_env"]:
        mine = measured["navigation"]["engine"][str(row["rollouts"])]
        ratios[f"vector_env_{row['rollouts']}"] = mine["per_second"] / row["per_second"]
    if not quick:
        measured["trl"] = against_trl(out, peak) if _has_trl() else None
        if measured["trl"]:
            ratios |= measured["trl"]["ratios"]
    measured["bars"] = [
        {"claim": claim, "measured": ratios[key], "bar": bar, "at_least": at_least,
         "met": ratios[key] >= bar if at_least else ratios[key] <= bar}
        for claim, key, bar, at_least in BARS if key in ratios
    ]  # fmt: skip
    return measured


def base_policy(task: Task, out: Path, steps: int, demonstrations: int = 32, **size: int) -> TokenPolicy:
    """A policy after `steps` supervised steps on so many demonstrations each; kept in `out` for the next call."""
    policy = make_policy(task.contexts, task.num_actions, np.random.default_rng(0), **size)
    assert isinstance(policy, TokenPolicy)
    path = out / f"base-{task.name}-{steps}-{demonstrations}-{policy.embedding.embedding_dim}.pt"
    with contextlib.suppress(ValueError, OSError):  # absent, or not such a policy: made again
        parameters.load_policy(policy, parameters.unpack(read_bytes(path)))
        return policy
    optimizer = torch.optim.Adam(policy.parameters(), 1e-3)
    for step in range(steps):
        loss = task.batch("train", range(demonstrations * step, demonstrations * (step + 1))).demonstration_loss(policy)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
    write_file(path, parameters.pack(policy.state_dict()))
    return policy


def _weights(num_rollouts: int) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    return bind(OBJECTIVE, num_rollouts).weights


def engine_step(policy: torch.nn.Module, batch: Batch, num_rollouts: int) -> Callable[[int], Any]:
    """One step of the engine, as a function of a seed; returns its rollouts."""
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.0)
    weights = _weights(num_rollouts)

    def step(seed: int) -> Any:
        optimizer.zero_grad()
        rollouts = batch.sample(policy, num_rollouts, np.random.default_rng(seed))
        gain = rollouts.surrogate(*weights(rollouts.successes))
        if gain.requires_grad:
            (-gain).backward()
        optimizer.step()
        return rollouts

    return step


def engine_row(policy: torch.nn.Module, batch: Batch, num_rollouts: int, repeats: int, peak: float) -> dict[str, Any]:
    """Time, contexts, memory and arithmetic of the engine's step at one number of rollouts."""
    step = engine_step(policy, batch, num_rollouts)
    time_taken = median_seconds(step, repeats)
    with PeakMemory() as memory:
        rollouts = step(1)
    with FlopCounterMode(display=False) as counter:
        step(1)
    flops = counter.get_total_flops() + (attention_flops(rollouts) if isinstance(rollouts, TokenRollouts) else 0)
    total = num_rollouts * batch.num_instances
    return {
        "rollouts": num_rollouts, "seconds": time_taken, "per_second": total / time_taken,
        "contexts_evaluated": rollouts.contexts_evaluated, "contexts_named": rollouts.contexts_named,
        "peak_mib": memory.mib, "gflop": flops / 1e9, "peak_share": flops / time_taken / peak,
    }  # fmt: skip


def attention_flops(rollouts: TokenRollouts) -> float:
    """Floating-point operations of fused attention and its gradient, which torch's counter does not count on a CPU.

    14 d for each pair of a query and a key that the mask allows, for each head and layer.
    """
    policy, tree = rollouts.policy, rollouts.tree
    prompts, length = rollouts.batch.distinct[0].shape
    below = tree.depth > 0
    pairs = prompts * length * (length + 1) / 2 + float((length + tree.depth[below]).sum())
    return 14 * len(policy.layers) * pairs * policy.heads * policy.head_width


def textbook_row(policy: TokenPolicy, task: Task, num_rollouts: int, repeats: int, most: int) -> dict[str, Any]:
    """Times of the textbook loop, on up to 16 instances at most `most` rollouts; its time per rollout is constant."""
    instances = max(1, min(16, most // num_rollouts))
    batch = task.batch("test", range(instances))
    assert isinstance(batch, TokenBatch)
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.0)

    def step(seed: int) -> None:
        optimizer.zero_grad()
        textbook_step(policy, batch, num_rollouts, _weights(num_rollouts), np.random.default_rng(seed))
        optimizer.step()

    taken = statistics.median(seconds(partial(step, seed)) for seed in range(repeats))
    return {
        "rollouts": num_rollouts, "instances": instances, "seconds": taken,
        "per_second": num_rollouts * instances / taken,
    }  # fmt: skip


def navigation(repeats: int, vector_groups: tuple[int, ...], vector_levels: int) -> dict[str, Any]:
    """Times on FourRooms: the engine on 16 levels, MiniGrid in SyncVectorEnv with the same network and horizon."""
    task = make_task("fourrooms")
    policy = make_policy(task.contexts, task.num_actions, np.random.default_rng(0))
    assert isinstance(policy, ObservationPolicy)
    batch = task.batch("test", range(16))
    rows = {str(n): engine_row(policy, batch, n, repeats, 1.0) for n in (*vector_groups, 64, 1024)}
    vector = []
    for n in vector_groups:
        step = vector_step(policy, "MiniGrid-FourRooms-v0", vector_levels, n, task.horizon, _weights(n))
        taken = seconds(step)
        vector.append(
            {"rollouts": n, "levels": vector_levels, "seconds": taken, "per_second": vector_levels * n / taken}
        )
    return {"engine": rows, "vector_env": vector}


def _has_trl() -> bool:
    return all(importlib.util.find_spec(name) for name in ("trl", "transformers", "datasets"))


def against_trl(out: Path, peak: float) -> dict[str, Any]:
    """Times on 8 of the paper's mazes with the paper's network: the engine, and TRL's GRPOTrainer."""
    task = make_task("maze-17")
    policy = base_policy(task, out, steps=150, **PAPER)
    batch = task.batch("test", range(8))
    assert isinstance(batch, TokenBatch)
    rows = [engine_row(policy, batch, n, 5, peak) for n in (16, 1024)]
    rollouts = batch.sample(policy, 256, np.random.default_rng(0), grad=False)
    length = round(rollouts.count.sum() / (256 * 8))
    taken = trl_seconds(policy, batch, 16, length)
    per_second = 16 * 8 / taken
    return {
        "engine": rows, "trl_seconds": taken, "trl_per_second": per_second, "tokens_per_rollout": length,
        "ratios": {f"trl_{row['rollouts']}": row["per_second"] / per_second for row in rows},
    }  # fmt: skip
