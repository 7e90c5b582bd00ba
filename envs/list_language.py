"""A small typed list language with DeepCoder's functions, and the list of all its programs of up to L lines.

A program is a sequence of lines; each applies one function to earlier values: the inputs n (an integer) and x (a list),
or the results a, b, ... of earlier lines. The result of the last line is the output. Every result but the last must be
used by a later line. No host code is ever run: a program is a row of numbers into the table OPERATIONS.

Every function is total. The result is null where DeepCoder's is undefined (the head of an empty list), where a number
leaves -99..99, and where an argument is null. Lists hold at most 5 numbers; no function makes a list longer.
Division rounds down; TAKE and DROP read a negative n as 0. Source: Balog et al. 2017, DeepCoder (arXiv 1611.01989).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

LIMIT = 99
WIDTH = 5
INTEGER, LIST = 0, 1


@dataclass(frozen=True)
class Values:
    """An array of values of one type; unused places are 0, so that equal values are equal arrays.

    data [..., WIDTH] int16: a list's numbers, or an integer in the first place, then zeros (all zeros for null).
    length [...] int16: how many numbers; 1 for an integer, 0 for null. defined [...]: False for null.
    """

    data: np.ndarray
    length: np.ndarray
    defined: np.ndarray

    def __getitem__(self, rows: np.ndarray) -> Values:
        return Values(self.data[rows], self.length[rows], self.defined[rows])

    def spread(self, shape: tuple[int, ...]) -> Values:
        """Broadcast to this shape (that of `length`)."""
        data = np.broadcast_to(self.data, (*shape, WIDTH))
        return Values(data, np.broadcast_to(self.length, shape), np.broadcast_to(self.defined, shape))


Compute = Callable[..., tuple[np.ndarray, np.ndarray, np.ndarray]]
_PLACES = np.arange(WIDTH, dtype=np.int16)


def _inside(length: np.ndarray) -> np.ndarray:
    """Which places of a list of this length hold a number: [..., WIDTH] bool."""
    return length[..., None] > _PLACES


def _pick(data: np.ndarray, places: np.ndarray) -> np.ndarray:
    return np.take_along_axis(data, np.clip(places, 0, WIDTH - 1).astype(np.intp), axis=-1)


def _integer(number: np.ndarray, defined: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    data = np.zeros((*number.shape, WIDTH), np.int16)
    data[..., 0] = number
    return data, np.ones(number.shape, np.int16), np.ones(number.shape, bool) if defined is None else defined


def _list(data: np.ndarray, length: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return data, length, np.ones(length.shape, bool)


def _access(n: np.ndarray, x: Values) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return _integer(_pick(x.data, n[..., None])[..., 0], (n >= 0) & (n < x.length))


def _extreme(x: Values, reduce: Callable[..., np.ndarray], never: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return _integer(reduce(np.where(_inside(x.length), x.data, never), axis=-1), x.length > 0)


def _reverse(x: Values) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return _list(_pick(x.data, x.length[..., None] - 1 - _PLACES), x.length)


def _sort(x: Values) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return _list(np.sort(np.where(_inside(x.length), x.data, LIMIT + 1), axis=-1), x.length)


def _take(n: np.ndarray, x: Values) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return _list(x.data, np.clip(n, 0, x.length))


def _drop(n: np.ndarray, x: Values) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    dropped = np.clip(n, 0, x.length)
    return _list(_pick(x.data, dropped[..., None] + _PLACES), x.length - dropped)


def _filter(x: Values, holds: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return _list(_pick(x.data, np.argsort(~holds, axis=-1, kind="stable")), holds.sum(axis=-1, dtype=np.int16))


def _scan(x: Values, combine: Callable[..., np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    inside = _inside(x.length)
    data, defined = x.data.copy(), np.ones(x.length.shape, bool)
    for place in range(1, WIDTH):
        data[..., place] = combine(data[..., place - 1], x.data[..., place])
        defined &= (np.abs(data[..., place]) <= LIMIT) | ~inside[..., place]
        # Null from here on; clipped so that nothing overflows its 16 bits further on.
        np.clip(data[..., place], -LIMIT, LIMIT, out=data[..., place])
    return data, x.length, defined


UNARY: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "+1": lambda v: v + 1,
    "-1": lambda v: v - 1,
    "*2": lambda v: v * 2,
    "/2": lambda v: v // 2,
    "*(-1)": lambda v: -v,
    "**2": lambda v: v * v,
    "*3": lambda v: v * 3,
    "/3": lambda v: v // 3,
    "*4": lambda v: v * 4,
    "/4": lambda v: v // 4,
}
PREDICATES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    ">0": lambda v: v > 0,
    "<0": lambda v: v < 0,
    "even": lambda v: v % 2 == 0,
    "odd": lambda v: v % 2 == 1,
}
BINARY: dict[str, Callable[..., np.ndarray]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "MIN": np.minimum,
    "MAX": np.maximum,
}


@dataclass(frozen=True)
class Operation:
    """A function together with its lambda, if it takes one. `words` are its tokens; types are INTEGER or LIST."""

    words: tuple[str, ...]
    takes: tuple[int, ...]
    gives: int
    compute: Compute

    def __call__(self, *arguments: Values) -> Values:
        """Apply to values that broadcast together; null in the cases that the module's docstring names."""
        shape = np.broadcast_shapes(*(argument.length.shape for argument in arguments))
        spread = [argument.spread(shape) for argument in arguments]
        ready = [
            value.data[..., 0] if kind == INTEGER else value for value, kind in zip(spread, self.takes, strict=True)
        ]
        data, length, defined = self.compute(*ready)
        for argument in arguments:
            defined = defined & argument.defined
        data = np.where(_inside(length), data, 0)
        defined = defined & (np.abs(data) <= LIMIT).all(axis=-1)
        return Values(np.where(defined[..., None], data, 0).astype(np.int16), np.where(defined, length, 0), defined)


