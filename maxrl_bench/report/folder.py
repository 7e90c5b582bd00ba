"""The files in plots/<name>/: the figures and tables, and figures.json, which lists them with their checksums.

A drawing replaces and deletes the files that the last one lists, and no others. Several processes may draw into one
folder: each file is replaced in one step, and the list is written before the files that it names, so that whatever a
kill leaves is known for ours and is drawn anew.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from maxrl_bench.inputs import read_bytes, read_json
from maxrl_bench.names import is_name, shorten
from maxrl_bench.storage.files import inside, remove, tidy, write_file
from maxrl_bench.storage.formats import checksum, to_json

INDEX = "figures.json"
MARK = "Written by maxrl-bench: what is edited here is lost."  # by which the next drawing knows its own pages
TITLE = "Which objective for binary rewards?"
TABLES = ("summary.csv", "claims.csv", "collapse.csv", "rates.csv", "room.csv")
CLAIMS_FOLDER = "claims"  # of the claims of all experiments together
CLAIMS_FILES = ("claims.png", "claims.csv")
THEORY_FOLDER = "theory"  # of the objectives' own figures
Number = Annotated[float, Field(allow_inf_nan=False)]
_PNG = b"\x89PNG\r\n\x1a\n"


class Strict(BaseModel):
    """Every value has its type; keys that are not known are passed over."""

    model_config = ConfigDict(strict=True, frozen=True)


class Figure(Strict):
    """A figure on the page."""

    name: str
    caption: str
    alt: str


class NotDrawn(Strict):
    """A figure that the tables do not allow."""

    name: str
    reason: str


class Comparison(Strict):
    """A row of claims.csv: one comparison of a claim."""

    task: str
    when: str
    metric: str
    compare: str
    against: str
    direction: Literal["higher", "lower", "equal"]
    margin: Number | None
    by_margin: bool
    effect: Number | None
    low: Number | None
    high: Number | None
    df: Number | None
    seeds: int
    instances: int
    collapsed: int
    p: Number | None
    outcome: str
    first: int | None = None
    by_seed: list[Number] = []


class Claim(Strict):
    """A claim, with the verdict that its comparisons give by themselves, and the p value of that."""

    id: str
    statement: str
    test: str
    verdict: str
    p: Number | None
    comparisons: list[Comparison]
    per_task: list[Comparison]
    other_moment: list[Comparison]
    notes: list[str]


class Collapses(Strict):
    """How many of an objective's runs collapsed, with the exact binomial interval of the rate."""

    objective: str
    runs: int
    collapsed: int
    rate: Number
    low: Number
    high: Number


class Origin(Strict):
    """Where the results come from."""

    profile: str | None
    file: str | None
    runs: int
    missing: int
    seconds: Number | None
    made_by: list[dict[str, Any]]


def _has_value(estimate: list[float | None]) -> list[float | None]:
    if estimate[0] is None:
        raise ValueError("an estimate needs a value before its limits")
    return estimate


# A value with the limits of its interval.
Estimate = Annotated[list[Number | None], Field(min_length=3, max_length=3), AfterValidator(_has_value)]


class Scores(Strict):
    """The final scores of a series on a task: estimates by metric."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Estimate | None] = Field(init=False)

    task: str
    objective: str
    seeds: int
    collapsed: int
    reached: int
    rollouts: Number | None


class Reached(Strict):
    """An objective's final scores on a task, and their shares of exact maximum likelihood's gain, by metric."""

    objective: str
    scores: dict[str, Number | None]
    shares: dict[str, Number | None]


class Room(Strict):
    """What a task leaves to be gained, and what the last fifth of the training still did."""

    task: str
    steps: int
    base: dict[str, Number | None]
    reached: list[Reached]
    last_fifth: Number | None
    slowest: str


class Index(Strict):
    """The part of figures.json that drawing needs; for the figures of the objectives, all of it."""

    files: dict[str, str]


class Picture(Index):
    """figures.json of a folder with one drawing."""

    caption: str
    alt: str


class Page(Index):
    """figures.json: what the page says of an experiment, and the checksums of its files and of their tables."""

    experiment: str
    question: str
    caveat: str = ""
    order: int
    notes: list[str]
    figures: list[Figure]
    not_drawn: list[NotDrawn]
    claims: list[Claim]
    summary: list[Scores]
    collapse: list[Collapses]
    room: list[Room] = []
    provenance: Origin
    drawn_from: dict[str, str]


def check_own(name: str) -> None:
    """Raises ValueError where an experiment's name is that of a folder in plots/ with other figures."""
    if name in (CLAIMS_FOLDER, THEORY_FOLDER):
        raise ValueError(f"plots/{name}/ has other figures; rename the experiment '{name}'")


