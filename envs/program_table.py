"""All programs of up to L lines with what they compute on a fixed bank of inputs: what decides equality of programs.

Two programs are equivalent if they agree on every input of the bank. There are about 40, 1,500 and 75,000 programs of up to
1, 2 and 3 lines; the table takes milliseconds, a fraction of a second, and some seconds to make, once per process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from envs.list_language import (
    INPUT_TYPES,
    LIMIT,
    LIST,
    OPERATIONS,
    VARIABLES,
    WIDTH,
    WORDS,
    Program,
    Values,
    lines,
    words,
)

BANK = 64
# What the policy may say, in the order of its actions.
SAYINGS = (*WORDS, *VARIABLES[:4], "END")
NOT_A_PROGRAM = -1
_NULL = -1  # in place of a length


@cache
def bank() -> tuple[Values, Values]:
    """The inputs n and x, [BANK]: integers from 0 to 4, and lists of 2 to 5 numbers from -9 to 9."""
    rng = np.random.default_rng(1611_01989)
    length = rng.integers(2, WIDTH + 1, BANK).astype(np.int16)
    numbers = rng.integers(-9, 10, (BANK, WIDTH)).astype(np.int16)
    number = np.zeros((BANK, WIDTH), np.int16)
    number[:, 0] = rng.integers(0, 5, BANK)
    defined = np.ones(BANK, bool)
    x = Values(np.where(np.arange(WIDTH) < length[:, None], numbers, 0).astype(np.int16), length, defined)
    return Values(number, np.ones(BANK, np.int16), defined), x


@dataclass(frozen=True)
class Table:
    """P programs, with their outputs on the bank.

    data [P, BANK, WIDTH] int8 and length [P, BANK] int8 (-1 for null): the outputs. meaning [P]: equal for equivalent programs.
    spelled [P, T]: the programs as actions, -1 beyond the end. after [nodes, actions]: the node of the prefix tree that an action
    leads to; NOT_A_PROGRAM where no program goes on like this; -2 - p where program p ends.
    """

    programs: list[Program]
    data: np.ndarray
    length: np.ndarray
    meaning: np.ndarray
    spelled: np.ndarray
    after: np.ndarray

    def find(self, actions: Sequence[int]) -> int:
        """The program that these actions spell out, END included, or NOT_A_PROGRAM."""
        node = 0
        for action in actions:
            node = int(self.after[node, action])
            if node < 0:
                break
        return -2 - node if node <= -2 else NOT_A_PROGRAM


@dataclass(frozen=True)
class _Group:
    """Unfinished programs of the same types: their results so far, each [P, BANK], and which they have used [P, k]."""

    programs: list[Program]
    results: tuple[Values, ...]
    used: np.ndarray


@cache
def table(max_lines: int) -> Table:
    """The table of all programs of 1 to `max_lines` lines."""
    n, x = bank()
    groups = {INPUT_TYPES: [_Group([()], (), np.zeros((1, 0), bool))]}
    programs: list[Program] = []
    outputs: list[Values] = []
    for number in range(1, max_lines + 1):
        grown: dict[tuple[int, ...], list[_Group]] = {}
        for types, members in groups.items():
            group = _merge(members)
            for line in lines(types):
                operation, arguments = OPERATIONS[line[0]], line[1:]
                used = group.used.copy()
                used[:, [argument - 2 for argument in arguments if argument >= 2]] = True
                complete = used.all(axis=1)
                rows = np.flatnonzero(complete) if number == max_lines else np.arange(len(used))
                if not rows.size:
                    continue
                values = [n, x, *(result[rows] for result in group.results)]
                result = operation(*(values[argument] for argument in arguments))
                result = result.spread((len(rows), BANK))
                longer = [(*group.programs[row], line) for row in rows]
                done = np.flatnonzero(complete[rows])
                programs += [longer[row] for row in done]
                outputs.append(result[done])
                if number < max_lines:
                    used = np.concatenate([used[rows], np.zeros((len(rows), 1), bool)], axis=1)
                    following = _Group(longer, (*(v for v in values[2:]), result), used)
                    grown.setdefault((*types, operation.gives), []).append(following)
        groups = grown
    data = np.concatenate([values.data for values in outputs]).astype(np.int8)
    length = np.concatenate([np.where(values.defined, values.length, _NULL) for values in outputs]).astype(np.int8)
    spelled = _spell(programs)
    return Table(programs, data, length, _meanings(programs, data, length), spelled, _tree(spelled))


def _merge(groups: list[_Group]) -> _Group:
    return _Group(
        [program for group in groups for program in group.programs],
        tuple(_join(parts) for parts in zip(*(group.results for group in groups), strict=True)),
        np.concatenate([group.used for group in groups]),
    )


def _join(parts: Sequence[Values]) -> Values:
    return Values(
        np.concatenate([part.data for part in parts]),
        np.concatenate([part.length for part in parts]),
        np.concatenate([part.defined for part in parts]),
    )


def _meanings(programs: list[Program], data: np.ndarray, length: np.ndarray) -> np.ndarray:
    """[P]: the number of the first program with the same outputs, through 64-bit fingerprints of them."""
    rng = np.random.default_rng(2_000_003)
    weights = rng.integers(-(2**63), 2**63 - 1, BANK * (WIDTH + 1) + 1)
    flat = np.concatenate([data.reshape(len(data), -1), length], axis=1)
    kinds = np.array([OPERATIONS[program[-1][0]].gives == LIST for program in programs])
    # Sums modulo 2^64 of random multiples: two different rows meet with a chance of about 2^-60.
    fingerprints = np.concatenate([rows.astype(np.int64) @ weights[:-1] for rows in np.array_split(flat, 64)])
    _, first, inverse = np.unique(fingerprints + kinds * weights[-1], return_index=True, return_inverse=True)
    meaning: np.ndarray = first[inverse]
    return meaning


def _spell(programs: list[Program]) -> np.ndarray:
    number = {word: action for action, word in enumerate(SAYINGS)}
    of_line: dict[tuple[int, ...], list[int]] = {}
    rows = []
    for program in programs:
        row: list[int] = []
        for line in program:
            if line not in of_line:
                of_line[line] = [number[word] for word in words((line,))[:-1]]
            row += of_line[line]
        rows.append([*row, number["END"]])
    spelled = np.full((len(rows), max(map(len, rows))), -1)
    for program_number, row in enumerate(rows):
        spelled[program_number, : len(row)] = row
    return spelled


def _tree(spelled: np.ndarray) -> np.ndarray:
    """The prefix tree of rows of actions that all close with END: see `Table.after`."""
    end = SAYINGS.index("END")
    levels = []
    node = np.zeros(len(spelled), np.int64)  # the node that each program has reached
    first, count = 0, 1
    for actions in spelled.T:
        after = np.full((count, len(SAYINGS)), NOT_A_PROGRAM)
        ends, goes_on = np.flatnonzero(actions == end), np.flatnonzero((actions >= 0) & (actions != end))
        after[node[ends] - first, end] = -2 - ends
        edges = (node[goes_on] - first) * len(SAYINGS) + actions[goes_on]
        distinct, inverse = np.unique(edges, return_inverse=True)
        first, count = first + count, len(distinct)
        after.reshape(-1)[distinct] = first + np.arange(count)
        node[goes_on] = first + inverse
        levels.append(after)
    return np.concatenate(levels).astype(np.int32)
