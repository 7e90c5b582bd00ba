"""The example of docs/trl.md, run as it stands on a tiny randomly initialised model. No network, no downloads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("trl", reason="TRL is an optional extra: pip install 'maxrl-bench[trl]'")

import datasets
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from maxrl_bench.objectives import advantages

WORDS = ["<pad>", "<eos>", "a", "b", "c", "d"]
GROUP, PROMPTS, LENGTH = 4, 2, 3


def tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")


def tiny_model() -> LlamaForCausalLM:
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=len(WORDS), pad_token_id=0, eos_token_id=1, bos_token_id=None, **sizes)
    )


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    text = (Path(__file__).parent.parent / "docs" / "trl.md").read_text()
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert code
    names: dict[str, Any] = {}
    exec(compile(code[1], "docs/trl.md", "exec"), names)
    return names


def trained(example: dict[str, Any], folder: Path, objective: str, knobs: dict[str, int]) -> dict[str, Any]:
    """One step of the example. The rewards, TRL's batch, the model before and its gradient."""
    seen: dict[str, Any] = {}

    class Watched(example["ObjectiveTrainer"]):  # type: ignore[misc]
        def compute_loss(self, model: torch.nn.Module, inputs: dict[str, Any], **kwargs: Any) -> torch.Tensor:
            seen.update(inputs=inputs, before={k: v.detach().clone() for k, v in model.state_dict().items()})
            return super().compute_loss(model, inputs, **kwargs)

    def first_letter(completions: list[str], **_: Any) -> list[float]:
        return [float(text.startswith(("a", "b", "c"))) for text in completions]

    args = example["config"](
        output_dir=str(folder), num_generations=GROUP, per_device_train_batch_size=GROUP * PROMPTS, max_steps=1,
        max_completion_length=LENGTH, max_grad_norm=0.0, optim="sgd", learning_rate=1.0, lr_scheduler_type="constant",
        report_to=[], save_strategy="no", use_cpu=True, bf16=False, disable_tqdm=True, logging_strategy="no", seed=3,
        gradient_checkpointing=False,
    )  # fmt: skip
    trainer = Watched(
        model=tiny_model(), reward_funcs=first_letter, args=args, processing_class=tokenizer(), objective=objective,
        train_dataset=datasets.Dataset.from_dict({"prompt": ["a b", "c d"]}), knobs=knobs,
    )  # fmt: skip
    trainer.train()
    # TRL shuffles the rollouts after it has scored them, so that the groups are found again by their prompts.
    texts = tokenizer().batch_decode(seen["inputs"]["completion_ids"], skip_special_tokens=True)
    prompts = seen["inputs"]["prompt_ids"][:, 0].numpy()
    order = np.argsort(prompts, kind="stable")
    rewards = np.array(first_letter(texts))[order].reshape(PROMPTS, GROUP)
    return seen | {"rewards": rewards, "order": order, "after": trainer.model.state_dict()}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("objective", "knobs"), [("maxrl_eq9", {}), ("maxrl_order", {"order": 2})])
def test_trl_update_is_the_objectives_gradient(
    example: dict[str, Any], tmp_path: Path, objective: str, knobs: dict[str, int]
) -> None:
    step = trained(example, tmp_path, objective, knobs)
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
def test_trl_example_refuses_a_knob_that_is_not_read(example: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not read the knob 'order'"):
        trained(example, tmp_path, "grpo", {"order": 2})
