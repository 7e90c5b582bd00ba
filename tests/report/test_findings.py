"""What findings.toml says: numbers of hand-made tables, rows that are left out, pages that agree with the tables."""

from __future__ import annotations

import difflib
import functools
import re
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from documents import ROOT, prose, read, table
from synthetic_tables import OBJECTIVES, TASKS, make_tables, write

from maxrl_bench.report import build as report
from maxrl_bench.report import findings, placeholders
from maxrl_bench.report.findings import BLOCKS, File, Findings, fill_page
from maxrl_bench.report.placeholders import TAKES, NotThere, Numbers
from maxrl_bench.storage.tables import IDENTITY

FILLED_PAGES = ("README.md", "docs/paper.md")
# Claims as claims.csv has them, as little of it as is read: what differs from `row`.
LARGE = "MaxRL (Alg. 1), num_rollouts = 16"
ROWS: list[dict[str, Any]] = [
    {"against": "GRPO", "effect": 0.0949, "low": 0.0551, "high": 0.1251},
    {"against": "RLOO", "effect": -0.00586, "low": -0.0161, "high": 0.0044, "seeds": 20},
    {"part": "task alone", "task": "maze-9", "against": "GRPO", "effect": -0.0703, "low": -0.1058, "high": -0.0347},
    {"part": "other moment", "when": "last_three", "against": "GRPO", "effect": 0.0979, "low": float("nan")},
    {"claim": "less", "when": "drop", "direction": "lower", "effect": -0.1519, "low": -0.2115, "high": -0.0924},
    {"claim": "soon", "when": "rollouts_to", "direction": "lower", "effect": -1.0, "low": -2.0, "high": 0.5},
    {"claim": "few", "when": "samples", "effect": 3.0, "low": 1.0, "high": 7.0},
    {"claim": "each", "task": "add-2", "effect": 0.011, "low": -0.0004, "high": 0.02, "outcome": "undecided"},
    {"claim": "each", "task": "maze-9", "effect": 0.2, "low": 0.1, "high": 0.3},
    {"claim": "sizes", "against": LARGE},
    {"claim": "sizes", "against": "MaxRL (Alg. 1), num_rollouts = 4", "effect": 0.5},
    {"claim": "open", "verdict": "cannot be judged", "part": None, "task": None, "when": None, "metric": None,
     "against": None, "direction": None, "effect": None, "low": None, "high": None, "seeds": None, "outcome": None},
]  # fmt: skip


def row(**changes: Any) -> dict[str, Any]:
    values = {"experiment": "study", "claim": "gain", "verdict": "supported", "part": "claim", "task": "all"}
    values |= {"when": "final", "metric": "pass@128", "against": "GRPO", "direction": "higher"}
    return values | {"effect": 0.25, "low": 0.2, "high": 0.3, "seeds": 5, "outcome": "better"} | changes


def run(task: str, objective: str, seed: int, scores: dict[int, float], **settings: Any) -> list[dict[str, Any]]:
    """The evaluations of a run: pass@1 by step."""
    label = {"grpo": "GRPO", "maxrl_alg1": "MaxRL (Alg. 1)"}[objective]
    name = f"{task}-{objective}-{seed}-{settings}"
    values = {"run": name, "task": task, "family": "f", "objective": label, "objective_name": objective}
    values |= {"num_rollouts": 16, "batch_size": 4, "learning_rate": 1e-3, "train_instances": 0, "seed": seed}
    return [values | settings | {"step": step, "pass@1": score, "log_p": -score} for step, score in scores.items()]


