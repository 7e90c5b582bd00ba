"""verl: the advantage estimator "maxrl_bench", which registers itself where this package and verl are installed.

    algorithm.adv_estimator=maxrl_bench +algorithm.objective=maxrl_order +algorithm.knobs.order=8

verl finds it by the entry-point group `verl.plugins`, in every process that imports verl, or by
VERL_USE_EXTERNAL_MODULES=maxrl_bench.integrations.verl where VERL_USE_EXTERNAL_PLUGINS excludes it.
"""

from __future__ import annotations

from typing import Any

import torch
from verl.trainer.ppo.core_algos import register_adv_est

from maxrl_bench.integrations.per_token import advantages_per_token

NAME = "maxrl_bench"


@register_adv_est(NAME)
def objective_advantage(
    token_level_rewards: torch.Tensor, response_mask: torch.Tensor, index: Any = None, config: Any = None, **_: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """(advantages, returns), both [bs, L], under the keys `objective` and `knobs` of verl's `algorithm` section.

    Raises ValueError as `advantages_per_token` does, and where no objective is set.
    """
    objective = config.get("objective") if config is not None else None
    if objective is None:
        raise ValueError(f"adv_estimator={NAME} needs an objective: +algorithm.objective=maxrl_alg1, say")
    knobs = {str(knob): value for knob, value in (config.get("knobs") or {}).items()}
    weights = advantages_per_token(token_level_rewards, response_mask, index, objective, **knobs)
    return weights, weights
