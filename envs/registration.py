"""The everyday views, for `gymnasium.make("maxrl_bench/NAME-v0")`: importing this module registers them."""

from __future__ import annotations

import gymnasium

from maxrl_bench.tasks import TASKS

VIEWS = {
    "navigation": "maxrl_bench.envs.navigation_env:NavigationEnv",
    "arithmetic": "maxrl_bench.envs.token_env:TokenEnv",
    "programs": "maxrl_bench.envs.token_env:TokenEnv",
    "maze": "maxrl_bench.envs.token_env:MazeEnv",
    "digits": "maxrl_bench.envs.token_env:PixelEnv",
}

for name, entry in TASKS.items():
    if entry.family in VIEWS:
        gymnasium.register(f"maxrl_bench/{name}-v0", entry_point=VIEWS[entry.family], kwargs={"task": name})