RUNS = [
    *run("maze-9", "grpo", 0, {0: 0.1, 10: 0.8}),
    *run("maze-9", "grpo", 1, {0: 0.3, 10: 0.9}),
    *run("maze-9", "grpo", 2, {0: 0.2, 5: 0.0}),  # it stopped early
    *run("maze-9", "maxrl_alg1", 0, {0: 0.1, 10: 0.9962}),
    *run("maze-9", "maxrl_alg1", 0, {0: 0.1, 10: 0.0038}, num_rollouts=4),
    *run("add-2", "maxrl_alg1", 0, {10: 1.0}),
    *run("add-2", "grpo", 0, {10: 0.0}),
    *run("add-2", "grpo", 1, {10: float("nan")}, num_rollouts=64),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """results/study/ and plots/claims/claims.csv, made by hand."""
    root = tmp_path_factory.mktemp("findings")
    assert set(IDENTITY) < set(RUNS[0])
    rates = pd.DataFrame({"run": [RUNS[0]["run"]], "step": 10, "instance": 0, "pass_rate": 0.5, "n": 0})
    write(root / "results", "study", pd.DataFrame(RUNS), rates)
    (root / "plots" / "claims").mkdir(parents=True)
    (root / "plots" / "study").mkdir()
    (root / "plots" / "study" / "figures.json").write_text("{}")
    (root / "plots" / "study" / "collapse.csv").write_text("objective,runs,collapsed\nGRPO,18,2\nMine,4,0\n")
    pd.DataFrame([row(**changes) for changes in ROWS]).to_csv(root / "plots" / "claims" / "claims.csv", index=False)
    return root


@pytest.fixture
def numbers(root: Path) -> Numbers:
    return Numbers(root / "results", root / "plots")


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("nothing to fill", "nothing to fill"),
        ("{verdict study gain} on {seeds study gain} seeds", "supported on 5 to 20 seeds"),
        ("{seeds study less}", "5"),
        ("{verdict study open}", "cannot be judged"),
        ("{effect study gain pass@128 grpo}", "+0.09 [+0.06, +0.13]"),
        ("{effect study gain pass@128 rloo}", "-0.006 [-0.016, +0.004]"),
        ("{effect study gain pass@128 grpo task=maze-9}", "-0.07 [-0.11, -0.03]"),
        ("{effect study gain pass@128 grpo when=last_three}", "+0.10"),
        ("{effect study less pass@128 grpo}, {by study less pass@128 grpo}", "-0.15 [-0.21, -0.09], 0.15 [0.09, 0.21]"),
        ("{by study gain pass@128 rloo}", "-0.006 [-0.016, 0.004]"),
        ("{effect study each pass@128 grpo task=add-2}", "+0.01 [+0.00, +0.02]"),  # and no -0.00
        ("{outcome study each pass@128 grpo task=add-2}", "undecided"),
        ("{saved study soon pass@128 grpo} times", "2 [0.71, 4] times"),  # 2^1, 2^-0.5, 2^2
        ("{saved study few pass@128 grpo}", "8 [2, 130]"),
        (f"{{effect study sizes pass@128 '{LARGE}'}}", "+0.25 [+0.20, +0.30]"),
        ("{score study maze-9 grpo pass@1}", ".85"),
        ("{score study maze-9 GRPO pass@1}", ".85"),
        ("{score study maze-9 grpo pass@1 step=0}", ".20"),
        ("{score study maze-9 grpo log_p}", "-0.85"),
        ("{score study maze-9 maxrl_alg1 pass@1 num_rollouts=16}", ".996"),
        ("{score study maze-9 'MaxRL (Alg. 1)' pass@1 num_rollouts=4.0}", ".004"),
        ("{score study add-2 maxrl_alg1 pass@1}", "1"),
        ("{score study add-2 grpo pass@1 num_rollouts=16}", "0"),
        ("{collapsed study grpo}; {collapsed study Mine}", "2 of 18; 0 of 4"),
    ],
)
def test_a_placeholder_becomes_a_number_of_the_tables(numbers: Numbers, text: str, filled: str) -> None:
    assert numbers.fill(text) == filled


