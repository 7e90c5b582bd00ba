"""The command line: `maxrl-bench COMMAND`; `--help` lists the commands.

Every command imports what it needs when it is called, so that `--help` is instant and reading tables needs no torch.
Exit codes: 0 all is well, 1 a run failed or output could not be written, 2 the input was refused, 130 stopped by
Ctrl-C, SIGHUP or SIGTERM. A pipe that its reader closes (`| head`) changes none of them.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from maxrl_bench import __version__, console, import_path
from maxrl_bench.cli import advice, counting


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code. Errors that the user can correct are one line on stderr."""
    console.keep_descriptors()
    console.warnings_are_not_errors()
    import_path.close()
    with console.tolerant_output() as streams:
        code = _main(argv)
        why = console.lost(streams)
        if why:
            print(f"maxrl-bench: the output could not be written: {why}", file=sys.stderr)
        return max(code, 1) if why else code


def _main(argv: Sequence[str] | None) -> int:
    arguments = _parse(argv)
    try:
        return int(arguments.command(arguments))
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except (ValueError, OSError, MemoryError) as error:
        if os.environ.get("MAXRL_BENCH_TRACEBACK"):
            raise
        text = str(error) or "out of memory"
        if isinstance(error, OSError) and error.strerror and isinstance(error.filename, str):
            text = f"{error.filename}: {error.strerror}"  # without its number
        print(f"maxrl-bench: {console.printable(' '.join(text.split()))}", file=sys.stderr)
        return 2


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments; words behind an option belong to the command's list of words (`card grpo --rollouts 8 ddof=1`)."""
    top = parser()
    for word in sys.argv[1:] if argv is None else argv:
        if word.startswith("--") and word.endswith("=--"):  # of which argparse makes an empty list
            top.error(f"argument {word[:-3]}: '--' is no value")
    arguments, rest = top.parse_known_args(argv)
    if rest:
        words = next((value for value in vars(arguments).values() if isinstance(value, list)), None)
        unknown = [word for word in rest if words is None or word.startswith("-")]
        if unknown or words is None:
            top.error(f"unrecognized arguments: {' '.join(unknown)}")
        words.extend(rest)  # which argparse leaves over, since it took the list to be empty before the option
    return arguments


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    top = argparse.ArgumentParser(
        "maxrl-bench", description="Which policy-gradient objective for binary rewards? Measure it."
    )
    top.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, function: Any, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        added.set_defaults(command=function)
        return added

    def folders(sub: argparse.ArgumentParser, *, plots: bool = False) -> None:
        sub.add_argument(
            "--results", default="results", type=_folder, metavar="DIR", help="where results are kept (results/)"
        )
        if plots:
            sub.add_argument(
                "--plots", default="plots", type=_folder, metavar="DIR", help="where figures are drawn (plots/)"
            )

    def run_function(sub: argparse.ArgumentParser) -> None:
        default = "maxrl_bench.training.loop:train"
        text = f"what does a run, called with its configuration and the store ({default})"
        sub.add_argument("--run-function", default=default, metavar="MODULE:NAME", help=text)

    sub = command("list", _list, "list tasks, objectives or experiments")
    sub.add_argument("what", choices=("tasks", "objectives", "experiments"))
    sub.add_argument("--json", action="store_true", help="as JSON")
    folders(sub)

    sub = command("check", _check, "check what a task or an objective promises; say what holds and what fails")
    sub.add_argument("what", choices=("task", "objective"))
    sub.add_argument("name", metavar="NAME")
    sub.add_argument("options", nargs="*", metavar="OPTION=VALUE", help="of a task, e.g. size=9")

    sub = command("run", _run, "do one run, in this process")
    sub.add_argument(
        "settings", nargs="*", metavar="KEY=VALUE", help="e.g. task=fourrooms objective=maxrl_order order=8"
    )
    sub.add_argument("--config", metavar="FILE", help="a run's config.json; KEY=VALUE go on top of it")
    sub.add_argument("--memory", type=float, metavar="GB", help="limit of the run (90 %% of memory)")
    sub.add_argument(
        "--dry-run", action="store_true", help="check what is asked for, and say if it is done; run nothing"
    )
    text = "compute it even if it was taken back from tables"
    sub.add_argument("--recompute", action="store_true", help=text)
    folders(sub)
    run_function(sub)

    sub = command("sweep", _sweep, "run experiments, write their tables and figures; goes on where it stopped")
    sub.add_argument("experiments", nargs="*", metavar="EXPERIMENT", help="names or files (all of experiments/)")
    sub.add_argument("--profile", metavar="NAME", help="settings to run under, e.g. smoke, laptop, full (laptop)")
    sub.add_argument("--workers", type=int, metavar="N", help="processes on this machine (one per core)")
    sub.add_argument("--memory", type=float, metavar="GB", help="limit of each worker (its share of 90 %% of memory)")
    sub.add_argument("--scheduler", metavar="ADDRESS", help="a Dask scheduler, tcp://HOST:PORT, or local")
    sub.add_argument("--dry-run", action="store_true", help="show the runs, the expected time and disk; run nothing")
    sub.add_argument("--keep-stale", action="store_true", help="keep results that another version of the code made")
    sub.add_argument("--recompute", action="store_true", help="take no finished runs from the tables in results/")
    sub.add_argument("--no-plots", action="store_true", help="write tables only")
    folders(sub, plots=True)
    run_function(sub)

    sub = command("status", _status, "say what is done, missing, failed and why")
    sub.add_argument("experiments", nargs="*", metavar="EXPERIMENT")
    sub.add_argument("--profile", metavar="NAME")
    folders(sub)
    run_function(sub)

    sub = command("plot", _plot, "redraw figures from the tables alone")
    sub.add_argument("experiments", nargs="*", metavar="EXPERIMENT", help="names or files (all that have tables)")
    sub.add_argument("--profile", metavar="NAME")
    folders(sub, plots=True)

    sub = command("tune", _tune, "choose learning rates from a finished sweep over them, on the validation split")
    default = "learning_rate"
    sub.add_argument("experiment", nargs="?", default=default, metavar="EXPERIMENT", help=f"the sweep ({default})")
    sub.add_argument("--profile", default="tune", metavar="NAME", help="its profile (tune)")
    text = "pass@1: largest area under pass@1; both: under the mean of pass@1 and pass@128 (pass@1)"
    sub.add_argument("--criterion", default="pass@1", metavar="NAME", help=text)
    folders(sub)

    sub = command("export", _export, "write an experiment's metrics as one .csv or .parquet file")
    sub.add_argument("experiment", metavar="EXPERIMENT")
    sub.add_argument("file", metavar="FILE")
    folders(sub)

    sub = command("card", _card, "show what an objective does: its weights, its order, its population weight")
    sub.add_argument("objective", metavar="OBJECTIVE")
    sub.add_argument("knobs", nargs="*", metavar="KNOB=VALUE", help="e.g. order=4")
    sub.add_argument("--rollouts", type=int, default=8, metavar="N", help="of a group (8)")
    sub.add_argument("--json", action="store_true", help="as JSON, with the weights of every count")
    sub.add_argument("--figure", metavar="FILE", help="also draw it, as .png or .svg")

    text = "say what objectives would do to your own prompts, and which suits a goal"
    advice.add_options(command("advise", advice.advise, text))
    counting.add_options(command("count", counting.count, "count a stored policy's successes, as a file for advise"))

    sub = command("new", _new, "write a task, an objective or an experiment to begin with, which works as it is")
    sub.add_argument("kind", choices=("task", "graph-task", "objective", "experiment"))
    sub.add_argument("name", metavar="NAME")

    sub = command("show", _show, "show what a task is: horizon, actions, contexts, recipe, tuned rates")
    sub.add_argument("what", choices=("task",))
    sub.add_argument("task", metavar="TASK")
    sub.add_argument("options", nargs="*", metavar="OPTION=VALUE", help="e.g. size=11")
    sub.add_argument("--json", action="store_true", help="as JSON")

    sub = command("watch", _watch, "show one rollout of a policy, or several")
    sub.add_argument("task", nargs="?", metavar="TASK", help="a task's name (the run's)")
    sub.add_argument("options", nargs="*", metavar="OPTION=VALUE", help="of the task, e.g. size=9")
    sub.add_argument("--split", default="test")
    sub.add_argument("--index", type=int, default=0)
    sub.add_argument("--seed", type=int, metavar="N", help="of the rollouts (the run's, or 0)")
    sub.add_argument("--attempts", type=int, default=1, metavar="N", help="rollouts of the instance (1)")
    text = "the stored run whose policy acts, or how its name begins (an untrained policy)"
    sub.add_argument("--run", metavar="HASH", help=text)
    sub.add_argument("--base", action="store_true", help="with --run: the base policy that the run started from")
    sub.add_argument("--out", metavar="FILE", help="where to write it (the terminal)")
    folders(sub)

    sub = command("bench", _bench, "time the rollout engine against the textbook loop and others")
    sub.add_argument("--quick", action="store_true", help="the main ratios, in about a minute")
    text = "a checkout of an older version, timed in turn with this one"
    sub.add_argument("--against", type=_folder, metavar="DIR", help=text)
    text = "for bench.json and bench.png (build/bench/)"
    sub.add_argument("--out", default="build/bench", type=_folder, metavar="DIR", help=text)
    return top


