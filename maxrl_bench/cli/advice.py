"""`maxrl-bench advise`: its options, and what it prints."""

from __future__ import annotations

import argparse
from pathlib import Path

from maxrl_bench.names import shorten


def add_options(sub: argparse.ArgumentParser) -> None:
    """The options of the command."""
    sub.add_argument("counts", nargs="*", metavar="FILE", help=".csv, .parquet or .jsonl: a row per prompt")
    text = "the pass rate of your prompts, or that of each, in place of a file"
    sub.add_argument("--pass-rate", nargs="+", type=float, metavar="P", help=text)
    sub.add_argument("--rollouts", nargs="+", type=int, default=[16], metavar="N", help="of a prompt; or several (16)")
    text = "e.g. rloo 'maxrl_order(order=8)'; steps are compared with the first (rloo grpo f_grpo maxrl)"
    sub.add_argument("--objectives", nargs="+", metavar="OBJECTIVE", help=text)
    sub.add_argument("--goal", default="both", help="pass@1, pass@K (pass@k: 128) or both (pass@1 and pass@128)")
    text = "what the file calls them (successes attempts)"
    sub.add_argument("--columns", nargs=2, metavar=("SUCCESSES", "ATTEMPTS"), help=text)
    sub.add_argument("--json", action="store_true", help="as JSON")
    sub.add_argument("--figure", metavar="FILE", help="also draw it, as .png or .svg")


def advise(arguments: argparse.Namespace) -> int:
    """Print what `maxrl_bench.advise` says, as text or JSON. Raises ValueError as `maxrl_bench.advise` does."""
    from maxrl_bench.advice.advising import DEFAULT
    from maxrl_bench.advice.advising import advise as find
    from maxrl_bench.advice.counts import COLUMNS

    files, figure = arguments.counts, arguments.figure
    if (len(files) == 1) == (arguments.pass_rate is not None) or len(files) > 1:
        raise ValueError("advise takes one file of counts, or --pass-rate")
    if figure is not None and Path(figure).suffix.lower() not in (".png", ".svg"):
        raise ValueError(f"a figure's file ends in .png or .svg, got {shorten(figure)}")
    advice = find(
        files[0] if files else arguments.pass_rate,
        rollouts=arguments.rollouts,
        objectives=arguments.objectives or DEFAULT,
        goal=arguments.goal,
        columns=arguments.columns or COLUMNS,
    )
    if figure is not None:
        from maxrl_bench.report.advice_figure import draw_advice
        from maxrl_bench.report.style import render
        from maxrl_bench.storage.files import write_file

        write_file(Path(figure), render(draw_advice(advice), Path(figure).suffix.lower()))
    print(advice.to_json() if arguments.json else advice)
    return 0
