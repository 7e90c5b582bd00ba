"""Programs, judged by a plain interpreter of the words, and by the prompt."""

import itertools
import math

import numpy as np
import pytest

from maxrl_bench.envs.list_language import INTEGER, LIMIT, OPERATIONS, WIDTH, Program, Values, output_type, run, words
from maxrl_bench.envs.program_table import SAYINGS, bank, table
from maxrl_bench.rollouts.tokens import RUNNING, SUCCEEDED, TokenBatch
from maxrl_bench.tasks import SPLITS, make_task

Value = int | list[int] | None
UNARY = {
    "+1": lambda v: v + 1,
    "-1": lambda v: v - 1,
    "*2": lambda v: 2 * v,
    "/2": lambda v: math.floor(v / 2),
    "*(-1)": lambda v: -v,
    "**2": lambda v: v**2,
    "*3": lambda v: 3 * v,
    "/3": lambda v: math.floor(v / 3),
    "*4": lambda v: 4 * v,
    "/4": lambda v: math.floor(v / 4),
}
PREDICATES = {
    ">0": lambda v: v > 0,
    "<0": lambda v: v < 0,
    "even": lambda v: v % 2 == 0,
    "odd": lambda v: v % 2 != 0,
}
BINARY = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b, "MIN": min, "MAX": max}
FIRST_ORDER = {
    "HEAD": (("list",), lambda x: x[0] if x else None),
    "LAST": (("list",), lambda x: x[-1] if x else None),
    "TAKE": (("int", "list"), lambda n, x: x[: max(n, 0)]),
    "DROP": (("int", "list"), lambda n, x: x[max(n, 0) :]),
    "ACCESS": (("int", "list"), lambda n, x: x[n] if 0 <= n < len(x) else None),
    "MINIMUM": (("list",), lambda x: min(x) if x else None),
    "MAXIMUM": (("list",), lambda x: max(x) if x else None),
    "REVERSE": (("list",), lambda x: x[::-1]),
    "SORT": (("list",), sorted),
    "SUM": (("list",), sum),
}
HIGHER_ORDER = {
    "MAP": (("list",), UNARY, lambda f: lambda x: [f(v) for v in x]),
    "FILTER": (("list",), PREDICATES, lambda f: lambda x: [v for v in x if f(v)]),
    "COUNT": (("list",), PREDICATES, lambda f: lambda x: sum(f(v) for v in x)),
    "ZIPWITH": (("list", "list"), BINARY, lambda f: lambda x, y: [f(a, b) for a, b in zip(x, y, strict=False)]),
    "SCANL1": (("list",), BINARY, lambda f: lambda x: list(itertools.accumulate(x, f))),
}
RETURNS_LIST = {"TAKE", "DROP", "REVERSE", "SORT", "MAP", "FILTER", "ZIPWITH", "SCANL1"}


def limited(value: Value) -> Value:
    numbers = value if isinstance(value, list) else [value]
    return value if all(v is not None and abs(v) <= LIMIT for v in numbers) else None


def interpret(spelled: list[str], n: int, x: list[int], max_lines: int) -> Value | str:
    """The output of a program given as words; "malformed" if it is not a program of at most that many lines."""
    values: dict[str, Value] = {"n": n, "x": x}
    types = {"n": "int", "x": "list"}
    unused: set[str] = set()
    result: Value = None
    left = list(spelled)
    for number in range(max_lines + 1):
        if left == ["END"]:
            return result if number and len(unused) == 1 else "malformed"
        if number == max_lines or not left:
            return "malformed"
        function = left.pop(0)
        if function in FIRST_ORDER:
            takes, compute = FIRST_ORDER[function]
        elif function in HIGHER_ORDER and left and left[0] in HIGHER_ORDER[function][1]:
            takes, lambdas, build = HIGHER_ORDER[function]
            compute = build(lambdas[left.pop(0)])
        else:
            return "malformed"
        arguments, left = left[: len(takes)], left[len(takes) :]
        if [types.get(argument) for argument in arguments] != list(takes):
            return "malformed"
        unused -= set(arguments)
        given = [values[argument] for argument in arguments]
        result = None if any(value is None for value in given) else limited(compute(*given))
        name = "abc"[number]
        values[name], types[name] = result, "list" if function in RETURNS_LIST else "int"
        unused.add(name)
    raise AssertionError("unreachable")


def plain(values: Values, i: int, kind: int) -> Value:
    if not values.defined[i]:
        return None
    numbers = values.data[i].tolist()
    assert not any(numbers[1 if kind == INTEGER else int(values.length[i]) :])
    return numbers[0] if kind == INTEGER else numbers[: int(values.length[i])]


def inputs() -> list[tuple[int, list[int]]]:
    n, x = bank()
    return [(int(n.data[i, 0]), x.data[i, : x.length[i]].tolist()) for i in range(len(n.length))]


def packed(n: int, x: list[int]) -> tuple[Values, Values]:
    def values_of(numbers: list[int]) -> Values:
        data = np.zeros((1, WIDTH), np.int16)
        data[0, : len(numbers)] = numbers
        return Values(data, np.array([len(numbers)], np.int16), np.array([True]))

    return values_of([n]), values_of(x)