def _operations() -> Iterator[Operation]:
    a_list, number_and_list, two_lists = (LIST,), (INTEGER, LIST), (LIST, LIST)
    yield Operation(("HEAD",), a_list, INTEGER, lambda x: _integer(x.data[..., 0], x.length > 0))
    yield Operation(("LAST",), a_list, INTEGER, lambda x: _access(x.length - 1, x))
    yield Operation(("TAKE",), number_and_list, LIST, _take)
    yield Operation(("DROP",), number_and_list, LIST, _drop)
    yield Operation(("ACCESS",), number_and_list, INTEGER, _access)
    yield Operation(("MINIMUM",), a_list, INTEGER, lambda x: _extreme(x, np.min, LIMIT + 1))
    yield Operation(("MAXIMUM",), a_list, INTEGER, lambda x: _extreme(x, np.max, -LIMIT - 1))
    yield Operation(("REVERSE",), a_list, LIST, _reverse)
    yield Operation(("SORT",), a_list, LIST, _sort)
    yield Operation(("SUM",), a_list, INTEGER, lambda x: _integer(x.data.sum(axis=-1)))
    for name, change in UNARY.items():
        yield Operation(("MAP", name), a_list, LIST, lambda x, f=change: _list(f(x.data), x.length))
    for name, holds in PREDICATES.items():
        yield Operation(("FILTER", name), a_list, LIST, lambda x, f=holds: _filter(x, f(x.data) & _inside(x.length)))
        yield Operation(
            ("COUNT", name), a_list, INTEGER, lambda x, f=holds: _integer((f(x.data) & _inside(x.length)).sum(axis=-1))
        )
    for name, combine in BINARY.items():
        yield Operation(
            ("ZIPWITH", name),
            two_lists,
            LIST,
            lambda x, y, f=combine: _list(f(x.data, y.data), np.minimum(x.length, y.length)),
        )
        yield Operation(("SCANL1", name), a_list, LIST, lambda x, f=combine: _scan(x, f))


OPERATIONS = tuple(_operations())
MAX_LINES = 3
VARIABLES = ("n", "x", "a", "b")  # the result of a last line needs no name
INPUT_TYPES = (INTEGER, LIST)
END = "END"
WORDS = (
    *dict.fromkeys(operation.words[0] for operation in OPERATIONS),
    *UNARY,
    *PREDICATES,
    *BINARY,
)

Line = tuple[int, ...]  # index of an operation, then its arguments as indices into VARIABLES
Program = tuple[Line, ...]


def run(program: Program, n: Values, x: Values) -> Values:
    """The outputs of a program on inputs that broadcast together. Always ends: one pass over its lines."""
    values = [n, x]
    for operation, *arguments in program:
        values.append(OPERATIONS[operation](*(values[argument] for argument in arguments)))
    return values[-1]


def words(program: Program) -> list[str]:
    """The program as its words, END included."""
    spelled = [[*OPERATIONS[line[0]].words, *(VARIABLES[argument] for argument in line[1:])] for line in program]
    return [*(word for line in spelled for word in line), END]


def output_type(program: Program) -> int:
    """INTEGER or LIST."""
    return OPERATIONS[program[-1][0]].gives


def _arguments(takes: tuple[int, ...], types: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """All ways to choose variables of these types."""
    if not takes:
        yield ()
        return
    for variable, kind in enumerate(types):
        if kind == takes[0]:
            for rest in _arguments(takes[1:], types):
                yield (variable, *rest)


def lines(types: tuple[int, ...]) -> list[Line]:
    """Every well-typed line where variables of these types exist."""
    return [
        (index, *arguments)
        for index, operation in enumerate(OPERATIONS)
        for arguments in _arguments(operation.takes, types)
    ]
