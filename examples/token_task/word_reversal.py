"""Word reversal: read a word of random letters, write it backwards. Verified letter by letter, exact pass rates."""

from collections.abc import Sequence

import numpy as np
import torch

from maxrl_bench.rollouts.tokens import FAILED, RUNNING, SUCCEEDED, TokenBatch
from maxrl_bench.tasks import TokenContexts, check_actions, check_indices, draw_instance


class Verifier:
    """Compares what is written with the answers [B, T]. A rollout's state: its instance, and how much is written."""

    def __init__(self, answers: np.ndarray):
        self.answers = answers

    def start(self) -> np.ndarray:
        return np.stack([np.arange(len(self.answers)), np.zeros(len(self.answers), np.int64)], axis=1)

    def advance(self, states: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        instance, written = states.T
        wrong, last = self.answers[instance, written] != actions, written + 1 == self.answers.shape[1]
        outcomes = np.select([wrong, last], [FAILED, SUCCEEDED], RUNNING)
        return np.stack([instance, written + 1], axis=1), outcomes.astype(np.int8)


class WordReversal:
    """Words of `size` letters, 1 to 20. An action is a letter, an index into `letters`, and so is its token."""

    letters = "abcdefgh"  # the token after them ends the prompt
    family, exact, num_actions = "word-reversal", True, len(letters)
    recipe = {"warm_start_steps": 100, "steps": 100}  # settings of runs on this task, unless others are given

    def __init__(self, size: int = 4):
        if type(size) is not int or not 1 <= size <= 20:
            raise ValueError(f"option 'size' must be a whole number from 1 to 20, got {size!r}")
        self.name, self.size, self.horizon = f"word-reversal-{size}", size, size
        self.contexts = TokenContexts(vocabulary=self.num_actions + 1, max_length=2 * size + 1)

    def _words(self, split: str, indices: Sequence[int]) -> np.ndarray:
        space = f"word-reversal {self.size}"  # `draw_instance` decides the split by content: splits cannot overlap
        drawn = (lambda rng: rng.integers(0, self.num_actions, self.size), np.ndarray.tobytes)
        return np.array([draw_instance(space, split, index, *drawn) for index in check_indices(indices)])

    def batch(self, split: str, indices: Sequence[int]) -> TokenBatch:
        words = self._words(split, indices)
        answers = np.ascontiguousarray(words[:, ::-1])
        return TokenBatch(
            prompts=torch.from_numpy(np.pad(words, ((0, 0), (0, 1)), constant_values=self.num_actions)),
            verifier=Verifier(answers),
            horizon=self.size,
            actions=torch.arange(self.num_actions),
            demonstrations=torch.from_numpy(answers),  # for the warm start
            solutions=lambda: (np.arange(len(answers)), answers),  # every accepted answer: the exact pass rate
        )

    def render(self, split: str, index: int, actions: Sequence[int]) -> str:
        spelt = [*self._words(split, [index]), check_actions(actions, self.num_actions)]
        return " -> ".join("".join(self.letters[letter] for letter in letters) for letters in spelt)
