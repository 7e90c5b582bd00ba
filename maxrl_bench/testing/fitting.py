"""Whether the parts of a batch are as its task says: actions, observations, tokens, demonstrations."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from maxrl_bench.names import shorten
from maxrl_bench.rollouts.graphs import FAILURE, StateGraphs
from maxrl_bench.rollouts.tokens import TokenBatch
from maxrl_bench.tasks import CategoricalContexts, PixelContexts, Task, TokenContexts


def misfits(task: Task, batch: object) -> Iterator[str]:
    """What does not fit, a line each, the first cause first; nothing is known of other kinds of batch than the two."""
    horizon = getattr(batch, "horizon", task.horizon)
    if horizon != task.horizon:
        yield f"the batch's horizon is {horizon}, the task's {task.horizon}"
    if isinstance(batch, TokenBatch):
        yield from _of_tokens(task, batch)
    elif isinstance(batch, StateGraphs):
        yield from _of_graphs(task, batch)


def _of_tokens(task: Task, batch: TokenBatch) -> Iterator[str]:
    contexts, size = task.contexts, batch.num_instances
    if not isinstance(contexts, TokenContexts):
        yield f"a TokenBatch needs TokenContexts, the task's are {type(contexts).__name__}"
        return
    prompts = batch.prompts
    if not isinstance(prompts, torch.Tensor) or prompts.ndim != 2:
        got = f"{type(prompts).__name__} of shape {list(getattr(prompts, 'shape', ()))}"
        yield f"prompts must be a torch tensor [instances, tokens], got {got}"
        return
    answer = batch.verifier.advance(batch.verifier.start(), np.zeros(size, np.int64))
    if not isinstance(answer, tuple) or len(answer) != 2:
        yield f"the verifier's advance must return (states, outcomes), got {shorten(answer)}"
        return
    actions = torch.arange(contexts.vocabulary) if batch.actions is None else batch.actions
    if len(actions) != task.num_actions:
        yield f"the batch has {len(actions)} actions, the task's num_actions is {task.num_actions}"
    if len(set(actions.tolist())) < len(actions):
        yield f"a token stands for two actions: {actions.tolist()}"
    for name, tokens in (("prompts", batch.prompts), ("actions", actions)):
        low, high, last = int(tokens.min()), int(tokens.max()), contexts.vocabulary - 1
        if tokens.dtype != torch.int64:
            yield f"{name} must be int64, are {tokens.dtype}"
        if low < 0 or high > last:
            yield f"{name} hold tokens from {low} to {high}, the vocabulary is 0 to {last}"
    length = batch.prompts.shape[1] + task.horizon
    if length > contexts.max_length:
        yield f"prompt and answer take {length} tokens, max_length is {contexts.max_length}"
    if batch.demonstrations is not None:
        shape, highest = tuple(batch.demonstrations.shape), int(batch.demonstrations.max())
        if len(shape) != 2 or shape[0] != size:
            yield f"demonstrations must be [{size}, T], are {list(shape)}"
        if highest >= task.num_actions:
            yield f"a demonstration takes action {highest}, the last one is {task.num_actions - 1}"
    if task.exact and batch.solutions is None:
        yield "the task's 'exact' is True, and its batches list no solutions"


def _of_graphs(task: Task, batch: StateGraphs) -> Iterator[str]:
    (states, actions), contexts, shown = batch.successor.shape, task.contexts, batch.observations
    if actions != task.num_actions:
        yield f"the graph has {actions} actions, the task's num_actions is {task.num_actions}"
    if len(batch.observation_of) != states:
        yield f"{states} states show {len(batch.observation_of)} observations"
    low, high = int(batch.successor.min()), int(batch.successor.max())
    if low < FAILURE or high >= states:
        yield f"successors are {low} to {high}, states are 0 to {states - 1}"
    if int(batch.observation_of.max()) >= len(shown):
        yield f"a state shows observation {int(batch.observation_of.max())} of {len(shown)}"
    if isinstance(contexts, CategoricalContexts):
        sizes = torch.tensor(contexts.cardinalities)
        if tuple(shown.shape[1:]) != (len(sizes),):
            yield f"an observation has features {list(shown.shape[1:])}, cardinalities are of {len(sizes)}"
        elif not ((shown >= 0) & (shown < sizes)).all():
            yield "a feature is beyond its cardinality"
    elif isinstance(contexts, PixelContexts):
        if tuple(shown.shape[1:]) != contexts.shape:
            yield f"a picture is {list(shown.shape[1:])}, the contexts' shape {list(contexts.shape)}"
        if float(shown.min()) < 0 or float(shown.max()) > 1:
            yield f"pixels are from {float(shown.min()):g} to {float(shown.max()):g}, not within 0 to 1"
    else:
        yield f"StateGraphs need CategoricalContexts or PixelContexts, the task's are {type(contexts).__name__}"
