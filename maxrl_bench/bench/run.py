"""`maxrl-bench bench`: the rollout engine against common practice, in one run on one core.

Times are processor seconds, so that other work on the machine disturbs them little; each is the median of several
repetitions. A step samples rollouts, weighs them, and makes one backward pass and one optimiser step. The learning rate
is 0, so that the policy remains the warm-started one.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib.util
import json
import platform
import resource
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from maxrl_bench.bench.baselines import textbook_step, trl_seconds, vector_step
from maxrl_bench.bench.table import draw, table
from maxrl_bench.inputs import read_bytes
from maxrl_bench.objectives.table import bind
from maxrl_bench.rollouts.policies import ObservationPolicy, make_policy
from maxrl_bench.rollouts.tokens import TokenBatch, TokenRollouts
from maxrl_bench.rollouts.transformer import TokenPolicy
from maxrl_bench.storage.files import write_file
from maxrl_bench.tasks import Batch, Task, make_task
from maxrl_bench.training import parameters

OBJECTIVE = "maxrl_alg1"  # weighs failures too, so that few rollouts are skipped in the backward pass
GROUPS = (16, 64, 256, 1024, 4096, 65_536, 1_000_000)
QUICK_GROUPS = (16, 64, 1024, 4096, 65_536)
PAPER = {"layers": 4, "width": 256, "mlp": 1024}  # the paper's maze policy, about 3 M parameters
# The speed that the engine has to keep: (claim, name of the measured ratio, bound, True: at least, False: at most).
BARS: tuple[tuple[str, str, float, bool], ...] = (
    ("a step at N = 4096 over one at N = 16", "step_4096_over_16", 2, False),
    ("a step at N = 65,536 over one at N = 16", "step_65536_over_16", 3, False),
    ("rollouts per second over the textbook loop's, N = 64", "textbook_64", 50, True),
    ("rollouts per second over the textbook loop's, N = 1024", "textbook_1024", 500, True),
    ("rollouts per second over TRL's, 3 M parameters, 17x17, N = 16", "trl_16", 15, True),
    ("rollouts per second over TRL's, 3 M parameters, 17x17, N = 1024", "trl_1024", 500, True),
    ("rollouts per second over SyncVectorEnv's, 16 levels x 64", "vector_env_64", 200, True),
    ("all but matrix products and attention, share of a step, N = 4096", "overhead_4096", 0.30, False),
)


def run_bench(quick: bool = False, out: Path = Path("build/bench")) -> str:
    """Measure, write bench.json and bench.png into `out`, and return the table.

    `quick`: the main ratios, in a minute, from a base policy of fewer supervised steps, whose rollouts differ more.
    Warm-started base policies are kept in `out` and used again.
    """
    out.mkdir(parents=True, exist_ok=True)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        measured = _measure(quick, out)
    finally:
        torch.set_num_threads(threads)
    (out / "bench.json").write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    draw(measured, out / "bench.png")
    return table(measured) + f"\n\nwritten: {out / 'bench.json'}, {out / 'bench.png'}"


def _measure(quick: bool, out: Path) -> dict[str, Any]:
    repeats = 3 if quick else 5
    peak = matrix_peak()
    measured: dict[str, Any] = {
        "torch": torch.__version__, "processor": platform.processor() or platform.machine(), "quick": quick,
        "objective": OBJECTIVE, "peak_gflops": peak / 1e9, "ratios": {},
    }  # fmt: skip
    maze = make_task("maze-9")
    policy = base_policy(maze, out, steps=120 if quick else 300)
    batch = maze.batch("test", range(16))
    groups = QUICK_GROUPS if quick else GROUPS
    engine = {n: engine_row(policy, batch, n, repeats, peak) for n in groups}
    measured["engine"] = list(engine.values())
    ratios = measured["ratios"]
    for n in (4096, 65_536):
        ratios[f"step_{n}_over_16"] = engine[n]["seconds"] / engine[16]["seconds"]
    measured["profile"] = {n: profile(policy, batch, n) for n in (16, 4096)}
    ratios["overhead_4096"] = 1 - sum(measured["profile"][4096][kind] for kind in ("matrix products", "attention"))
    measured["textbook"] = [
        textbook_row(policy, maze, n, 1 if quick else 3) for n in ((64,) if quick else (16, 64, 1024))
    ]
    for row in measured["textbook"]:
        ratios[f"textbook_{row['rollouts']}"] = engine[row["rollouts"]]["per_second"] / row["per_second"]
    measured["navigation"] = navigation(repeats, vector_groups=(64,) if quick else (4, 64))
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


def base_policy(task: Task, out: Path, steps: int, **size: int) -> TokenPolicy:
    """A policy after `steps` supervised steps on 32 demonstrations each; kept in `out` for the next call."""
    policy = make_policy(task.contexts, task.num_actions, np.random.default_rng(0), **size)
    assert isinstance(policy, TokenPolicy)
    path = out / f"base-{task.name}-{steps}-{policy.embedding.embedding_dim}.pt"
    with contextlib.suppress(ValueError, OSError):  # absent, or not such a policy: made again
        parameters.load_policy(policy, parameters.unpack(read_bytes(path)))
        return policy
    optimizer = torch.optim.Adam(policy.parameters(), 1e-3)
    for step in range(steps):
        loss = task.batch("train", range(32 * step, 32 * (step + 1))).demonstration_loss(policy)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
    write_file(path, parameters.pack(policy.state_dict()))
    return policy


def matrix_peak() -> float:
    """Floating-point operations per second of a large matrix product: the best of ten measurements."""
    a = torch.randn(1024, 1024)
    return 2 * 1024**3 / min(seconds(lambda: a @ a) for _ in range(10))


def seconds(action: Callable[[], Any]) -> float:
    """Processor seconds of one call."""
    gc.collect()
    start = time.process_time()
    action()
    return time.process_time() - start


def _median(action: Callable[[int], Any], repeats: int) -> float:
    action(0)
    return statistics.median(seconds(partial(action, seed)) for seed in range(1, repeats + 1))


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
    time_taken = _median(step, repeats)
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


class PeakMemory:
    """How much the resident memory grew within the block, at its peak, in MiB; 0 where the system does not tell."""

    mib = 0.0

    def __enter__(self) -> PeakMemory:
        gc.collect()
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)  # return freed memory to the system
            Path("/proc/self/clear_refs").write_text("5")  # reset the peak
        self._start = self._mark()
        return self

    def __exit__(self, *_: object) -> None:
        self.mib = self._mark() - self._start

    @staticmethod
    def _mark() -> float:
        try:
            lines = Path("/proc/self/status").read_text().splitlines()
        except OSError:
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return next(float(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def attention_flops(rollouts: TokenRollouts) -> float:
    """Floating-point operations of fused attention and its gradient, which torch's counter does not count on a CPU.

    14 d for each pair of a query and a key that the mask allows, for each head and layer.
    """
    policy, tree = rollouts.policy, rollouts.tree
    prompts, length = rollouts.batch.distinct[0].shape
    below = tree.depth > 0
    pairs = prompts * length * (length + 1) / 2 + float((length + tree.depth[below]).sum())
    return 14 * len(policy.layers) * pairs * policy.heads * policy.head_width


KINDS = {
    "matrix products": ("aten::mm", "aten::bmm", "aten::addmm"),
    "attention": ("flash_attention",),
    "gathering": ("aten::index", "aten::scatter", "aten::cat", "aten::gather", "aten::embedding", "aten::copy_"),
    "norms, SiLU, rotations, residuals": ("rms_norm", "aten::mul", "aten::add", "aten::sub", "aten::div", "aten::silu",
        "aten::pow", "aten::mean", "aten::rsqrt", "aten::exp", "aten::sum", "aten::amax", "aten::maximum", "aten::neg",
        "aten::fill", "softmax"),
}  # fmt: skip


def profile(policy: torch.nn.Module, batch: Batch, num_rollouts: int) -> dict[str, float]:
    """The share of each kind of operation in a step's time, by the clock; what is left is Python, numpy and autograd.

    The profiler's own time is in what is left.
    """
    step = engine_step(policy, batch, num_rollouts)
    step(0)
    start = time.perf_counter()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], acc_events=True) as recorded:
        for seed in range(1, 4):
            step(seed)
        total = time.perf_counter() - start
    shares = dict.fromkeys(KINDS, 0.0)
    for event in recorded.key_averages():
        kind = next((kind for kind, names in KINDS.items() if any(name in event.key for name in names)), None)
        if kind:
            shares[kind] += event.self_cpu_time_total / 1e6 / total
    return shares | {"everything else": 1 - sum(shares.values())}


def textbook_row(policy: TokenPolicy, task: Task, num_rollouts: int, repeats: int) -> dict[str, Any]:
    """Times of the textbook loop, on up to 16 instances but at most 1024 rollouts: its time per rollout is constant."""
    instances = max(1, min(16, 1024 // num_rollouts))
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


def navigation(repeats: int, vector_groups: tuple[int, ...]) -> dict[str, Any]:
    """Times on 16 levels of FourRooms: the engine, and MiniGrid in SyncVectorEnv with the same network and horizon."""
    task = make_task("fourrooms")
    policy = make_policy(task.contexts, task.num_actions, np.random.default_rng(0))
    assert isinstance(policy, ObservationPolicy)
    batch = task.batch("test", range(16))
    rows = {str(n): engine_row(policy, batch, n, repeats, 1.0) for n in (*vector_groups, 64, 1024)}
    vector = []
    for n in vector_groups:
        step = vector_step(policy, "MiniGrid-FourRooms-v0", 16, n, task.horizon, _weights(n))
        taken = seconds(step)
        vector.append({"rollouts": n, "seconds": taken, "per_second": 16 * n / taken})
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
