"""What a task is, on one page: its instances, what its batches can do, and the settings that belong to it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, get_args

from maxrl_bench.config import RunConfig
from maxrl_bench.names import from_label, label
from maxrl_bench.rollouts import policies
from maxrl_bench.sweeps.grid import OPTIMIZER, Rates, check_table, find_rate
from maxrl_bench.sweeps.recipes import HERE, Recipes, as_toml
from maxrl_bench.tasks import CategoricalContexts, Contexts, Task, TokenContexts, check_task_name, make_task


def show(name: str, options: Mapping[str, Any], as_json: bool) -> str:
    """The card of a task with these options, as text or one JSON object.

    Recipe and tuned rates are those that `maxrl-bench run` takes. Raises ValueError as `make_task` does, and where a
    recipe or a rate is no good.
    """
    entry = check_task_name(name)
    task = make_task(name, **options)
    recipes = Recipes(HERE)
    named = {"name": name, **options}
    rows = [row for file in recipes.rates for of in (label(named), name) for row in _rates(file, of)]
    rates = {row: find_rate(recipes.rates, named, *_entry(row)) for row in rows}
    facts: dict[str, Any] = {
        "task": task.name,
        "family": task.family,
        "factory": entry.factory,
        "options": {**entry.options, **options},
        "horizon": task.horizon,
        "actions": task.num_actions,
        "contexts": _contexts(task.contexts),
        "exact": task.exact,
        "demonstrations": _has_demonstrations(task),
        "recipe": {key: values if len(values) > 1 else values[0] for key, (values, *_) in recipes.of(name).items()},
        "rates": rates,
    }
    return json.dumps(facts) if as_json else _text(facts)


def _rates(file: Rates, task: str) -> dict[str, Any]:
    return check_table(file.tables.get(task, {}), f"{file.path}: [{task}]")


def _entry(row: str) -> tuple[dict[str, Any], int, str]:
    """What an entry "grpo N=4 sgd" is of: the objective, the number of rollouts and the optimizer, or the defaults."""
    rest, _, last = row.rpartition(" ")
    optimizers = get_args(RunConfig.model_fields["optimizer"].annotation)
    name, optimizer = (rest, last) if last in optimizers else (row, OPTIMIZER)
    objective, _, num_rollouts = name.partition(" N=")
    default = RunConfig.model_fields["num_rollouts"].default
    return from_label(objective), int(num_rollouts) if num_rollouts.isdecimal() else default, optimizer


def _contexts(contexts: Contexts) -> str:
    if isinstance(contexts, TokenContexts):
        return f"prefixes of at most {contexts.max_length} tokens, of a vocabulary of {contexts.vocabulary}"
    if isinstance(contexts, CategoricalContexts):
        values = sorted(set(contexts.cardinalities))
        return f"observations of {len(contexts.cardinalities)} features with {_range(values)} values each"
    return f"arrays of floats in [0, 1], {' x '.join(map(str, contexts.shape))}"


def _range(values: list[int]) -> str:
    return str(values[0]) if len(values) == 1 else f"{values[0]} to {values[-1]}"


def _has_demonstrations(task: Task) -> bool:
    try:
        task.batch("train", [0]).demonstration_loss(policies.smallest(task.contexts, task.num_actions))
    except (ValueError, NotImplementedError):
        return False
    return True


def _text(facts: Mapping[str, Any]) -> str:
    exact = "exact: no sampling noise in evaluations" if facts["exact"] else "sampled (eval_rollouts of each instance)"
    shown = {
        "family": f"{facts['family']} ({facts['factory']})",
        "options": ", ".join(f"{key} = {as_toml(value)}" for key, value in facts["options"].items()) or "none",
        "horizon": f"{facts['horizon']} actions",
        "actions": str(facts["actions"]),
        "contexts": facts["contexts"],
        "pass rates": exact,
        "demonstrations": "yes: it can be warm-started" if facts["demonstrations"] else "none: no warm start",
        "recipe": ", ".join(f"{key} = {as_toml(value)}" for key, value in facts["recipe"].items()) or "none",
        "tuned rates": ", ".join(f"{key} {rate:g}" for key, rate in facts["rates"].items()) or "none",
    }
    width = max(map(len, shown))
    return "\n".join([facts["task"], *(f"  {key:<{width}}  {value}" for key, value in shown.items())])
