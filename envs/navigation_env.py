"""Navigation as an everyday `gymnasium` environment: the minigrid package's own, on the task's instances."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from minigrid.minigrid_env import MiniGridEnv

from maxrl_bench.envs.minigrid_simulator import CARDINALITIES, encode_grid
from maxrl_bench.envs.navigation import Navigation
from maxrl_bench.envs.token_env import TaskEnv


class NavigationEnv(TaskEnv):
    """Every step is the package's; the view is coded as the task codes it: 49 cells by [x, y], then the direction [50].

    The reward is 1 where the package's is positive, and 0 elsewhere; the horizon is the task's.
    Raises ValueError on a task of another family.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012  gymnasium's own convention

    _navigation: Navigation
    _env: MiniGridEnv
    _seen: np.ndarray

    def __init__(self, task: str, render_mode: str | None = None, **task_options: Any):
        super().__init__(task, render_mode, **task_options)
        if not isinstance(self.task, Navigation):
            raise ValueError(f"task '{task}' is not a navigation task")
        self._navigation = self.task
        self._env = self.task.make_env()
        self.observation_space = spaces.MultiDiscrete(np.array(CARDINALITIES))

    def _begin(self) -> None:
        obs, _ = self._env.reset(seed=self._navigation.instance(self.split, self.index)[0])
        self._see(obs)

    def _act(self, action: int) -> tuple[bool, bool]:
        obs, reward, terminated, _, _ = self._env.step(action)
        self._see(obs)
        return float(reward) > 0, terminated

    def _see(self, obs: dict[str, Any]) -> None:
        self._seen = np.append(encode_grid(obs["image"]).astype(np.int64).reshape(-1), obs["direction"])

    def _observation(self) -> np.ndarray:
        return self._seen
