"""What experiments/findings.toml says of the results: tables and paragraphs, with the numbers of the present tables.

    python -m maxrl_bench.report.findings README.md docs/paper.md

writes the blocks of pages anew, each what stands between `<!-- findings: BLOCK -->` and `<!-- end -->`: `advice`,
`claims`, `paper`, `differences` (what of `paper` is not the same here), or `prose NAME`. A test holds that they agree.

Numbers are `placeholders` in the file, so that they cannot go stale. Words can: where the evidence of a row names a
verdict, "objectives:coverage = supported", the row counts as long as this is the verdict. The page over all experiments
leaves out rows of which a number is not there or a verdict has changed; in README.md and docs/ such a row is an error.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, ValidationError

from maxrl_bench.inputs import one_line, read_text, read_toml
from maxrl_bench.names import did_you_mean, shorten
from maxrl_bench.report.folder import INDEX, THEORY_FOLDER
from maxrl_bench.report.placeholders import VERDICTS, NotThere, Numbers
from maxrl_bench.storage.files import write_file
from maxrl_bench.sweeps.recipes import BUILT_IN, FINDINGS

PATH = BUILT_IN / FINDINGS
_MARKUP = re.compile(r"\||\]\(|<[a-zA-Z/!]")
_EVIDENCE = re.compile(r"([\w.-]+)(?::([\w.-]+)(?: = ([a-z ]+))?)?")
_BEGIN, _END = "<!-- findings: ", "<!-- end -->"
_BLOCK = re.compile(rf"{_BEGIN}(?P<name>[^\n]*?) -->\n.*?{_END}", re.DOTALL)


class Evidence(NamedTuple):
    """What a row follows from: an experiment ("theory": the objectives themselves), a claim of it, its verdict."""

    experiment: str
    claim: str = ""
    verdict: str = ""

    def __str__(self) -> str:
        return f"{self.experiment}: {self.claim}" if self.claim else self.experiment


def _text(text: str) -> str:
    if found := _MARKUP.search(text):
        raise ValueError(f"{found[0]!r} cannot stand in a text, which is plain but for `code` and **bold**")
    return " ".join(text.split())


def _evidence(text: Any) -> Evidence:
    match = _EVIDENCE.fullmatch(text) if isinstance(text, str) else None
    if match is None or (match[3] and match[3] not in VERDICTS):
        raise ValueError(
            "must be 'EXPERIMENT', 'EXPERIMENT:CLAIM' or 'EXPERIMENT:CLAIM = VERDICT', with a verdict of "
            f"{', '.join(VERDICTS)}"
        )
    return Evidence(*(part or "" for part in match.groups()))


Text = Annotated[str, AfterValidator(_text)]


class Row(BaseModel):
    """A row of a table: its columns in their order, their heads as titles; and what it follows from."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    evidence: list[Annotated[Evidence, PlainValidator(_evidence)]] = []


class Advice(Row):
    """Which objective to use."""

    aim: Text = Field(title="your aim")
    when: Text = Field(title="your pass rates, rollouts and data")
    use: Text = Field(title="use this")
    because: Text = Field(title="because, measured here")


class Claimed(Row):
    """A claim of the paper."""

    claim: Text = Field(title="claim of the paper")
    verdict: Text = Field(title="verdict here")
    measured: Text = Field(title="measured")


class Shown(Row):
    """A figure or table of the paper."""

    figure: Text = Field(title="in the paper")
    shows: Text = Field(title="what it shows")
    theirs: Text = Field(title="its numbers")
    ours: Text = Field(title="ours")
    same: Literal["yes", "in part", "no", "not tested"] = Field(title="same?")
    why: Text = Field(title="why, and what differs")


class Prose(Row):
    """A paragraph."""

    text: Text