NOT_THERE = {
    "{verdict stduy gain}": "claims.csv: no experiment 'stduy'; did you mean 'study'?",
    "{seeds study gian}": "experiment study: no claim 'gian'; did you mean 'gain'?",
    "{seeds study open}": "the claim has no comparison",
    "{effect study gain pass@1 grpo}": "claim study:gain: no metric 'pass@1'; did you mean 'pass@128'?",
    "{effect study gain pass@128 ml}": "claim study:gain is not against 'Exact ML'; accepted: GRPO, RLOO",
    "{by study gain pass@128 grpo task=maze-7}": "claim study:gain: no task 'maze-7'; did you mean 'maze-9'?",
    "{effect study sizes pass@128 maxrl_alg1}": f"is several comparisons, of against '{LARGE}' or "
    "'MaxRL (Alg. 1), num_rollouts = 4'",
    "{effect study each pass@128 grpo}": "is several comparisons, of task 'add-2' or 'maze-9'",
    "{saved study gain pass@128 grpo}": "needs a claim with when = rollouts_to or samples, and this one has final",
    "{score other maze-9 grpo pass@1}": "no results of experiment 'other' in ROOT/results: accepted: study",
    "{score study maze-7 grpo pass@1}": "the metrics of study: no task 'maze-7'; did you mean 'maze-9'?",
    "{score study add-2 rloo pass@1}": "the metrics of study, task=add-2: no objective 'rloo'; "
    "accepted: MaxRL (Alg. 1), GRPO",
    "{score study maze-9 grpo pass@2}": "the metrics of study, task=maze-9, objective_name=grpo: no column 'pass@2'; "
    "did you mean 'pass@1'?",
    "{score study maze-9 grpo pass@1 step=7}": "the metrics of study, task=maze-9, objective_name=grpo: "
    "no step '7'; accepted: 0, 10, 5",
    "{score study maze-9 grpo pass@1 rate=1}": "the metrics of study, task=maze-9, objective_name=grpo: "
    "no column 'rate'; did you mean 'learning_rate'",
    "{score study maze-9 maxrl_alg1 pass@1}": "is of several runs with one seed; narrow it by num_rollouts=",
    "{score study add-2 grpo pass@1 num_rollouts=64}": "the metrics of study, task=add-2, objective_name=grpo, "
    "num_rollouts=64: pass@1 has no value",
    "{collapsed study rloo}": "the collapses of study: no objective 'RLOO'; accepted: GRPO, Mine",
    "{collapsed other grpo}": "ROOT/plots/other/collapse.csv is not there",
}


@pytest.mark.parametrize("text", NOT_THERE)
def test_a_number_that_is_not_there_is_named(numbers: Numbers, root: Path, text: str) -> None:
    with pytest.raises(NotThere) as refused:
        numbers.fill(f"before {text} after")
    assert str(refused.value).replace(str(root), "ROOT").startswith(f"{text}: {NOT_THERE[text]}")
    assert "\n" not in str(refused.value)


MALFORMED = {
    "{efect study gain pass@128 grpo}": "{efect study gain pass@128 grpo}: 'efect' is unknown; did you mean 'effect'?",
    "{}": "{}: '' is unknown; did you mean 'verdict' or 'seeds' or 'effect'?",
    "{effect study gain pass@128}": "{effect study gain pass@128}: must be {effect EXPERIMENT CLAIM METRIC AGAINST}, "
    "got 3 words after the first",
    "{verdict study gain task=maze-9}": "{verdict study gain task=maze-9}: takes no task=; accepted: none",
    "{by study gain pass@1 grpo seed=1}": "{by study gain pass@1 grpo seed=1}: takes no seed=; accepted: task=, when=",
    "{effect study gain pass@128 'GRPO}": "{effect study gain pass@128 'GRPO}: No closing quotation",
    "a {verdict study gain": "a brace without its other in 'a {verdict study gain'",
    "{verdict {study} gain}": "a brace without its other in '{verdict {study} gain}'",
}


@pytest.mark.parametrize("text", MALFORMED)
def test_what_is_no_placeholder_is_an_error(numbers: Numbers, text: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(MALFORMED[text]) + "$") as refused:
        numbers.fill(text)
    assert not isinstance(refused.value, NotThere)


