"""TRL's trainer with our weights, on a tiny randomly initialised model. No network, no downloads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("trl", reason="TRL is an optional extra: pip install 'maxrl-bench[trl]'")

import datasets
import trl
from documents import blocks
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from maxrl_bench.integrations.trl import EXACT, ObjectiveTrainer, config
from maxrl_bench.objectives.advantages import advantages

WORDS = ["<pad>", "<eos>", "a", "b", "c", "d"]
GROUP, PROMPTS, LENGTH = 4, 2, 3
DATA = datasets.Dataset.from_dict({"prompt": ["a b", "c d"]})


def tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")


def tiny_model() -> LlamaForCausalLM:
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=len(WORDS), pad_token_id=0, eos_token_id=1, bos_token_id=None, **sizes)
    )


def first_letter(completions: list[str], **_: Any) -> list[float]:
    return [float(text.startswith(("a", "b", "c"))) for text in completions]


def last_letter(completions: list[str], **_: Any) -> list[float]:
    return [float(text.endswith(("a", "b"))) for text in completions]


def on(prompt: str, function: Callable[..., list[float]]) -> Callable[..., list[float | None]]:
    """A function that scores the completions of one prompt alone."""

    def score(prompts: list[str], completions: list[str], **_: Any) -> list[float | None]:
        return [s if p == prompt else None for s, p in zip(function(completions), prompts, strict=True)]

    return score


def trained(
    folder: Path,
    objective: str,
    knobs: dict[str, int] | None = None,
    reward_funcs: Any = first_letter,
    settings: dict[str, Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """One step of the example. The rewards, TRL's batch, the model before and its gradient."""
    seen: dict[str, Any] = {}

    class Watched(ObjectiveTrainer):
        def compute_loss(self, model: torch.nn.Module, inputs: dict[str, Any], **kwargs: Any) -> torch.Tensor:
            if model.training:
                seen.update(inputs=inputs, before={k: v.detach().clone() for k, v in model.state_dict().items()})
            return super().compute_loss(model, inputs, **kwargs)

    args = config(
        output_dir=str(folder), num_generations=GROUP, per_device_train_batch_size=GROUP * PROMPTS, max_steps=1,
        max_completion_length=LENGTH, max_grad_norm=0.0, optim="sgd", learning_rate=1.0, lr_scheduler_type="constant",
        report_to=[], save_strategy="no", use_cpu=True, bf16=False, disable_tqdm=True, logging_strategy="no", seed=3,
        gradient_checkpointing=False, **(settings or {}),
    )  # fmt: skip
    trainer = Watched(
        model=tiny_model(), reward_funcs=reward_funcs, args=args, processing_class=tokenizer(), objective=objective,
        train_dataset=DATA, knobs=knobs, **more,
    )  # fmt: skip
    trainer.train()
    # TRL shuffles the rollouts after it has scored them, so that the groups are found again by their prompts.
    texts = tokenizer().batch_decode(seen["inputs"]["completion_ids"], skip_special_tokens=True)
    prompts = seen["inputs"]["prompt_ids"][:, 0].numpy()
    order = np.argsort(prompts, kind="stable")
    rewards = np.array(first_letter(texts))[order].reshape(PROMPTS, GROUP)
    last = np.array(last_letter(texts))[order].reshape(PROMPTS, GROUP)
    logged = [key for row in trainer.state.log_history for key in row]
    return seen | {"rewards": rewards, "last": last, "order": order, "after": trainer.model.state_dict(), "log": logged}


def learnt(step: dict[str, Any]) -> np.ndarray:
    """The weights that the step has used, [prompts, rollouts]."""
    return step["inputs"]["advantages"].numpy()[step["order"]].reshape(PROMPTS, GROUP) / LENGTH


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("objective", "knobs"), [("maxrl_eq9", {}), ("maxrl_order", {"order": 2})])
def test_trl_update_is_the_objectives_gradient(tmp_path: Path, objective: str, knobs: dict[str, int]) -> None:
    step = trained(tmp_path, objective, knobs)
    assert 0 < step["rewards"].sum() < step["rewards"].size  # the seed draws both outcomes
    expected = np.empty(GROUP * PROMPTS)
    expected[step["order"]] = advantages(step["rewards"], objective, **knobs).ravel()
    np.testing.assert_allclose(step["inputs"]["advantages"].numpy(), expected * LENGTH, rtol=1e-6)

    # The textbook: the mean over rollouts of weight times the log-probability of the whole completion.
    model = tiny_model()
    model.load_state_dict(step["before"])
    completion, mask = step["inputs"]["completion_ids"], step["inputs"]["completion_mask"]
    ids = torch.cat([step["inputs"]["prompt_ids"], completion], 1)
    attention = torch.cat([step["inputs"]["prompt_mask"], mask], 1)
    log_probs = model(input_ids=ids, attention_mask=attention).logits.log_softmax(-1)[:, -LENGTH - 1 : -1]
    log_prob = (log_probs.gather(-1, completion[..., None])[..., 0] * mask).sum(1)
    (torch.tensor(expected, dtype=torch.float32) * log_prob).mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        moved = step["after"][name] - step["before"][name]
        torch.testing.assert_close(moved, parameter.grad, atol=1e-6, rtol=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_trl_refuses_a_knob_that_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not read the knob 'order'"):
        trained(tmp_path, "grpo", {"order": 2})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("weights", "which"), [([1.0, 0.0], "rewards"), ([0.0, 1.0], "last")])
