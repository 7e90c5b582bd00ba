"""Programs: find a program from examples, in a small list language with DeepCoder's functions (arXiv 1611.01989).

The prompt shows what a hidden program does to five inputs (n, x). The policy answers with a program, line by line, and
END. It succeeds if its program gives the hidden one's output on the shown inputs and on 59 held-out ones, so several
programs succeed, and one that only fits the examples does not. A rollout fails as soon as no program begins with what
it wrote; programs are run by `list_language`, which always ends.
Hidden programs are drawn uniformly from the distinct functions that need exactly `lines` lines: none can be written in
fewer, none is null on more than a quarter of the inputs, or gives the same output on more than half of them. There are
32, 550 and 12,151 of them with 1, 2 and 3 lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from maxrl_bench.envs import options
from maxrl_bench.envs.list_language import INTEGER, LIMIT, MAX_LINES, WIDTH, output_type, words
from maxrl_bench.envs.program_table import BANK, NOT_A_PROGRAM, SAYINGS, Table, bank, table
from maxrl_bench.rollouts.tokens import FAILED, RUNNING, SUCCEEDED, TokenBatch
from maxrl_bench.tasks import TokenContexts, check_actions, check_indices, draw_instance

SHOWN = 5
SPLIT_BY = ("examples", "function")
# Tokens: the sayings, then the numbers from -LIMIT to LIMIT, then what marks the parts of an example.
_ZERO = len(SAYINGS) + LIMIT
BLANK, NULL, IS_INTEGER, IS_LIST, ANSWER = range(_ZERO + LIMIT + 1, _ZERO + LIMIT + 6)
VOCABULARY = ANSWER + 1
_EXAMPLE = 2 * WIDTH + 2  # n, the list x, the kind of the output, the output


@dataclass(frozen=True)
class Hidden:
    """What may be asked under a number of lines: F functions, each as the programs that compute it.

    members[f]: numbers of the programs. meaning [F]: as in `Table.meaning`. examples [F, BANK, 12]: prompt tokens.
    """

    members: list[np.ndarray]
    meaning: np.ndarray
    examples: np.ndarray


@cache
def hidden(lines: int) -> Hidden:
    """The functions that need exactly `lines` lines, without the degenerate ones."""
    known = table(lines)
    order = np.argsort(known.meaning, kind="stable")
    classes = np.split(order, np.flatnonzero(np.diff(known.meaning[order])) + 1)
    # A class's first program is its shortest, and stands for it.
    chosen = [members for members in classes if _is_worth_asking(known, int(members[0]), lines)]
    firsts = np.array([members[0] for members in chosen])
    return Hidden(chosen, known.meaning[firsts], _examples(known, firsts))


def _is_worth_asking(known: Table, program: int, lines: int) -> bool:
    data, length = known.data[program], known.length[program]
    if len(known.programs[program]) < lines or (length < 0).mean() > 0.25:
        return False
    outputs = [row.tobytes() + bytes([count + 1]) for row, count in zip(data, length.tolist(), strict=True)]
    commonest = max(outputs.count(output) for output in set(outputs))
    n, x = bank()
    inputs = n if output_type(known.programs[program]) == INTEGER else x
    copies = bool((data == inputs.data).all() and (length == inputs.length).all())
    return commonest <= BANK // 2 and not copies


def _examples(known: Table, programs: np.ndarray) -> np.ndarray:
    """[F, BANK, 12]: every input of the bank with its output, as prompt tokens."""
    n, x = bank()
    data, length = known.data[programs].astype(np.int64), known.length[programs]
    integer = np.array([output_type(known.programs[program]) == INTEGER for program in programs])
    shape = len(programs), BANK
    kind = np.where(length < 0, NULL, np.where(integer, IS_INTEGER, IS_LIST)[:, None])
    return np.concatenate(
        [
            np.broadcast_to(n.data[:, :1] + _ZERO, (*shape, 1)),
            np.broadcast_to(_numbers(x.data, x.length), (*shape, WIDTH)),
            kind[:, :, None],
            _numbers(data, length),
        ],
        axis=2,
    ).astype(np.int16)


def _numbers(data: np.ndarray, length: np.ndarray) -> np.ndarray:
    return np.where(np.arange(WIDTH) < length[..., None], data + _ZERO, BLANK)


@dataclass(frozen=True)
class Synthesis:
    """The verifier. A state is (row of the instance, node of the programs' prefix tree); `wanted` [B] are meanings."""

    table: Table
    wanted: np.ndarray

    def start(self) -> np.ndarray:
        """[B, 2]: nothing written."""
        return np.stack([np.arange(len(self.wanted)), np.zeros(len(self.wanted), np.int64)], axis=1)

    def advance(self, states: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """States [M, 2] and actions [M] -> next states [M, 2] and outcomes [M]."""
        rows, nodes = states.T
        nodes = self.table.after[nodes, actions].astype(np.int64)
        # Running nodes and failures look up program 0 here, to be overruled.
        right = self.table.meaning[np.maximum(-2 - nodes, 0)] == self.wanted[rows]
        outcome = np.select([nodes >= 0, nodes == NOT_A_PROGRAM, right], [RUNNING, FAILED, SUCCEEDED], FAILED)
        return np.stack([rows, np.maximum(nodes, 0)], axis=1), outcome.astype(np.int8)


Instance = tuple[int, tuple[int, ...], int]  # a function, the inputs shown, the program that demonstrates


class Programs:
    """Program synthesis with hidden programs of exactly `lines` lines (1 to 3); answers may have fewer.

    split_by: "examples" (splits share functions, and differ in the inputs shown), or "function" (a held-out split asks
    for functions that training never asks for).
    Raises ValueError on a number of lines out of range, or an unknown `split_by`.
    """

    family = "programs"
    num_actions = len(SAYINGS)
    exact = True

    def __init__(self, lines: int = 2, split_by: str = "examples"):
        self._lines = options.integer("lines", lines, 1, MAX_LINES)
        self._new_functions = options.one_of("split_by", split_by, SPLIT_BY) == "function"
        self.horizon = 4 * lines + 1
        self.contexts = TokenContexts(VOCABULARY, SHOWN * _EXAMPLE + 1 + self.horizon)
        self.name = f"programs-{lines}-functions" if self._new_functions else f"programs-{lines}"
        self._space = f"programs {lines} by function" if self._new_functions else f"programs {lines}"

    def _propose(self, rng: np.random.Generator) -> Instance:
        functions = hidden(self._lines).members
        function = int(rng.integers(len(functions)))
        shown = tuple(rng.permutation(BANK)[:SHOWN].tolist())
        return function, shown, int(rng.choice(functions[function]))

    def _key(self, instance: Instance) -> bytes:
        function, shown, _ = instance
        shown = () if self._new_functions else shown
        return np.array([hidden(self._lines).members[function][0], *sorted(shown)]).tobytes()

    def _draw(self, split: str, index: int) -> Instance:
        return draw_instance(self._space, split, index, self._propose, self._key)

    def batch(self, split: str, indices: Sequence[int]) -> TokenBatch:
        """The specifications at these indices of a split. Raises ValueError on an unknown split or a bad index."""
        asked, known = hidden(self._lines), table(self._lines)
        instances = [self._draw(split, index) for index in check_indices(indices)]
        functions = np.array([function for function, _, _ in instances])
        shown = np.array([inputs for _, inputs, _ in instances])
        examples = asked.examples[functions[:, None], shown].reshape(len(instances), -1)
        prompts = np.pad(examples, ((0, 0), (0, 1)), constant_values=ANSWER).astype(np.int64)

        def solutions() -> tuple[np.ndarray, np.ndarray]:
            members = [asked.members[function] for function in functions]
            return np.repeat(np.arange(len(members)), [len(m) for m in members]), known.spelled[np.concatenate(members)]

        return TokenBatch(
            prompts=torch.from_numpy(prompts),
            verifier=Synthesis(known, asked.meaning[functions]),
            horizon=self.horizon,
            actions=torch.arange(len(SAYINGS)),
            demonstrations=torch.from_numpy(known.spelled[[program for _, _, program in instances]]),
            solutions=solutions,
        )

    def render(self, split: str, index: int, actions: Sequence[int]) -> str:
        """The examples, the hidden program, what the policy wrote, and on how many held-out inputs that is right."""
        known = table(self._lines)
        _, shown, demonstration = self._draw(split, index)
        n, x = bank()
        actions = check_actions(actions, self.num_actions)
        written = known.find(actions)
        rows = []
        for i in shown:
            inputs = f"n = {n.data[i, 0]}, x = {_text(x.data[i], int(x.length[i]), False)}"
            line = f"{inputs} -> {_output(known, demonstration, i)}"
            rows.append(line if written < 0 else f"{line}   program: {_output(known, written, i)}")
        rows.append("hidden:  " + " ".join(words(known.programs[demonstration])))
        rows.append("program: " + (" ".join(SAYINGS[action] for action in actions) or "(nothing)"))
        if written < 0:
            return "\n".join([*rows, "not a program"])
        held_out = [i for i in range(BANK) if i not in shown]
        right = sum(_output(known, written, i) == _output(known, demonstration, i) for i in held_out)
        return "\n".join([*rows, f"right on {right} of {len(held_out)} held-out inputs"])


def _output(known: Table, program: int, i: int) -> str:
    kind = output_type(known.programs[program])
    return _text(known.data[program, i], int(known.length[program, i]), kind == INTEGER)


def _text(data: np.ndarray, length: int, integer: bool) -> str:
    if length < 0:
        return "null"
    return str(int(data[0])) if integer else str(data[:length].tolist())
