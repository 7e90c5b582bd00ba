"""Memoryless policies on finite deterministic worlds: rollouts as counts, exact pass rates, demonstrations.

The states of all B instances are the nodes of one graph. The policy sees an observation of the state and nothing else,
so the network is run once on each distinct observation of the batch, and everything else is table look-up. A few
rollouts are followed one by one; of many, those in the same state at the same time are counted together from there on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy import sparse

from maxrl_bench.rollouts import finite
from maxrl_bench.rollouts.counts import Layer, distinct, draw_multinomial, successes_through
from maxrl_bench.rollouts.policies import ObservationPolicy, Unchanging

SUCCESS, FAILURE = -1, -2
# Up to so many observations are read at once before sampling. Of more, most are never seen: each is read when it is.
AT_ONCE = 2**13
# Up to so many rollouts, times actions, each is followed by itself, which is then faster than counting (`make bench`).
FEW = 2**17


@dataclass(frozen=True)
class StateGraphs:
    """B instances as deterministic graphs of S states with A actions; a `tasks.Batch`.

    observations [O, ...]: the distinct observations of the batch. observation_of [S] int64: which of them each state
    shows. successor [S, A] int64: the next state, or SUCCESS or FAILURE, where the rollout ends. start [B] int64: the
    first state of each instance; no state can be reached from two of them. A rollout that has not ended after `horizon`
    actions fails.
    """

    observations: torch.Tensor
    observation_of: np.ndarray
    successor: np.ndarray
    start: np.ndarray
    horizon: int

    @property
    def num_instances(self) -> int:
        return len(self.start)

    def log_probs(self, policy: ObservationPolicy | Unchanging, rows: np.ndarray | None = None) -> torch.Tensor:
        """Log-probabilities of the actions at the distinct observations, or at `rows` of them: [O or len(rows), A]."""
        if rows is not None and isinstance(policy, Unchanging):
            return self.log_probs(policy)[torch.from_numpy(rows)]
        observations = self.observations if rows is None else self.observations[torch.from_numpy(rows)]
        return policy.log_probs(observations.to(next(policy.parameters()).device))

    def sample(
        self,
        policy: ObservationPolicy | Unchanging,
        num_rollouts: int,
        rng: np.random.Generator,
        *,
        grad: bool = True,
        paths: bool = False,
    ) -> GraphRollouts:
        """N independent rollouts of every instance.

        paths: each rollout is followed by itself, at up to N times the memory. grad: changes nothing; `surrogate` and
        `entropy` run the network again, on the observations that were visited.
        """
        few = num_rollouts * self.num_instances * self.successor.shape[1] <= FEW
        if paths or few:
            return self._one_by_one(_Read(self, policy, sums=True), num_rollouts, rng, paths)
        return self._counted(_Read(self, policy, sums=False), num_rollouts, rng)

    def _one_by_one(self, read: _Read, num_rollouts: int, rng: np.random.Generator, paths: bool) -> GraphRollouts:
        """Follows each rollout by itself: the edges of a time step are in the order of the rollouts."""
        successor, num_actions = self.successor.reshape(-1), self.successor.shape[1]
        rollout = np.arange(num_rollouts * self.num_instances)
        states = np.repeat(self.start, num_rollouts)
        success = np.zeros(len(rollout), bool)
        rollouts, observations, actions = [], [], []
        for _ in range(self.horizon):
            observation = self.observation_of[states]
            action = (rng.random(len(states))[:, None] < read.probs(observation)).argmax(1)
            rollouts.append(rollout)
            observations.append(observation)
            actions.append(action)
            states = successor.take(states * num_actions + action)
            success[rollout[states == SUCCESS]] = True
            going = states >= 0
            states, rollout = states[going], rollout[going]
            if not len(states):
                break
        taken, observation, action = (np.concatenate(part) for part in (rollouts, observations, actions))
        smooth = None
        if paths:
            mean = np.bincount(taken, read.log_probs[observation, action]) / np.bincount(taken)
            smooth = np.where(success, -mean, mean)[taken]
        return GraphRollouts(
            graphs=self,
            policy=read.policy,
            num_rollouts=num_rollouts,
            contexts_evaluated=int(read.known.sum()),
            successes=success.reshape(-1, num_rollouts).sum(1),
            instance=taken // num_rollouts,
            observation=observation,
            action=action,
            count=np.ones(len(taken), np.int64),
            through=success[taken].astype(np.int64),
            smooth=smooth,
        )

    def _counted(self, read: _Read, num_rollouts: int, rng: np.random.Generator) -> GraphRollouts:
        """Follows how many rollouts are in each state: those with different histories are counted together."""
        states, counts = self.start, np.full(self.num_instances, num_rollouts, np.int64)
        instance = np.arange(self.num_instances)
        layers, seen = [], []
        for step in range(self.horizon):
            node, action, count = draw_multinomial(counts, read.probs(self.observation_of[states]), rng)
            target = self.successor[states[node], action]
            onward = np.flatnonzero(target >= 0) if step + 1 < self.horizon else np.zeros(0, np.int64)
            states_next, index = distinct(target[onward], len(self.successor))
            child = np.full(len(node), -1)
            child[onward] = index
            layers.append(Layer(node, action, count, child, np.where(target == SUCCESS, count, 0)))
            seen.append((instance[node], self.observation_of[states[node]]))
            if not len(onward):
                break
            counts = np.bincount(index, weights=count[onward]).astype(np.int64)
            instance_next = np.empty(len(states_next), np.int64)
            instance_next[index] = instance[node[onward]]
            states, instance = states_next, instance_next
        successes = successes_through(layers, rng)
        return GraphRollouts(
            graphs=self,
            policy=read.policy,
            num_rollouts=num_rollouts,
            contexts_evaluated=int(read.known.sum()),
            successes=np.bincount(layers[0].node, weights=successes[0]).astype(np.int64),
            instance=np.concatenate([whose for whose, _ in seen]),
            observation=np.concatenate([shown for _, shown in seen]),
            action=np.concatenate([layer.action for layer in layers]),
            count=np.concatenate([layer.count for layer in layers]),
            through=np.concatenate(successes),
            smooth=None,
        )

    def log_pass_rate(self, policy: ObservationPolicy | Unchanging) -> torch.Tensor:
        """Exact log p of each instance: [B] float64, differentiable; by dynamic programming over time and states.

        Pass rates below 1e-300 count as 1e-300 and have no gradient.
        """
        probs = torch.softmax(self.log_probs(policy).double(), 1).cpu()
        return torch.log(_PassRate.apply(probs[torch.from_numpy(self.observation_of)], self).clamp_min(1e-300))

    def demonstration_loss(self, policy: ObservationPolicy | Unchanging) -> torch.Tensor:
        """Mean negative log-likelihood of the actions of one shortest solution of each instance: a scalar."""
        state, action = self.demonstrations
        rows, index = np.unique(self.observation_of[state], return_inverse=True)
        return -self.log_probs(policy, rows)[torch.from_numpy(index), torch.from_numpy(action)].mean()

    def transitions(self, probs: np.ndarray) -> sparse.csr_array:
        """The chances of going from each state to each, given those of the actions [S, A]: [S + 2, S + 2], sparse.

        The last two states are FAILURE and SUCCESS (their indices are -2 and -1), which stay what they are.
        """
        entry, columns, first = self._merged
        chances = np.r_[np.bincount(entry, probs.ravel(), len(columns) - 2), 1.0, 1.0]
        size = len(first) - 1
        return sparse.csr_array((chances, columns, first), shape=(size, size))

    @cached_property
    def _merged(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The entries of `transitions`: which one each edge adds to [S * A], their columns, and each row's first."""
        num_states = len(self.successor)
        columns = self.successor % (num_states + 2)
        order = columns.argsort(1, kind="stable")
        columns = np.take_along_axis(columns, order, 1)
        new = np.ones(columns.shape, bool)
        new[:, 1:] = columns[:, 1:] != columns[:, :-1]
        entry = np.empty(columns.shape, np.int32)
        np.put_along_axis(entry, order, (np.cumsum(new) - 1).reshape(new.shape), 1)
        ends = np.array([num_states, num_states + 1])
        first = np.r_[0, np.cumsum(new.sum(1)), new.sum() + 1, new.sum() + 2]
        return entry.ravel(), np.r_[columns[new], ends].astype(np.int32), first.astype(np.int32)

    @cached_property
    def distances(self) -> np.ndarray:
        """Fewest actions from each state to SUCCESS: [S]; horizon + 1 where it takes more, or there is no way."""
        far, num_states = self.horizon + 1, len(self.successor)
        distance = np.full(num_states + 2, far)
        distance[SUCCESS] = 0
        targets = self.successor.T % (num_states + 2)
        # An action that changes no state at all is part of no shortest way.
        targets = np.ascontiguousarray(targets[(targets != np.arange(num_states)).any(1)])
        for _ in range(self.horizon if len(targets) else 0):
            closer = np.minimum(1 + distance.take(targets).min(0), far)
            if (closer == distance[:-2]).all():
                break
            distance[:-2] = closer
        return distance[:-2]

    @cached_property
    def demonstrations(self) -> tuple[np.ndarray, np.ndarray]:
        """The states and actions of one shortest solution of each instance, all in two arrays of one length.

        Of equally short solutions, the one with the lowest actions. Raises ValueError, naming the row, where an
        instance has no solution within the horizon.
        """
        if (self.distances[self.start] > self.horizon).any():
            row = int(np.argmax(self.distances[self.start] > self.horizon))
            raise ValueError(f"instance {row} of the batch cannot be solved within {self.horizon} actions")
        best = np.r_[self.distances, self.horizon + 1, 0][self.successor].argmin(1)
        states, visited = self.start, []
        while len(states):
            visited.append(states)
            states = self.successor[states, best[states]]
            states = states[states >= 0]
        demonstrated = np.concatenate(visited)
        return demonstrated, best[demonstrated]


