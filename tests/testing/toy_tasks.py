"""A small token task and a small graph task that are sound, and one of each kind for every way to be unsound."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from maxrl_bench.rollouts.graphs import FAILURE, SUCCESS, StateGraphs
from maxrl_bench.rollouts.tokens import FAILED, RUNNING, SUCCEEDED, TokenBatch
from maxrl_bench.tasks import CategoricalContexts, TokenContexts, check_indices, draw_instance

BASE = 6


class SumTo:
    """Two digits below BASE that add up to the prompt's last digit, modulo BASE: BASE answers of BASE^2."""

    name = "sum-to"
    family = "toy"
    horizon = 2
    num_actions = BASE
    exact = True
    contexts: Any = TokenContexts(vocabulary=BASE, max_length=5)
    space = "sum-to"

    def _draw(self, split: str, index: int) -> tuple[int, ...]:
        return draw_instance(
            self.space, split, index, lambda rng: tuple(rng.integers(0, BASE, 3).tolist()), lambda x: bytes(x)
        )

    def answers(self, targets: Sequence[int]) -> list[tuple[int, list[int]]]:
        return [(row, [a, (target - a) % BASE]) for row, target in enumerate(targets) for a in range(BASE)]

    def demonstrations(self, targets: Sequence[int]) -> list[list[int]]:
        return [[0, target] for target in targets]

    def batch(self, split: str, indices: Sequence[int]) -> Any:
        prompts = np.array([self._draw(split, index) for index in check_indices(indices)])
        targets = prompts[:, 2].tolist()

        def solutions() -> tuple[np.ndarray, np.ndarray]:
            rows, actions = zip(*self.answers(targets), strict=True)
            return np.array(rows), np.array(actions)

        return TokenBatch(
            prompts=torch.from_numpy(prompts),
            verifier=Adds(np.array(targets)),
            horizon=self.horizon,
            demonstrations=torch.tensor(self.demonstrations(targets)),
            solutions=solutions if self.exact else None,
        )

    def render(self, split: str, index: int, actions: Sequence[int]) -> Any:
        return f"{self._draw(split, index)}: {list(actions)}"


