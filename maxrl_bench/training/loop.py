"""One run: a base policy, on-policy steps under one objective, evaluations, and checkpoints to resume from.

Every number that a run produces (except seconds) is a function of its configuration: each use of randomness has its own
generator, seeded by the run's seed and the name of the use. So all objectives of a comparison start from the same base
policy and are trained on the same instances, and a resumed run gives the same bits as an uninterrupted one.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
import torch

from maxrl_bench.config import RunConfig
from maxrl_bench.objectives.table import bind
from maxrl_bench.rollouts import finite
from maxrl_bench.rollouts.counts import Rollouts
from maxrl_bench.storage.store import Store
from maxrl_bench.tasks import Batch, make_task
from maxrl_bench.training import metrics, parameters
from maxrl_bench.training.state import State, Tally, check_optimizer, is_due, restore
from maxrl_bench.training.streams import random_stream, training_indices
from maxrl_bench.training.warm_start import POLICY, base_policy

CHECKPOINT = "checkpoint.pt"
CHECKPOINT_SECONDS = 15.0
# Exact pass rates need no evaluation rollouts. These few estimate the entropy of the policy along its own rollouts.
ENTROPY_ROLLOUTS = 16
# An evaluation goes block by block of instances, each with at most so many rollouts, to bound its memory.
EVAL_BLOCK = 2**20
# Of how many held-out instances the gradient norm is measured, before and after training.
GRADIENT_INSTANCES = 16

Callback = Callable[[dict[str, Any]], None]


def precision(config: RunConfig) -> contextlib.AbstractContextManager[Any]:
    """The context for a run's number type: bfloat16 means mixed precision, with parameters and updates in float32."""
    if config.dtype != "bfloat16":
        return contextlib.nullcontext()
    # With its cache, autocast would keep using the weights of the first step: the context lasts for the whole run.
    return torch.autocast(config.device.partition(":")[0], torch.bfloat16, cache_enabled=False)


