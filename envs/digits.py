"""Digits: handwritten digits side by side, three of them to be named as one of 1,000 numbers.

One action, so exact maximum likelihood is cross-entropy, and an untrained policy succeeds once in 1,000 times, as
in the paper's image study (arXiv 2602.02710, ImageNet). The digits are the 8x8 images that ship with scikit-learn.
Every image belongs to one split, by its content; instances of a split are composed of that split's images alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, partial

import numpy as np
import torch
from sklearn.datasets import load_digits

from maxrl_bench.envs import options
from maxrl_bench.rollouts.graphs import FAILURE, SUCCESS, StateGraphs
from maxrl_bench.tasks import SPLITS, PixelContexts, check_actions, check_indices, draw_instance, split_of

_SHADES = " .:-=+*#%@"
_SPACE = "digits"


@cache
def _images() -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray], list[str]]:
    """Images [1797, 8, 8] uint8 from 0 to 16, labels [1797], the images of each split, and the split of each image."""
    data = load_digits()
    images = data.images.astype(np.uint8)
    split_of_image = [split_of(_SPACE, image.tobytes()) for image in images]
    members = {split: np.flatnonzero([own == split for own in split_of_image]) for split in SPLITS}
    return images, data.target, members, split_of_image


def _propose(rng: np.random.Generator, places: int) -> tuple[int, ...]:
    """Any image, then more from the split that the first one belongs to."""
    images, _, members, split_of_image = _images()
    first = int(rng.integers(len(images)))
    pool = members[split_of_image[first]]
    return first, *pool[rng.integers(len(pool), size=places - 1)].tolist()


def _key(chosen: tuple[int, ...]) -> bytes:
    # The split of the first image is the split of the instance.
    return _images()[0][chosen[0]].tobytes()


class Digits:
    """Rows of `places` digits (1 to 4), of images drawn uniformly from the split; the class is the number they spell.

    Raises ValueError on a number of places out of range.
    """

    family = "digits"
    horizon = 1
    exact = True

    def __init__(self, places: int = 3):
        self._places = options.integer("places", places, 1, 4)
        self.num_actions = 10**places
        self.contexts = PixelContexts((8, 8 * places))
        self.name = f"digits-{places}"

    def draw(self, split: str, indices: Sequence[int]) -> dict[str, np.ndarray]:
        """Pictures [B, 8, 8 * places] uint8 from 0 to 16, and their numbers [B]."""
        images, labels, *_ = _images()
        propose = partial(_propose, places=self._places)
        chosen = np.array([draw_instance(_SPACE, split, index, propose, _key) for index in check_indices(indices)])
        pictures = images[chosen].transpose(0, 2, 1, 3).reshape(len(chosen), *self.contexts.shape)
        return {"pictures": pictures, "numbers": labels[chosen] @ 10 ** np.arange(self._places - 1, -1, -1)}

    def build(self, drawn: Mapping[str, np.ndarray]) -> StateGraphs:
        """A batch of pictures that were drawn."""
        pictures, numbers = drawn["pictures"], drawn["numbers"]
        states = np.arange(len(numbers))
        successor = np.full((len(numbers), self.num_actions), FAILURE)
        successor[states, numbers] = SUCCESS
        return StateGraphs(
            observations=torch.from_numpy(pictures.astype(np.float32) / 16),
            observation_of=states,
            successor=successor,
            start=states,
            horizon=self.horizon,
        )

    def batch(self, split: str, indices: Sequence[int]) -> StateGraphs:
        """The pictures at these indices of a split. Raises ValueError on an unknown split or a bad index."""
        return self.build(self.draw(split, indices))

    def render(self, split: str, index: int, actions: Sequence[int]) -> str:
        """The picture in ten shades of text, the right number and the one that the policy named."""
        pictures, numbers = self.draw(split, [index]).values()
        rows = ["".join(_SHADES[min(int(ink) * 10 // 17, 9)] * 2 for ink in row) for row in pictures[0]]
        actions = check_actions(actions, self.num_actions)
        named = ", ".join(f"{action:0{self._places}d}" for action in actions) or "(nothing)"
        return "\n".join([*rows, f"{numbers[0]:0{self._places}d}, named {named}"])
