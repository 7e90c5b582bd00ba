"""One run: a base policy, on-policy steps under one objective, evaluations, and checkpoints to resume from.

`Run._step` is the idea of this suite: a batch, its rollouts, the weights of successes and failures, the surrogate whose
gradient is the objective's estimate, an update. What is measured on the way is in `measuring`.

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
from maxrl_bench.rollouts.counts import Rollouts, TreeRollouts
from maxrl_bench.storage.store import Store
from maxrl_bench.tasks import Batch, make_task
from maxrl_bench.testing import first_look
from maxrl_bench.training import measuring, parameters
from maxrl_bench.training.feasible import check_objective
from maxrl_bench.training.instances import TrainingBatches
from maxrl_bench.training.optimizers import check_optimizer, make_optimizer, set_rate
from maxrl_bench.training.state import State, Tally, is_due, restore
from maxrl_bench.training.streams import random_stream
from maxrl_bench.training.warm_start import POLICY, base_policy

CHECKPOINT = "checkpoint.pt"
CHECKPOINT_SECONDS = 15.0

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
        check_objective(config, self.task)
        self.held_out = measuring.HeldOut(config, self.task)
        self.batches = TrainingBatches(config, self.task, store)
        self._begin()

    def _begin(self) -> None:
        self.policy = base_policy(self.config, self.task, self.store)
        self.named = {name: p for name, p in self.policy.named_parameters() if p.requires_grad}
        self.parameters = list(self.named.values())
        self.optimizer = make_optimizer(self.config, self.parameters)
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
        memory = saved["memory"]
        objective = self.objective.with_memory(None if memory is None else memory.numpy())
        optimizer = saved["optimizer"]
        set_rate(self.optimizer, self.config, max(state.step, 1))
        check_optimizer(optimizer, self.optimizer, self.config, state.step)
        parameters.load_policy(self.policy, saved["policy"])
        self.optimizer.load_state_dict(optimizer)
        self.rng.bit_generator.state = saved["rng"]
        self.state, self.objective = state, objective

    def save(self) -> None:
        """Write a checkpoint for `resume`."""
        memory = self.objective.memory
        saved = {
            "memory": None if memory is None else torch.from_numpy(memory),
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
        with measuring.clock(state):
            batch = self.batches(state.step - 1)
            gain, outcomes = self._gain(batch, self.rng)
            self._differentiate(gain)
            norm = finite.clip_gradient(self.named, config.max_grad_norm)
        measuring.tally_step(state, config, outcomes, norm)
        if not isinstance(outcomes, torch.Tensor):
            self.objective = self.objective.after(outcomes.successes)
        with measuring.clock(state):
            set_rate(self.optimizer, config, state.step)
            self.optimizer.step()
            finite.check_tensors(self.named, "parameter")

    def _gain(self, batch: Batch, rng: np.random.Generator) -> tuple[torch.Tensor, Rollouts | torch.Tensor]:
        """The scalar to maximise, with gradients; and the rollouts that it was estimated from, or exact log p [B]."""
        if self.objective.is_likelihood:
            log_p = batch.log_pass_rate(self.policy)
            return log_p.mean(), log_p.detach()
        return self._surrogate(batch, rng)

    def _surrogate(self, batch: Batch, rng: np.random.Generator) -> tuple[torch.Tensor, Rollouts]:
        """Rollouts of a batch, and the scalar whose gradient is the objective's estimate from them."""
        objective = self.objective
        rollouts = batch.sample(self.policy, self.config.num_rollouts, rng, paths=objective.smoothing > 0)
        weights = objective.weights(rollouts.successes)
        finite.check_weights(np.stack(weights), f"a weight of '{objective.name}'")
        if self.config.estimator == "visited":
            assert isinstance(rollouts, TreeRollouts)  # see `check_objective`
            gain = rollouts.expected_surrogate(*objective.weights(np.arange(self.config.num_rollouts + 1)))
        else:
            gain = rollouts.surrogate(*weights, smoothing=objective.smoothing)
        if objective.entropy_bonus:
            gain = gain + objective.entropy_bonus * rollouts.entropy()
        return gain, rollouts

    def _differentiate(self, gain: torch.Tensor) -> None:
        """Set every parameter's gradient to that of -gain."""
        self.optimizer.zero_grad()
        finite.check_value(gain.detach(), f"the surrogate of '{self.objective.name}'")
        if gain.requires_grad:
            (-gain).backward()
        for parameter in self.parameters:
            # If all weights are zero, nothing is differentiated. Adam then gets zeros, as in the textbook loop.
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)

    def gradient_norms(self) -> torch.Tensor:
        """Norm of the objective's gradient on single held-out instances, with as many rollouts as in training.

        [I] float64 of the I held-out instances of this step's evaluation, NaN where not measured (see `measuring`).
        """
        return self.held_out.gradient_norms(
            lambda batch, rng: self._gain(batch, rng)[0], self.parameters, self.state.step
        )

    def evaluate(self) -> dict[str, float]:
        """Measure the policy on the held-out instances; returns the new row of the metrics table and resets the tally.

        Raises FloatingPointError that names the step and the first number that is not finite.
        """
        state = self.state
        with finite.stage(f"evaluation at step {state.step}"):
            evaluation = self.held_out.evaluate(self.policy, state.step)
            compared = self.held_out.compare_gradients(self.objective, self.policy, self.named, evaluation, state.step)
            norms = torch.full_like(evaluation.pass_rates, math.nan)
            if state.step in (0, self.config.steps):
                norms = self.gradient_norms()
        row = {
            "step": state.step,
            "rollouts": state.rollouts,
            "seconds": state.seconds,
            **evaluation.row(),
            **state.tally.row(sampled=not self.objective.is_likelihood),
            **compared,
        }
        state.rows.append(row)
        state.pass_rates.append(evaluation.pass_rates)
        state.grad_norms.append(norms)
        state.tally = Tally()
        return row

    def finish(self) -> None:
        """Store the trained policy and the tables; last, the store marks the run as done."""
        sizes = [len(rates) for rates in self.state.pass_rates]
        pass_rates = pd.DataFrame(
            {
                "step": np.repeat([int(row["step"]) for row in self.state.rows], sizes),
                "instance": np.concatenate([np.arange(size) for size in sizes]),
                "pass_rate": torch.cat(self.state.pass_rates).numpy(),
                "n": 0 if self.task.exact else self.config.eval_rollouts,
                "grad_norm": torch.cat(self.state.grad_norms).numpy(),
            }
        )
        self.store.write(self.config.hash, POLICY, parameters.pack(self.policy.state_dict()))
        self.store.finish(self.config, self.state.rows, pass_rates, {"seconds": self.state.seconds})


def train(config: RunConfig, store: Store, *, callbacks: Sequence[Callback] = ()) -> None:
    """Train one run to its end and store its tables; goes on from its checkpoint if there is one.

    Calls every callback with each new row of the metrics table. Raises ValueError if the task contradicts itself or a
    weight is not finite (see `first_look`), or if the objective needs exact pass rates and the task has none,
    FloatingPointError on a number that is not finite.
    """
    first_look.look(config.task)
    first_look.look_at_weights(config.bound)
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
