"""Seeded mutations of valid input: of text, of parsed values, and of what kind of file it lies in."""

from __future__ import annotations

import contextlib
import copy
import json
import lzma
import os
import random
import re
import tomllib
from pathlib import Path
from typing import Any

from maxrl_bench.config import RunConfig
from maxrl_bench.storage.formats import checksum
from maxrl_bench.sweeps.claim_model import Claim

DIGITS = "9" * 400
# What reading a mutated file raises.
UNREADABLE = (ValueError, OSError, KeyError, TypeError, lzma.LZMAError, EOFError, RecursionError)
# Values as TOML writes them: of the wrong type, size, depth or character.
TOML_VALUES = [
    *("0", "-1", "1e999", "-0.0", "nan", "inf", "9e-400", "0x1", "1_000", "99999999999999999999", "true", '""'),
    *("[]", "[[]]", "{}", "1979-05-27", "07:32:00", '"grpo"', '"fourrooms"', '["grpo", "grpo"]', '[1, "a"]', "[0, 1]"),
    *("{name=3}", '{name="grpo",num_rollouts=5}', '["a", {}]', "[0.5]", '[[1], ["a"]]', '["pass@1", 3]'),
    '{ name = "maze", size = [1] }',
    '{ name = "maxrl_order", order = 1.5 }',
    '{ name = "grpo", name2 = { a = { b = 1 } } }',
    '{ objective = "grpo" }',
    '[{ objective = "rloo" }, 3]',
    DIGITS,
    "9" * 5000,
    "0x" + "f" * 5000,
    f'"{"x" * 5000}"',
    "[" * 2000,
    "[" * 40 + "]" * 40,
    "{a=" * 500 + "1" + "}" * 500,
    '"\\u001b[2J"',
    '"a\\nb"',
    '"../../x"',
    '"\\u0000"',
    '"é ｇｒｐｏ"',
    "'''a\nb'''",
]
JSON_VALUES: list[Any] = [
    None,
    True,
    0,
    -1,
    1.5,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "x",
    "../../x",
    "=1+1",
    "\ud800",
]
JSON_VALUES += ["a\nb", "\x1b[2J", [], [[]], {}, {"a": 1}, [None], int(DIGITS), "x" * 5000, ["a", 1], "<script>"]


# Keys that some table of an experiment file has, for tables that have them not.
KEYS = [*RunConfig.model_fields, *Claim.model_fields, "question", "caveat", "figures", "order", "profiles", "name"]
KEYS += ["", "x", "../x", "é", "ｔask", "\u202etask", "a\nb", "x" * 300, "con", "__class__"]
# Other good values of some keys, so that what is mutated often gets past the door.
OTHERS: dict[str, list[Any]] = {
    "metric": ["pass@8", "log_p", ["pass@1", "pass@4"], "grad_norm", "hard_gradient"],
    "when": ["final", "last_three", "best", "area", "drop", "rollouts_to", "collapsed", "front", "samples"],
    "direction": ["higher", "lower", "equal"],
    "margin": [0.5, 1, 1e-300, 5e-324],
    "by_margin": [True, False],
    "level": [0.0, 0.5, 1, 1e-300],
    "objective": ["rloo", "grpo", ["ml", "pkpo_loo"], {"name": "maxrl_order", "order": 1}, {"name": "grpo", "ddof": 1}],
    "task": [
        "add-2",
        ["maze-7", "fourrooms"],
        {"name": "fourrooms", "horizon": 1},
        {"name": "add-2", "scratchpad": True},
    ],
    "where": [{"num_rollouts": 8, "dtype": "float32"}, {"steps": 4}, {"policy": {}}],
    "compare": [{"objective": "maxrl_order"}, {"objective_name": "grpo"}, {"name": "maxrl_order", "order": 4}],
    "against": [{"objective": "GRPO"}, [{"objective": "grpo"}] * 2, {"objective": "rloo"}],
    "tasks": [["maze-7(size=9)"], ["fourrooms", "fourrooms"], ["add-2"]],
    "learning_rate": ["tuned", 1e-300, [1e300, 1]],
    "policy": [{}, [{"width": 8}, {"width": 16}], {"width": 2**20}],
    "figures": [[], ["coverage", "coverage"], ["pareto"]],
    "profiles": [["smoke"], ["laptop"], []],
    "id": ["a", "=1+1", "<script>", "x" * 200],
    "statement": ["GRPO | [x](javascript:alert(1))", "=cmd", "<b>x</b>"],
}


