"""The policy that a run starts from, the same for every objective of a comparison."""

from __future__ import annotations

import hashlib
import json

import torch

from maxrl_bench.config import RunConfig
from maxrl_bench.rollouts import finite, policies
from maxrl_bench.storage.locks import held
from maxrl_bench.storage.store import Store
from maxrl_bench.tasks import Task
from maxrl_bench.training import parameters
from maxrl_bench.training.streams import random_stream, warm_start_indices

POLICY = "policy.pt"


def base_policy(config: RunConfig, task: Task, store: Store) -> torch.nn.Module:
    """The warm-started policy that every objective of a comparison starts from, made once per task and seed.

    Supervised steps (Adam) on demonstrations of train instances that no later step uses in the data-rich mode. A stored
    policy that does not load is deleted and made again. Raises FloatingPointError on a number that is not finite.
    """
    if not config.warm_start_steps:
        return make_base(config, task)
    name = base_name(config)
    with held(store, name):
        stored = store.read(name, POLICY)
        if stored is not None:
            policy = _initial(config, task)
            try:
                parameters.load_policy(policy, parameters.unpack(stored))
                return policy
            except ValueError as error:
                store.drop(name, POLICY, f"does not load ({error})")
        policy = make_base(config, task)
        store.write(name, POLICY, parameters.pack(policy.state_dict()))
    return policy


def base_name(config: RunConfig) -> str:
    """The name of a run's base policy in the store: a hash of all settings that the policy depends on."""
    keys = ("task", "policy", "seed", "device", "dtype", "max_grad_norm")
    settings = {
        key: value
        for key, value in config.model_dump(mode="json").items()
        if key in keys or key.startswith("warm_start_")
    }
    return "base-" + hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=8).hexdigest()


def make_base(config: RunConfig, task: Task) -> torch.nn.Module:
    """Make the base policy: a fresh network, then the supervised steps."""
    policy = _initial(config, task)
    _imitate(policy, config, task)
    return policy


def _initial(config: RunConfig, task: Task) -> torch.nn.Module:
    policy = policies.make_policy(
        task.contexts, task.num_actions, random_stream(config.seed, "policy"), **config.policy
    )
    return policy.to(config.device, torch.float64 if config.dtype == "float64" else torch.float32)


def _imitate(policy: torch.nn.Module, config: RunConfig, task: Task) -> None:
    named = dict(policy.named_parameters())
    optimizer = torch.optim.Adam(named.values(), lr=config.warm_start_learning_rate, fused=True)
    for step in range(config.warm_start_steps):
        with finite.stage(f"step {step + 1} of the warm start"):
            batch = task.batch("train", warm_start_indices(config, step))
            optimizer.zero_grad()
            loss = batch.demonstration_loss(policy)
            finite.check_value(loss.detach(), "the loss on demonstrations")
            loss.backward()
            finite.clip_gradient(named, config.max_grad_norm)
            optimizer.step()
            finite.check_tensors(named, "parameter")