def test_tables_that_are_damaged_have_no_numbers(root: Path, tmp_path: Path) -> None:
    """What claims.csv says goes into pages as it is, so that no other words are taken from it."""
    folder = tmp_path / "claims"
    folder.mkdir()
    with pytest.raises(NotThere, match=r"claims\.csv is not there"):
        Numbers(root / "results", tmp_path).fill("{verdict study gain}")
    table = pd.read_csv(root / "plots" / "claims" / "claims.csv")
    wrong = {
        "it has verdicts that there are not": table.assign(verdict="<b>fine</b>"),
        "'outcome'": table.drop(columns="outcome"),
        "could not convert": table.assign(effect="much"),
    }
    for message, damaged in wrong.items():
        damaged.to_csv(folder / "claims.csv", index=False)
        with pytest.raises(NotThere, match=rf"claims\.csv is damaged \(.*{message}"):
            Numbers(root / "results", tmp_path).fill("{verdict study gain}")


WORDS = """
[[advice]]
aim = "many `tries` & < more"
when = "few data"
use = "**maxrl**"
because = "{effect study gain pass@128 grpo}"
evidence = ["study:gain = supported", "study"]

[[advice]]
aim = "another"
when = "-"
use = "grpo"
because = "its words are out of date"
evidence = ["study:gain = undecided"]

[[advice]]
aim = "a third"
when = "-"
use = "grpo"
because = "{effect study gain pass@4 grpo}"

[[paper]]
figure = "Fig. 1"
shows = "a"
theirs = "b"
ours = "{score study maze-9 grpo pass@1}"
same = "no"
why = "c"
evidence = ["study:less"]

[[paper]]
figure = "Fig. 2"
shows = "d"
theirs = "e"
ours = "f"
same = "yes"
why = "g"

[prose.end]
text = '''It is
  {verdict study gain}.'''
evidence = ["study"]
"""
PAPER = (
    "| in the paper | what it shows | its numbers | ours | same? | why, and what differs |\n"
    "| --- | --- | --- | --- | --- | --- |\n"
    "| Fig. 1 | a | b | .85 ([study: less](up#study)) | no | c |\n"
    "| Fig. 2 | d | e | f | yes | g |"
)
DIFFERENCES = (
    "| in the paper | its numbers | ours | why, and what differs |\n"
    "| --- | --- | --- | --- |\n"
    "| Fig. 1 | b | .85 ([study: less](up#study)) | c |"
)


@pytest.fixture
def words(root: Path, tmp_path: Path) -> Findings:
    path = tmp_path / "findings.toml"
    path.write_text(WORDS)
    return Findings(root / "results", root / "plots", path)


def test_blocks_are_written_in_markdown(words: Findings) -> None:
    assert words.markdown("paper", "up") == PAPER
    assert words.markdown("differences", "up") == DIFFERENCES
    assert words.markdown("prose end", "up") == "It is supported. ([study](up#study))"
    with pytest.raises(ValueError, match="there is no block 'papers'; did you mean 'paper'?"):
        words.markdown("papers", "up")