def _folder(text: str) -> str:
    """A folder's name; an empty one is a shell variable that is not set, rather than the working directory."""
    if not text:
        raise argparse.ArgumentTypeError("names no folder")
    return text


def settings(pairs: Sequence[str]) -> dict[str, Any]:
    """KEY=VALUE pairs as a table; a value is TOML, or else text. Raises ValueError on a pair without "="."""
    from maxrl_bench import inputs

    table: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise ValueError(f"{inputs.shorten(pair)} must have the form KEY=VALUE")
        if key in table:
            raise ValueError(f"{inputs.shorten(key)} is given twice")
        table[key] = inputs.from_toml_value(text, f"'{key}'")
    return table


def _warn(line: str) -> None:
    print(line, file=sys.stderr)


def _list(arguments: argparse.Namespace) -> int:
    from maxrl_bench.cli import listing

    if arguments.what == "objectives":
        from maxrl_bench.cli import cards

        print(cards.list_objectives(_warn, arguments.json))
    elif arguments.what == "tasks":
        print(listing.tasks(arguments.results, _warn, arguments.json))
    else:
        print(listing.experiments(_warn, arguments.json))
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from maxrl_bench.cli import checking

    return checking.check(arguments.what, arguments.name, settings(arguments.options))


def _run(arguments: argparse.Namespace) -> int:
    from maxrl_bench.cli import commands

    given = settings(arguments.settings)
    asked = (arguments.run_function, arguments.memory, arguments.dry_run, arguments.recompute)
    return commands.run(arguments.config, given, arguments.results, *asked)


