"""All programs of up to L lines, with their outputs on a fixed bank of inputs.

Two programs are equivalent if they agree on every input of the bank. There are 38, 1,412 and 75,374 programs of up to
1, 2 and 3 lines; the table takes 10 ms, 20 ms and a second or two to make, once per process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from maxrl_bench.envs.list_language import (
    INPUT_TYPES,
    LIST,
    OPERATIONS,
    VARIABLES,
    WIDTH,
    WORDS,
    Line,
    Program,
    Values,
    lines,
    words,
)

BANK = 64
# The words that the policy may choose, in the order of its actions.
SAYINGS = (*WORDS, *VARIABLES, "END")
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

    data [P, BANK, WIDTH] int8 and length [P, BANK] int8 (-1 for null): the outputs. meaning [P]: equal for equivalent
    programs. spelled [P, T]: the programs as actions, -1 beyond the end. after [nodes, actions]: the node of the prefix
    tree that an action leads to; NOT_A_PROGRAM where no program goes on like this; -2 - p where program p ends.
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
            if node < 0:
                return NOT_A_PROGRAM
            node = int(self.after[node, action])
        return -2 - node if node <= -2 else NOT_A_PROGRAM


@dataclass(frozen=True)
class _Group:
    """Programs of the same types: the results of their lines, each [P, BANK], and which of these are used [P, k]."""

    programs: list[Program]
    results: tuple[Values, ...]
    used: np.ndarray

    @property
    def complete(self) -> np.ndarray:
        """[P]: whether every result but the last is used."""
        return np.all(self.used[:, :-1], axis=1)

    def pick(self, rows: np.ndarray) -> _Group:
        """Some of the programs."""
        results = tuple(result[rows] for result in self.results)
        return _Group([self.programs[row] for row in rows], results, self.used[rows])

    def append(self, line: Line, last: bool) -> _Group:
        """The programs with one more line; of a `last` line, only the complete ones."""
        operation, *arguments = line
        used = np.pad(self.used, ((0, 0), (0, 1)))
        used[:, [argument - len(INPUT_TYPES) for argument in arguments if argument >= len(INPUT_TYPES)]] = True
        rows = np.flatnonzero(used[:, :-1].all(axis=1)) if last else np.arange(len(used))
        kept = self.pick(rows)
        values = [*bank(), *kept.results]
        result = OPERATIONS[operation](*(values[argument] for argument in arguments)).spread((len(rows), BANK))
        return _Group([(*program, line) for program in kept.programs], (*kept.results, result), used[rows])


@cache
def table(max_lines: int) -> Table:
    """The table of all programs of 1 to `max_lines` lines."""
    groups: dict[tuple[int, ...], _Group] = {INPUT_TYPES: _Group([()], (), np.zeros((1, 0), bool))}
    finished: list[_Group] = []
    for number in range(1, max_lines + 1):
        grown: dict[tuple[int, ...], list[_Group]] = {}
        for types, group in groups.items():
            for line in lines(types):
                longer = group.append(line, last=number == max_lines)
                complete = longer.pick(np.flatnonzero(longer.complete))
                finished.append(_Group(complete.programs, complete.results[-1:], complete.used))
                if number < max_lines:
                    grown.setdefault((*types, OPERATIONS[line[0]].gives), []).append(longer)
        groups = {types: _merge(members) for types, members in grown.items()}
    programs = [program for group in finished for program in group.programs]
    outputs = _join([group.results[0] for group in finished])
    data, length = outputs.data.astype(np.int8), np.where(outputs.defined, outputs.length, _NULL).astype(np.int8)
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
