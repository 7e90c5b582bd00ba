"""What the rollout engine is timed against: the textbook loop, TRL's GRPOTrainer, and gymnasium's vector environments.

Each is a fair version of common practice on the same model: a batch ends with its last unfinished rollout, its size is
the one that measured fastest, and TRL generates no more tokens per rollout than the engine's rollouts have.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import tempfile
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from maxrl_bench.rollouts.policies import ObservationPolicy
from maxrl_bench.rollouts.tokens import RUNNING, SUCCEEDED, TokenBatch
from maxrl_bench.rollouts.transformer import TokenPolicy

ROWS = 128  # rollouts in a batch of the textbook loop

Weights = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def textbook_step(
    policy: TokenPolicy, batch: TokenBatch, num_rollouts: int, weights: Weights, rng: np.random.Generator
) -> Tensor:
    """The textbook's step: repeat every prompt N times, sample with a cache, read all rollouts again for the gradient.

    Leaves gradients in the parameters and returns the surrogate, a scalar.
    """
    instance = np.repeat(np.arange(batch.num_instances), num_rollouts)
    parts = [instance[start : start + ROWS] for start in range(0, len(instance), ROWS)]
    rolled = [_roll(policy, batch, part, rng) for part in parts]
    won = np.concatenate([success for _, success in rolled])
    on_success, on_failure = weights(np.bincount(instance, won, minlength=batch.num_instances).astype(np.int64))
    total = torch.zeros(())
    for part, (actions, success) in zip(parts, rolled, strict=True):
        advantages = torch.from_numpy(np.where(success, on_success[part], on_failure[part]) / len(instance))
        value = (advantages.to(policy.rotations) * _log_probs(policy, batch, part, actions)).sum()
        (-value).backward()
        total += value.detach().float()
    return total


@torch.no_grad()
def _roll(
    policy: TokenPolicy, batch: TokenBatch, instance: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """One rollout per row: actions [R, T] padded by -1, success [R]."""
    rows = torch.from_numpy(instance)
    prompts = batch.prompts[rows]
    length, width = prompts.shape[1], 2 * policy.kv_heads * policy.head_width
    read, caches, places = policy.prefill(prompts)
    caches = [torch.cat([cache[places], cache.new_empty(len(rows), batch.horizon, width)], 1) for cache in caches]
    states = batch.verifier.start()[instance]
    running, success = np.ones(len(rows), bool), np.zeros(len(rows), bool)
    taken = []
    for t in range(batch.horizon):
        bounds = policy.log_probs(read, batch.actions).double().exp().cumsum(1).numpy()
        chosen = (rng.random(len(rows))[:, None] * bounds[:, -1:] >= bounds).sum(1)
        taken.append(np.where(running, chosen, -1))
        moved = np.flatnonzero(running)
        states[moved], outcome = batch.verifier.advance(states[moved], chosen[moved])
        success[moved] = outcome == SUCCEEDED
        running[moved] = outcome == RUNNING
        if not running.any() or t + 1 == batch.horizon:
            break

        def attend(layer: int, queries: Tensor, keys_values: Tensor, end: int = length + t) -> Tensor:
            caches[layer][:, end] = keys_values
            attended = _attention(policy, queries[:, None], caches[layer][:, : end + 1], causal=False)
            return attended[:, 0]

        tokens = torch.from_numpy(chosen)
        tokens = tokens if batch.actions is None else batch.actions[tokens]
        read = policy.continue_(tokens, torch.tensor([length + t]), attend)
    return np.stack(taken, 1), success


def _log_probs(policy: TokenPolicy, batch: TokenBatch, instance: np.ndarray, actions: np.ndarray) -> Tensor:
    """Log-probability [R] of whole rollouts, read again with gradients."""
    real, chosen = torch.from_numpy(actions >= 0), torch.from_numpy(np.maximum(actions, 0))
    prompts = batch.prompts[torch.from_numpy(instance)]
    tokens = torch.cat([prompts, (chosen if batch.actions is None else batch.actions[chosen])[:, :-1]], 1)
    rows, length = tokens.shape

    def attend(_layer: int, queries: Tensor, keys_values: Tensor) -> Tensor:
        sequences = keys_values.unflatten(0, (rows, length))
        return _attention(policy, queries.unflatten(0, (rows, length)), sequences, causal=True).flatten(0, 1)

    read = policy.continue_(tokens.flatten(), torch.arange(length).repeat(rows), attend).unflatten(0, (rows, length))
    log_probs = policy.log_probs(read[:, prompts.shape[1] - 1 :], batch.actions)
    return (log_probs.gather(2, chosen[:, :, None])[:, :, 0] * real).sum(1)


def _attention(policy: TokenPolicy, queries: Tensor, keys_values: Tensor, *, causal: bool) -> Tensor:
    """Queries [R, Q, heads, d] on keys and values [R, K, 2 * kv_heads * d] -> [R, Q, heads * d]."""
    keys, values = keys_values.unflatten(-1, (2, policy.kv_heads, policy.head_width)).permute(2, 0, 3, 1, 4)
    attended = functional.scaled_dot_product_attention(
        queries.transpose(1, 2), keys, values, is_causal=causal, enable_gqa=policy.heads != policy.kv_heads
    )
    return attended.transpose(1, 2).flatten(-2)


def _modules(*names: str) -> list[Any]:
    """Optional packages, imported when they are needed."""
    return [importlib.import_module(name) for name in names]


def hugging_face_model(policy: TokenPolicy) -> Any:
    """The same network as a `transformers` model, with the same weights; one more token, for padding."""
    (transformers,) = _modules("transformers")
    vocabulary, width = policy.embedding.weight.shape
    model = transformers.ArceeForCausalLM(
        transformers.ArceeConfig(
            vocab_size=vocabulary + 1, hidden_size=width, intermediate_size=policy.layers[0].up.out_features,
            num_hidden_layers=len(policy.layers), num_attention_heads=policy.heads,
            num_key_value_heads=policy.kv_heads, hidden_act="silu", max_position_embeddings=len(policy.rotations),
            rms_norm_eps=1e-6, tie_word_embeddings=True, bos_token_id=None, eos_token_id=vocabulary - 1,
            pad_token_id=vocabulary, attn_implementation="sdpa",
        )
    )  # fmt: skip
    weights = {"model.embed_tokens.weight": torch.cat([policy.embedding.weight, torch.zeros(1, width)])}
    weights["model.norm.weight"] = policy.norm.weight
    for i, layer in enumerate(policy.layers):
        keys, values = layer.key_value.weight.chunk(2)
        named = {
            "input_layernorm": layer.norm_attention.weight, "self_attn.q_proj": layer.query.weight,
            "self_attn.k_proj": keys, "self_attn.v_proj": values, "self_attn.o_proj": layer.out.weight,
            "post_attention_layernorm": layer.norm_mlp.weight, "mlp.up_proj": layer.up.weight,
            "mlp.down_proj": layer.down.weight,
        }  # fmt: skip
        weights |= {f"model.layers.{i}.{name}.weight": value for name, value in named.items()}
    missing, unexpected = model.load_state_dict({k: v.detach().clone() for k, v in weights.items()}, strict=False)
    if unexpected or set(missing) - {"lm_head.weight"}:
        raise ValueError(f"transformers names this network's weights differently: {missing}, {unexpected}")
    return model


def trl_seconds(policy: TokenPolicy, batch: TokenBatch, num_rollouts: int, length: int) -> float:
    """Processor seconds that one optimiser step of TRL's GRPOTrainer takes, after a first one that is not counted.

    length: tokens that it may generate per rollout. Only the actions may be generated, as in the engine.
    """
    datasets, tokenizers, transformers, trl = _modules("datasets", "tokenizers", "transformers", "trl")
    vocabulary = policy.embedding.num_embeddings
    words = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({f"t{i}": i for i in range(vocabulary + 1)}, unk_token=f"t{vocabulary}")
    )
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token=f"t{vocabulary}", eos_token=f"t{vocabulary - 1}"
    )
    actions = set(range(vocabulary) if batch.actions is None else batch.actions.tolist())
    marks: list[float] = []
    callback: Any = transformers.TrainerCallback

    class Clock(callback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            marks.append(time.process_time())

    rng = np.random.default_rng(0)

    def reward(completions: list[str], **_: Any) -> list[float]:
        return rng.integers(0, 2, len(completions)).astype(float).tolist()

    prompts = [" ".join(f"t{token}" for token in prompt) for prompt in batch.prompts.tolist()]
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of names that transformers is going to change
        args = trl.GRPOConfig(
            output_dir=folder, num_generations=num_rollouts, per_device_train_batch_size=num_rollouts,
            gradient_accumulation_steps=len(prompts), max_steps=2, max_completion_length=length, beta=0.0,
            report_to=[], save_strategy="no", use_cpu=True, bf16=False, disable_tqdm=True, logging_strategy="no",
            gradient_checkpointing=False, learning_rate=0.0, lr_scheduler_type="constant", temperature=1.0,
            generation_kwargs={"suppress_tokens": sorted(set(range(vocabulary + 1)) - actions)},
        )  # fmt: skip
        trainer = trl.GRPOTrainer(
            model=hugging_face_model(policy), reward_funcs=reward, args=args, processing_class=tokenizer,
            train_dataset=datasets.Dataset.from_dict({"prompt": prompts}), callbacks=[Clock()],
        )  # fmt: skip
        trainer.train()
    return marks[1] - marks[0]


def vector_step(
    policy: ObservationPolicy, level: str, levels: int, num_rollouts: int, horizon: int, weights: Weights
) -> Callable[[], None]:
    """A step on gymnasium's SyncVectorEnv over MiniGrid: all rollouts side by side, one batched policy, then an update.

    Building the environments is not part of the step that is returned.
    """
    gymnasium, _ = _modules("gymnasium", "minigrid")  # importing minigrid registers its levels
    envs = gymnasium.vector.SyncVectorEnv(
        [lambda: gymnasium.make(level, max_steps=horizon) for _ in range(levels * num_rollouts)]
    )
    group = np.repeat(np.arange(levels), num_rollouts)
    generator = torch.Generator().manual_seed(0)

    def step() -> None:
        seen, _ = envs.reset(seed=[int(g) for g in group])
        running, success = np.ones(len(group), bool), np.zeros(len(group), bool)
        observations, actions, rows = [], [], []
        for _ in range(horizon):
            image = seen["image"][..., 0].reshape(len(group), -1)
            observed = torch.from_numpy(np.concatenate([image, seen["direction"][:, None]], 1).astype(np.int64))
            with torch.no_grad():
                chosen = torch.multinomial(policy.log_probs(observed).exp(), 1, generator=generator)[:, 0]
            observations.append(observed[running])
            actions.append(chosen[running])
            rows.append(np.flatnonzero(running))
            seen, reward, terminated, truncated, _ = envs.step(chosen.numpy())
            success |= running & (reward > 0)
            running &= ~(terminated | truncated)
            if not running.any():
                break
        on_success, on_failure = weights(np.bincount(group, success, minlength=levels).astype(np.int64))
        advantages = np.where(success, on_success[group], on_failure[group]) / len(group)
        log_probs = policy.log_probs(torch.cat(observations)).gather(1, torch.cat(actions)[:, None])[:, 0]
        (-(torch.from_numpy(advantages[np.concatenate(rows)]).float() * log_probs).sum()).backward()

    return step