def read_page(plots_root: str | Path, name: str) -> Page | None:
    """figures.json of an experiment, every value of the type that a page needs; None if nothing has been drawn.

    Raises ValueError, in one line, if it is damaged or of another experiment.
    """
    path = inside(plots_root, name, INDEX)
    page: Page | None = _read(path, Page)
    if page is None:
        return None
    if page.experiment != name:
        raise ValueError(f"{path} is of another experiment, {shorten(page.experiment)}; remove it to draw anew")
    if not all(is_name(figure.name) for figure in page.figures):
        raise ValueError(f"{path} is damaged: it names figures in ways that none is called; remove it to draw anew")
    return page


def read_drawing(plots_root: str | Path, name: str) -> Picture | None:
    """figures.json of a folder with one drawing; None if nothing is drawn. Raises ValueError as `read_page` does."""
    picture: Picture | None = _read(inside(plots_root, name, INDEX), Picture)
    return picture


def own_files(plots_root: str | Path, name: str) -> dict[str, str]:
    """The files that the last drawing lists, with their checksums. Raises ValueError as `read_page` does."""
    index: Index | None = _read(inside(plots_root, name, INDEX), Index)
    return dict(index.files) if index else {}


def _read(path: Path, shape: Any) -> Any:
    try:
        return read_json(path, shape)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{error}; remove it to draw anew") from None


def replace_files(
    plots_root: str | Path, name: str, files: Mapping[str, bytes], index: Mapping[str, Any]
) -> list[Path]:
    """Put the files of a drawing into plots/<name>/ in place of those of the last one; returns their paths.

    `index` becomes figures.json, with the checksums of the files as its "files". Raises ValueError, and changes
    nothing, if a file of these names is there that the last drawing does not list, or if anything is a link.
    """
    folder = inside(plots_root, name)
    old = own_files(plots_root, name)
    paths = {file: inside(plots_root, name, file) for file in files}
    check_free(plots_root, name, [file for file, path in paths.items() if not _holds(path, files[file])])
    sums = {file: checksum(data) for file, data in files.items()}
    # No longer asked for. A list from elsewhere may name anything: only what is as it was drawn is deleted.
    dropped = {file: digest for file, digest in old.items() if file not in files and _is_product(file)}
    gone = {file: digest for file, digest in dropped.items() if _checksum(plots_root, name, file) == digest}
    leftovers = [inside(plots_root, name, file) for file in gone]
    write_file(folder / INDEX, to_json({**index, "files": {**gone, **sums}}))
    for file, path in paths.items():
        if not _holds(path, files[file]):
            write_file(path, files[file])
    for path in leftovers:
        remove(path)
    if gone:
        write_file(folder / INDEX, to_json({**index, "files": sums}))
    tidy(folder)
    return [*paths.values(), folder / INDEX]


def check_free(plots_root: str | Path, name: str, files: Iterable[str]) -> None:
    """Raises ValueError if a file of these names is in plots/<name>/ that the last drawing does not list.

    Raises ValueError as `read_page` does, too.
    """
    own_files(plots_root, name)
    for file in files:
        path = inside(plots_root, name, file)
        # Listed before it is written: what another process draws at this moment is in the list by now.
        if os.path.lexists(path) and file not in own_files(plots_root, name):
            raise ValueError(f"{path} was not drawn by maxrl-bench and is not replaced; move it away and draw again")


def _is_product(file: str) -> bool:
    suffixes = (".png", ".svg")  # earlier versions drew .svg, too
    return Path(file).name == file and (file in TABLES or Path(file).suffix in suffixes)


def _holds(path: Path, data: bytes) -> bool:
    """Whether a regular file holds exactly these bytes."""
    try:
        return path.stat().st_size == len(data) and read_bytes(path) == data
    except (OSError, ValueError):
        return False


def changed_files(plots_root: str | Path, name: str) -> list[str]:
    """The listed files that are absent or not as they were drawn. Raises ValueError as `read_page` does."""
    return [file for file, digest in own_files(plots_root, name).items() if _checksum(plots_root, name, file) != digest]


def _checksum(plots_root: str | Path, name: str, file: str) -> str | None:
    try:
        return checksum(read_bytes(inside(plots_root, name, file)))
    except (OSError, ValueError):
        return None


def read_png(plots_root: str | Path, name: str, figure: str) -> bytes | None:
    """A drawn PNG; None if it is absent or damaged."""
    file = f"{figure}.png"
    try:
        data = read_bytes(inside(plots_root, name, file))
        whole = data.startswith(_PNG) and len(data) > 24 and checksum(data) == own_files(plots_root, name).get(file)
    except (OSError, ValueError):
        return None
    return data if whole else None


def page_paths(plots_root: str | Path) -> list[Path]:
    """Where index.html and README.md go. Raises ValueError if there is one that was not written by us."""
    paths = [inside(plots_root, name) for name in ("index.html", "README.md")]
    for path in paths:
        if os.path.lexists(path):
            head = read_bytes(path)[:2000].decode(errors="replace")
            # Pages of before the mark are known by their title.
            if MARK not in head and not head.startswith(f"# {TITLE}\n") and f"<title>{TITLE}</title>" not in head:
                raise ValueError(f"{path} was not written by maxrl-bench and is not replaced; draw into another folder")
    return paths
