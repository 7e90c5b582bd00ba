"""Seeded mutations of valid input: of text, of parsed values, and of what kind of file it lies in."""

from __future__ import annotations

import copy
import json
import os
import random
import re
from pathlib import Path
from typing import Any

DIGITS = "9" * 400
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


def file(path: Path, rng: random.Random) -> None:
    """Replace a file by a mutated one, or by something that is no file."""
    data = path.read_bytes()
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