@dataclasses.dataclass
class Adds:
    """State: [target, sum so far, actions taken]."""

    targets: np.ndarray

    def start(self) -> np.ndarray:
        return np.column_stack([self.targets, np.zeros((len(self.targets), 2), np.int64)])

    def advance(self, states: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        target, total, taken = states.T
        total = (total + actions) % BASE
        ended = np.where(total == target, SUCCEEDED, FAILED)
        return np.column_stack([target, total, taken + 1]), np.where(taken == 0, RUNNING, ended)


class Steps:
    """Walk right along a line of states whose colours the policy sees; a wrong step falls off."""

    name = "steps"
    family = "toy"
    horizon = 3
    num_actions = 2
    exact = True
    contexts: Any = CategoricalContexts((8, 2, 2, 2, 2, 2))
    space = "steps"

    def draw(self, split: str, indices: Sequence[int]) -> dict[str, np.ndarray]:
        def one(index: int) -> np.ndarray:
            return draw_instance(self.space, split, index, lambda rng: rng.integers(0, 2, 5), lambda x: x.tobytes())

        return {"colours": np.array([one(index) for index in check_indices(indices)])}

    def build(self, drawn: Any) -> StateGraphs:
        colours = drawn["colours"]
        successor = np.full((3 * len(colours), 2), FAILURE)
        for state, row in itertools.product(range(3), range(len(colours))):
            successor[3 * row + state, colours[row, state]] = SUCCESS if state == 2 else 3 * row + state + 1
        shown = [[state, *row] for row in colours.tolist() for state in range(3)]
        return StateGraphs(
            torch.tensor(shown), np.arange(3 * len(colours)), successor, 3 * np.arange(len(colours)), self.horizon
        )

    def batch(self, split: str, indices: Sequence[int]) -> Any:
        return self.build(self.draw(split, indices))

    def render(self, split: str, index: int, actions: Sequence[int]) -> Any:
        return [np.zeros((4, 4, 3), np.uint8)] * (len(actions) + 1)


class Listing(SumTo):
    """The listed solutions are one of six: pass rates of 1/36 are reported where they are 1/6."""

    def answers(self, targets: Sequence[int]) -> list[tuple[int, list[int]]]:
        return super().answers(targets)[::BASE]


class AlsoZero(SumTo):
    """The verifier accepts [0, 0], whatever is asked."""

    def batch(self, split: str, indices: Sequence[int]) -> Any:
        batch = super().batch(split, indices)
        advance = batch.verifier.advance

        def lenient(states: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            after, outcome = advance(states, actions)
            zero = (states[:, 1] == 0) & (states[:, 2] == 1) & (actions == 0)
            return after, np.where(zero, SUCCEEDED, outcome)

        batch.verifier.advance = lenient
        return batch


class ListsWrong(SumTo):
    def answers(self, targets: Sequence[int]) -> list[tuple[int, list[int]]]:
        return [(row, [a, (b + (row == 1 and a == 4)) % BASE]) for row, (a, b) in super().answers(targets)]


class ListsTwice(SumTo):
    def answers(self, targets: Sequence[int]) -> list[tuple[int, list[int]]]:
        return [*super().answers(targets), (0, [0, targets[0]])]


class Misleading(SumTo):
    def demonstrations(self, targets: Sequence[int]) -> list[list[int]]:
        return [[0, (target + (row == 2)) % BASE] for row, target in enumerate(targets)]


class OutOfOrder(SumTo):
    """What an instance is depends on its place in the batch."""

    def batch(self, split: str, indices: Sequence[int]) -> Any:
        batch = super().batch(split, indices)
        return dataclasses.replace(batch, prompts=batch.prompts.roll(1, 0))


class Forgetful(SumTo):
    """The instances of another object are others."""

    count = itertools.count()

    def __init__(self) -> None:
        self.space = f"sum-to {next(self.count)}"


class Moody(SumTo):
    """The verifier wants another sum in every batch."""

    count = itertools.count()

    def batch(self, split: str, indices: Sequence[int]) -> Any:
        batch = super().batch(split, indices)
        batch.verifier.targets = (batch.verifier.targets + next(self.count)) % BASE
        return batch


class OneMore(SumTo):
    num_actions = BASE + 1


class TooLong(SumTo):
    contexts = TokenContexts(vocabulary=BASE, max_length=4)


class Foreign(SumTo):
    contexts = TokenContexts(vocabulary=BASE - 1, max_length=5)
    num_actions = BASE - 1


class Leaking(SumTo):
    """Test instances are train instances."""

    def _draw(self, split: str, index: int) -> tuple[int, ...]:
        return super()._draw("train" if split == "test" else split, index)


class Lenient(SumTo):
    def batch(self, split: str, indices: Sequence[int]) -> Any:
        return super().batch(split if split in ("train", "test") else "validation", [abs(int(i)) for i in indices])


class Sayer(SumTo):
    """Claims that its pass rates are sampled, and has exact ones."""

    exact = False

    def batch(self, split: str, indices: Sequence[int]) -> Any:
        self.exact = True
        try:
            return super().batch(split, indices)
        finally:
            self.exact = False


class Undecided(SumTo):
    def batch(self, split: str, indices: Sequence[int]) -> Any:
        batch = super().batch(split, indices)
        advance = batch.verifier.advance
        batch.verifier.advance = lambda s, a: (advance(s, a)[0], np.where(a == 3, 7, advance(s, a)[1]))
        return batch


class Fractional(SumTo):
    def batch(self, split: str, indices: Sequence[int]) -> Any:
        batch = super().batch(split, indices)
        advance = batch.verifier.advance
        batch.verifier.advance = lambda s, a: (advance(s, a)[0] / 2, advance(s, a)[1])
        return batch


class Raising(SumTo):
    def batch(self, split: str, indices: Sequence[int]) -> Any:
        batch = super().batch(split, indices)
        batch.verifier.advance = lambda s, a: [][3]
        return batch


class Unseen(SumTo):
    def render(self, split: str, index: int, actions: Sequence[int]) -> Any:
        return "\x07"


class NoHorizon(SumTo):
    horizon = 0


@dataclasses.dataclass(frozen=True)
class Flat(TokenBatch):
    def log_pass_rate(self, policy: torch.nn.Module) -> torch.Tensor:
        return super().log_pass_rate(policy).detach() + 0 * next(policy.parameters()).sum()


class Gradientless(SumTo):
    """The right pass rates, and no gradient."""

    def batch(self, split: str, indices: Sequence[int]) -> Any:
        batch = super().batch(split, indices)
        return Flat(**{field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)})


class Shapeless(Steps):
    def draw(self, split: str, indices: Sequence[int]) -> dict[str, np.ndarray]:
        drawn = super().draw(split, indices)
        return drawn | {"sum": np.zeros(int(drawn["colours"].sum()))}


class Colourful(Steps):
    contexts = CategoricalContexts((2, 2, 2, 2, 2, 2))


class Overstepping(Steps):
    num_actions = 3


class Sampler:
    """A kind of batch that the library does not know: it can be sampled, and has pass rates."""

    def __init__(self, batch: StateGraphs, bias: float = 1.0):
        self._batch, self._bias, self.num_instances = batch, bias, batch.num_instances

    def sample(self, policy: Any, num_rollouts: int, rng: np.random.Generator, **options: Any) -> Any:
        return self._batch.sample(policy, num_rollouts, rng, **options)

    def log_pass_rate(self, policy: Any) -> torch.Tensor:
        return self._bias * self._batch.log_pass_rate(policy)

    def demonstration_loss(self, policy: Any) -> torch.Tensor:
        return self._batch.demonstration_loss(policy)


class Unknown(Steps):
    bias = 1.0

    def batch(self, split: str, indices: Sequence[int]) -> Any:
        return Sampler(super().batch(split, indices), self.bias)


class Boasting(Unknown):
    bias = 0.5
