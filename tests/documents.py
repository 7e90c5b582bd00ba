"""The documentation as the tests read it: pages, fenced blocks, code spans and tables."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = next(folder for folder in Path(__file__).parents if (folder / "pyproject.toml").exists())
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in (*ROOT.glob("docs/*.md"), *ROOT.glob("*.md")))
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


# What makes a run take no time.
SMALL = {
    "steps": 1, "eval_every": 1, "eval_instances": 2, "eval_rollouts": 4, "batch_size": 2, "warm_start_steps": 0
}  # fmt: skip


def in_small(words: list[str]) -> list[str]:
    """The words of `maxrl-bench run` with settings that take no time, for theirs."""
    kept = [word for word in words if word.partition("=")[0] not in SMALL]
    return [*kept, *(f"{key}={value}" for key, value in SMALL.items())]


class Block(NamedTuple):
    """A fenced block: its page, its number there (from 1), its language, its text, and its line in the page."""

    page: str
    number: int
    language: str
    text: str
    line: int

    @property
    def file(self) -> str:
        """The name of a file that a first line `# NAME` gives to the block; "" without one."""
        named = re.match(r"# ([\w./-]+\.(?:toml|py))\b", self.text)
        return named[1] if named else ""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def read(page: str) -> str:
    """The text of a page, named from the repository's root."""
    return (ROOT / page).read_text(encoding="utf-8")


def prose(page: str) -> str:
    """The text of a page without its fenced blocks."""
    return _FENCED.sub("", read(page))


def blocks(page: str, language: str | None = None) -> list[Block]:
    """The fenced blocks of a page, of one language or of all."""
    text = read(page)
    found = [
        Block(page, number, match[1], match[2], text.count("\n", 0, match.start()) + 2)
        for number, match in enumerate(_FENCED.finditer(text), 1)
    ]
    return [block for block in found if language in (None, block.language)]


def spans(page: str) -> list[str]:
    """The code spans of a page's prose, each on one line."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose(page))]


def section(page: str, heading: str) -> str:
    """The prose and tables under a heading, up to the next heading. Raises ValueError unless there is one such."""
    parts = re.split(r"^#+ (.*)\n", prose(page), flags=re.MULTILINE)
    (text,) = [text for name, text in zip(parts[1::2], parts[2::2], strict=True) if name == heading]
    return text


def table(page: str, heading: str, header: str) -> dict[str, list[str]]:
    """The rows of a section's tables whose first column has this header: by the first cell, the other cells."""
    rows: dict[str, list[str]] = {}
    for part in re.findall(
        rf"^\| {re.escape(header)} \|.*\n\|[-|]+\n((?:\|.*\n)+)", section(page, heading), re.MULTILINE
    ):
        for line in part.splitlines():
            first, *others = [cell.strip() for cell in line.strip("|").split(" | ")]
            assert rows.setdefault(first.strip("` "), others) is others, f"{page}: {heading}: {first} is there twice"
    return rows
