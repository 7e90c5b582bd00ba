"""How each objective is drawn, everywhere: colour, marker and line style.

Colours are those of Okabe and Ito and shades of them (blue: MaxRL, orange: GRPO, green: pass@k, purple: a baseline
alone, black: maximum likelihood). No two objectives share both marker and line style: prints in grey stay legible.
"""

from __future__ import annotations

import hashlib
import itertools
from typing import Any

from matplotlib.colors import to_hex, to_rgb

LONG_DASHES = (0, (7, 2))
DOT_PAIRS = (0, (1, 1, 1, 3))
DASH_DOT_DOT = (0, (5, 1, 1, 1, 1, 1))

_STYLES: dict[str, tuple[str, str, Any]] = {
    "ml": ("#000000", "*", "-"),
    "reinforce": ("#777777", "v", ":"),
    "raft": ("#444444", "d", DASH_DOT_DOT),
    "rloo": ("#CC79A7", "s", "--"),
    "mean_baseline": ("#8F4A70", "s", ":"),
    "grpo": ("#E69F00", "^", "-."),
    "grpo_entropy": ("#D55E00", ">", "--"),
    "differential_smoothing": ("#8C4A00", "<", LONG_DASHES),
    "f_grpo": ("#B8860B", "d", ":"),
    "maxrl_alg1": ("#0072B2", "o", "-"),
    "maxrl_eq9": ("#56B4E9", "D", "--"),
    "maxrl_eq10": ("#00446B", "P", "-."),
    "maxrl_alg1_exact": ("#2B8CC4", "h", ":"),
    "maxrl_order": ("#3A9AD9", "p", LONG_DASHES),
    "maxrl_order_failures": ("#7FC4EE", "H", DASH_DOT_DOT),
    "maxrl_order_loo": ("#005A8D", "p", "--"),
    "maxrl_uniform": ("#1F6F9F", "P", ":"),
    "maxrl_order_constant": ("#4A90C2", "P", "--"),
    "maxrl_clipped": ("#0B5A8A", "h", "-."),
    "power": ("#6FA8D6", "o", "--"),
    "power_order": ("#8DBBE0", "D", ":"),
    "pkpo_plain": ("#009E73", "X", "-."),
    "pkpo_loo": ("#4CC3A1", "X", ":"),
    "pass_at_k_training": ("#00614A", "8", "--"),
    "maxpo": ("#2E8B6F", "8", "-."),
    "log_pass_at_k": ("#7FD1B9", "8", ":"),
    "rs_grpo": ("#F0B84C", "^", "--"),
    "dapo": ("#C98500", "<", "-."),
    "curverl": ("#B5739A", "d", "--"),
    "gpg": ("#A85C8A", "s", "-."),
    "nsr": ("#999999", "v", "--"),
    "w_reinforce": ("#5E5E5E", "v", "-."),
    "reinforce_rej": ("#888888", "d", "-."),
}
# Objectives that have no row here, of other packages: a colour, and a marker with a line, that none of ours has.
_COLORS = (
    "#7F4F24", "#B22222", "#6A3D9A", "#808000", "#C71585", "#2F6F6F", "#A0522D", "#4B0082",
    "#E31A1C", "#556B2F", "#8A2BE2", "#9E8B00", "#D1495B", "#5D4E60", "#BC5A2B", "#3F704D",
)  # fmt: skip
_LINES: tuple[Any, ...] = (DOT_PAIRS, "--", "-.", ":", "-", LONG_DASHES, DASH_DOT_DOT)
_PAIRS = [
    (marker, line)
    for line, marker in itertools.product(_LINES, "osD^v<>dpPXhH8")
    if (marker, line) not in [(own_marker, own_line) for _, own_marker, own_line in _STYLES.values()]
]


def style_of(objective_name: str, rank: float | None = None) -> dict[str, Any]:
    """Keyword arguments for matplotlib's `plot`: {"color", "marker", "linestyle"}.

    `rank` in [0, 1] shades members of one family (say, MaxRL of growing order) from light to dark.
    """
    color, marker, linestyle = _STYLES.get(objective_name) or _by_name(objective_name)
    return {"color": color if rank is None else shade(color, rank), "marker": marker, "linestyle": linestyle}


def _by_name(objective_name: str) -> tuple[str, str, Any]:
    """One of the looks that are left, by a hash of the name: the same in every figure, whatever else is installed."""
    number = int.from_bytes(hashlib.blake2b(objective_name.encode(), digest_size=8).digest(), "big")
    rest, color = divmod(number, len(_COLORS))
    return _COLORS[color], *_PAIRS[rest % len(_PAIRS)]


def shade(color: str, rank: float) -> str:
    """From a light tint (rank 0) through the colour itself (0.6) to a dark shade (1)."""
    tint = 0.6
    if rank < tint:
        red, green, blue = (c + (1 - c) * 0.6 * (1 - rank / tint) for c in to_rgb(color))
    else:
        red, green, blue = (c * (1 - 1.4 * (rank - tint)) for c in to_rgb(color))
    return to_hex((red, green, blue))
