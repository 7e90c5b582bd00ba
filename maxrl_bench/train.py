"""One run: a base policy, on-policy steps under one objective, evaluations, and a checkpoint to go on from.

Every number that a run produces (but for seconds) is a function of its configuration: each use of randomness has its
own generator, derived from the seed and the name of the use. So all objectives of a comparison start from the same
base policy and meet the same instances, and a resumed run ends in the same bits as an uninterrupted one.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch

from maxrl_bench import metrics, objectives, policies
from maxrl_bench.experiment import RunConfig
from maxrl_bench.results import Store
from maxrl_bench.rollouts import Rollouts
from maxrl_bench.tasks import Batch, Task, make_task

CHECKPOINT = "checkpoint.pt"
POLICY = "policy.pt"
CHECKPOINT_SECONDS = 15.0
# Exact pass rates need no evaluation rollouts; these few are for the entropy along the policy's own rollouts.
ENTROPY_ROLLOUTS = 16
# How many held-out instances are asked for a gradient of their own, before and after training.
GRADIENT_INSTANCES = 16
# Where each use of instances begins in the train split's indices; runs of different seeds share nothing.
_SEED_STRIDE = 2**40
_WARM_START_OFFSET = 2**39

Callback = Callable[[dict[str, Any]], None]


def random_stream(seed: int, use: str) -> np.random.Generator:
    """The generator of one use of randomness ("rollouts", "policy", ...) under a seed."""
    words = np.frombuffer(hashlib.blake2b(use.encode(), digest_size=16).digest(), np.uint32)
    return np.random.default_rng([seed, *words.tolist()])


def precision(config: RunConfig) -> contextlib.AbstractContextManager[Any]:
    """What a run computes in: bfloat16 means mixed precision, with parameters and their updates in float32."""
    if config.dtype != "bfloat16":
        return contextlib.nullcontext()
    # Its cache would hold on to the weights of the first step for as long as the context lasts.
    return torch.autocast(config.device.partition(":")[0], torch.bfloat16, cache_enabled=False)


def training_indices(config: RunConfig, step: int) -> list[int]:
    """Which train instances step `step` (from 0) uses: [batch_size] indices, the same for every objective.

    Data-rich (train_instances = 0): fresh ones for ever. Data-scarce: each epoch is a new order of a fixed set, and
    a batch that crosses the end of an epoch goes on in the next.
    """
    first, size = step * config.batch_size, config.train_instances
    positions = range(first, first + config.batch_size)
    if not size:
        return [config.seed * _SEED_STRIDE + i for i in positions]
    epochs = {
        epoch: random_stream(config.seed, f"epoch {epoch}").permutation(size)
        for epoch in range(positions[0] // size, positions[-1] // size + 1)
    }
    return [config.seed * _SEED_STRIDE + int(epochs[i // size][i % size]) for i in positions]


def base_policy(config: RunConfig, task: Task, store: Store) -> torch.nn.Module:
    """The warm-started policy that every objective of a comparison starts from, made once per task and seed.

    Supervised steps (Adam) on demonstrations of train instances that no later step uses in the data-rich mode.
    """
    policy = policies.make_policy(
        task.contexts, task.num_actions, random_stream(config.seed, "policy"), **config.policy
    ).to(config.device, torch.float64 if config.dtype == "float64" else torch.float32)
    if not config.warm_start_steps:
        return policy
    keys = ("task", "policy", "seed", "device", "dtype")
    settings = {
        key: value
        for key, value in config.model_dump(mode="json").items()
        if key in keys or key.startswith("warm_start_")
    }
    name = "base-" + hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=8).hexdigest()
    with store.lock(name):
        stored = store.read(name, POLICY)
        if stored is not None:
            policy.load_state_dict(_load(stored))
            return policy
        optimizer = torch.optim.Adam(policy.parameters(), lr=config.warm_start_learning_rate)
        size = config.warm_start_batch_size
        first = config.seed * _SEED_STRIDE + _WARM_START_OFFSET
        for step in range(config.warm_start_steps):
            batch = task.batch("train", range(first + step * size, first + (step + 1) * size))
            optimizer.zero_grad()
            batch.demonstration_loss(policy).backward()
            torch.nn.utils.clip_grad_norm_(policy.parameters(), config.max_grad_norm)
            optimizer.step()
        store.write(name, POLICY, _save(policy.state_dict()))
    return policy


@dataclass
class Tally:
    """Sums over the training steps since the last evaluation."""

    steps: int = 0
    grad_norm: float = 0.0
    clipped: int = 0
    instances: int = 0
    with_success: int = 0
    pass_rate: float = 0.0
    contexts_evaluated: int = 0
    contexts_named: int = 0
    cosine_ml: float = math.nan

    def row(self, sampled: bool) -> dict[str, float]:
        """The columns of the metrics table that speak of training; NaN before the first step."""
        mean = 1 / self.steps if self.steps else math.nan
        per_instance = 1 / self.instances if self.instances else math.nan
        return {
            "grad_norm": self.grad_norm * mean,
            "clipped_share": self.clipped * mean,
            "success_share": self.with_success * per_instance if sampled else math.nan,
            "train_pass_rate": self.pass_rate * per_instance,
            "contexts_evaluated": self.contexts_evaluated,
            "contexts_named": self.contexts_named,
            "cosine_ml": self.cosine_ml,
        }


@dataclass
class State:
    """All that a run must remember, but for the policy, the optimiser and the generator, to go on after a stop."""

    step: int = 0
    rollouts: int = 0
    seconds: float = 0.0
    rows: list[dict[str, float]] = field(default_factory=list)
    pass_rates: list[torch.Tensor] = field(default_factory=list)  # [eval_instances] float64, one per row
    grad_norms: list[torch.Tensor] = field(default_factory=list)  # likewise, NaN where not measured
    tally: Tally = field(default_factory=Tally)


class Run:
    """A run in progress: what `train` builds, steps and stores."""

    def __init__(self, config: RunConfig, store: Store):
        self.config, self.store = config, store
        self.task = make_task(**config.task)
        knobs = {key: value for key, value in config.objective.items() if key != "name"}
        self.objective = objectives.bind(config.objective["name"], config.num_rollouts, **knobs)
        if self.objective.exact and not self.task.exact:
            raise ValueError(
                f"objective '{self.objective.name}' needs exact pass rates; task '{self.task.name}' has none"
            )
        self.held_out = self.task.batch(config.eval_split, range(config.eval_instances))
        self.policy = base_policy(config, self.task, store)
        self.parameters = [p for p in self.policy.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(self.parameters, lr=config.learning_rate)
        self.rng = random_stream(config.seed, "rollouts")
        self.state = State()

    def resume(self) -> bool:
        """Take up the stored checkpoint; False if there is none."""
        stored = self.store.read(self.config.hash, CHECKPOINT)
        if stored is None:
            return False
        saved = _load(stored)
        self.policy.load_state_dict(saved["policy"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.rng.bit_generator.state = saved["rng"]
        self.state = State(**{**saved["state"], "tally": Tally(**saved["state"]["tally"])})
        return True

    def save(self) -> None:
        """Write a checkpoint that `resume` takes up."""
        saved = {
            "state": asdict(self.state),
            "policy": self.policy.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": self.rng.bit_generator.state,
        }
        self.store.write(self.config.hash, CHECKPOINT, _save(saved))

    def step(self) -> None:
        """One on-policy update on the next instances, and an evaluation where one is due."""
        config, state = self.config, self.state
        started = time.perf_counter()
        batch = self.task.batch("train", training_indices(config, state.step))
        state.step += 1
        due = state.step % config.eval_every == 0 or state.step == config.steps
        self.optimizer.zero_grad()
        gain = self._gain(batch)
        if not torch.isfinite(gain):
            raise FloatingPointError(
                f"the surrogate of '{self.objective.name}' became {gain.item()} at step {state.step}"
            )
        if gain.requires_grad:
            (-gain).backward()
        for parameter in self.parameters:
            # Where all weights are zero there is no graph; the textbook loop hands Adam zeros there, and so do we.
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradient = metrics.flat_gradient(self.parameters)
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, config.max_grad_norm))
        tally = state.tally
        tally.steps += 1
        tally.instances += config.batch_size
        tally.grad_norm += norm
        tally.clipped += norm > config.max_grad_norm
        state.seconds += time.perf_counter() - started
        if due and self.task.exact:
            # Before the update, and outside the clock: the comparison is ours, not the objective's.
            likelihood = torch.autograd.grad(-batch.log_pass_rate(self.policy).mean(), self.parameters)
            tally.cosine_ml = metrics.cosine(gradient, torch.cat([g.flatten() for g in likelihood]))
        started = time.perf_counter()
        self.optimizer.step()
        state.seconds += time.perf_counter() - started

    def _gain(self, batch: Batch) -> torch.Tensor:
        """What a step ascends, booked in the tally."""
        tally = self.state.tally
        if self.objective.exact:
            log_p = batch.log_pass_rate(self.policy)
            tally.pass_rate += float(log_p.detach().exp().sum())
            return log_p.mean()
        gain, rollouts = self._surrogate(batch, self.rng)
        self.state.rollouts += self.config.num_rollouts * len(rollouts.successes)
        tally.pass_rate += float(rollouts.successes.sum()) / self.config.num_rollouts
        tally.with_success += int((rollouts.successes > 0).sum())
        tally.contexts_evaluated += rollouts.contexts_evaluated
        tally.contexts_named += rollouts.contexts_named
        return gain

    def _surrogate(self, batch: Batch, rng: np.random.Generator) -> tuple[torch.Tensor, Rollouts]:
        objective = self.objective
        rollouts = batch.sample(self.policy, self.config.num_rollouts, rng, paths=objective.smoothing > 0)
        gain = rollouts.surrogate(*objective.weights(rollouts.successes), smoothing=objective.smoothing)
        if objective.entropy_bonus:
            gain = gain + objective.entropy_bonus * rollouts.entropy()
        return gain, rollouts

    def gradient_norms(self) -> torch.Tensor:
        """Norm of the gradient that each of the first held-out instances alone would give: [eval_instances] float64.

        One estimate each, from as many rollouts as in training; NaN for the other instances. Source: arXiv 2602.02710,
        Fig. 6.
        """
        norms = torch.full((self.config.eval_instances,), math.nan, dtype=torch.float64)
        rng = random_stream(self.config.seed, f"gradient norms {self.state.step}")
        for index in range(min(GRADIENT_INSTANCES, len(norms))):
            alone = self.task.batch(self.config.eval_split, [index])
            gain = alone.log_pass_rate(self.policy).mean() if self.objective.exact else self._surrogate(alone, rng)[0]
            norms[index] = 0.0
            if gain.requires_grad:
                found = torch.autograd.grad(gain, self.parameters, allow_unused=True)
                norms[index] = torch.cat([g.double().flatten() for g in found if g is not None]).norm()
        return norms

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Measure the policy on the held-out instances and begin a new tally; returns the new row."""
        config, state = self.config, self.state
        num_rollouts = ENTROPY_ROLLOUTS if self.task.exact else config.eval_rollouts
        rng = random_stream(config.seed, f"evaluation {state.step}")
        rollouts = self.held_out.sample(self.policy, num_rollouts, rng, grad=False)
        log_p = self.held_out.log_pass_rate(self.policy).cpu() if self.task.exact else None
        if log_p is not None:
            pass_rates = log_p.exp()
            per_k = ((k, metrics.pass_at_k_exact(pass_rates.numpy(), k)) for k in metrics.PASS_AT_K)
        else:
            pass_rates = torch.from_numpy(rollouts.successes / num_rollouts)
            per_k = (
                (k, metrics.pass_at_k_unbiased(rollouts.successes, num_rollouts, k))
                for k in metrics.PASS_AT_K
                if k <= num_rollouts
            )
        row = {
            "step": state.step,
            "rollouts": state.rollouts,
            "seconds": state.seconds,
            **metrics.pass_at_k_row(per_k),
            "log_p": float(log_p.mean()) if log_p is not None else math.nan,
            "entropy": float(rollouts.entropy()),
            **state.tally.row(sampled=not self.objective.exact),
        }
        norms = torch.full_like(pass_rates, math.nan)
        if state.step in (0, config.steps):
            with torch.enable_grad():
                norms = self.gradient_norms()
        row["hard_gradient"] = metrics.share_of_harder_half(norms.numpy(), pass_rates.numpy())
        state.rows.append(row)
        state.pass_rates.append(pass_rates)
        state.grad_norms.append(norms)
        state.tally = Tally()
        return row

    def finish(self) -> None:
        """Store the trained policy and the tables; the store marks the run as done last."""
        size = self.config.eval_instances
        pass_rates = pd.DataFrame(
            {
                "step": np.repeat([int(row["step"]) for row in self.state.rows], size),
                "instance": np.tile(np.arange(size), len(self.state.rows)),
                "pass_rate": torch.cat(self.state.pass_rates).numpy(),
                "n": 0 if self.task.exact else self.config.eval_rollouts,
                "grad_norm": torch.cat(self.state.grad_norms).numpy(),
            }
        )
        self.store.write(self.config.hash, POLICY, _save(self.policy.state_dict()))
        self.store.finish(self.config, self.state.rows, pass_rates, {"seconds": self.state.seconds})


def train(config: RunConfig, store: Store, *, callbacks: Sequence[Callback] = ()) -> None:
    """Train one run to its end and store its tables; goes on from its checkpoint if there is one.

    Calls every callback with each new row of the metrics table. Raises ValueError on a configuration whose objective
    needs exact pass rates that its task does not offer, FloatingPointError if the surrogate stops being finite.
    """
    with precision(config):
        run = Run(config, store)
        if not run.resume():
            _report(run.evaluate(), callbacks)
        saved_at = time.monotonic()
        while run.state.step < config.steps:
            run.step()
            if run.state.step % config.eval_every == 0 or run.state.step == config.steps:
                _report(run.evaluate(), callbacks)
            if time.monotonic() - saved_at > CHECKPOINT_SECONDS:
                run.save()
                saved_at = time.monotonic()
        run.finish()


def _report(row: dict[str, float], callbacks: Sequence[Callback]) -> None:
    for callback in callbacks:
        callback(row)


def _save(state: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def _load(data: bytes) -> dict[str, Any]:
    # weights_only refuses anything but tensors and plain values: a foreign file cannot run code.
    loaded: dict[str, Any] = torch.load(io.BytesIO(data), weights_only=True)
    return loaded