class Written(str):
    """A value as TOML writes it."""


def text(valid: str, rng: random.Random) -> str:
    """One to three random edits: of characters, words, values, keys and lines."""
    for _ in range(rng.randint(1, 3)):
        lines = valid.split("\n")
        line, place = rng.randrange(len(lines)), rng.randrange(len(valid) + 1)
        kind = rng.randrange(8)
        if kind == 0:
            valid = valid[:place] + valid[place + rng.randint(1, 4) :]
        elif kind == 1:
            valid = valid[:place] + rng.choice("[]{}=\"'#,.\n\\\x00\x1b\ufeffé9a -") + valid[place:]
        elif kind == 2:
            del lines[line]
        elif kind == 3:
            lines.insert(line, rng.choice(lines))
        elif kind == 4:
            lines[line] = re.sub(r"=.*", lambda _: f"= {rng.choice(TOML_VALUES)}", lines[line], count=1)
        elif kind == 5:
            lines.insert(line, f"{rng.choice(lines).partition('=')[0]} = {rng.choice(TOML_VALUES)}")
        elif kind == 6:
            lines[line] = rng.choice(
                ["[" + "a." * 900 + "b]", "[profiles.'../x']", "[task.'a\\nb']", "[[claims]]", "x=1"]
            )
        else:
            words = list(re.finditer(r"[A-Za-z_0-9]{2,}", valid))
            if words:
                word, other = rng.choice(words), rng.choice(words).group()
                new = rng.choice([word.group()[:-1], "x", other, other.upper(), word.group() * 300])
                valid = valid[: word.start()] + new + valid[word.end() :]
        if kind in (2, 3, 4, 5, 6):
            valid = "\n".join(lines)
    return valid


def _places(value: Any) -> list[tuple[Any, Any]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, part in inner for place in [(value, key), *_places(part)]]


def parsed(valid: Any, rng: random.Random) -> Any:
    """One to three parts of a parsed value replaced, removed, doubled or renamed."""
    valid = copy.deepcopy(valid)
    for _ in range(rng.randint(1, 3)):
        places = _places(valid)
        if not places or rng.random() < 0.05:
            return copy.deepcopy(rng.choice(JSON_VALUES))
        table, key = rng.choice(places)
        kind = rng.randrange(4)
        if kind == 0:
            del table[key]
        elif kind == 1 and isinstance(table, dict):
            table[rng.choice(["x", "", "a\nb", str(key)[:-1], "../x"])] = table.pop(key)
        elif kind == 2:
            deep: Any = 1
            for _ in range(rng.choice([5, 40, 300])):
                deep = [deep] if rng.random() < 0.5 else {"a": deep}
            table[key] = deep
        else:
            table[key] = copy.deepcopy(rng.choice(JSON_VALUES))
    return valid


