"""Word reversal: read a word of random letters, write it backwards. Verified letter by letter, exact pass rates."""

from collections.abc import Sequence

import numpy as np
import torch

from maxrl_bench.rollouts.tokens import FAILED, RUNNING, SUCCEEDED, TokenBatch
from maxrl_bench.tasks import TokenContexts, check_actions, check_indices, draw_instance

LETTERS = "abcdefgh"  # a letter's token is its place here; the token after them ends the prompt


class Verifier:
    """Compares what is written with the answers [B, T]. A rollout's state: its instance, and how much is written."""

    def __init__(self, answers: np.ndarray):
        self.answers = answers

    def start(self) -> np.ndarray:
        return np.stack([np.arange(len(self.answers)), np.zeros(len(self.answers), np.int64)], axis=1)

    def advance(self, states: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        instance, written = states.T
        right = self.answers[instance, written] == actions
        outcomes = np.select([~right, written + 1 == self.answers.shape[1]], [FAILED, SUCCEEDED], RUNNING)
        return np.stack([instance, written + 1], axis=1), outcomes.astype(np.int8)


class WordReversal:
    """Words of `size` letters, 1 to 20. An action is a letter, an index into LETTERS."""

    family, exact, num_actions = "word-reversal", True, len(LETTERS)

    def __init__(self, size: int = 4):
        if type(size) is not int or not 1 <= size <= 20:
            raise ValueError(f"option 'size' must be a whole number from 1 to 20, got {size!r}")
        self.name, self.size, self.horizon = f"word-reversal-{size}", size, size
        self.contexts = TokenContexts(vocabulary=len(LETTERS) + 1, max_length=2 * size + 1)

    def _words(self, split: str, indices: Sequence[int]) -> np.ndarray:
        space = f"word-reversal {self.size}"  # `draw_instance` decides the split by content: splits cannot overlap
        drawn = (lambda rng: rng.integers(0, len(LETTERS), self.size), np.ndarray.tobytes)
        return np.array([draw_instance(space, split, index, *drawn) for index in check_indices(indices)])

    def batch(self, split: str, indices: Sequence[int]) -> TokenBatch:
        words = self._words(split, indices)
        answers = np.ascontiguousarray(words[:, ::-1])
        return TokenBatch(
            prompts=torch.from_numpy(np.pad(words, ((0, 0), (0, 1)), constant_values=len(LETTERS))),
            verifier=Verifier(answers),
            horizon=self.size,
            actions=torch.arange(len(LETTERS)),
            demonstrations=torch.from_numpy(answers),  # for the warm start
            solutions=lambda: (np.arange(len(answers)), answers),  # every accepted answer: the exact pass rate
        )

    def render(self, split: str, index: int, actions: Sequence[int]) -> str:
        word, written = self._words(split, [index])[0], check_actions(actions, self.num_actions)
        return " -> ".join("".join(LETTERS[letter] for letter in letters) for letters in (word, written))
