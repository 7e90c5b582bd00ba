"""Batches walked by hand: what an instance is, what demonstrates it, and how given actions end."""

from __future__ import annotations

import unittest
from collections.abc import Sequence

import numpy as np

from maxrl_bench.rollouts.graphs import FAILURE, SUCCESS, StateGraphs
from maxrl_bench.rollouts.tokens import FAILED, RUNNING, SUCCEEDED, TokenBatch

Known = TokenBatch | StateGraphs  # the two kinds of batch whose inside is known
_OUTCOMES = {SUCCESS: SUCCEEDED, FAILURE: FAILED}


def contents(batch: object) -> list[bytes] | None:
    """All that each instance is, as bytes that do not depend on its place in the batch; None for an unknown kind."""
    if isinstance(batch, TokenBatch):
        routes = demonstrations(batch) or [[]] * batch.num_instances
        rows = zip(batch.prompts.cpu().numpy(), routes, _answers(batch).T, strict=True)
        return [prompt.tobytes() + repr(route).encode() + answers.tobytes() for prompt, route, answers in rows]
    if isinstance(batch, StateGraphs):
        return [_graph(batch, int(start)) for start in batch.start]
    return None


def _answers(batch: TokenBatch) -> np.ndarray:
    """What the verifier says of a few fixed rollouts, action by action: [.., B]."""
    count = len(batch.actions) if batch.actions is not None else 2
    said = []
    for actions in np.random.default_rng(4).integers(0, count, (2, batch.horizon)):
        walk = Walk(batch)
        for action in actions:
            walk.step(np.full(batch.num_instances, action))
            said.append(walk.outcome)
    return np.array(said)


def questions(batch: object) -> list[bytes] | None:
    """What the policy is asked in each instance, as bytes: two splits may share none. None for an unknown kind."""
    if isinstance(batch, TokenBatch):
        return [prompt.tobytes() for prompt in batch.prompts.cpu().numpy()]
    return contents(batch)


def _graph(batch: StateGraphs, start: int) -> bytes:
    """The part of the graph that is reached from a state, its states numbered in the order of their discovery."""
    successor = np.asarray(batch.successor)
    place = np.full(len(successor), -1)
    place[start], found, frontier = 0, 1, np.array([start])
    order = [frontier]
    while len(frontier):
        targets = successor[frontier].ravel()
        targets = targets[targets >= 0]
        targets = targets[place[targets] < 0]
        new, first = np.unique(targets, return_index=True)
        frontier = new[np.argsort(first)]
        place[frontier] = found + np.arange(len(frontier))
        found += len(frontier)
        order.append(frontier)
    states = np.concatenate(order)
    edges = successor[states]
    shown = batch.observations.cpu().numpy()[batch.observation_of[states]]
    return shown.tobytes() + np.where(edges >= 0, place[np.maximum(edges, 0)], edges).astype(np.int64).tobytes()


def demonstrations(batch: object) -> list[list[int]] | None:
    """The demonstrated actions of every instance; None where a task has no demonstrations, or the kind is unknown.

    Raises ValueError where an instance of a state graph cannot be solved within the horizon.
    """
    if isinstance(batch, TokenBatch):
        if batch.demonstrations is None:
            return None
        return [[action for action in row if action >= 0] for row in batch.demonstrations.tolist()]
    if not isinstance(batch, StateGraphs):
        return None
    states, actions = (np.asarray(part) for part in batch.demonstrations)
    step = dict(zip(states.tolist(), actions.tolist(), strict=True))
    routes = []
    for state in batch.start.tolist():
        route: list[int] = []
        while state >= 0 and len(route) < batch.horizon:
            route.append(step[state])
            state = int(batch.successor[state, route[-1]])
        routes.append(route)
    return routes


class Walk:
    """One rollout of each row of a batch, all at once, one action each. `rows`: which instances (all, once each).

    outcome [M]: RUNNING, SUCCEEDED or FAILED of each. Raises AssertionError where a verifier does not answer as
    `rollouts.tokens.Verifier` says.
    """

    def __init__(self, batch: Known, rows: np.ndarray | None = None):
        self.batch = batch
        rows = np.arange(batch.num_instances) if rows is None else rows
        self.states = np.asarray(batch.verifier.start() if isinstance(batch, TokenBatch) else batch.start)[rows]
        self.outcome = np.full(len(rows), RUNNING)

    def step(self, actions: np.ndarray) -> None:
        """Actions [M]; those of rollouts that have ended are ignored."""
        going = np.flatnonzero(self.outcome == RUNNING)
        if not len(going):
            return
        if isinstance(self.batch, TokenBatch):
            before = self.states[going]
            after, outcome = self.batch.verifier.advance(before, np.asarray(actions)[going])
            after, outcome = np.asarray(after), np.asarray(outcome)
            if after.shape != before.shape or after.dtype.kind not in "iu":
                got = f"{after.dtype} {list(after.shape)}"
                raise AssertionError(f"the verifier's states must be integers {list(before.shape)}, got {got}")
            if outcome.shape != going.shape or not np.isin(outcome, (RUNNING, SUCCEEDED, FAILED)).all():
                raise AssertionError(
                    f"the verifier's outcomes must be 0, 1 or 2, one for each of {len(going)} nodes, got {outcome!r}"
                )
        else:
            after = np.asarray(self.batch.successor)[self.states[going], np.asarray(actions)[going]]
            outcome = np.array([_OUTCOMES.get(state, RUNNING) for state in after.tolist()], int)
        self.states = self.states.copy()
        self.states[going], self.outcome[going] = after, outcome


def replay(batch: Known, rows: np.ndarray, routes: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """How rollouts of instances `rows` end that take these actions, and after how many: two arrays [M]."""
    walk = Walk(batch, rows)
    lengths = np.full(len(rows), 0)
    for step in range(max(map(len, routes), default=0)):
        going = (walk.outcome == RUNNING) & np.array([step < len(route) for route in routes])
        lengths += going
        # A rollout whose actions are over waits for the others: its outcome must not change.
        stopped, walk.outcome = walk.outcome, np.where(going, RUNNING, FAILED)
        walk.step(np.array([route[step] if step < len(route) else 0 for route in routes]))
        walk.outcome = np.where(going, walk.outcome, stopped)
    return walk.outcome, lengths


def accepted(batch: TokenBatch, row: int, num_actions: int, most: int) -> set[tuple[int, ...]]:
    """All answers that the verifier accepts. Raises unittest.SkipTest where more than `most` were to be tried."""
    answers: set[tuple[int, ...]] = set()
    states, prefixes = np.asarray(batch.verifier.start())[row : row + 1], np.zeros((1, 0), np.int64)
    for _ in range(batch.horizon):
        if len(states) * num_actions > most:
            raise unittest.SkipTest("there are too many answers to try")
        actions = np.tile(np.arange(num_actions), len(states))
        longer = np.column_stack([np.repeat(prefixes, num_actions, axis=0), actions])
        states, outcome = batch.verifier.advance(np.repeat(states, num_actions, axis=0), actions)
        answers |= {tuple(answer) for answer in longer[outcome == SUCCEEDED].tolist()}
        states, prefixes = states[outcome == RUNNING], longer[outcome == RUNNING]
        if not len(states):
            break
    return answers
