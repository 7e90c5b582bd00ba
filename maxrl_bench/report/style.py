"""What all figures share: size, type, small multiples, the look of each series, and byte-identical saving."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import matplotlib.figure
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from PIL import Image

from maxrl_bench.analysis import stats
from maxrl_bench.analysis.evidence import Evidence
from maxrl_bench.analysis.series import Panel, Series
from maxrl_bench.report.palette import style_of
from maxrl_bench.storage.files import write_file

WIDTH = 9.0  # inches; 900 px at 100 dpi, which is where the type below is sized to be read
DPI = 110  # of the file: sharp at 900 px, and small
MAX_COLUMNS = 4
GREY = "#555555"
UNPAIRED = "of each line alone (where they overlap, a paired difference can be clear)"
SIDE_BY_SIDE = "rows side by side"  # the label of a figure whose only panel has its rows in one line
# Lines and markers of the variants of one objective, from the lightest shade to the darkest.
_LINESTYLES = ("-", "--", "-.", ":")
_MARKERS = "osD^vPX<>hdp"
_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.labelsize": 9.5,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.7,
    "lines.markersize": 5.5,
    "figure.facecolor": "white",
    "svg.hashsalt": "maxrl_bench",
    "svg.fonttype": "none",  # text stays text: a third of the size, and it can be searched
    "path.simplify": True,
}


class Figure(mpl.figure.Figure):
    """A figure that notebooks show by themselves, without pyplot."""

    def _repr_png_(self) -> bytes:
        return render(Drawing(self, "", ""))


class NotDrawable(ValueError):
    """Why the tables do not allow a figure; shown in its place."""


@dataclass(frozen=True)
class Drawing:
    """A figure, its caption, and its description for readers who cannot see it."""

    figure: mpl.figure.Figure
    caption: str
    alt: str


@contextmanager
def style() -> Iterator[None]:
    """A context with the settings of all figures; the user's matplotlib settings are neither read nor changed."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def looks(all_series: Sequence[Series]) -> dict[Series, dict[str, Any]]:
    """Colour, marker and line of each series: its objective's, in shades where an objective has several series."""
    result = {}
    for series in all_series:
        look: dict[str, Any] = {**style_of(series.objective_name)}
        siblings = [s for s in all_series if s.objective_name == series.objective_name]
        if len(siblings) > 1:
            i = siblings.index(series)
            look = style_of(series.objective_name, i / (len(siblings) - 1))
            look["marker"], look["linestyle"] = _MARKERS[i % len(_MARKERS)], _LINESTYLES[i % len(_LINESTYLES)]
        # A star covers little of the square that markers are measured by.
        result[series] = look | ({"markersize": 9.0} if look["marker"] == "*" else {})
    return result


def series_by_panel(evidence: Evidence) -> tuple[dict[Panel, list[Series]], dict[Series, dict[str, Any]]]:
    """The series on each panel, and the look of each; a setting that several objectives vary has panels of its own."""
    facets = evidence.faceted()
    shown = {panel: evidence.series(panel, facets) for panel in evidence.panels(facets)}
    return shown, looks(evidence.series(ignore=facets))


