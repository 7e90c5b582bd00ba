"""What a figure shows, read back from its artists by the names in its legend, to compare with the tables."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.path import Path
from matplotlib.text import Text
from matplotlib.transforms import Bbox

Interval = tuple[float, float]


def looks(figure: Figure) -> dict[str, tuple[Any, Any]]:
    """Colour and marker of every label, in the legend's order."""
    (legend,) = figure.legends
    return {
        str(text.get_text()): (to_rgb(handle.get_color()), handle.get_marker())  # type: ignore[attr-defined]
        for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True)
    }


def panel(figure: Figure, row: int, title: str) -> Axes:
    """The axes of a panel, in a figure of up to four panels side by side: the title is that of the first row."""
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    columns = sum(1 for text in titles if text)
    return figure.axes[row * columns + titles.index(title)]


def lines(axes: Axes, look: tuple[Any, Any], size: float | None = None) -> list[Line2D]:
    """The lines of a look; with a size, those of such markers."""
    return [
        line
        for line in axes.lines
        if (to_rgb(line.get_color()), line.get_marker()) == look and size in (None, line.get_markersize())
    ]


def curve(axes: Axes, look: tuple[Any, Any]) -> tuple[np.ndarray, np.ndarray]:
    """x and y of the one line of a look."""
    (line,) = lines(axes, look)
    return np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)


def bands(axes: Axes, color: Any) -> list[np.ndarray]:
    """The bands of a colour, each as lower and upper edge at its x: [X, 3] of x, low, high."""
    drawn = []
    for shape in axes.collections:
        if isinstance(shape, PolyCollection) and to_rgb(shape.get_facecolor()[0][:3]) == color:  # type: ignore[index]
            vertices = np.concatenate([path.vertices for path in shape.get_paths()])
            xs = np.unique(vertices[:, 0])
            heights = [vertices[vertices[:, 0] == x, 1] for x in xs]
            drawn.append(np.array([(x, ys.min(), ys.max()) for x, ys in zip(xs, heights, strict=True)]))
    return drawn


def bars(axes: Axes, color: Any, along: int) -> dict[float, Interval]:
    """Horizontal (along = 0) or vertical (1) bars of a colour: where they stand -> their ends."""
    drawn = {}
    for shape in axes.collections:
        if isinstance(shape, LineCollection) and to_rgb(shape.get_color()[0][:3]) == color:  # type: ignore[index]
            for segment in shape.get_segments():
                points = np.asarray(segment)
                if len(points) == 2 and points[0, 1 - along] == points[1, 1 - along]:
                    drawn[float(points[0, 1 - along])] = (float(points[0, along]), float(points[1, along]))
    return drawn


def rows(axes: Axes) -> dict[str, float]:
    """The labels of a dot plot -> the heights at which they are written."""
    labels = [label.get_text() for label in axes.get_yticklabels()]
    return dict(zip(labels, map(float, axes.get_yticks()), strict=True))


def check_texts(figure: Figure) -> None:
    """No text leaves the page, overlaps another, or has a line, marker or bar drawn through it, as laid out."""
    figure.draw_without_rendering()
    texts = [text for text in figure.findobj(Text) if text.get_visible() and str(text.get_text()).strip()]  # type: ignore[attr-defined]
    # Ticks beyond the limits have labels that are never drawn.
    drawn = {label for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for label in _tick_labels(axis)}
    ticks = {label for axes in figure.axes for label in _all_tick_labels(axes)}
    texts = [text for text in texts if text not in ticks or text in drawn]
    boxes = [(str(text.get_text()), text.get_window_extent()) for text in texts]  # type: ignore[attr-defined]
    page = figure.bbox
    for i, (name, box) in enumerate(boxes):
        inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= page.width + 1 and box.y1 <= page.height + 1
        assert inside, f"{name!r} leaves the page"
        for other, beside in boxes[i + 1 :]:
            assert not box.padded(-0.5).overlaps(beside.padded(-0.5)), f"{name!r} and {other!r} overlap"
        for axes in figure.axes:
            seen = Bbox.intersection(box.padded(-0.5), axes.bbox)
            if seen is None or seen.width <= 0 or seen.height <= 0:
                continue  # what is drawn ends where its axes end
            for path in _paths(axes):
                assert not path.intersects_bbox(seen, filled=False), f"a line runs through {name!r}"


def _tick_labels(axis: Axis) -> list[Text]:
    low, high = sorted(axis.get_view_interval())
    ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
    return [tick.label1 for tick in ticks if low <= tick.get_loc() <= high]


def _all_tick_labels(axes: Axes) -> list[Text]:
    axles = (axes.xaxis, axes.yaxis)
    return [
        t for a in axles for tick in (*a.get_major_ticks(), *a.get_minor_ticks()) for t in (tick.label1, tick.label2)
    ]


def _paths(axes: Axes) -> list[Path]:
    """Lines and bars in pixels."""
    paths = [line.get_transform().transform_path(line.get_path()) for line in axes.lines]
    for shape in axes.collections:
        if isinstance(shape, LineCollection):
            paths += [shape.get_transform().transform_path(path) for path in shape.get_paths()]
    return paths