def toml(value: Any) -> str:
    """A value as TOML, tables in one line; those of two keys that are alike have one twice."""
    if isinstance(value, Written):
        return value
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key.rstrip())} = {toml(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value) if isinstance(value, str | bool) else repr(value)


def tables(valid: str, rng: random.Random, under: str = "") -> str:
    """TOML with one value, or up to three, changed for others, of any type, moved, doubled, renamed or added.

    What is changed lies below the key `under`, if one is given.
    """
    parsed = tomllib.loads(valid)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        places = _places(parsed[under] if under else parsed)
        if not places:
            break
        table, key = rng.choice(places)
        old, kind = table[key], rng.randrange(12)
        if kind == 0:
            table[key] = Written(rng.choice(TOML_VALUES))
        elif kind == 1:
            other, place = rng.choice(places)
            table[key] = copy.deepcopy(other[place])
        elif kind == 2:
            table[key] = old[0] if isinstance(old, list) and len(old) == 1 else [old]
        elif kind == 3:
            del table[key]
        elif kind == 4 and isinstance(table, dict):
            new = rng.choice([rng.choice(KEYS), key + " "])  # the same key twice, once it is written
            table[new] = table.get(key) if new.endswith(" ") else table.pop(key)
        elif kind == 4:
            table.append(copy.deepcopy(old))
        elif kind == 5 and isinstance(table, dict):
            other, place = rng.choice(places)
            table[rng.choice(KEYS)] = copy.deepcopy(other[place])
        elif kind == 6 and isinstance(old, list):
            table[key] = rng.choice([old[::-1], old[1:], old * 2, old * 300, list(range(rng.choice([3, 50, 2000])))])
        else:
            table[key] = _near(key, old, rng)
    return "\n".join(f"{json.dumps(key.rstrip())} = {toml(value)}" for key, value in parsed.items())


def _near(key: Any, value: Any, rng: random.Random) -> Any:
    """Another good value of a key, if there is one; else another value of the same type."""
    if key in OTHERS and rng.random() < 0.8:
        return copy.deepcopy(rng.choice(OTHERS[key]))
    if isinstance(value, str) and not isinstance(value, Written):
        return rng.choice([value.upper(), value + " ", value[:-1], f"é{value}", value + "\u200f"])
    if isinstance(value, int | float) and not isinstance(value, bool):
        return rng.choice([value + 1, value - 1, -value, value * 1000, value / 2, float(value), 0, 1, 2, 2**20, 2**31])
    return value


def file(path: Path, rng: random.Random) -> None:
    """Replace a file by a mutated one, or by something that is no file."""
    data = path.read_bytes()
    if path.suffix == ".xz" and rng.random() < 0.7:
        path.write_bytes(lzma.compress(text(lzma.decompress(data).decode(), rng).encode(errors="replace")))
        return
    path.unlink()
    kind = rng.randrange(12)
    if kind == 0:
        os.mkfifo(path)
    elif kind == 1:
        path.symlink_to(path)
    elif kind == 2:
        path.symlink_to("/dev/zero")
    elif kind == 3:
        path.mkdir()
    elif kind == 4:
        path.write_bytes(rng.choice([b"", b"\xff\xfe\x00", b"\x00" * 100, data[: len(data) // 2], b"[" * 100_000]))
    elif kind == 5:
        with open(path, "wb") as sparse:
            sparse.truncate(2**40)
    elif kind <= 7:
        path.write_bytes(text(data.decode(errors="replace"), rng).encode(errors="replace"))
    else:
        try:
            path.write_text(json.dumps(parsed(json.loads(data), rng)))
        except ValueError:  # no JSON, to begin with
            path.write_bytes(text(data.decode(errors="replace"), rng).encode(errors="replace"))


def with_checksums(path: Path) -> None:
    """Write the checksums of a mutated file anew, as somebody would who can write the folder."""
    if path.is_symlink() or not path.is_file() or path.stat().st_size > 2**30:
        return
    folder = path.parent
    for listing, key in (("manifest.json", None), ("provenance.json", "checksums"), ("figures.json", "files")):
        with contextlib.suppress(*UNREADABLE):
            written = json.loads((folder / listing).read_bytes())
            sums = written[key] if key else written
            if path.name in sums:
                data = path.read_bytes()
                sums[path.name] = checksum(lzma.decompress(data) if path.suffix == ".xz" else data)
                (folder / listing).write_text(json.dumps(written))
    manifest, done = folder / "manifest.json", folder / "done"
    if manifest.is_file() and done.is_file() and path != done:
        done.write_text(checksum(manifest.read_bytes()) + "\n")
