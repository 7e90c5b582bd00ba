"""Tasks as everyday `gymnasium` environments: one action at a time, reward 1 on success and 0 otherwise.

Every rule stays where it is, in the task's batch: these views only walk through a batch of one instance.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from maxrl_bench.rollouts.graphs import SUCCESS, StateGraphs
from maxrl_bench.rollouts.tokens import RUNNING, SUCCEEDED, TokenBatch
from maxrl_bench.tasks import PixelContexts, TokenContexts, check_actions, check_index, make_task

_INDICES = 2**40


class TaskEnv(gymnasium.Env[np.ndarray, np.int64]):
    """What the views share: the choice of an instance, the horizon, rendering.

    `reset(options={"split": ..., "index": ...})` chooses the instance; without an index it is drawn from the seed. The
    split is "train" unless given. A rollout that is still going after the horizon is truncated. `render()` gives what
    the one render mode of the class says: text ("ansi"), or the latest frame ("rgb_array").
    Raises ValueError on an unknown task, split, option or render mode, or a bad index or action.
    """

    metadata: dict[str, Any]

    def __init__(self, task: str, render_mode: str | None = None, **task_options: Any):
        modes = self.metadata["render_modes"]
        if render_mode is not None and render_mode not in modes:
            raise ValueError(f"unknown render mode '{render_mode}' of task '{task}'; accepted: {', '.join(modes)}")
        self.task = make_task(task, **task_options)
        self.action_space = spaces.Discrete(self.task.num_actions)
        self.render_mode = render_mode
        self.split, self.index = "train", 0
        self.taken: list[int] = []

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        chosen = dict(options or {})
        split, index = chosen.pop("split", "train"), chosen.pop("index", None)
        if chosen:
            raise ValueError(f"unknown reset option '{next(iter(chosen))}'; accepted: split, index")
        self.split = split
        self.index = int(self.np_random.integers(_INDICES)) if index is None else check_index(index)
        self.taken = []
        self._begin()
        return self._observation(), self._info()

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        (taken,) = check_actions([action], self.task.num_actions)
        self.taken.append(taken)
        succeeded, ended = self._act(taken)
        truncated = not ended and len(self.taken) >= self.task.horizon
        return self._observation(), float(succeeded), ended, truncated, self._info()

    def render(self) -> Any:
        shown = self.task.render(self.split, self.index, self.taken)
        return shown if isinstance(shown, str) else shown[-1]

    def _info(self) -> dict[str, Any]:
        return {"split": self.split, "index": self.index}

    def _begin(self) -> None:
        raise NotImplementedError

    def _act(self, action: int) -> tuple[bool, bool]:
        """Take an action; whether the rollout has succeeded, and whether it has ended."""
        raise NotImplementedError

    def _observation(self) -> np.ndarray:
        raise NotImplementedError


class TokenEnv(TaskEnv):
    """A token task: the observation is prompt and answer so far, [max_length], then the padding id (the vocabulary)."""

    metadata = {"render_modes": ["ansi"]}  # noqa: RUF012  gymnasium's own convention

    _batch: TokenBatch
    _states: np.ndarray

    def __init__(self, task: str, render_mode: str | None = None, **task_options: Any):
        super().__init__(task, render_mode, **task_options)
        contexts = self.task.contexts
        if not isinstance(contexts, TokenContexts):
            raise ValueError(f"task '{task}' is not a token task")
        self._blank = contexts.vocabulary
        self.observation_space = spaces.MultiDiscrete(np.full(contexts.max_length, contexts.vocabulary + 1))

    def _begin(self) -> None:
        batch = self.task.batch(self.split, [self.index])
        assert isinstance(batch, TokenBatch)
        self._batch = batch
        self._states = batch.verifier.start()

    def _act(self, action: int) -> tuple[bool, bool]:
        self._states, outcome = self._batch.verifier.advance(self._states, np.array([action]))
        return bool(outcome[0] == SUCCEEDED), bool(outcome[0] != RUNNING)

    def _observation(self) -> np.ndarray:
        observation = np.full(self.observation_space.shape or 0, self._blank)
        prompt = self._batch.prompts[0].numpy()
        answer = self.taken if self._batch.actions is None else self._batch.actions[self.taken].numpy()
        observation[: len(prompt)] = prompt
        observation[len(prompt) : len(prompt) + len(self.taken)] = answer
        return observation


class MazeEnv(TokenEnv):
    """A token task that is drawn: what the policy reads is text, what the eye sees are MiniGrid's frames."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012


class PixelEnv(TaskEnv):
    """A memoryless task on pixels: the observation is the picture, floats in [0, 1]."""

    metadata = {"render_modes": ["ansi"]}  # noqa: RUF012

    _batch: StateGraphs
    _state: int
    _seen: int

    def __init__(self, task: str, render_mode: str | None = None, **task_options: Any):
        super().__init__(task, render_mode, **task_options)
        contexts = self.task.contexts
        if not isinstance(contexts, PixelContexts):
            raise ValueError(f"task '{task}' does not show pixels")
        self.observation_space = spaces.Box(0.0, 1.0, contexts.shape, np.float32)

    def _begin(self) -> None:
        batch = self.task.batch(self.split, [self.index])
        assert isinstance(batch, StateGraphs)
        self._batch = batch
        self._state = int(batch.start[0])
        self._seen = self._state

    def _act(self, action: int) -> tuple[bool, bool]:
        self._state = int(self._batch.successor[self._state, action])
        if self._state >= 0:
            self._seen = self._state
        return self._state == SUCCESS, self._state < 0

    def _observation(self) -> np.ndarray:
        # Where a rollout ends there is no state any more: the last one is shown again.
        return self._batch.observations[self._batch.observation_of[self._seen]].numpy().copy()