def parse(text: str) -> Program:
    """A program from text, one that the language has."""
    actions = [SAYINGS.index(word) for word in text.split()]
    row = table(3).find(actions)
    assert row >= 0
    return table(3).programs[row]


@pytest.mark.parametrize("lines", [1, 2, 3])
def test_every_program_computes_what_its_words_say(lines: int) -> None:
    known = table(lines)
    rng = np.random.default_rng(0)
    chosen = rng.permutation(len(known.programs))[:300]
    for number in chosen:
        program = known.programs[number]
        outputs = Values(known.data[number], known.length[number], known.length[number] >= 0)
        for i in rng.permutation(len(inputs()))[:6]:
            expected = interpret(words(program), *inputs()[i], lines)
            assert plain(outputs, i, output_type(program)) == expected
            alone = run(program, *packed(*inputs()[i]))
            assert plain(alone, 0, output_type(program)) == expected


def test_operations_on_extreme_and_empty_lists() -> None:
    rng = np.random.default_rng(1)
    lists = [[], [0], [LIMIT] * WIDTH, [-LIMIT] * WIDTH, [LIMIT, -LIMIT, 1, 0, -1]]
    lists += [rng.integers(-LIMIT, LIMIT + 1, size).tolist() for size in range(WIDTH + 1) for _ in range(5)]
    for operation, program in zip(OPERATIONS, table(1).programs, strict=True):
        for x, n in itertools.product(lists, (-LIMIT, -1, 0, 2, 5, LIMIT)):
            got = plain(run(program, *packed(n, x)), 0, operation.gives)
            assert got == interpret(words(program), n, x, 1), (operation.words, n, x)


def test_the_example_of_the_deepcoder_paper() -> None:
    program = parse("FILTER <0 x MAP *4 a SORT b END")
    assert plain(run(program, *packed(0, [-17, -3, 4, -5, -9])), 0, output_type(program)) == [-68, -36, -20, -12]


@pytest.mark.parametrize(
    ("text", "n", "x", "expected"),
    [
        ("FILTER >0 x HEAD a END", 0, [-1, -2], None),  # the head of an empty list
        ("FILTER >0 x SUM a END", 0, [-1, -2], 0),
        ("FILTER >0 x MAXIMUM a TAKE b x END", 0, [-1], None),  # null goes through
        ("MAP **2 x END", 0, [10], None),  # 100 leaves the range
        ("MAP **2 x END", 0, [9, -9], [81, 81]),
        ("SCANL1 * x END", 0, [9, 9, 9, 0, 0], None),  # also if a later number is back in the range
        ("MAP /2 x END", 0, [-3, 3], [-2, 1]),  # rounds down
        ("MINIMUM x TAKE a x END", 0, [3, -2], []),
        ("ACCESS n x END", 2, [1, 2], None),
    ],
)
def test_limits_and_nulls(text: str, n: int, x: list[int], expected: Value) -> None:
    program = parse(text)
    assert plain(run(program, *packed(n, x)), 0, output_type(program)) == expected
    assert interpret(text.split(), n, x, 3) == expected


def test_the_language_holds_exactly_the_well_formed_programs() -> None:
    shortest, end = table(1), SAYINGS.index("END")
    for length in (0, 1, 2, 3):
        for sequence in itertools.product(range(len(SAYINGS)), repeat=length):
            well_formed = interpret([*(SAYINGS[a] for a in sequence), "END"], 1, [1, 2], 1) != "malformed"
            assert (shortest.find([*sequence, end]) >= 0) == well_formed
    known, rng = table(3), np.random.default_rng(2)
    accepted = 0
    for number in rng.permutation(len(known.programs))[:3000]:
        actions = [a for a in known.spelled[number].tolist() if a >= 0]
        place = int(rng.integers(len(actions)))
        if rng.random() < 0.8:
            actions[place] = int(rng.integers(len(SAYINGS)))
        else:
            del actions[place]
        well_formed = interpret([SAYINGS[a] for a in actions], 1, [1, 2], 3) != "malformed"
        assert (known.find(actions) >= 0) == well_formed
        accepted += well_formed
    assert accepted > 100


@pytest.mark.parametrize("lines", [1, 2, 3])
def test_fingerprints_tell_programs_apart_exactly_as_their_outputs_do(lines: int) -> None:
    known = table(lines)
    kinds = np.array([output_type(program) for program in known.programs])
    by_outputs: dict[bytes, set[int]] = {}
    for data, length, kind, meaning in zip(known.data, known.length, kinds, known.meaning, strict=True):
        by_outputs.setdefault(data.tobytes() + length.tobytes() + bytes([kind]), set()).add(int(meaning))
    assert all(len(meanings) == 1 for meanings in by_outputs.values())
    assert len(by_outputs) == len(set(known.meaning.tolist()))


