"""What a figure shows, read back from its artists by the names in its legend, to compare with the tables."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

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
