"""The small policies' own layers, against torch's."""

import pytest
import torch

from maxrl_bench.rollouts.policies import OneHotLinear


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_first_layer_is_torchs_bag_of_embeddings(dtype: torch.dtype) -> None:
    """Outputs and gradients, where rows occur several times, once or never, also within one observation."""
    generator = torch.Generator().manual_seed(0)
    layer = OneHotLinear((4, 4, 9), 5).to(dtype)
    layer.offsets.copy_(torch.tensor([0, 0, 4]))  # the first two features share their rows
    observations = torch.randint(0, 4, (30, 3), generator=generator)
    mix = torch.randn(30, 5, generator=generator, dtype=dtype)
    bag = torch.nn.EmbeddingBag.from_pretrained(layer.rows.weight.detach().clone(), freeze=False, mode="sum")
    expected = bag(observations + layer.offsets) + layer.bias.detach()
    (expected * mix).sum().backward()
    got = layer(observations)
    (got * mix).sum().backward()
    assert torch.equal(got.detach(), expected.detach())
    assert bag.weight.grad is not None
    assert (bag.weight.grad[8:] == 0).all()  # never named
    torch.testing.assert_close(layer.rows.weight.grad, bag.weight.grad)
