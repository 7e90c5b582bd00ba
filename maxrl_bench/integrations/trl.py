"""TRL: GRPOTrainer with the weights of an objective, and the settings under which its step is just their gradient."""

from __future__ import annotations

from typing import Any

import torch
from trl import GRPOConfig, GRPOTrainer

from maxrl_bench.objectives.advantages import advantages

# The settings under which the update is the objective's gradient estimate and nothing else.
EXACT: dict[str, Any] = {
    "loss_type": "dr_grpo",  # log-probabilities summed over a rollout's tokens; a token mean would bias the gradient
    "scale_rewards": "none",
    "beta": 0.0,  # no KL term
    "entropy_coef": 0.0,
    "use_adaptive_entropy": False,
    "num_iterations": 1,  # on-policy: one update per batch, so that ratios are 1 and nothing is clipped
    "mask_truncated_completions": False,  # every rollout that is counted is learnt from
    "top_entropy_quantile": 1.0,  # at every token
    "temperature": 1.0,  # scores are those of the distribution that was sampled
    "top_p": 1.0,
    "top_k": 0,
    "min_p": None,
    "repetition_penalty": 1.0,
}


def config(**settings: Any) -> GRPOConfig:
    """TRL's settings with the ones of `EXACT`. Raises TypeError where one of these is given."""
    return GRPOConfig(**EXACT, **settings)


class ObjectiveTrainer(GRPOTrainer):
    """GRPOTrainer with the weights of an objective; the rewards, weighted and summed, must be 0 or 1.

    Partial credit, sums in [0, 1], for the objectives that take it. Raises ValueError as `maxrl_bench.advantages` does,
    before training where that can be known, and on settings other than `EXACT` or with several updates per batch.
    """

    def __init__(self, *args: Any, objective: str, knobs: dict[str, Any] | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.objective, self.knobs = objective, knobs or {}
        for key, value in EXACT.items():
            if getattr(self.args, key) != value:
                raise ValueError(f"{key} must be {value!r} for an exact gradient, got {getattr(self.args, key)!r}")
        if self.args.steps_per_generation > self.args.gradient_accumulation_steps:
            raise ValueError("steps_per_generation above gradient_accumulation_steps is several updates per batch")
        # What would be refused in training is refused before it: an unknown name or knob, an order above the group.
        advantages(torch.zeros(1, self.num_generations), objective, **self.knobs)

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        self.gathered_rewards = super()._calculate_rewards(*args, **kwargs)  # [all rollouts, reward functions]
        return self.gathered_rewards

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        if not self.model.training:
            return output  # nothing is learnt from an evaluation, whose groups may be smaller than an order
        scores = self.gathered_rewards
        rewards = (scores * self.reward_weights.to(scores.device)).nansum(dim=1)
        rewards[scores.isnan().all(dim=1)] = torch.nan  # what no function has scored is no failure: it is refused
        groups = rewards.view(-1, self.num_generations)  # the rollouts of a prompt follow one another
        weights = advantages(groups, self.objective, **self.knobs).flatten()
        first = self.accelerator.process_index * len(inputs)
        # "dr_grpo" divides the sum over tokens by this constant; multiplying gives the sum itself.
        output["advantages"] = weights[first : first + len(inputs)] * self.max_completion_length
        return output