class Run:
    """A run in progress: its policy, optimiser and state. `train` steps, evaluates and stores it."""

    def __init__(self, config: RunConfig, store: Store):
        self.config, self.store = config, store
        self.task = make_task(**config.task)
        # Bound here, so that the code of objectives is seen to be part of a run's (see `fingerprint`).
        self.objective = bind(config.objective.name, config.num_rollouts, **config.objective.options)
        if self.objective.exact and not self.task.exact:
            raise ValueError(
                f"objective '{self.objective.name}' needs exact pass rates; task '{self.task.name}' has none"
            )
        self.eval_rollouts = ENTROPY_ROLLOUTS if self.task.exact else config.eval_rollouts
        block_size, size = max(1, EVAL_BLOCK // self.eval_rollouts), config.eval_instances
        blocks = (range(first, min(first + block_size, size)) for first in range(0, size, block_size))
        self.held_out = [self.task.batch(config.eval_split, block) for block in blocks]
        self._begin()

    def _begin(self) -> None:
        self.policy = base_policy(self.config, self.task, self.store)
        self.named = {name: p for name, p in self.policy.named_parameters() if p.requires_grad}
        self.parameters = list(self.named.values())
        self.optimizer = torch.optim.Adam(self.parameters, lr=self.config.learning_rate)
        self.rng = random_stream(self.config.seed, "rollouts")
        self.state = State()

    def resume(self) -> bool:
        """Go on from the stored checkpoint; False if there is none, or it does not load and has been deleted."""
        stored = self.store.read(self.config.hash, CHECKPOINT)
        if stored is None:
            return False
        try:
            self._take_up(parameters.unpack(stored))
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError) as error:
            # Its checksum is right, so another program wrote it, and loading may fail in any of these ways.
            self.store.drop(self.config.hash, CHECKPOINT, f"does not load ({type(error).__name__}: {error})")
            self._begin()
            return False
        return True

    def _take_up(self, saved: dict[str, Any]) -> None:
        """Set policy, optimiser, generator and state to those of a checkpoint.

        On a checkpoint that is not one of this run, raises an error of any kind and leaves the policy as it was.
        """
        state = restore(saved["state"], self.config)
        optimizer = saved["optimizer"]
        check_optimizer(optimizer, self.optimizer, stepped=state.step > 0)
        parameters.load_policy(self.policy, saved["policy"])
        self.optimizer.load_state_dict(optimizer)
        self.rng.bit_generator.state = saved["rng"]
        self.state = state

    def save(self) -> None:
        """Write a checkpoint for `resume`."""
        saved = {
            "state": asdict(self.state),
            "policy": self.policy.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": self.rng.bit_generator.state,
        }
        self.store.write(self.config.hash, CHECKPOINT, parameters.pack(saved))

    def step(self) -> None:
        """One on-policy update on the next batch of instances.

        Raises FloatingPointError that names the step and the first number that is not finite.
        """
        self.state.step += 1
        with finite.stage(f"step {self.state.step}"):
            self._step()

    def _step(self) -> None:
        config, state = self.config, self.state
        started = time.perf_counter()
        batch = self.task.batch("train", training_indices(config, state.step - 1))
        self.optimizer.zero_grad()
        gain = self._gain(batch)
        finite.check_value(gain.detach(), f"the surrogate of '{self.objective.name}'")
        if gain.requires_grad:
            (-gain).backward()
        for parameter in self.parameters:
            # If all weights are zero, nothing is differentiated. Adam then gets zeros, as in the textbook loop.
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        compared = is_due(config, state.step) and self.task.exact
        gradient = metrics.flat_gradient(self.parameters) if compared else None
        norm = finite.clip_gradient(self.named, config.max_grad_norm)
        tally = state.tally
        tally.steps += 1
        tally.instances += config.batch_size
        tally.grad_norm += norm
        tally.clipped += norm > config.max_grad_norm
        state.seconds += time.perf_counter() - started
        if gradient is not None:
            # Before the update, and not counted in the run's seconds: the objective does not need this comparison.
            likelihood = torch.autograd.grad(-batch.log_pass_rate(self.policy).mean(), self.parameters)
            finite.check_tensors(dict(zip(self.named, likelihood, strict=True)), "the gradient of log p of parameter")
            tally.cosine_ml = metrics.cosine(gradient, torch.cat([g.flatten() for g in likelihood]))
        started = time.perf_counter()
        self.optimizer.step()
        finite.check_tensors(self.named, "parameter")
        state.seconds += time.perf_counter() - started

    def _gain(self, batch: Batch) -> torch.Tensor:
        """The scalar that a step maximises, with gradients; adds its rollouts and successes to the tally."""
        tally = self.state.tally
        if self.objective.exact:
            log_p = batch.log_pass_rate(self.policy)
            tally.pass_rate += float(log_p.detach().exp().sum())
            return log_p.mean()
        gain, rollouts = self._surrogate(batch, self.rng)
        self.state.rollouts += self.config.num_rollouts * len(rollouts.successes)
        tally.pass_rate += float(rollouts.successes.sum()) / self.config.num_rollouts
        self.state.successes += int(rollouts.successes.sum())
        tally.with_success += int((rollouts.successes > 0).sum())
        tally.contexts_evaluated += rollouts.contexts_evaluated
        tally.contexts_named += rollouts.contexts_named
        return gain

    def _surrogate(self, batch: Batch, rng: np.random.Generator) -> tuple[torch.Tensor, Rollouts]:
        """Rollouts of a batch, and the scalar whose gradient is the objective's estimate from them."""
        objective = self.objective
        rollouts = batch.sample(self.policy, self.config.num_rollouts, rng, paths=objective.smoothing > 0)
        weights = objective.weights(rollouts.successes)
        finite.check_weights(np.stack(weights), f"a weight of '{objective.name}'")
        gain = rollouts.surrogate(*weights, smoothing=objective.smoothing)
        if objective.entropy_bonus:
            gain = gain + objective.entropy_bonus * rollouts.entropy()
        return gain, rollouts

    def gradient_norms(self) -> torch.Tensor:
        """Norm of the gradient of each of the first held-out instances by itself: [eval_instances] float64.

        One estimate for each of GRADIENT_INSTANCES instances, with as many rollouts as in training; NaN for the others.
        Source: arXiv 2602.02710, Fig. 6.
        """
        norms = torch.full((self.config.eval_instances,), math.nan, dtype=torch.float64)
        rng = random_stream(self.config.seed, f"gradient norms {self.state.step}")
        for index in range(min(GRADIENT_INSTANCES, len(norms))):
            alone = self.task.batch(self.config.eval_split, [index])
            gain = alone.log_pass_rate(self.policy).mean() if self.objective.exact else self._surrogate(alone, rng)[0]
            norms[index] = 0.0
            finite.check_value(gain.detach(), f"the surrogate of held-out instance {index}")
            if gain.requires_grad:
                gradients = torch.autograd.grad(gain, self.parameters, allow_unused=True)
                norms[index] = torch.cat([g.double().flatten() for g in gradients if g is not None]).norm()
                finite.check_value(norms[index], f"the gradient of held-out instance {index}")
        return norms

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Measure the policy on the held-out instances; returns the new row of the metrics table and resets the tally.

        Raises FloatingPointError that names the step and the first number that is not finite.
        """
        with finite.stage(f"evaluation at step {self.state.step}"):
            return self._evaluate()

    def _evaluate(self) -> dict[str, float]:
        config, state = self.config, self.state
        num_rollouts = self.eval_rollouts
        rng = random_stream(config.seed, f"evaluation {state.step}")
        successes, entropy, taken = [], 0.0, 0
        for batch in self.held_out:
            rollouts = batch.sample(self.policy, num_rollouts, rng, grad=False)
            successes.append(rollouts.successes)
            taken += rollouts.actions_taken
            entropy += (float(rollouts.entropy()) - entropy) * (rollouts.actions_taken / taken)
        log_p = None
        if self.task.exact:
            log_p = torch.cat([batch.log_pass_rate(self.policy).cpu() for batch in self.held_out])
            finite.check_weights(log_p.numpy(), "log p of a held-out instance")
            pass_rates = log_p.exp()
        else:
            pass_rates = torch.from_numpy(np.concatenate(successes) / num_rollouts)
        row = {
            "step": state.step,
            "rollouts": state.rollouts,
            "seconds": state.seconds,
            **metrics.pass_at_k_row(pass_rates.numpy(), 0 if self.task.exact else num_rollouts),
            "log_p": float(log_p.mean()) if log_p is not None else math.nan,
            "entropy": entropy,
            **state.tally.row(sampled=not self.objective.exact),
        }
        finite.check_value(row["entropy"], "the entropy")
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
        """Store the trained policy and the tables; last, the store marks the run as done."""
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
        self.store.write(self.config.hash, POLICY, parameters.pack(self.policy.state_dict()))
        self.store.finish(self.config, self.state.rows, pass_rates, {"seconds": self.state.seconds})


def train(config: RunConfig, store: Store, *, callbacks: Sequence[Callback] = ()) -> None:
    """Train one run to its end and store its tables; goes on from its checkpoint if there is one.

    Calls every callback with each new row of the metrics table. Raises ValueError if the objective needs exact pass
    rates and the task has none, FloatingPointError on a number that is not finite.
    """
    with precision(config):
        run = Run(config, store)
        if not run.resume():
            _report(run.evaluate(), callbacks)
        saved_at = time.monotonic()
        while run.state.step < config.steps:
            run.step()
            if is_due(config, run.state.step):
                _report(run.evaluate(), callbacks)
                # Only at the first evaluation after step 0, so that a resumed run does not repeat it.
                if len(run.state.rows) == 2 and run.state.rollouts and not run.state.successes:
                    store.report(_no_success(config, run.state))
            if time.monotonic() - saved_at > CHECKPOINT_SECONDS:
                run.save()
                saved_at = time.monotonic()
        run.finish()


def _report(row: dict[str, float], callbacks: Sequence[Callback]) -> None:
    for callback in callbacks:
        callback(row)


def _no_success(config: RunConfig, state: State) -> str:
    """A one-line warning of the most common mistake: a base policy that never succeeds."""
    return (
        f"{config.describe()}: none of {state.rollouts} rollouts has succeeded in {state.step} steps: nothing to learn"
        " from without warm_start_steps or an easier task"
    )
