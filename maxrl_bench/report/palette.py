"""How each objective is drawn, everywhere: colour, marker and line style.

Colours are those of Okabe and Ito and shades of them (blue: MaxRL, orange: GRPO, green: pass@k, purple: a baseline
alone, black: maximum likelihood). No two objectives share both marker and line style: prints in grey stay legible.
"""

from __future__ import annotations

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
    "pkpo": ("#009E73", "X", "-."),
    "pkpo_loo": ("#4CC3A1", "X", ":"),
    "pass_at_k_training": ("#00614A", "8", "--"),
}
_PLAIN = ("#7F4F24", "o", DOT_PAIRS)  # an objective that has no row here yet


def style_of(objective_name: str, rank: float | None = None) -> dict[str, Any]:
    """Keyword arguments for matplotlib's `plot`: {"color", "marker", "linestyle"}.

    `rank` in [0, 1] shades members of one family (say, MaxRL of growing order) from light to dark.
    """
    color, marker, linestyle = _STYLES.get(objective_name, _PLAIN)
    return {"color": color if rank is None else shade(color, rank), "marker": marker, "linestyle": linestyle}


def shade(color: str, rank: float) -> str:
    """From a light tint (rank 0) through the colour itself (0.6) to a dark shade (1)."""
    tint = 0.6
    if rank < tint:
        red, green, blue = (c + (1 - c) * 0.6 * (1 - rank / tint) for c in to_rgb(color))
    else:
        red, green, blue = (c * (1 - 1.4 * (rank - tint)) for c in to_rgb(color))
    return to_hex((red, green, blue))
