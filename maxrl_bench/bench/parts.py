"""Where a training step's time goes, by part."""

from __future__ import annotations

import contextlib
import importlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

from maxrl_bench.config import RunConfig
from maxrl_bench.storage.store import Store
from maxrl_bench.training.loop import Run

# The functions that each part consists of; what they call counts for the innermost of them.
PARTS = {
    "prompt": ("maxrl_bench.rollouts.transformer.TokenPolicy.prefill",),
    "levels": ("maxrl_bench.rollouts.prefix_tree.Frontier.read",),
    "reading again": ("maxrl_bench.rollouts.tokens.read_tree",),
    "network": ("maxrl_bench.rollouts.policies.ObservationPolicy.log_probs",),
    "backward": ("torch.Tensor.backward",),
    "drawing": (
        "maxrl_bench.rollouts.tokens.draw_few_or_multinomial",
        "maxrl_bench.rollouts.graphs.StateGraphs.sample",  # but for the network, which it calls
    ),
    "optimiser": (
        "torch.optim.Adam.step",
        "maxrl_bench.rollouts.finite.clip_gradient",
        "maxrl_bench.rollouts.finite.check_tensors",
    ),
}
BUILDING, VERIFYING, REST = "building instances", "verifying", "Python"


class Stopwatch:
    """Processor seconds in each part, without those of parts called within it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._inner: list[float] = []

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its time counted for the part."""

        @wraps(function)
        def call(*arguments: Any, **options: Any) -> Any:
            self._inner.append(0.0)
            started = time.process_time()
            try:
                return function(*arguments, **options)
            finally:
                taken = time.process_time() - started
                self.seconds[part] += taken - self._inner.pop()
                if self._inner:
                    self._inner[-1] += taken

        return call

    @contextlib.contextmanager
    def watching(self, run: Run) -> Iterator[None]:
        """A context in which all of PARTS are timed, and the run's building of batches and its verifier."""
        targets = [(part, *_find(name)) for part, names in PARTS.items() for name in names]
        targets.append((BUILDING, run, "batches"))
        if verifier := getattr(run.batches(0), "verifier", None):
            targets.append((VERIFYING, type(verifier), "advance"))
        with contextlib.ExitStack() as stack:
            for part, owner, name in targets:
                stack.enter_context(patch.object(owner, name, self.timed(part, getattr(owner, name))))
            yield


def _find(name: str) -> tuple[Any, str]:
    """What holds the function of this name, a module or a class, and the name it has there."""
    path = name.split(".")
    at_class = path[-2][0].isupper()
    owner: Any = importlib.import_module(".".join(path[: -2 if at_class else -1]))
    return (getattr(owner, path[-2]) if at_class else owner), path[-1]


def parts_of_a_step(settings: dict[str, Any], steps: int) -> dict[str, float]:
    """Processor seconds of each part of a run's training step, mean over `steps`; settings: of its RunConfig."""
    watch = Stopwatch()
    with TemporaryDirectory() as folder:
        run = Run(RunConfig(**settings), Store(Path(folder)))
        run.step()
        with watch.watching(run):
            for _ in range(steps):
                watch.timed(REST, run.step)()
    names = (*PARTS, BUILDING, VERIFYING, REST)
    return {name: watch.seconds[name] / steps for name in names if watch.seconds[name]}
