"""How long a run will take, judged by the runs that are recorded: for the order of a sweep and the time left."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator

from maxrl_bench.config import RunConfig
from maxrl_bench.names import label
from maxrl_bench.storage import tables as results
from maxrl_bench.storage.store import Store


def _kinds(config: RunConfig) -> Iterator[tuple[object, ...]]:
    """The keys under which a run's speed is recorded: from runs of the same kind to all runs."""
    task, objective = config.task_label, label(config.objective)
    yield task, objective, config.num_rollouts, config.batch_size, config.device
    yield task, config.num_rollouts, config.batch_size, config.device
    yield (task, config.device)
    yield ()


class Costs:
    """Seconds per training step of each kind of run."""

    def __init__(self) -> None:
        self._recorded: dict[tuple[object, ...], list[float]] = defaultdict(list)
        self._per_step: dict[tuple[object, ...], float] = {}

    def learn(self, config: RunConfig, seconds: float) -> bool:
        """Record a run's duration; True if it is the first of its kind, so that estimates change."""
        kinds = list(_kinds(config))
        first = kinds[0] not in self._per_step
        for kind in kinds:
            self._recorded[kind].append(seconds / config.steps)
            self._per_step[kind] = statistics.median(self._recorded[kind])
        return first

    def seconds(self, config: RunConfig) -> float | None:
        """Expected duration of a run: that of the most alike recorded ones, per step; None if nothing is recorded."""
        for kind in _kinds(config) if self._per_step else ():
            if kind in self._per_step:
                return self._per_step[kind] * config.steps
        return None

    def rank(self, config: RunConfig) -> float:
        """Longest first, also where nothing is recorded: then more rollouts and steps count as longer."""
        seconds = self.seconds(config)
        return seconds if seconds is not None else config.steps * config.batch_size * config.num_rollouts**0.5


def recorded(configs: Iterable[RunConfig], store: Store, root: str, stored: Container[str]) -> Costs:
    """What the run store, and the committed tables where the store is empty, tell about these runs and their kin.

    `stored` are the folders of the store.
    """
    costs = Costs()
    seconds: dict[str, float] = {}
    for name in results.experiments(root):
        try:
            runs = results.origin_of(name, root).runs
        except (ValueError, OSError):  # damaged tables are reported elsewhere; here they give no durations
            continue
        seconds |= {run: made.wall_seconds for run, made in runs.items() if made.wall_seconds}
    for config in configs:
        run = config.hash
        known = (run in stored and store.provenance(run).get("wall_seconds")) or seconds.get(run)
        if known:
            costs.learn(config, float(known))
    return costs
