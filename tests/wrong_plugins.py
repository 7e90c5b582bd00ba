"""Tasks and objectives of somebody else's, each with one mistake; tests/test_wrong_uses.py plugs them in."""

import numpy as np
import torch

from maxrl_bench import Formula
from maxrl_bench.rollouts.tokens import FAILED, RUNNING, SUCCEEDED, TokenBatch
from maxrl_bench.tasks import TokenContexts, check_indices, draw_instance


class Echo:
    """Right: repeat the two letters of the prompt."""

    family, exact, horizon, num_actions = "echo", True, 2, 4
    contexts = TokenContexts(vocabulary=4, max_length=4)

    def batch(self, split, indices):
        words = [
            draw_instance("echo", split, i, lambda rng: rng.integers(4, size=2), lambda w: w.tobytes())
            for i in check_indices(indices)
        ]
        return self.made(np.stack(words))

    def made(self, words, **other):
        fields = {
            "prompts": torch.from_numpy(words),
            "verifier": Verifier(words),
            "horizon": 2,
            "demonstrations": torch.from_numpy(words),
            "solutions": lambda: (np.arange(len(words)), words),
        }
        return TokenBatch(**{**fields, **other})

    def render(self, split, index, actions):
        return f"{list(actions)}"


class Verifier:
    def __init__(self, words):
        self.words = words

    def start(self):
        return np.stack([np.arange(len(self.words)), np.zeros(len(self.words), np.int64)], axis=1)

    def advance(self, states, actions):
        instance, given = states.T
        right = self.words[instance, given] == actions
        outcome = np.select([~right, given == 1], [FAILED, SUCCEEDED], RUNNING).astype(np.int8)
        return np.stack([instance, given + 1], axis=1), outcome


class Raises(Echo):
    def made(self, words):
        class V(Verifier):
            def advance(self, states, actions):
                raise KeyError("no such\nletter")

        return super().made(words, verifier=V(words))


class Shape(Echo):
    def made(self, words):
        class V(Verifier):
            def advance(self, states, actions):
                states, outcome = super().advance(states, actions)
                return states, outcome[:1]

        return super().made(words, verifier=V(words))


class Outcome(Echo):
    def made(self, words):
        class V(Verifier):
            def advance(self, states, actions):
                states, outcome = super().advance(states, actions)
                return states, (outcome + 5).astype(np.int8)

        return super().made(words, verifier=V(words))


class Nothing(Echo):
    def made(self, words):
        class V(Verifier):
            def advance(self, states, actions):
                return None

        return super().made(words, verifier=V(words))


class Vocabulary(Echo):
    def made(self, words):
        return super().made(words, prompts=torch.from_numpy(words + 7))


class Floats(Echo):
    def made(self, words):
        return super().made(words, prompts=torch.from_numpy(words).float())


class Flat(Echo):
    def made(self, words):
        return super().made(words, prompts=torch.from_numpy(words[:, 0].copy()))


class Long(Echo):
    contexts = TokenContexts(vocabulary=4, max_length=3)


class NoDemonstrations(Echo):
    def made(self, words):
        return super().made(words, demonstrations=None)


class StrangeDemonstrations(Echo):
    def made(self, words):
        return super().made(words, demonstrations=torch.from_numpy(words + 9))


class FailingDemonstrations(Echo):
    def made(self, words):
        return super().made(words, demonstrations=torch.from_numpy((words + 1) % 4))


class Solutions(Echo):
    def made(self, words):
        return super().made(words, solutions=lambda: (np.arange(len(words)), (words + 1) % 4))


class Actions(Echo):
    num_actions = 9


class AList(Echo):
    def batch(self, split, indices):
        return [1, 2]


class NoHorizon(Echo):
    horizon = 0


class Construct(Echo):
    def __init__(self, size):
        raise RuntimeError("no\ndata set")


class Random(Echo):
    def batch(self, split, indices):
        return self.made(np.random.default_rng().integers(4, size=(len(indices), 2)))


class Few(Echo):
    def batch(self, split, indices):
        return super().batch(split, [0])


def formula(**other):
    fields = {
        "label": "Mine",
        "paper": "none",
        "formula": "s = 1; f = 0",
        "edges": "none",
        "on_success": lambda K, N: 0 * K + 1.0,
        "on_failure": lambda K, N: 0 * K,
    }
    return Formula(**{**fields, **other})


def fails(K, N):
    raise ZeroDivisionError("division\nby zero")


NAN = formula(on_success=lambda K, N: K * float("nan"))
INFINITE = formula(on_failure=lambda K, N: K - float("inf"))
WRONG_SHAPE = formula(on_success=lambda K, N: np.ones(3))
NOT_NUMBERS = formula(on_success=lambda K, N: "one")
RAISES = formula(on_success=fails)
NO_KNOB = formula(on_success=lambda K, N, c: c * K)
NO_FORMULA = 3