def _sweep(arguments: argparse.Namespace) -> int:
    from maxrl_bench.cli import commands

    return commands.sweep(commands.SweepOptions(**{k: v for k, v in vars(arguments).items() if k != "command"}))


def _status(arguments: argparse.Namespace) -> int:
    from maxrl_bench.cli import listing
    from maxrl_bench.sweeps.experiment import load_experiments

    experiments = load_experiments(arguments.experiments, arguments.profile)
    print(listing.status(experiments, arguments.results, arguments.run_function))
    return 0


def _plot(arguments: argparse.Namespace) -> int:
    from maxrl_bench.cli import publish

    return publish.plot(arguments.experiments, arguments.results, arguments.plots, arguments.profile)


def _tune(arguments: argparse.Namespace) -> int:
    from maxrl_bench.analysis import tune
    from maxrl_bench.sweeps.experiment import load_experiments

    for experiment in load_experiments([arguments.experiment], arguments.profile):
        print(tune.tune(experiment, Path(arguments.results), arguments.criterion))
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from maxrl_bench.storage import tables as results

    results.export(arguments.experiment, arguments.file, arguments.results)
    return 0


def _card(arguments: argparse.Namespace) -> int:
    from maxrl_bench.cli import cards
    from maxrl_bench.names import from_label

    named = from_label(arguments.objective)
    name, knobs = named.pop("name"), named | settings(arguments.knobs)
    print(cards.card(name, arguments.rollouts, knobs, arguments.json, arguments.figure))
    return 0


def _new(arguments: argparse.Namespace) -> int:
    from maxrl_bench.cli import new

    print(new.write(arguments.kind, arguments.name))
    return 0


def _show(arguments: argparse.Namespace) -> int:
    from maxrl_bench.cli import task_card

    print(task_card.show(arguments.task, settings(arguments.options), arguments.json))
    return 0


def _watch(arguments: argparse.Namespace) -> int:
    from maxrl_bench.cli.asked import stored_run
    from maxrl_bench.cli.watch import base_state, watch
    from maxrl_bench.names import from_label
    from maxrl_bench.storage.store import Store

    words = [arguments.task] * (arguments.task is not None) + arguments.options
    name = words.pop(0) if words and "=" not in words[0].partition("(")[0] else None
    task, blob, seed, sizes = from_label(name) if name else {}, None, 0, {}
    if arguments.run:
        root = Path(arguments.results) / "store"
        run = stored_run(arguments.run, root)
        store = Store(root, report=_warn, create=False)
        config = store.config(run)
        blob = base_state(config, store) if arguments.base else store.read(run, "policy.pt", any_code=True)
        if blob is None:
            table, folder = store.check(run).taken_from, store.folder(run)
            why = f": its results are from the tables of {table}; `maxrl-bench run --recompute --config " * bool(table)
            raise ValueError(f"{folder} holds no policy" + (f"{why}{folder}/config.json` trains it" if table else ""))
        task, seed, sizes = {**config.task, **task}, config.seed, config.policy
    elif arguments.base:
        raise ValueError("--base needs a stored run: name it with --run")
    elif not name:
        raise ValueError("name a task, or a stored run with --run")
    name = task.pop("name")
    seed = seed if arguments.seed is None else arguments.seed
    asked = {"seed": seed, "attempts": arguments.attempts, "sizes": sizes, "task_options": task | settings(words)}
    print(watch(name, arguments.split, arguments.index, blob, arguments.out, **asked))
    return 0


def _bench(arguments: argparse.Namespace) -> int:
    from maxrl_bench.bench.run import run_bench

    previous = Path(arguments.against) if arguments.against else None
    print(run_bench(arguments.quick, Path(arguments.out), previous))
    return 0
