"""prime-rl: a custom advantage, by import path. prime-rl itself is not loaded.

[orchestrator.advantage]
type = "custom"
import_path = "maxrl_bench.integrations.prime_rl.advantage"
kwargs = { objective = "maxrl_order", order = 8 }
"""

from __future__ import annotations

import importlib
from typing import Any

from maxrl_bench.objectives.advantages import advantages


def advantage(inputs: Any, objective: str, **knobs: Any) -> Any:
    """prime-rl's AdvantageOutputs, from its AdvantageInputs: `rewards` [num_examples, rollouts_per_example].

    Raises ValueError as `maxrl_bench.advantages` does.
    """
    outputs = importlib.import_module(type(inputs).__module__).AdvantageOutputs  # beside the inputs
    return outputs(advantages=advantages(inputs.rewards, objective, **knobs))