def test_trl_reward_weights_decide_what_is_learnt(tmp_path: Path, weights: list[float], which: str) -> None:
    settings = {"reward_weights": weights}
    step = trained(tmp_path, "maxrl_eq10", None, [first_letter, last_letter], settings)
    assert not np.array_equal(step["rewards"], step["last"])
    np.testing.assert_allclose(learnt(step), advantages(step[which], "maxrl_eq10"), rtol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_trl_partial_credit(tmp_path: Path) -> None:
    step = trained(tmp_path, "maxrl_eq10", None, [first_letter, last_letter], {"reward_weights": [0.5, 0.5]})
    rewards = (step["rewards"] + step["last"]) / 2
    assert (rewards == 0.5).any()
    np.testing.assert_allclose(learnt(step), advantages(rewards, "maxrl_eq10"), rtol=1e-6, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_trl_reward_functions_that_share_a_data_set(tmp_path: Path) -> None:
    step = trained(tmp_path, "maxrl_eq10", None, [on("a b", first_letter), on("c d", last_letter)])
    rewards = np.stack([step["rewards"][0], step["last"][1]])
    np.testing.assert_allclose(learnt(step), advantages(rewards, "maxrl_eq10"), rtol=1e-6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("functions", "weights", "message"),
    [
        ([first_letter, last_letter], [0.5, 0.25], "exactly 0 or 1, got 0."),
        ([first_letter, lambda completions, **_: [1.0] * len(completions)], None, "exactly 0 or 1, got 2"),
        ([on("a b", first_letter)], None, "exactly 0 or 1, got NaN"),
    ],
)
def test_trl_refuses_rewards_that_are_not_binary(
    tmp_path: Path, functions: list[Any], weights: list[float] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        trained(tmp_path, "grpo", None, functions, {"reward_weights": weights})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("group", [1, 2, 8])
def test_trl_evaluates_in_groups_of_another_size(tmp_path: Path, group: int) -> None:
    settings = {"num_generations_eval": group, "per_device_eval_batch_size": 2 * group, "eval_strategy": "steps"}
    settings["eval_steps"] = 1
    step = trained(tmp_path, "maxrl_order", {"order": 4}, settings=settings, eval_dataset=DATA)
    np.testing.assert_allclose(learnt(step), advantages(step["rewards"], "maxrl_order", order=4), rtol=1e-6)
    assert "eval_reward" in step["log"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("objective", "knobs", "settings", "message"),
    [
        ("maxrl_order", {"order": 5}, {}, "at most 4"),
        ("maxrl_alg2", {}, {}, "did you mean 'maxrl_"),
        ("grpo_entropy", {}, {}, "needs more than rewards"),
        ("ml", {}, {}, "no weights"),
        ("grpo", {}, {"loss_type": "grpo"}, "loss_type must be 'dr_grpo' for an exact gradient, got 'grpo'"),
        ("grpo", {}, {"temperature": 0.7}, "temperature must be 1.0"),
        ("grpo", {}, {"top_k": 5}, "top_k must be 0"),
        ("grpo", {}, {"mask_truncated_completions": True}, "mask_truncated_completions must be False"),
        ("grpo", {}, {"steps_per_generation": 2}, "several updates per batch"),
    ],
)
def test_trl_refuses_before_training_what_would_not_be_exact(
    tmp_path: Path,
    objective: str,
    knobs: dict[str, int],
    settings: dict[str, Any],
    message: str,
) -> None:
    args = trl.GRPOConfig(
        output_dir=str(tmp_path), num_generations=GROUP, per_device_train_batch_size=GROUP, use_cpu=True, bf16=False,
        **{**EXACT, **settings},
    )  # fmt: skip
    with pytest.raises(ValueError, match=message):
        ObjectiveTrainer(
            model=tiny_model(), reward_funcs=first_letter, args=args, processing_class=tokenizer(),
            train_dataset=DATA, objective=objective, knobs=knobs,
        )  # fmt: skip
    with pytest.raises(TypeError, match="multiple values"):
        config(loss_type="grpo")


@pytest.mark.filterwarnings("ignore")
def test_trl_usage_as_it_is_documented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (usage,) = (block.text for block in blocks("docs/trainers.md", "python") if "trainer.train()" in block.text)
    monkeypatch.chdir(tmp_path)
    dataset = datasets.Dataset.from_dict({"prompt": [f"{a} {b}" for a in "ab" for b in "cd"]})  # a batch of 64 rollouts
    names = {"model": tiny_model(), "is_correct": first_letter, "dataset": dataset, "tokenizer": tokenizer()}
    exec(compile(usage, "docs/trainers.md", "exec"), names)
    assert names["trainer"].state.global_step > 0
    assert (tmp_path / "out").is_dir()
