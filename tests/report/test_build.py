"""The report: drawn from tables alone, whole, self-contained, and honest about what is missing."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from synthetic_tables import OBJECTIVES, TASKS, make_tables, write

from maxrl_bench.analysis import bootstrap
from maxrl_bench.cli import publish
from maxrl_bench.report import build as report
from maxrl_bench.storage import tables as results
from maxrl_bench.storage.formats import checksum
from maxrl_bench.sweeps.experiment import load_experiment

ROOT = Path(__file__).parents[2]
MADE_BY = [
    {"commit": "0123456789abcdef", "dirty": True, "python": "3.11.2", "packages": {"torch": "2.13.0"}, "runs": 20}
]
CLAIMS: tuple[dict[str, Any], ...] = (
    {
        "id": "entropy",
        "statement": "REINFORCE keeps more <entropy> than GRPO | and so on",
        "metric": "entropy",
        "compare": {"objective": "reinforce"},
        "against": {"objective": "grpo"},
    },
    {
        "id": "absent",
        "statement": "PKPO beats GRPO",
        "metric": "pass@1",
        "compare": {"objective": "pkpo"},
        "against": {"objective": "grpo"},
    },
)


@dataclass
class Asked:
    """What `draw` reads of an experiment."""

    name: str = "headline"
    figures: tuple[str, ...] = ("coverage", "entropy", "order", "paretto")
    claims: tuple[dict[str, Any], ...] = CLAIMS
    order: int = 0
    caveat: str = "Runs <stop> early: read the verdicts as of step 40."


@dataclass
class Page(HTMLParser):
    """The tags of an HTML page with their attributes, and its text."""

    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def attributes(self, tag: str, name: str) -> list[str]:
        return [str(attributes[name]) for other, attributes in self.tags if other == tag and name in attributes]


def parse(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text())
    return page


def fill(root: Path, experiment: str = "headline", **provenance: Any) -> None:
    objectives = {name: OBJECTIVES[name] for name in ("REINFORCE", "GRPO", "MaxRL")}
    tasks = {name: TASKS[name] for name in ("fourrooms", "maze-9")}
    tables = make_tables(tasks=tasks, objectives=objectives, steps=(0, 20, 40), instances=8)
    runs = {run: {"wall_seconds": 2.5} for run in tables[0]["run"].unique()}
    question = "Who <wins> & why?"
    provenance = {"question": question, "profile": "laptop", "runs": runs, "made_by": MADE_BY, **provenance}
    write(root / "results", experiment, *tables, **provenance)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("report")
    fill(root, missing=["0123"])
    report.draw(Asked(), root / "results", root / "plots")  # type: ignore[arg-type]
    return root


def test_what_was_asked_is_drawn_and_what_cannot_be_is_said(drawn: Path) -> None:
    folder = drawn / "plots" / "headline"
    names = {path.name for path in folder.iterdir()}
    figures = {f"{name}.png" for name in ("coverage", "entropy")}
    assert names == figures | {"summary.csv", "collapse.csv", "figures.json"}
    assert {path.name for path in (drawn / "plots" / "claims").iterdir()} == {
        "claims.csv",
        "claims.png",
        "figures.json",
    }
    text = parse(drawn / "plots" / "index.html").text
    assert "order (the experiment has one value only of: truncation order T)" in text
    assert "paretto (there is no such figure; did you mean 'pareto'?)" in text
    assert "1 runs of the experiment have no result" in text


def test_claims_come_first_with_effect_interval_and_verdict(drawn: Path) -> None:
    text = (drawn / "plots" / "index.html").read_text()
    assert text.index('id="claims"') < text.index("<img") < text.index("<table") < text.index('id="headline"')
    assert text[text.index("<img") :].index('alt="Forest plot of 2 claims') < 200_000
    readable = parse(drawn / "plots" / "index.html").text
    assert re.search(
        r"✔ supported\s*entropy against GRPO: \+0\.\d{3} \[\+0\.\d{3}, \+0\.\d{3}\], 5 seeds: better\s*p = ", readable
    )
    assert re.search(r"– cannot be judged\s*no data\s*Note: no runs with common seeds", readable)
    assert "REINFORCE keeps more <entropy> than GRPO" in readable


def test_limits_of_claims_lie_on_either_side_of_their_effects(drawn: Path) -> None:
    rows = pd.read_csv(drawn / "plots" / "claims" / "claims.csv").dropna(subset="effect")
    assert list(rows["part"]) == ["claim", "task alone", "task alone", "other moment"]
    assert (rows["low"] < rows["effect"]).all()
    assert (rows["effect"] < rows["high"]).all()
    entry = json.loads((drawn / "plots" / "headline" / "figures.json").read_text())["claims"][0]
    parts = [*entry["comparisons"], *entry["per_task"], *entry["other_moment"]]
    for judged, (_, row) in zip(parts, rows.iterrows(), strict=True):
        for name in ("effect", "low", "high", "p", "df"):
            assert judged[name] == row[name]


def test_the_page_needs_nothing_but_the_figures_beside_it(drawn: Path) -> None:
    page = parse(drawn / "plots" / "index.html")
    sources = page.attributes("img", "src")
    assert len(sources) == 3  # the claims, and two figures
    assert all((drawn / "plots" / source).read_bytes().startswith(b"\x89PNG") for source in sources)
    assert all(len(alt) > 20 for alt in page.attributes("img", "alt"))
    assert not [tag for tag, _ in page.tags if tag in ("script", "iframe", "object")]
    assert "http" not in (drawn / "plots" / "index.html").read_text()


def test_every_link_leads_somewhere(drawn: Path) -> None:
    page = parse(drawn / "plots" / "index.html")
    anchors = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    links = page.attributes("a", "href")
    markdown = (drawn / "plots" / "README.md").read_text()
    links += re.findall(r"\]\(([^)]+)\)", markdown)
    assert len(links) > 10
    for link in links:
        assert link[1:] in anchors if link.startswith("#") else (drawn / "plots" / link).exists(), link


def test_captions_and_provenance_are_on_both_pages(drawn: Path) -> None:
    index = json.loads((drawn / "plots" / "headline" / "figures.json").read_text())
    html, markdown = parse(drawn / "plots" / "index.html").text, (drawn / "plots" / "README.md").read_text()
    for text in (html, re.sub(r"\\([^\w ])", r"\1", markdown)):
        assert all(unescape(figure["caption"]) in unescape(text) for figure in index["figures"])
        assert "75 seconds of computing, 2.5 per run on average" in text
        assert "30 runs" in text
    assert "commit 0123456789ab with uncommitted changes; Python 3.11.2; torch 2.13.0" in html
    assert "| REINFORCE keeps more &lt;entropy&gt; than GRPO \\| and so on |" in markdown


def test_the_summary_table_is_the_tables_means(drawn: Path) -> None:
    summary = pd.read_csv(drawn / "plots" / "headline" / "summary.csv").set_index(["task", "objective"])
    metrics = results.load("headline", drawn / "results").metrics
    final = metrics[metrics["step"] == 40].groupby(["task", "objective"])[["pass@1", "pass@128", "log_p"]].mean()
    for key, row in final.iterrows():
        assert summary.loc[key, list(row.index)].to_numpy(float) == pytest.approx(row.to_numpy(), rel=1e-4)
        assert summary.loc[key, "pass@1 low"] < row["pass@1"] < summary.loc[key, "pass@1 high"]
    assert (summary["seeds"] == 5).all()


def test_same_tables_same_bytes_and_old_figures_go(drawn: Path, tmp_path: Path) -> None:
    shutil.copytree(drawn, tmp_path / "copy")
    plots = tmp_path / "copy" / "plots"
    index = json.loads((plots / "headline" / "figures.json").read_text())
    index["files"]["pareto.png"] = checksum(b"")  # a figure of the last drawing that is no longer asked for
    (plots / "headline" / "figures.json").write_text(json.dumps(index))
    (plots / "headline" / "pareto.png").write_bytes(b"")
    before = {path.relative_to(plots): path.read_bytes() for path in plots.rglob("*") if path.is_file()}
    report.draw(Asked(), tmp_path / "copy" / "results", plots)  # type: ignore[arg-type]
    after = {path.relative_to(plots): path.read_bytes() for path in plots.rglob("*") if path.is_file()}
    assert before.pop(Path("headline/pareto.png")) == b""
    before[Path("headline/figures.json")] = (drawn / "plots" / "headline" / "figures.json").read_bytes()
    assert after == before


def test_figures_of_other_tables_are_told_apart(drawn: Path, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(drawn, root)
    arguments = (root / "results", root / "plots")
    assert report.stale_figures(*arguments) == []
    with open(root / "plots" / "headline" / "coverage.png", "ab") as file:
        file.write(b" ")
    assert report.stale_figures(*arguments) == ["headline"]
    shutil.copytree(drawn / "plots", root / "plots", dirs_exist_ok=True)
    fill(root, profile="other")
    assert report.stale_figures(*arguments) == []  # the same tables with another label are the same tables
    write(root / "results", "headline", *make_tables(seeds=1, steps=(0, 1), instances=2))
    fill(root, "undrawn")
    assert report.stale_figures(*arguments) == ["headline", "undrawn"]
    report.write_report(*arguments)
    text = parse(root / "plots" / "index.html").text
    assert "headline: not of the present tables; `maxrl-bench plot` draws it" in text
    assert "undrawn: not drawn yet; `maxrl-bench plot` draws it" in text


def test_a_bad_claim_never_costs_the_figures(drawn: Path, tmp_path: Path) -> None:
    claims = ({"statment": ""}, *CLAIMS)
    report.draw(Asked(figures=("entropy",), claims=claims), drawn / "results", tmp_path / "plots")  # type: ignore[arg-type]
    page = json.loads((tmp_path / "plots" / "headline" / "figures.json").read_bytes())
    assert [figure["name"] for figure in page["figures"]] == ["entropy"]
    assert [claim["verdict"] for claim in page["claims"]] == ["cannot be judged", "supported", "cannot be judged"]
    assert "'statment' is unknown; did you mean 'statement'" in page["claims"][0]["notes"][0]


@pytest.mark.parametrize("formula", ["=1+1", "+1", "-1", "@SUM(A1)", '=HYPERLINK("http://a")', "\uff1d1"])
def test_no_cell_of_a_table_is_a_formula(drawn: Path, tmp_path: Path, formula: str) -> None:
    """Numbers stay numbers, with their sign."""
    swapped = {**CLAIMS[0], "compare": CLAIMS[0]["against"], "against": CLAIMS[0]["compare"]}
    claims = tuple({**claim, "id": f"{formula}{i}", "statement": formula} for i, claim in enumerate([*CLAIMS, swapped]))
    report.draw(Asked(figures=("entropy",), claims=claims), drawn / "results", tmp_path / "plots")  # type: ignore[arg-type]
    table = pd.read_csv(tmp_path / "plots" / "claims" / "claims.csv")
    texts = table.select_dtypes(exclude="number").stack()
    assert not texts.astype(str).str.match("[=+@\uff1d-]|\t").any()
    assert set(table["statement"]) == {f"'{formula}"}
    assert table["effect"].lt(0).any()


def test_damaged_tables_are_refused(drawn: Path, tmp_path: Path) -> None:
    shutil.copytree(drawn / "results", tmp_path / "results")
    with open(tmp_path / "results" / "headline" / results.METRICS, "ab") as file:
        file.write(b"half a li")
    with pytest.raises(ValueError, match=r"metrics\.csv\.xz does not match its checksum"):
        report.draw("headline", tmp_path / "results", tmp_path / "plots")


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGE = {
    "gone": Path.unlink,
    "directory": _directory,
    "loop": _loop,
    "fifo": _fifo,
    "garbage": lambda path: path.write_bytes(b"\xff\x00garbage"),
}


def test_a_broken_folder_is_named_on_the_page_with_its_fault_and_the_others_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(publish, "draw_theory", lambda *_: "")  # slow, and of no folder
    Path("whole.toml").write_text(
        'question = "Who?"\nfigures = ["entropy"]\n[[grid]]\ntask = "fourrooms"\nobjective = "grpo"\n'
    )
    fill(tmp_path, "whole", file="whole.toml", path="../whole.toml")
    broken = {f"{file.split('.')[0]}-{damage}": (file, damage) for file in results.FILES for damage in DAMAGE}
    for name, (file, damage) in broken.items():
        shutil.copytree("results/whole", f"results/{name}")
        DAMAGE[damage](Path("results", name, file))
    Path("results/link").symlink_to("whole")
    assert publish.plot([], "results", "plots") == 1
    told = capsys.readouterr()
    assert "whole: plots/whole/" in told.out
    page, lines = parse(Path("plots/index.html")), told.err.splitlines()
    for name in (*broken, "link"):
        (line,) = [line for line in lines if f": {name}: " in line]
        fault = line.removeprefix(f"maxrl-bench: not drawn: {name}: ")
        assert f"{name}: not drawn yet: {fault}" in page.text
    assert len(lines) == len(broken) + 1
    assert page.attributes("figure", "id") == ["whole-entropy"]


def test_columns_that_are_no_rates_are_refused(tmp_path: Path) -> None:
    fill(tmp_path)
    tables = results.load("headline", tmp_path / "results")
    foreign = {
        "column 'pass@1.1' is no pass@k": tables.metrics.assign(**{"pass@1.1": 0.5}),
        "column 'pass@one' is no pass@k": tables.metrics.assign(**{"pass@one": 0.5}),
        r"column 'pass@1' must hold rates in \[0, 1\]": tables.metrics.assign(**{"pass@1": 1.5}),
        r"column 'pass@128' must hold rates in \[0, 1\]": tables.metrics.assign(**{"pass@128": -0.1}),
        r"column 'pass@8' must hold rates in \[0, 1\]": tables.metrics.assign(**{"pass@8": math.inf}),
    }
    for fault, metrics in foreign.items():
        write(tmp_path / "results", "headline", metrics, tables.pass_rates)
        with pytest.raises(ValueError, match=rf"metrics\.csv\.xz: {fault}"):
            results.load("headline", tmp_path / "results")
    write(tmp_path / "results", "headline", tables.metrics, tables.pass_rates.assign(pass_rate=7e300))
    with pytest.raises(ValueError, match=r"column 'pass_rate' must hold rates in \[0, 1\]"):
        results.load("headline", tmp_path / "results")


def test_tables_without_a_metric_have_the_figures_of_the_others(tmp_path: Path) -> None:
    fill(tmp_path)
    tables = results.load("headline", tmp_path / "results")
    write(tmp_path / "results", "headline", tables.metrics.drop(columns="pass@1"), tables.pass_rates)
    asked = Asked(figures=("pareto", "training", "end_points"), claims=())
    drawn = report.draw(asked, tmp_path / "results", tmp_path / "plots")  # type: ignore[arg-type]
    assert not drawn.failed
    assert (tmp_path / "plots/headline/training.png").exists()


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium to lay the page out; install one to run this test")
@pytest.mark.parametrize("width", [400, 1400])
def test_nothing_overflows_and_the_console_is_silent(drawn: Path, tmp_path: Path, width: int) -> None:
    """In a frame of the width, since a window of the browser is never below 500 pixels; all details opened."""
    shutil.copytree(drawn / "plots", tmp_path / "plots")
    page, frame = tmp_path / "plots" / "index.html", tmp_path / "frame.html"
    measure = """<script>addEventListener("load", () => {
      for (const d of document.querySelectorAll("details")) d.open = true;
      const broken = [...document.images].filter(i => !i.naturalWidth || i.getBoundingClientRect().right > innerWidth);
      parent.postMessage([innerWidth, document.documentElement.scrollWidth, broken.length].join(), "*");
    });</script></body>"""
    page.write_text(page.read_text().replace("</body>", measure))
    frame.write_text(
        '<body><script>addEventListener("message", e => { document.title = e.data; });</script>'
        f'<iframe src="plots/index.html" width="{width}" height="900" style="border: 0"></iframe></body>'
    )
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
    command += ["--virtual-time-budget=5000", f"--user-data-dir={tmp_path / 'profile'}", frame.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    measured = re.search(r"<title>(\d+),(\d+),(\d+)</title>", done.stdout)
    assert measured, done.stdout[:500]
    inner, scroll, broken = map(int, measured.groups())
    assert inner == width
    assert scroll <= width
    assert broken == 0
    assert "CONSOLE" not in done.stderr


COMMITTED = [name for name in results.experiments(ROOT / "results") if name.endswith("-reference")]


@pytest.mark.skipif(not COMMITTED, reason="no reference results in results/ yet")
def test_committed_figures_are_of_the_committed_tables() -> None:
    assert report.stale_figures(ROOT / "results", ROOT / "plots") == []


@pytest.mark.skipif(not COMMITTED, reason="no reference results in results/ yet")
def test_the_smallest_committed_experiment_redraws_to_the_same_statements(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers, captions and verdicts; not pixels, which differ between versions of matplotlib's fonts."""
    name = min(COMMITTED, key=lambda folder: (ROOT / "results" / folder / results.METRICS).stat().st_size)
    provenance = results.load(name, ROOT / "results").provenance
    shutil.copytree(ROOT / "results" / name, tmp_path / "results" / name)
    monkeypatch.setattr(bootstrap, "RESAMPLES", 200_000)  # as they were drawn with; other tests have fewer
    experiment = load_experiment(ROOT / "experiments" / provenance["file"], provenance["profile"])
    report.draw(experiment, tmp_path / "results", tmp_path / "plots")
    committed, redrawn = (json.loads((root / "plots" / name / "figures.json").read_text()) for root in (ROOT, tmp_path))
    for page in (committed, redrawn):
        for key in ("files", "caveat", "notes"):  # pixels, and words that need no new tables to change
            page.pop(key, None)
    assert redrawn == committed