def judge(batch: TokenBatch, row: int, actions: list[int]) -> int:
    states, result = batch.verifier.start()[row : row + 1], RUNNING
    for action in actions:
        if result != RUNNING:
            break
        states, outcome = batch.verifier.advance(states, np.array([action]))
        result = int(outcome[0])
    return result


@pytest.mark.parametrize("lines", [1, 2, 3])
def test_verdicts_are_those_of_the_plain_interpreter(lines: int) -> None:
    batch = make_task(f"programs-{lines}").batch("test", range(25))
    rng = np.random.default_rng(lines)
    verdicts = []
    for row, demonstration in enumerate(batch.demonstrations.tolist()):  # type: ignore[union-attr]
        hidden = [SAYINGS[a] for a in demonstration if a >= 0]
        wanted = [interpret(hidden, *given, lines) for given in inputs()]
        for _ in range(12):
            actions = [a for a in demonstration if a >= 0]
            if rng.random() < 0.8:
                actions[int(rng.integers(len(actions)))] = int(rng.integers(len(SAYINGS)))
            spelled = [SAYINGS[a] for a in actions]
            right = all(interpret(spelled, *given, lines) == out for given, out in zip(inputs(), wanted, strict=True))
            assert (judge(batch, row, actions) == SUCCEEDED) == right
            verdicts.append(right)
    assert 10 < sum(verdicts) < 0.9 * len(verdicts)


def test_fitting_the_shown_examples_is_not_enough() -> None:
    batch, known = make_task("programs-2").batch("train", range(200)), table(2)
    fooled = 0
    for row, demonstration in enumerate(batch.demonstrations.tolist()):  # type: ignore[union-attr]
        hidden = known.find([a for a in demonstration if a >= 0])
        # Find the shown inputs again from the prompt: 12 tokens an example, a number v being the token of 0 plus v.
        examples = batch.prompts[row, :-1].reshape(-1, 12).numpy()
        zero = len(SAYINGS) + LIMIT
        shown = []
        for example in examples:
            x = [int(t) - zero for t in example[1:6] if abs(int(t) - zero) <= LIMIT]
            shown.append(inputs().index((int(example[0]) - zero, x)))
        same = (known.data[:, shown] == known.data[hidden, shown]).all((1, 2))
        same &= (known.length[:, shown] == known.length[hidden, shown]).all(1)
        for other in np.flatnonzero(same & (known.meaning != known.meaning[hidden]))[:2]:
            actions = [a for a in known.spelled[other].tolist() if a >= 0]
            assert judge(batch, row, actions) != SUCCEEDED
            fooled += 1
    assert fooled > 5


@pytest.mark.parametrize("lines", [1, 2, 3])
def test_hidden_programs_are_neither_shorter_nor_degenerate(lines: int) -> None:
    batch = make_task(f"programs-{lines}").batch("validation", range(60))
    fewer = table(lines - 1).programs if lines > 1 else []
    shorter = {tuple(str(interpret(words(p), *given, lines)) for given in inputs()) for p in fewer}
    for demonstration in batch.demonstrations.tolist():  # type: ignore[union-attr]
        hidden = [SAYINGS[a] for a in demonstration if a >= 0]
        outputs = tuple(str(interpret(hidden, *given, lines)) for given in inputs())
        assert outputs not in shorter
        assert outputs != tuple(str(x) for _, x in inputs())
        assert outputs.count("None") <= 16
        assert max(outputs.count(output) for output in outputs) <= 32


def asked(split: str, **options: str) -> set[bytes]:
    """The functions that 400 instances of a split ask for, by their outputs on all 64 inputs."""
    demonstrations = make_task("programs-2", **options).batch(split, range(400)).demonstrations
    assert demonstrations is not None
    known = table(2)
    programs = {known.find([a for a in row if a >= 0]) for row in demonstrations.tolist()}
    return {known.data[p].tobytes() + known.length[p].tobytes() for p in programs}


def test_split_by_function_asks_held_out_splits_for_functions_that_training_never_asks_for() -> None:
    by_function = {split: asked(split, split_by="function") for split in SPLITS}
    for one, other in itertools.combinations(SPLITS, 2):
        assert not by_function[one] & by_function[other]
    assert min(map(len, by_function.values())) > 50
    assert asked("train") & asked("test")


@pytest.mark.parametrize("lines", [0, 4, 2.0, True])
def test_bad_options_are_refused(lines: object) -> None:
    with pytest.raises(ValueError, match="option 'lines' must be a whole number from 1 to 3"):
        make_task("programs-2", lines=lines)


def test_a_bad_way_to_split_is_refused() -> None:
    with pytest.raises(ValueError, match="option 'split_by': unknown 'functions'; did you mean 'function'"):
        make_task("programs-2", split_by="functions")


def test_rendering_tells_what_was_asked_and_written() -> None:
    task = make_task("programs-2")
    demonstration = [a for a in task.batch("test", [0]).demonstrations[0].tolist() if a >= 0]
    assert "right on 59 of 59 held-out inputs" in str(task.render("test", 0, demonstration))
    assert "not a program" in str(task.render("test", 0, [0, 0]))
