"""Small policies: contexts in, log-probabilities of actions out."""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from maxrl_bench.names import did_you_mean
from maxrl_bench.rollouts.transformer import TokenPolicy
from maxrl_bench.tasks import CategoricalContexts, Contexts, PixelContexts, TokenContexts


class _SumOfRows(torch.autograd.Function):
    """The sum of the rows that each bag names: table [C, width], bags [O, F] int64 -> [O, width].

    As torch's embedding_bag, whose gradient sorts all names: here it is one product with the bags as columns of zeros
    and ones, of the few rows that occur at all.
    """

    @staticmethod
    def forward(ctx: Any, table: torch.Tensor, bags: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(bags)
        ctx.shape = table.shape
        return nn.functional.embedding_bag(bags, table, mode="sum")

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        (grad,), (bags,) = grads, ctx.saved_tensors
        occurs = torch.zeros(ctx.shape[0], dtype=torch.bool, device=bags.device)
        occurs[bags.flatten()] = True
        column = occurs.cumsum(0) - 1
        counts = grad.new_zeros(len(bags), int(occurs.sum()))
        counts.scatter_add_(1, column[bags], torch.ones_like(counts[:1, :1]).expand(bags.shape))
        result = grad.new_zeros(ctx.shape)
        with torch.autocast(grad.device.type, enabled=False):  # sums of many rows are no work for bfloat16
            result[occurs] = counts.T @ grad
        return result, None


class OneHotLinear(nn.Module):
    """A linear layer on one-hot codes of categorical features, as a sum of table rows: [O, F] int64 -> [O, width]."""

    offsets: torch.Tensor

    def __init__(self, cardinalities: tuple[int, ...], width: int):
        super().__init__()
        self.register_buffer("offsets", torch.tensor([0, *itertools.accumulate(cardinalities[:-1])]))
        self.rows = nn.Embedding(sum(cardinalities), width)
        self.bias = nn.Parameter(torch.zeros(width))
        self.fan_in = len(cardinalities)

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = _SumOfRows.apply(self.rows.weight, observations + self.offsets)
        return features + self.bias


class ObservationPolicy(nn.Module):
    """A multilayer perceptron on observations; uniform over actions before training."""

    def __init__(self, contexts: CategoricalContexts | PixelContexts, num_actions: int, width: int = 128):
        super().__init__()
        self.first: nn.Module = (
            OneHotLinear(contexts.cardinalities, width)
            if isinstance(contexts, CategoricalContexts)
            else nn.Sequential(nn.Flatten(), nn.Linear(math.prod(contexts.shape), width))
        )
        self.hidden = nn.Linear(width, width)
        self.last = nn.Linear(width, num_actions)

    def log_probs(self, observations: torch.Tensor) -> torch.Tensor:
        """Log-probabilities of the actions: [O, ...] -> [O, A]."""
        hidden = torch.relu(self.hidden(torch.relu(self.first(self._cast(observations)))))
        return torch.log_softmax(self.last(hidden), dim=-1)

    def _cast(self, observations: torch.Tensor) -> torch.Tensor:
        """Pixels follow the precision of the network, categories stay integers."""
        return observations.to(self.last.weight.dtype) if observations.is_floating_point() else observations

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Unit-variance features, and a last layer of zeros."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
                nn.init.zeros_(module.bias)
            elif isinstance(module, OneHotLinear):
                nn.init.normal_(module.rows.weight, 0, module.fan_in**-0.5, generator=generator)
        nn.init.zeros_(self.last.weight)


class Unchanging(nn.Module):
    """A policy while it does not change: the same tensor of observations, asked for again, is not evaluated again."""

    def __init__(self, policy: ObservationPolicy):
        super().__init__()
        self.policy = policy
        self._last: tuple[torch.Tensor, torch.Tensor] | None = None

    def log_probs(self, observations: torch.Tensor) -> torch.Tensor:
        """Log-probabilities of the actions: [O, ...] -> [O, A]."""
        if self._last is None or self._last[0] is not observations:
            self._last = observations, self.policy.log_probs(observations)
        return self._last[1]


def unchanging(policy: nn.Module) -> nn.Module:
    """The policy, to be asked while it does not change and no gradients are wanted."""
    return Unchanging(policy) if isinstance(policy, ObservationPolicy) else policy


# Limits of each size; counting the parameters of a larger network would take minutes.
_GREATEST_SIZE, _MOST_LAYERS = 4096, 256
_SMALLEST: dict[type[nn.Module], dict[str, int]] = {
    TokenPolicy: {"layers": 1, "width": 2, "heads": 1, "kv_heads": 1, "mlp": 1},
    ObservationPolicy: {"width": 1},
}


def _build(contexts: Contexts, num_actions: int, size: Mapping[str, int]) -> TokenPolicy | ObservationPolicy:
    build: Any = TokenPolicy if isinstance(contexts, TokenContexts) else ObservationPolicy
    known = list(inspect.signature(build).parameters)[2:]
    for key, value in size.items():
        if key not in known:
            raise ValueError(f"the policy has no size '{key}'; {did_you_mean(key, known)}")
        greatest = _MOST_LAYERS if key == "layers" else _GREATEST_SIZE
        if type(value) is not int or not 1 <= value <= greatest:
            raise ValueError(f"the policy's size '{key}' must be a whole number from 1 to {greatest:,}")
    policy: TokenPolicy | ObservationPolicy = build(contexts, num_actions, **size)
    return policy


def make_policy(contexts: Contexts, num_actions: int, rng: np.random.Generator, **size: int) -> nn.Module:
    """A policy for a task's contexts, initialised by `rng`; `size` overrides the network's default sizes.

    Raises ValueError on a size that the network does not have or cannot use.
    """
    policy = _build(contexts, num_actions, size)
    policy.initialise(torch.Generator().manual_seed(int(rng.integers(2**62))))
    return policy


class _Unallocated(TorchFunctionMode):
    """Parameters have a shape but no memory; all else is as ever, for which `torch.device("meta")` loads a compiler."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(function, "__module__", "") == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return function(*args, **(kwargs | {"device": "meta"} if function is torch.empty else kwargs))


def num_parameters(contexts: Contexts, num_actions: int, **size: int) -> int:
    """How many parameters `make_policy` would make, without making them. Raises ValueError as it does."""
    with _Unallocated():
        return sum(parameter.numel() for parameter in _build(contexts, num_actions, size).parameters())


def smallest(contexts: Contexts, num_actions: int) -> nn.Module:
    """The smallest policy that reads these contexts, for checks of fit: its parameters are not meant to be used."""
    kind = TokenPolicy if isinstance(contexts, TokenContexts) else ObservationPolicy
    return make_policy(contexts, num_actions, np.random.default_rng(0), **_SMALLEST[kind])