def small_multiples(panels: Collection[Panel], rows: int, height: float = 2.3) -> tuple[Figure, list[list[Axes]]]:
    """A figure with `rows` axes for every panel, panels side by side and wrapped: axes[panel][row]."""
    if len(panels) == 1:  # the rows of a single panel stand side by side
        figure = Figure(figsize=(WIDTH, height + 0.9), layout="constrained", label=SIDE_BY_SIDE)
        single = list(figure.subplots(1, rows, squeeze=False)[0])
        single[0].set_title(next(iter(panels)).title, loc="left", fontweight="bold")
        return figure, [single]
    columns = min(len(panels), MAX_COLUMNS)
    if len(panels) > MAX_COLUMNS:  # rows of similar length: 5 panels are 3 + 2, not 4 + 1
        columns = -(-len(panels) // -(-len(panels) // MAX_COLUMNS))
    blocks = -(-len(panels) // columns)
    figure = Figure(figsize=(WIDTH, height * blocks * rows + 0.9), layout="constrained")
    grid = figure.subplots(blocks * rows, columns, squeeze=False)
    axes = []
    for i, panel in enumerate(panels):
        block, column = divmod(i, columns)
        axes.append([grid[block * rows + row][column] for row in range(rows)])
        # A title wider than its panel would run into the next one.
        title = panel.title if len(panel.title) * columns <= 90 else panel.title.replace(", ", "\n")
        axes[-1][0].set_title(title, loc="left", fontweight="bold")
    for i in range(len(panels), blocks * columns):
        for row in range(rows):
            grid[(blocks - 1) * rows + row][i % columns].set_axis_off()
    return figure, axes


def label_x(rows: Sequence[Axes], text: str) -> None:
    """The label of the x axis that the rows of a panel share: under the last, or under each if side by side."""
    for ax in rows if rows[0].figure.get_label() == SIDE_BY_SIDE else rows[-1:]:
        ax.set_xlabel(text)


def label_y(ax: Axes, text: str) -> None:
    """The label of a y axis that the panels of a row share: at the first, in lines as long as a panel is high."""
    spec = ax.get_subplotspec()
    if ax.figure.get_label() == SIDE_BY_SIDE or (spec is not None and spec.is_first_col()):
        ax.set_ylabel("\n".join(textwrap.fill(part, 26) for part in text.splitlines()))


def further(figure: mpl.figure.Figure) -> str:
    """Where the further rows of a panel are, to begin a sentence: "Beside" a single panel, else "Below"."""
    return "Beside" if figure.get_label() == SIDE_BY_SIDE else "Below"


def share_limits(axes: Sequence[Axes]) -> None:
    """Panels that are compared have one scale: that of all that is drawn in any."""
    limits = np.array([[*ax.get_xlim(), *ax.get_ylim()] for ax in axes if ax.axison])
    left, _, bottom, _ = limits.min(axis=0)
    _, right, _, top = limits.max(axis=0)
    for ax in axes:
        ax.set(xlim=(left, right), ylim=(bottom, top))


def end_at_rates(ax: Axes) -> None:
    """An axis of pass rates ends at 0 and 1, even where an interval over seeds goes on."""
    low, high = ax.get_ylim()
    ax.set_ylim(max(low, -0.03), min(high, 1.03))


def label_rows(ax: Axes, labels: Sequence[str]) -> None:
    """A name for each row of a dot plot, the first on top, written at the first panel only."""
    spec = ax.get_subplotspec()
    first = spec is not None and spec.is_first_col()
    ax.set_yticks(range(len(labels) - 1, -1, -1), labels if first else [""] * len(labels))
    ax.set_ylim(-0.6, len(labels) - 0.4)


def line(
    axes: Axes, x: np.ndarray, curve: tuple[np.ndarray, np.ndarray, np.ndarray], look: Mapping[str, Any], offset: int
) -> None:
    """A mean with its band; about six markers, begun at different points so that those of equal curves do not hide."""
    mean, low, high = curve
    spacing = max(1, len(x) // 6)
    axes.fill_between(x, low, high, color=look["color"], alpha=0.16, linewidth=0)
    axes.plot(x, mean, **look, markevery=(offset % spacing, spacing), markeredgecolor="white", markeredgewidth=0.5)


def finish(figure: Figure, note: str, look: Mapping[Series, Mapping[str, Any]], extra: Sequence[Line2D] = ()) -> None:
    """What is around the panels once they are drawn: the legend above, the footnote below."""
    _legend(figure, look, extra)
    footnote(figure, note)


def _legend(figure: Figure, look: Mapping[Series, Mapping[str, Any]], extra: Sequence[Line2D]) -> None:
    """One legend for the whole figure, above the panels."""
    handles = [Line2D([], [], **style, label=series.label) for series, style in look.items()] + list(extra)
    longest = max(len(str(handle.get_label())) for handle in handles)
    columns = max(1, min(len(handles), int(650 / (50 + 5.4 * longest))))  # in points, at this size of type
    figure.legend(handles=handles, loc="outside upper left", ncols=columns, frameon=False, handlelength=3.2)


def footnote(figure: Figure, text: str) -> None:
    """What the intervals are over, in small print under the panels, and which lines hide one another."""
    hidden = [" and ".join(labels) for labels in coinciding(figure)]
    text += f" Lines that coincide in a panel: {listed(hidden, most=2)}." if hidden else ""
    figure.supxlabel(textwrap.fill(text, 150), fontsize=7.5, color=GREY, x=0.01, ha="left")


def coinciding(figure: Figure) -> list[tuple[str, ...]]:
    """The entries of the legend whose lines lie on one another, to a thousandth of the axes, in some panel."""
    if not figure.legends:
        return []
    entries = figure.legends[0]
    names = {
        _look(handle): text.get_text()
        for handle, text in zip(entries.legend_handles, entries.get_texts(), strict=True)
        if isinstance(handle, Line2D)
    }
    groups: dict[tuple[str, ...], None] = {}
    for axes in figure.axes:
        at_points: dict[bytes, list[str]] = {}
        for drawn in axes.lines:
            points = (axes.transScale + axes.transLimits).transform(drawn.get_xydata())
            if len(points) > 1 and _look(drawn) in names:
                at_points.setdefault((np.round(points, 3) + 0.0).tobytes(), []).append(names[_look(drawn)])
        groups |= {labels: None for labels in map(tuple, map(dict.fromkeys, at_points.values())) if len(labels) > 1}
    return list(groups)


def _look(drawn: Line2D) -> tuple[Any, ...]:
    return drawn.get_color(), drawn.get_linestyle(), drawn.get_marker()


class Seeds(NamedTuple):
    """How many seeds a figure is over, and whether that allows intervals, in words."""

    number: str  # "5 seeds", or "3 to 5 seeds" where they differ
    intervals: str  # "with 95 % intervals over seeds (none on maze-9: fewer than 3 seeds)"
    note: str  # "95 % intervals over seeds", for the small print

    def over(self, more: str) -> Seeds:
        """The same where intervals are over more than seeds."""
        return Seeds(*(part.replace("over seeds", f"over {more}") for part in self))


def count_seeds(counts: Mapping[str, Mapping[str, int]]) -> Seeds:
    """From the number of seeds of every panel and series by their names: {panel: {series: seeds}}."""
    numbers = [count for series in counts.values() for count in series.values()]
    low, high = min(numbers), max(numbers)
    phrase = f"{high} seed{'s' if high > 1 else ''}" if low == high else f"{low} to {high} seeds"
    few = f"fewer than {stats.FEWEST_SEEDS} seeds"
    if high < stats.FEWEST_SEEDS:
        return Seeds(phrase, f"without intervals ({few})", f"none ({few})")
    short = []
    for panel, series in counts.items():
        lacking = [name for name, count in series.items() if count < stats.FEWEST_SEEDS]
        if lacking:
            short.append(panel if len(lacking) == len(series) else f"{panel} for {', '.join(lacking)}")
    gaps = f" (none on {listed(short)}: {few})" if short else ""
    return Seeds(phrase, f"with 95 % intervals over seeds{gaps}", "95 % intervals over seeds")


def seeds_of(evidence: Evidence, shown: Mapping[Panel, Iterable[Series]]) -> Seeds:
    """The seeds of the series of each panel."""
    return count_seeds(
        {panel.title: {s.label: len(evidence.members(s, panel)) for s in own} for panel, own in shown.items()}
    )


def power_ticks(axes: Axes, values: Sequence[float], most: int = 6) -> None:
    """A log x axis that is labelled at (some of) the given values, in full: 1, 4, 16, ..., not powers of ten."""
    axes.set_xscale("log", base=2)
    step = -(-len(values) // most)
    axes.xaxis.set_major_locator(FixedLocator([float(v) for v in values][::step]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def listed(parts: Sequence[str], most: int = 6) -> str:
    """Parts of a caption in a row; of more than a few, the first and how many follow."""
    rest = f"; and {len(parts) - most} more, to be read off" if len(parts) > most else ""
    return "; ".join(parts[:most]) + rest


def highest(values: Mapping[str, float]) -> tuple[str, float]:
    """Who has the highest value, and the value. Equal to the digits that captions show is equal, and is said so.

    Raises ValueError without values.
    """
    top = max(values.values())
    equal = [label for label, value in values.items() if f"{value:.3g}" == f"{top:.3g}"]
    if len(equal) == 1:
        return equal[0], top
    return ("all equal" if len(equal) == len(values) else f"{', '.join(equal[:-1])} and {equal[-1]}, equal,"), top


def count(value: float) -> str:
    """A count in few signs: 950, 12k, 3.4M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def save(drawing: Drawing, path: Path) -> Path:
    """Write path.png, whole or not at all; the same tables give the same bytes. Returns its path."""
    path = path.with_suffix(".png")
    write_file(path, render(drawing))
    return path


def render(drawing: Drawing, suffix: str = ".png") -> bytes:
    """A figure as the content of a file: ".png", or ".svg" without reducing anything."""
    canvas, pixels = io.BytesIO(), io.BytesIO()
    with style():
        if (engine := drawing.figure.get_layout_engine()) is not None:
            engine.execute(drawing.figure)  # lays it out, once for all formats
        drawing.figure.set_layout_engine("none")
        if suffix == ".svg":
            drawing.figure.savefig(canvas, format="svg", metadata={"Date": None, "Creator": None})
            return canvas.getvalue()
        drawing.figure.savefig(canvas, format="png", dpi=DPI, metadata={"Software": None})
    canvas.seek(0)
    # 256 colours keep every line's colour, at a third of the size (fewer bend some of them).
    reduced = Image.open(canvas).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    reduced.save(pixels, format="png", optimize=True)
    return pixels.getvalue()