class _Read:
    """What a policy does at the distinct observations, by look-up: each is read once, the first time at the latest.

    sums: the probability of each action comes with those of the actions before it added.
    """

    def __init__(self, graphs: StateGraphs, policy: ObservationPolicy | Unchanging, sums: bool):
        self.graphs, self.policy, self.sums = graphs, policy, sums
        size, num_actions = len(graphs.observations), graphs.successor.shape[1]
        self.known = np.zeros(size, bool)
        self.log_probs, self._probs = np.empty((2, size, num_actions))
        self._all_known = size <= AT_ONCE or isinstance(policy, Unchanging)
        if self._all_known:
            self._read(None)

    def probs(self, observation: np.ndarray) -> np.ndarray:
        """Probabilities of the actions at observations [M]: [M, A]."""
        if not self._all_known:
            known = self.known.take(observation)
            if not known.all():
                self._read(np.unique(observation[~known]))
        return self._probs.take(observation, 0)  # several times faster than an index

    @torch.no_grad()
    def _read(self, rows: np.ndarray | None) -> None:
        log_probs = self.graphs.log_probs(self.policy, rows).double().cpu().numpy()
        probs = finite.probabilities(log_probs)
        if self.sums:
            probs = np.cumsum(probs, axis=1)
            probs /= probs[:, -1:].copy()  # exactly 1 at the end, so that no action of probability zero is ever drawn
        place = slice(None) if rows is None else rows
        self.known[place], self.log_probs[place], self._probs[place] = True, log_probs, probs