class File(BaseModel):
    """findings.toml."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    advice: list[Advice] = []
    claims: list[Claimed] = []
    paper: list[Shown] = []
    prose: dict[str, Prose] = {}


class Block(NamedTuple):
    """A block that is a table: which rows, which columns of them, and the one that the evidence is linked from."""

    rows: str
    columns: tuple[str, ...]
    linked: str
    same: tuple[str, ...] = ()  # rows of the paper with these alone


BLOCKS = {
    "advice": Block("advice", ("aim", "when", "use", "because"), "because"),
    "claims": Block("claims", ("claim", "verdict", "measured"), "claim"),
    "paper": Block("paper", ("figure", "shows", "theirs", "ours", "same", "why"), "ours"),
    "differences": Block("paper", ("figure", "theirs", "ours", "why"), "ours", ("in part", "no")),
}


class Cell(NamedTuple):
    """A text with its numbers, and the evidence to link it with."""

    text: str
    evidence: Sequence[Evidence] = ()


class Table(NamedTuple):
    """A block with its numbers: heads, rows, and why each row that is left out is."""

    heads: list[str]
    rows: list[list[Cell]]
    left_out: list[str]


class Findings:
    """findings.toml with the numbers of results/ and plots/. Raises ValueError, one line, where the file is no good."""

    def __init__(self, results_root: str | Path, plots_root: str | Path, path: Path = PATH):
        self.path, self.plots_root = path, Path(plots_root)
        self.numbers = Numbers(results_root, plots_root)
        try:
            self.file = File.model_validate(read_toml(path))
        except ValidationError as error:
            known = {key for model in (File, Advice, Claimed, Shown, Prose) for key in model.model_fields}
            raise ValueError(f"{path}: {one_line(error, known=sorted(known))}") from None

    def table(self, name: str) -> Table:
        """A block that is a table, of the rows that can be filled. Raises ValueError where a placeholder is none."""
        block = BLOCKS[name]
        every: Sequence[Row] = getattr(self.file, block.rows)
        rows, left_out = [], []
        for number, row in enumerate(every, 1):
            if block.same and getattr(row, "same", "") not in block.same:
                continue
            try:
                rows.append(self._fill(row, block, f"{block.rows} {number}"))
            except NotThere as error:
                left_out.append(str(error))
        heads = [str(type(every[0]).model_fields[key].title) for key in block.columns] if every else []
        return Table(heads, rows, left_out)

    def markdown(self, name: str, page: str) -> str:
        """Any block in Markdown, linked with the page of results. Raises ValueError where it is not whole."""
        prose = {f"prose {key}": paragraph for key, paragraph in self.file.prose.items()}
        if name in prose:
            (cell,) = self._fill(prose[name], Block("prose", ("text",), "text"), name)
            return markdown_cell(cell, page)
        if name not in BLOCKS:
            raise ValueError(f"there is no block {shorten(name)}; {did_you_mean(name, [*BLOCKS, *prose])}")
        table = self.table(name)
        if table.left_out:
            raise NotThere(f"{self.path}: {table.left_out[0]}")
        return markdown_table(table, page)

    def _fill(self, row: Row, block: Block, where: str) -> list[Cell]:
        cells, key = [], "evidence"
        try:
            for evidence in row.evidence:
                self._check(evidence)
            for key in block.columns:
                text = self.numbers.fill(getattr(row, key))
                cells.append(Cell(text, row.evidence if key == block.linked else ()))
        except NotThere as error:
            raise NotThere(f"{where}: key '{key}': {error}") from None
        except ValueError as error:
            raise ValueError(f"{self.path}: {where}: key '{key}': {error}") from None
        return cells

    def _check(self, evidence: Evidence) -> None:
        """Raises NotThere unless it is there, with the verdict that it names."""
        experiment, claim, verdict = evidence
        if claim:
            found = self.numbers.verdict(experiment, claim)
            if verdict and found != verdict:
                raise NotThere(f"the words are for a verdict '{verdict}' on {experiment}:{claim}, which is '{found}'")
        elif not (self.plots_root / experiment / INDEX).is_file():
            raise NotThere(f"there are no figures of {shorten(experiment)} in {self.plots_root}")


def markdown_table(table: Table, page: str) -> str:
    """A table in Markdown; `page` is the page of results as seen from where it stands, "" for that page itself."""
    rows = [[markdown_cell(cell, page) for cell in row] for row in table.rows]
    lines = [table.heads, ["---"] * len(table.heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def markdown_cell(cell: Cell, page: str) -> str:
    """A text with its links in Markdown."""
    links = [f"[{evidence}]({page}#{_anchor(evidence.experiment)})" for evidence in cell.evidence]
    return f"{cell.text} ({', '.join(links)})" if links else cell.text


def _anchor(experiment: str) -> str:
    """Of a heading on the page of results, as code hosts make them."""
    return "the-objectives-themselves" if experiment == THEORY_FOLDER else experiment.lower()


def fill_page(path: Path, findings: Findings) -> str:
    """A page with its blocks as they should be. Raises ValueError, one line, where a block is none or has no end."""
    text = read_text(path)
    if text.count(_BEGIN) != len(_BLOCK.findall(text)):
        raise ValueError(f"{path}: a block is '{_BEGIN}BLOCK -->' on a line of its own, and goes on until '{_END}'")
    page = Path(os.path.relpath(findings.plots_root / "README.md", path.parent)).as_posix()

    def filled(match: re.Match[str]) -> str:
        name = match["name"]
        return f"{_BEGIN}{name} -->\n\n{findings.markdown(name, page)}\n\n{_END}"

    try:
        return _BLOCK.sub(filled, text)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def main(pages: Sequence[str]) -> None:
    """Write the blocks of pages anew."""
    findings = Findings("results", "plots")
    filled = {Path(page): fill_page(Path(page), findings) for page in pages}  # all or none
    for path, text in filled.items():
        write_file(path, text.encode())


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (ValueError, OSError) as error:
        sys.exit(f"maxrl-bench: {error}")
