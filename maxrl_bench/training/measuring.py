"""What a run measures: its policy on held-out instances, norms of gradients, and what its training steps did.

Nothing here changes the policy or draws from the generator of training.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from maxrl_bench.config import INTERIM, RunConfig
from maxrl_bench.objectives.table import Objective
from maxrl_bench.rollouts import finite, policies
from maxrl_bench.rollouts.counts import Rollouts
from maxrl_bench.tasks import Batch, DrawingTask, Task
from maxrl_bench.training import metrics
from maxrl_bench.training.state import State
from maxrl_bench.training.streams import random_stream

# Exact pass rates need no evaluation rollouts. These few estimate the entropy of the policy along its own rollouts.
ENTROPY_ROLLOUTS = 16
# An evaluation goes block by block of instances, each with at most so many rollouts, to bound its memory.
EVAL_BLOCK = 2**20
# Of how many held-out instances the gradient norm is measured, before and after training.
GRADIENT_INSTANCES = 16
# Of how many held-out instances the gradient is compared with that of exact maximum likelihood, and taken apart into
# that of the harder and that of the easier half, at every evaluation (docs/statistics.md: how noisy that is).
COMPARED_INSTANCES = 32


@dataclass(frozen=True)
class Evaluation:
    """What one evaluation measured of a policy."""

    pass_rates: torch.Tensor  # [I] float64, of the I held-out instances of this evaluation
    sampled: int  # from how many rollouts of each instance; 0: the pass rates are exact
    log_p: float  # mean over instances; NaN where pass rates are sampled
    entropy: float  # nats, mean over the actions taken

    def row(self) -> dict[str, float]:
        """Its columns of the metrics table."""
        pass_at_k = metrics.pass_at_k_row(self.pass_rates.numpy(), self.sampled)
        return {**pass_at_k, "log_p": self.log_p, "entropy": self.entropy}


class HeldOut:
    """The held-out instances of a run, in blocks, and what can be measured on them."""

    def __init__(self, config: RunConfig, task: Task):
        self.config, self.task = config, task
        self.num_rollouts = ENTROPY_ROLLOUTS if task.exact else config.eval_rollouts
        # Those of every evaluation are kept; the others of the last one are made for it, to bound the memory.
        self.batches = _held_out(task, config.task.text, config.eval_split, self._blocks(0, config.instances_at(0)))

    def _blocks(self, first: int, stop: int) -> list[range]:
        size = max(1, min(INTERIM, EVAL_BLOCK // self.num_rollouts))
        return [range(start, min(start + size, stop)) for start in range(first, stop, size)]

    def _batches_at(self, step: int) -> Iterator[Batch]:
        yield from self.batches
        others = self._blocks(self.config.instances_at(0), self.config.instances_at(step))
        if others:
            yield from _made_again(self.task, self.config.task.text, self.config.eval_split, others)

    @torch.no_grad()
    def evaluate(self, policy: torch.nn.Module, step: int) -> Evaluation:
        """Pass rates and entropy of the policy after `step` training steps.

        Raises FloatingPointError that names the first number that is not finite.
        """
        rng = random_stream(self.config.seed, f"evaluation {step}")
        policy = policies.unchanging(policy)
        successes, log_ps, entropy, taken = [], [], 0.0, 0
        for batch in self._batches_at(step):
            rollouts = batch.sample(policy, self.num_rollouts, rng, grad=False)
            successes.append(rollouts.successes)
            taken += rollouts.actions_taken
            entropy += (float(rollouts.entropy()) - entropy) * (rollouts.actions_taken / taken)
            if self.task.exact:
                log_ps.append(batch.log_pass_rate(policy).cpu())
        if self.task.exact:
            log_p = torch.cat(log_ps)
            finite.check_weights(log_p.numpy(), "log p of a held-out instance")
            evaluation = Evaluation(log_p.exp(), 0, float(log_p.mean()), entropy)
        else:
            pass_rates = torch.from_numpy(np.concatenate(successes) / self.num_rollouts)
            evaluation = Evaluation(pass_rates, self.num_rollouts, math.nan, entropy)
        finite.check_value(entropy, "the entropy")
        return evaluation

    def gradient_norms(
        self,
        gain: Callable[[Batch, np.random.Generator], torch.Tensor],
        parameters: Sequence[torch.nn.Parameter],
        step: int,
    ) -> torch.Tensor:
        """Norm of the gradient of `gain` on each of the first instances by itself: [I] float64, as in `evaluate`.

        One estimate for each of GRADIENT_INSTANCES instances; NaN for the others. Source: arXiv 2602.02710, Fig. 6.
        """
        norms = torch.full((self.config.instances_at(step),), math.nan, dtype=torch.float64)
        rng = random_stream(self.config.seed, f"gradient norms {step}")
        singles = [range(index, index + 1) for index in range(min(GRADIENT_INSTANCES, len(norms)))]
        batches = _held_out(self.task, self.config.task.text, self.config.eval_split, singles)
        for index, batch in enumerate(batches):
            maximised = gain(batch, rng)
            norms[index] = 0.0
            finite.check_value(maximised.detach(), f"the surrogate of held-out instance {index}")
            if maximised.requires_grad:
                gradients = torch.autograd.grad(maximised, parameters, allow_unused=True)
                norms[index] = torch.cat([g.double().flatten() for g in gradients if g is not None]).norm()
                finite.check_value(norms[index], f"the gradient of held-out instance {index}")
        return norms

    def compare_gradients(
        self,
        objective: Objective,
        policy: torch.nn.Module,
        named: Mapping[str, torch.nn.Parameter],
        evaluation: Evaluation,
        step: int,
    ) -> dict[str, float]:
        """Where the objective's gradient points on the first COMPARED_INSTANCES: "cosine_ml" and "hard_gradient".

        The gradient is that of the weights alone, without bonuses, from as many rollouts as in training. "cosine_ml" is
        the cosine of its angle with the gradient of exact maximum likelihood, NaN where pass rates are sampled.
        "hard_gradient" is the norm of its part from the half of the instances with the lower pass rates in
        `evaluation`, over the sum of the norms of both parts. NaN where a gradient is zero. At step 0 all objectives of
        a seed are measured at the same policy. Raises FloatingPointError that names the first number that is not
        finite.
        """
        size = min(COMPARED_INSTANCES, len(evaluation.pass_rates))
        (batch,) = _held_out(self.task, self.config.task.text, self.config.eval_split, [range(size)])
        hard = metrics.harder_half(evaluation.pass_rates[:size].numpy())

        def gradient(gain: torch.Tensor, what: str) -> torch.Tensor:
            finite.check_value(gain.detach(), what)
            if not gain.requires_grad:
                return torch.zeros(sum(parameter.numel() for parameter in named.values()))
            found = torch.autograd.grad(gain, list(named.values()), retain_graph=True, allow_unused=True)
            of = {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(named.items(), found, strict=True)}
            finite.check_tensors(of, f"the gradient of {what}, parameter")
            return metrics.flat(of.values())

        log_p = batch.log_pass_rate(policy) if self.task.exact else None
        if log_p is not None and objective.is_likelihood:
            gains = [log_p[torch.from_numpy(half).to(log_p.device)].sum() / size for half in (hard, ~hard)]
        else:
            rng = random_stream(self.config.seed, f"compared gradients {step}")
            rollouts = batch.sample(policy, self.config.num_rollouts, rng)
            weights = objective.weights(rollouts.successes)
            finite.check_weights(np.stack(weights), f"a weight of '{objective.name}'")
            gains = [rollouts.surrogate(*(weight * half for weight in weights)) for half in (hard, ~hard)]
        halves = [gradient(gain, f"the surrogate of '{objective.name}'") for gain in gains]
        norms = [float(half.norm()) for half in halves]
        compared = {"cosine_ml": math.nan, "hard_gradient": norms[0] / sum(norms) if sum(norms) > 0 else math.nan}
        if log_p is not None:
            compared["cosine_ml"] = metrics.cosine(halves[0] + halves[1], gradient(log_p.mean(), "log p"))
        return compared


# The last ones made: a worker's runs, one after another, are mostly of one task.
_made: dict[tuple[object, ...], list[Any]] = {}
_KEPT = 4  # batches of evaluations, compared gradients and norms of single ones, and what the last evaluation draws


def _once(key: tuple[object, ...], make: Callable[[], list[Any]]) -> list[Any]:
    made = _made.pop(key, None) or make()
    _made[key] = made  # the last one now
    for oldest in list(_made)[:-_KEPT]:
        del _made[oldest]
    return made


def _held_out(task: Task, settings: str, split: str, blocks: Sequence[range]) -> list[Batch]:
    key = ("batches", type(task), settings, split, str(blocks))
    return _once(key, lambda: [task.batch(split, block) for block in blocks])


def _made_again(task: Task, settings: str, split: str, blocks: Sequence[range]) -> Iterator[Batch]:
    """Batches that are too large to be kept; what takes long to draw is."""
    if not isinstance(task, DrawingTask):
        yield from (task.batch(split, block) for block in blocks)
        return
    key = ("drawn", type(task), settings, split, str(blocks))
    yield from map(task.build, _once(key, lambda: [task.draw(split, block) for block in blocks]))


@contextmanager
def clock(state: State) -> Iterator[None]:
    """Counts the time of a block as the run's, if the block does not raise."""
    started = time.perf_counter()
    yield
    state.seconds += time.perf_counter() - started


def tally_step(state: State, config: RunConfig, outcomes: Rollouts | torch.Tensor, norm: float) -> None:
    """Count one step: its rollouts, or the exact log p [B] in their place; the gradient's norm before clipping."""
    tally = state.tally
    tally.steps += 1
    tally.instances += config.batch_size
    tally.grad_norm += norm
    tally.clipped += norm > config.max_grad_norm
    if isinstance(outcomes, torch.Tensor):
        tally.pass_rate += float(outcomes.exp().sum())
        return
    successes = outcomes.successes
    state.rollouts += config.num_rollouts * len(successes)
    state.successes += int(successes.sum())
    tally.pass_rate += float(successes.sum()) / config.num_rollouts
    tally.with_success += int((successes > 0).sum())
    tally.contexts_evaluated += outcomes.contexts_evaluated
    tally.contexts_named += outcomes.contexts_named
