import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from maxrl_bench.rollouts.graphs import SUCCESS
from maxrl_bench.rollouts.policies import make_policy
from maxrl_bench.tasks import SPLITS, make_task


def label_by_image() -> dict[bytes, int]:
    data = load_digits()
    return {
        image.astype(np.float32).tobytes(): int(label) for image, label in zip(data.images, data.target, strict=True)
    }


def images_of(observation: torch.Tensor) -> list[bytes]:
    """The three images of a picture, as scikit-learn has them."""
    pixels = (observation * 16).round().numpy()
    return [np.ascontiguousarray(pixels[:, left : left + 8]).tobytes() for left in (0, 8, 16)]


def test_the_class_is_the_number_that_the_images_spell() -> None:
    labels = label_by_image()
    batch = make_task("digits").batch("validation", range(200))
    for row in range(200):
        state = int(batch.start[row])
        named = [labels[image] for image in images_of(batch.observations[batch.observation_of[state]])]
        right = np.flatnonzero(batch.successor[state] == SUCCESS)
        assert right.tolist() == [int("".join(map(str, named)))]


def test_splits_are_composed_of_disjoint_images_and_use_them_all() -> None:
    images = {
        split: {
            image
            for observation in make_task("digits").batch(split, range(3000)).observations
            for image in images_of(observation)
        }
        for split in SPLITS
    }
    assert sum(map(len, images.values())) == len(set.union(*images.values()))
    # 9,000 draws from about 360 or 1,080 images miss one with a chance of e^-8 each at most.
    assert len(set.union(*images.values())) >= 0.99 * len(label_by_image())
    assert len(images["train"]) > 2 * len(images["test"])


def test_all_digits_occur_in_all_places() -> None:
    batch = make_task("digits").batch("train", range(1000))
    numbers = (batch.successor == SUCCESS).argmax(axis=1)
    for place in (1, 10, 100):
        # 100 expected each; 50 is five standard deviations: 30 chances of one in a million.
        assert np.bincount(numbers // place % 10, minlength=10).min() > 50


def test_a_policy_that_knows_nothing_passes_one_time_in_a_thousand() -> None:
    task = make_task("digits")
    policy = make_policy(task.contexts, task.num_actions, np.random.default_rng(0))
    log_p = task.batch("test", range(32)).log_pass_rate(policy)
    assert log_p.exp().detach().numpy() == pytest.approx(np.full(32, 1e-3), rel=1e-4)


def test_exact_likelihood_is_cross_entropy() -> None:
    task = make_task("digits")
    policy = make_policy(task.contexts, task.num_actions, np.random.default_rng(0)).double()
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.1 * torch.from_numpy(np.random.default_rng(1).standard_normal(parameter.shape))
    batch = task.batch("train", range(32))
    batch = type(batch)(**{**vars(batch), "observations": batch.observations.double()})
    numbers = torch.from_numpy((batch.successor == SUCCESS).argmax(axis=1))
    entropy = torch.nn.functional.nll_loss(policy.log_probs(batch.observations[batch.observation_of]), numbers)
    parameters = list(policy.parameters())
    expected = torch.autograd.grad(entropy, parameters)
    got = torch.autograd.grad(-batch.log_pass_rate(policy).mean(), parameters)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_rendering_shows_ink_and_names() -> None:
    shown = make_task("digits").render("test", 3, [42])
    assert isinstance(shown, str)
    *picture, verdict = shown.split("\n")
    assert [len(row) for row in picture] == [48] * 8
    assert "@" in shown
    assert verdict.endswith("named 042")


@pytest.mark.parametrize("places", [0, 5, 3.0, "3"])
def test_bad_options_are_refused(places: object) -> None:
    with pytest.raises(ValueError, match="option 'places' must be a whole number from 1 to 4"):
        make_task("digits", places=places)


def test_fewer_places_are_fewer_classes() -> None:
    task = make_task("digits-2")
    assert task.num_actions == 100
    assert task.batch("test", [0]).observations.shape == (1, 8, 16)
