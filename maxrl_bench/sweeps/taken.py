"""Finished runs taken back from committed tables: a fresh clone has results/<experiment>/, and an empty run store.

Tables hold of a run what figures and claims need: its metrics at every evaluation, the pass rates of its held-out
instances at the first and the last one, both to six digits, its seconds, and where it was made. They lack the pass
rates in between, the trained policy and its peak memory. Tables written from runs taken back are the same bytes.
"""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import Timeout

from maxrl_bench.config import SETTINGS, RunConfig
from maxrl_bench.console import printable
from maxrl_bench.storage import tables as results
from maxrl_bench.storage.locks import held
from maxrl_bench.storage.store import TAKEN_FROM, Finished, Store
from maxrl_bench.storage.tables import IDENTITY


def find(wanted: Mapping[str, str], root: str | Path, first: Sequence[str]) -> dict[str, str]:
    """Which of the wanted runs the tables in `root` hold: run -> experiment. Reads whole files; writes nothing.

    wanted: run -> the fingerprint of the code that must have made it ("": any). Of several tables that hold a run those
    of an experiment in `first` count, then by name. Tables that hold some but do not match their checksums give none,
    and a line on stderr.
    """
    found: dict[str, str] = {}
    for name in sorted(results.experiments(root), key=lambda name: (name not in first, name)):
        try:
            own = _held_by(results.origin_of(name, root), wanted) - found.keys()
            if own:
                results.origin_of(name, root, whole=True)
        except FileNotFoundError:
            continue
        except (ValueError, OSError) as error:
            print(printable(f"no runs are taken from {Path(root, name)}: {error}"), file=sys.stderr, flush=True)
            continue
        found |= dict.fromkeys(own, name)
    return found


def _held_by(origin: Any, wanted: Mapping[str, str]) -> set[str]:
    """The wanted runs that tables say they hold; older tables do not say in which environment each was made."""
    environments = range(len(origin.made_by))
    return {
        run
        for run, made in origin.runs.items()
        if run in wanted and made.made_by in environments and wanted[run] in ("", made.code)
    }


def read(found: Mapping[str, str], root: str | Path) -> Iterator[tuple[str, Finished]]:
    """What the tables hold of the runs that `find` has found; what has gone from them meanwhile is left out."""
    for name in dict.fromkeys(found.values()):
        try:
            tables = results.load(name, root)
        except ValueError:
            continue
        metrics = dict(iter(tables.metrics.groupby("run", sort=False)))
        pass_rates = dict(iter(tables.pass_rates.groupby("run", sort=False)))
        nothing = tables.pass_rates.iloc[:0]
        identity = {*IDENTITY, *SETTINGS}
        for run in (run for run, of in found.items() if of == name):
            try:
                made, parts = _origin(tables.provenance, run, name), (metrics[run], pass_rates.get(run, nothing))
            except KeyError:
                continue
            rows, rates = (part.drop(columns=[c for c in part if c in identity]) for part in parts)
            yield run, Finished(rows, rates, made)


def take(
    found: Mapping[str, str],
    configs: Mapping[str, RunConfig],
    store: Store,
    root: str | Path,
    tell: Callable[[str], None],
) -> set[str]:
    """Put runs that `find` has found into the store, and tell how many; returns the others.

    These are what another process is at, and what has gone from the tables meanwhile. Raises OSError where the store
    cannot be written.
    """
    there: set[str] = set()
    for run, (rows, rates, made) in read(found, root):
        with contextlib.suppress(Timeout), held(store, run, wait=False):
            store.discard(run)
            store.put(configs[run], rows, rates, made)
            there.add(run)
    for name, count in Counter(of for run, of in found.items() if run in there).items():
        tell(f"{count} runs are taken from {Path(root) / name} (--recompute computes them)")
    return found.keys() - there


def drop(runs: Sequence[str], store: Store) -> None:
    """Remove runs that were taken back, to compute them; but not what another process is at."""
    for run in runs:
        with contextlib.suppress(Timeout), held(store, run, wait=False):
            store.discard(run)


def _origin(provenance: Mapping[str, Any], run: str, experiment: str) -> dict[str, Any]:
    """What the provenance of tables tells of a run, as the run's own. Raises KeyError where it tells nothing."""
    told = dict(provenance["runs"][run])
    environment = dict(provenance["made_by"][told.pop("made_by")])
    del environment["runs"]  # how many
    return {**environment, **told, TAKEN_FROM: experiment}
