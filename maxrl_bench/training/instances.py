"""The batches that a run trains on. What takes long to draw is drawn once, for all runs that train on the same.

All objectives of a comparison meet the same instances in the same order. A task that draws its instances as arrays
(`tasks.DrawingTask`) leaves those of CHUNK steps in one file beside the runs, which the next run reads. Without it they
are drawn again, to the same bits: it is no part of any result. All these files together take at most LIMIT bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import zipfile
from typing import Any

import numpy as np

from maxrl_bench.config import RunConfig
from maxrl_bench.storage.files import remove
from maxrl_bench.storage.store import BASE, Store
from maxrl_bench.tasks import Batch, DrawingTask, Task
from maxrl_bench.training.streams import training_indices

CHUNK = 50  # steps
LIMIT = 2**28  # bytes
Drawn = dict[str, np.ndarray]


class TrainingBatches:
    """The training batches of a run, one after another."""

    def __init__(self, config: RunConfig, task: Task, store: Store):
        self.config, self.task, self.store = config, task, store
        self._drawing = task if isinstance(task, DrawingTask) else None
        settings = [config.task, config.seed, config.batch_size, config.train_instances, store.shared_code]
        self.folder = BASE + hashlib.blake2b(json.dumps(settings).encode(), digest_size=8).hexdigest()
        self._chunk = -1
        self._stored: Drawn | None = None  # arrays of all steps of the chunk, if they were found
        self._drawn: list[Drawn] = []  # those of its steps so far, if not

    def __call__(self, step: int) -> Batch:
        """The batch of a step, counted from 0."""
        indices = training_indices(self.config, step)
        task = self._drawing
        if task is None:
            return self.task.batch("train", indices)
        chunk, place = divmod(step, CHUNK)
        if chunk != self._chunk:
            self._chunk, self._stored, self._drawn = chunk, self._find(chunk), []
        if self._stored is not None:
            return task.build({name: values[place] for name, values in self._stored.items()})
        drawn = task.draw("train", indices)
        if place == len(self._drawn):  # not so where a resumed run begins within a chunk
            self._drawn.append(drawn)
            if len(self._drawn) == CHUNK:
                self._keep(chunk)
        return task.build(drawn)

    @staticmethod
    def _name(chunk: int) -> str:
        return f"drawn-{chunk:06d}.npz"

    def _find(self, chunk: int) -> Drawn | None:
        data = self.store.read(self.folder, self._name(chunk))
        try:
            arrays = None if data is None else dict(np.load(io.BytesIO(data), allow_pickle=False))
        except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile):
            return None
        return arrays if arrays and all(len(values) == CHUNK for values in arrays.values()) else None

    def _keep(self, chunk: int) -> None:
        data = io.BytesIO()
        arrays: dict[str, Any] = {name: np.stack([d[name] for d in self._drawn]) for name in self._drawn[0]}
        np.savez_compressed(data, **arrays)
        with contextlib.suppress(OSError, ValueError):  # a full disk or a link is no reason for this run to end
            self.store.write(self.folder, self._name(chunk), data.getvalue())
            _make_room(self.store)


def _make_room(store: Store) -> None:
    """Remove the oldest files of drawn instances until all of them together take no more than LIMIT."""
    files = [(path.stat(), path) for path in store.root.glob(f"{BASE}*/drawn-*.npz")]
    total = sum(stat.st_size for stat, _ in files)
    for stat, path in sorted(files, key=lambda file: file[0].st_mtime):
        if total <= LIMIT:
            return
        with contextlib.suppress(ValueError):  # a link: nothing is removed through one
            remove(store.file(path.parent.name, path.name))
        total -= stat.st_size