def test_rows_whose_words_or_numbers_do_not_hold_are_left_out_of_the_page_and_refused_elsewhere(
    words: Findings,
) -> None:
    table = words.table("advice")
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["many `tries` & < more", "few data", "**maxrl**", "+0.09 [+0.06, +0.13]"]
    ]
    assert table.left_out == [
        "advice 2: key 'evidence': the words are for a verdict 'undecided' on study:gain, which is 'supported'",
        "advice 3: key 'because': {effect study gain pass@4 grpo}: claim study:gain: no metric 'pass@4'; "
        "did you mean 'pass@128'?",
    ]
    with pytest.raises(ValueError, match=r"findings\.toml: advice 2: key 'evidence': the words are for a verdict"):
        words.markdown("advice", "up")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('aim = "another"', "aims = 'another'", "key 'aims' is unknown; did you mean 'aim' or"),
        ('when = "few data"\n', "", "key 'advice.0.when' is missing"),
        ('"few data"', '"few | data"', "key 'advice.0.when': '|' cannot stand in a text"),
        ('"few data"', '"[few](data)"', "key 'advice.0.when': '](' cannot stand in a text"),
        ('"few data"', '"<br>"', "key 'advice.0.when': '<b' cannot stand in a text"),
        (
            'same = "no"',
            'same = "nearly"',
            "key 'paper.0.same': input should be 'yes', 'in part', 'no' or 'not tested'",
        ),
        ('"study:gain = undecided"', '"study:gain = good"', "key 'advice.1.evidence.0': must be 'EXPERIMENT', "),
        ('"study:gain = undecided"', "3", "key 'advice.1.evidence.0': must be 'EXPERIMENT', "),
        ("{effect study gain pass@4 grpo}", "{effects}", "advice 3: key 'because': {effects}: 'effects' is unknown"),
        ("[[paper]]", "[[figures]]", "key 'figures' is unknown; did you mean 'figure'?"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(root: Path, tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "findings.toml"
    assert old in WORDS
    path.write_text(WORDS.replace(old, new))
    with pytest.raises(ValueError, match=re.escape(f"{path}: {message}")) as refused:
        Findings(root / "results", root / "plots", path).table("advice")
    assert "\n" not in str(refused.value)


def test_a_page_has_its_blocks_written_anew_and_nothing_else(words: Findings) -> None:
    page = words.plots_root.parent / "docs" / "page.md"
    page.parent.mkdir()
    begin, end = "<!-- findings: prose end -->\n", "<!-- end -->\n"
    page.write_text(f"a\n{begin}old\n{end}b\n{begin.replace('prose end', 'differences')}{end}c\n")
    text = fill_page(page, words)
    link = "../plots/README.md#study"
    assert text == (
        f"a\n{begin}\nIt is supported. ([study]({link}))\n\n{end}b\n"
        f"<!-- findings: differences -->\n\n{DIFFERENCES.replace('up#study', link)}\n\n{end}c\n"
    )
    page.write_text(text)
    assert fill_page(page, words) == text
    for wrong in (text.replace("<!-- end -->\nb", "b"), "<!-- findings: paper --> <!-- end -->"):
        page.write_text(wrong)
        with pytest.raises(ValueError, match=r"page\.md: a block is .* and goes on until '<!-- end -->'$"):
            fill_page(page, words)
    page.write_text("<!-- findings: advice -->\n<!-- end -->")
    with pytest.raises(ValueError, match=r"page\.md: .*findings\.toml: advice 2: "):
        fill_page(page, words)


ADVICE = """
[[advice]]
aim = "many `tries` & < more"
when = "**few** data"
use = "grpo"
because = "{score headline fourrooms grpo pass@1}, {outcome headline high pass@128 reinforce}"
evidence = ["headline:high = undecided", "headline"]

[[advice]]
aim = "another"
when = "-"
use = "grpo"
because = "{score '< nothing' fourrooms grpo pass@1}"
"""


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    objectives = {name: OBJECTIVES[name] for name in ("REINFORCE", "GRPO")}
    tables = make_tables(tasks={"fourrooms": TASKS["fourrooms"]}, objectives=objectives, steps=(0, 40), instances=8)
    write(tmp_path / "results", "headline", *tables, question="?", profile="laptop")
    sides = {"compare": {"objective": "grpo"}, "against": {"objective": "reinforce"}}
    claim = {"id": "high", "statement": "GRPO is higher", "metric": "pass@128", **sides}
    asked = SimpleNamespace(name="headline", figures=("entropy",), claims=(claim,), order=0, caveat="")
    report.draw(asked, tmp_path / "results", tmp_path / "plots")  # type: ignore[arg-type]
    return tmp_path


def test_a_page_without_the_tables_of_the_advice_has_none(drawn: Path) -> None:
    for page in ("index.html", "README.md"):
        assert "Which objective should I use" not in (drawn / "plots" / page).read_text()


def test_the_page_opens_with_the_advice_and_says_what_it_leaves_out(
    drawn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (drawn / "findings.toml").write_text(ADVICE)
    monkeypatch.setattr(report, "Findings", functools.partial(Findings, path=drawn / "findings.toml"))
    report.write_report(drawn / "results", drawn / "plots")
    final = pd.read_csv(drawn / "plots" / "headline" / "summary.csv").set_index("objective").loc["GRPO", "pass@1"]
    number = f"{final:.2f}".removeprefix("0")
    html, markdown = ((drawn / "plots" / page).read_text() for page in ("index.html", "README.md"))
    assert html.index("Which objective should I use?") < html.index('id="claims"')
    links = '<a href="#headline">headline: high</a>, <a href="#headline">headline</a>'
    assert re.search(
        r"<td [^>]*>many <code>tries</code> &amp; &lt; more</td><td [^>]*><strong>few</strong> data</td>"
        rf"<td [^>]*>grpo</td><td [^>]*>{re.escape(number)}, undecided \({links}\)</td></tr>",
        html,
    )
    assert (
        "| your aim | your pass rates, rollouts and data | use this | because, measured here |\n"
        "| --- | --- | --- | --- |\n"
        f"| many `tries` & < more | **few** data | grpo | {number}, undecided ([headline: high](#headline), "
        "[headline](#headline)) |\n"
    ) in markdown
    assert markdown.index("Which objective should I use?") < markdown.index("## Claims")
    for text in (html, markdown):
        note = text[text.index("1 of 2 rows are left out here: advice 2: key") :].partition("\n")[0]
        assert "&lt; nothing" in note
        assert "<" not in note.removesuffix("</p>")


@pytest.mark.parametrize("page", FILLED_PAGES)
def test_the_pages_of_this_project_have_the_numbers_of_the_tables(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where this fails: `make readme`, and read whether the words of experiments/findings.toml still hold."""
    monkeypatch.chdir(ROOT)
    text = fill_page(Path(page), Findings("results", "plots"))
    assert text.count("<!-- end -->") >= 1
    difference = "\n".join(difflib.unified_diff(read(page).splitlines(), text.splitlines(), page, "as the tables say"))
    assert not difference, f"`make readme` writes it anew:\n{difference}"


def test_a_figure_of_the_paper_is_the_same_here_only_where_its_claim_is_supported() -> None:
    verdicts = pd.read_csv(ROOT / "plots/claims/claims.csv").groupby(["experiment", "claim"])["verdict"].first()
    rows = tomllib.loads(read("experiments/findings.toml"))["paper"]
    checked = [
        (row["figure"], verdicts[tuple(evidence.split(":"))])
        for row in rows
        if row["same"] == "yes"
        for evidence in row.get("evidence", ())
        if ":" in evidence
    ]
    assert checked
    assert [figure for figure, verdict in checked if verdict != "supported"] == []


@pytest.mark.parametrize("page", FILLED_PAGES)
def test_measured_numbers_stand_in_blocks_alone(page: str) -> None:
    """In the sections that have blocks: nothing with two digits behind the point, and no interval."""
    sections = [part for part in re.split(r"^#+ ", prose(page), flags=re.MULTILINE) if "<!-- findings: " in part]
    assert sections
    for section in sections:
        outside = re.sub(r"<!-- findings: .*?<!-- end -->|(?i:arxiv)\S* ?[\d.]+", "", section, flags=re.DOTALL)
        assert not re.findall(r"\d*\.\d\d+|\[[-+]?\d*\.\d", outside)


def test_every_placeholder_block_and_key_is_documented() -> None:
    usages = [f"{{{word} {' '.join(arguments)}}}" for word, arguments in TAKES.items()]
    assert re.findall(r"^    (\{.*?\})", str(placeholders.__doc__), re.MULTILINE) == usages
    documented = table("docs/experiments.md", "Findings", "placeholder")
    assert [name.strip("`") for name in documented] == usages
    blocks = {
        name: re.findall(r"`(\w+)`", cells[1])
        for name, cells in table("docs/experiments.md", "Findings", "block").items()
    }
    assert blocks == {**{name: list(block.columns) for name, block in BLOCKS.items()}, "prose NAME": ["text"]}
    assert all(f"`{name}`" in str(findings.__doc__) for name in blocks)
    assert {block.rows for block in BLOCKS.values()} | {"prose"} == set(File.model_fields)
