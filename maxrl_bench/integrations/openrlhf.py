"""OpenRLHF: an experience maker whose advantages are an objective's weights.

OpenRLHF has no registry, and each of its estimators changes what a reward function returns: "reinforce" whitens over
the batch's tokens, the others subtract a mean. So the advantages are replaced where they are made.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from openrlhf.trainer import ppo_trainer
from openrlhf.trainer.ppo_utils.experience_maker import RemoteExperienceMaker

from maxrl_bench.objectives.advantages import advantages


class ObjectiveExperienceMaker(RemoteExperienceMaker):
    """RemoteExperienceMaker with the weights of `objective` and its `knobs`, which a subclass sets."""

    objective = "maxrl_alg1"
    knobs: ClassVar[dict[str, Any]] = {}

    @torch.no_grad()
    def compute_advantages_and_returns(self, experiences: list[Any]) -> list[Any]:
        """Experiences with the weight of each rollout at each of its tokens as advantages and returns.

        Groups are those of OpenRLHF: `n_samples_per_prompt` rollouts that follow one another in `index`. Raises
        ValueError as `maxrl_bench.advantages` does, and where OpenRLHF adds a KL term to rewards.
        """
        if self.kl_ctl.value:
            raise ValueError("algo.kl.init_coef must be 0: a KL term in the reward makes it neither 0 nor 1")
        rewards = torch.cat([experience.rewards for experience in experiences]).double()
        index = torch.tensor([i for experience in experiences for i in experience.index])
        groups = index // self.args.rollout.n_samples_per_prompt
        weights = advantages(rewards, self.objective, groups=groups, **self.knobs).float()
        made = super().compute_advantages_and_returns(experiences)  # which logs what it logs
        for experience, own in zip(made, weights.split([len(e.index) for e in made]), strict=True):
            experience.advantages = own[:, None] * experience.action_mask
            experience.returns = experience.advantages.clone()
        return made


def install(objective: str, **knobs: Any) -> type[ObjectiveExperienceMaker]:
    """Let OpenRLHF's trainers in this process make experiences with `objective`; returns the class that they use."""
    named = {"objective": objective, "knobs": knobs}
    maker: type[ObjectiveExperienceMaker] = type("ObjectiveExperienceMaker", (ObjectiveExperienceMaker,), named)
    ppo_trainer.RemoteExperienceMaker = maker
    return maker