@dataclass(frozen=True)
class GraphRollouts:
    """N rollouts of each instance on state graphs (`rollouts.Rollouts`): E edges (time, state, action) with counts.

    As sampled: in the order of time, then of rollouts where each is followed by itself, else of states and actions.
    """

    graphs: StateGraphs
    policy: ObservationPolicy | Unchanging
    num_rollouts: int
    contexts_evaluated: int
    successes: np.ndarray  # [B]
    instance: np.ndarray  # [E]
    observation: np.ndarray  # [E]
    action: np.ndarray  # [E]
    count: np.ndarray  # [E]
    through: np.ndarray  # [E] how many of the `count` rollouts that take the edge succeed in the end
    # [E] with paths=True: the mean log-probability per action of the edge's rollout, negated for a success
    smooth: np.ndarray | None

    @property
    def contexts_named(self) -> int:
        return self.actions_taken

    @property
    def actions_taken(self) -> int:
        return int(self.count.sum())

    def surrogate(self, on_success: np.ndarray, on_failure: np.ndarray, smoothing: float = 0.0) -> torch.Tensor:
        weight = on_success[self.instance] * self.through + on_failure[self.instance] * (self.count - self.through)
        if smoothing:
            if self.smooth is None:
                raise ValueError("differential smoothing weighs each rollout by itself: sample with paths=True")
            weight = weight + smoothing * self.smooth
        num_actions = self.graphs.successor.shape[1]
        cells = len(self.graphs.observations) * num_actions
        table = np.bincount(self.observation * num_actions + self.action, weights=weight, minlength=cells)
        scale = self.num_rollouts * len(self.successes)
        # `_weighted` skips observations of weight zero in the forward and in the backward pass.
        return self._weighted(table.reshape(-1, num_actions) / scale, lambda log_probs: log_probs)

    def entropy(self) -> torch.Tensor:
        visits = np.bincount(self.observation, weights=self.count, minlength=len(self.graphs.observations))
        return self._weighted(visits[:, None] / visits.sum(), lambda log_probs: -log_probs.exp() * log_probs)

    def _weighted(self, table: np.ndarray, term: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """Sum of table [O, A or 1] times term(log-probabilities) [O, A], over the observations of weight not zero."""
        rows = np.flatnonzero(table.any(1))
        if not len(rows):
            return torch.zeros(())
        terms = term(self.graphs.log_probs(self.policy, rows))
        return (torch.from_numpy(table[rows]).to(terms) * terms).sum()


class _PassRate(torch.autograd.Function):
    """The pass rate of each instance from the action probabilities of each state, [S, A] -> [B], by sparse products.

    The derivative is dp/dpi(s, a) = sum_t P(in state s at time t) * P(success within the horizon | action a in s at t).
    The forward pass goes back in time and keeps the second factor; the backward pass goes forward for the first.
    """

    @staticmethod
    def forward(ctx, probs, graphs):  # type: ignore[no-untyped-def]
        # Value: the chance of success, which is 1 in SUCCESS at all times.
        step = graphs.transitions(probs.detach().numpy())
        values = [np.r_[np.zeros(len(probs) + 1), 1.0]]
        for _ in range(graphs.horizon):
            values.append(step @ values[-1])
            if not ctx.needs_input_grad[0]:
                del values[0]
        ctx.graphs, ctx.step, ctx.values = graphs, step, values
        return torch.from_numpy(values[-1][graphs.start])

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        successor = ctx.graphs.successor
        num_states = len(successor)
        occupancy = np.zeros(num_states + 2)
        occupancy[ctx.graphs.start] = grad.numpy()
        back = ctx.step.T.tocsr()
        entry, columns, first = ctx.graphs._merged
        rows = np.repeat(np.arange(len(occupancy)), np.diff(first))
        total = np.zeros(len(columns))
        for value in ctx.values[-2::-1]:
            total += occupancy.take(rows) * value.take(columns)
            occupancy = back @ occupancy
            occupancy[num_states:] = 0
        return torch.from_numpy(total.take(entry).reshape(successor.shape)), None
