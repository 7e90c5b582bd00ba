"""Sampled rollouts against exact pass rates, and how often the comparison raises a false alarm."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from maxrl_bench.rollouts.policies import make_policy
from maxrl_bench.tasks import Batch, Task, TokenContexts

# One comparison is an alarm with this probability at most where nothing is wrong; a look makes at most LOOKS of them.
CHANCE = 1e-9
LOOKS = 500
FALSE_ALARM = CHANCE * LOOKS
# An exact pass rate is computed in the network's precision, of float32 at worst.
_RELATIVE, _ABSOLUTE = 1e-3, 1e-6


def differs(successes: np.ndarray, num_rollouts: int, pass_rates: np.ndarray) -> int | None:
    """Which instance's successes K [B] of N rollouts are not those of its pass rate [B]; None if none stands out.

    Each instance is compared by the tails of its binomial, and all together by those of the binomial with their mean
    rate, which bound the tails of their sum (Hoeffding 1956, theorem 4). Both sides: 2 (B + 1) comparisons.
    """
    p = np.clip(np.asarray(pass_rates, np.float64), 0.0, 1.0)
    alone = _tails(np.asarray(successes), num_rollouts, p)
    # The theorem is of counts at least 1 from the mean.
    total, trials, mean = int(np.sum(successes)), num_rollouts * len(p), float(p.mean())
    together = _tails(np.array([total]), trials, np.array([mean]))[0] if abs(total - trials * mean) >= 1 else 1.0
    return int(alone.argmin()) if min(alone.min(), together) < CHANCE else None


def _tails(successes: np.ndarray, trials: int, p: np.ndarray) -> np.ndarray:
    """The chance of so many successes or more, or of so few or fewer, whichever is smaller."""
    from scipy import stats  # takes half a second, and every worker of a sweep imports this module

    high = np.minimum(p * (1 + _RELATIVE) + _ABSOLUTE, 1.0)
    low = np.maximum(1 - (1 - p) * (1 + _RELATIVE) - _ABSOLUTE, 0.0)
    tails: np.ndarray = np.minimum(stats.binom.sf(successes - 1, trials, high), stats.binom.cdf(successes, trials, low))
    return tails


def policies_on_the_way(task: Task, batch: Batch, stages: int, rng: np.random.Generator) -> Iterator[torch.nn.Module]:
    """A small policy as it is made, and at `stages` points of learning to imitate the demonstrations of a batch.

    Under the first one success may be too rare to be seen; the others succeed more and more often. Without
    demonstrations there is the first alone.
    """
    sizes = {"width": 32, "layers": 1} if isinstance(task.contexts, TokenContexts) else {"width": 32}
    policy = make_policy(task.contexts, task.num_actions, rng, **sizes)
    yield policy
    parameters = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    for _ in range(stages):
        for _ in range(4):
            try:
                loss = batch.demonstration_loss(policy)
            except (ValueError, NotImplementedError):
                return
            # Steps of one size, by the gradient's sign: torch's optimisers take seconds to load.
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
            with torch.no_grad():
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    parameter.sub_(torch.zeros_like(parameter) if gradient is None else 0.02 * gradient.sign())
        yield policy
