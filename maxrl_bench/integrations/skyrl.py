"""SkyRL: an objective as an advantage estimator, registered under a name of its own.

    from maxrl_bench.integrations.skyrl import register
    register("maxrl_order", order=8)  # in the script that starts training, before it checks its configuration

and then `trainer.algorithm.advantage_estimator=maxrl_bench`.
"""

from __future__ import annotations

from typing import Any

import torch
from skyrl.backends.skyrl_train.utils.ppo_utils import register_advantage_estimator

from maxrl_bench.integrations.per_token import advantages_per_token
from maxrl_bench.objectives.table import find_row

NAME = "maxrl_bench"


def register(objective: str, estimator: str = NAME, /, **knobs: Any) -> None:
    """Make `objective` SkyRL's advantage estimator `estimator`. Raises ValueError on names that are unknown, or taken.

    Knobs are checked with the first batch, which tells the number of rollouts.
    """
    find_row(objective)

    @register_advantage_estimator(estimator)
    def objective_advantage(
        token_level_rewards: torch.Tensor, response_mask: torch.Tensor, index: Any = None, **_: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        weights = advantages_per_token(token_level_rewards, response_mask, index, objective, **knobs)
        return weights, weights
