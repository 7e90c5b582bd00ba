"""The run store: one folder per run, named by the hash of its configuration, shared by all experiments.

    results/store/<run>/
        config.json  metrics.csv  pass_rates.csv  provenance.json
        manifest.json           the checksums of those, and of the blobs but for the checkpoint
        DONE                    the checksum of the manifest: written last, so that its absence means "not finished"
        policy.pt ...           blobs that begin with their run, name, code and checksum
        failed.json             the traceback, if the last attempt failed

Every file is replaced atomically (written beside its place, synced, renamed): a reader sees the old or the new one.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import re
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from filelock import FileLock

from maxrl_bench.config import RunConfig, read_config
from maxrl_bench.inputs import from_json, read_bytes, read_json, read_text
from maxrl_bench.names import shorten
from maxrl_bench.storage import provenance as origin
from maxrl_bench.storage.blobs import is_blob, seal, unseal
from maxrl_bench.storage.files import check_writable, inside, is_locked, remove, tidy, write_file
from maxrl_bench.storage.fingerprint import shared_part
from maxrl_bench.storage.formats import checksum, made_from, run_tables, to_csv, to_json

FORMAT = "maxrl_bench results, format 1\n"
TABLES = ("config.json", "metrics.csv", "pass_rates.csv", "provenance.json")
MANIFEST, DONE, FAILED = "manifest.json", "DONE", "failed.json"
CHECKPOINT = "checkpoint"  # prefix of the blobs that are removed when the run is finished
MARKER, LOCKS = "FORMAT", ".locks"
STORE = "store"  # the folder of results/ in which the runs are
TAKEN_FROM = "taken_from"  # in the provenance of a run that was taken back from tables: of which experiment
BASE = "base-"  # prefix of the folders that several runs share
_FOLDER = re.compile(r"[0-9a-f]{16}|base-[0-9a-f]{1,16}")


class Check(NamedTuple):
    """What the store holds of a run: "done", "failed", "missing", "corrupt" or "stale", why, and where it is from."""

    state: str
    why: str = ""
    taken_from: str = ""  # the experiment from whose tables it was taken back; "": it was computed


class Finished(NamedTuple):
    """A finished run: its tables, and where they come from."""

    metrics: pd.DataFrame
    pass_rates: pd.DataFrame
    provenance: dict[str, Any]


class Store:
    """Runs by name, on disk. Reading never trusts a file whose checksum does not match, and never changes anything.

    `code` is the fingerprint of the code in use: it is written with every result, results of other code are "stale",
    and blobs that other code wrote are not read, so that no run begins under one version and ends under another. ""
    asks for no such check of results. `report` is called with one line on each file that cannot be used. With
    `create=False`, the folder is made when something is written; until then an absent store is an empty one.
    Raises ValueError if `root` is something else than a store of this format, a link, or cannot be used.
    """

    def __init__(
        self, root: str | Path, code: str = "", report: Callable[[str], None] = warnings.warn, *, create: bool = True
    ):
        self.root, self.code, self.report = Path(root), code, report
        self._opened = time.monotonic()
        try:
            self._make() if create else self._check_format()
        except OSError as error:
            raise ValueError(f"results folder {self.root} cannot be used: {error.strerror}") from None

    def _check_format(self) -> bool:
        """Whether the folder is marked as a store of this format. Raises ValueError if it cannot become one."""
        try:
            self.root.lstat()
        except FileNotFoundError:  # other errors, such as a file in its place, are raised
            return False
        if self.root.is_symlink():
            raise ValueError(f"{self.root} is a symbolic link, which is not followed; name its folder with --results")
        if os.path.lexists(self.root / MARKER):
            marker = read_bytes(inside(self.root, MARKER)).decode(errors="replace")
            if marker.split() != FORMAT.split():  # git may have changed the line ends on checkout
                raise ValueError(
                    f"{self.root} was written by an incompatible version ({shorten(marker.strip())}; this one reads "
                    f"and writes '{FORMAT.strip()}'); move it away or choose another folder with --results"
                )
            return True
        # Runs without a marker: the folder was removed or unmounted while a sweep was writing into it.
        foreign = [name for name in os.listdir(self.root) if name[0] != "." and not _FOLDER.fullmatch(name)]
        if foreign and not os.path.lexists(self.root / MARKER):  # another process may have made it meanwhile
            raise ValueError(f"{self.root} is not a results store: it holds '{foreign[0]}' but no {MARKER} file")
        return False

    def _make(self) -> None:
        """Make the folder and its marker; again, if somebody removed results in the middle of a sweep."""
        if not self._check_format():
            write_file(self.root / MARKER, FORMAT.encode())

    def check_writable(self) -> None:
        """Make the store if it is not there. Raises ValueError if nothing can be written."""
        try:
            self._make()
            check_writable(self.root)
        except OSError as error:
            raise ValueError(f"results folder {self.root} cannot be written: {error.strerror}") from None

    def folder(self, run: str) -> Path:
        """Where a run's files lie. Raises ValueError if `run` is no run's name, or the folder a link."""
        return inside(self.root, _checked(run))

    def file(self, run: str, name: str) -> Path:
        """One of a run's files. Raises ValueError as `folder` does, and if the file is a link or elsewhere."""
        return inside(self.root, _checked(run), name)

    def has(self, run: str, name: str) -> bool:
        """Whether a run has a file of that name, damaged or not."""
        return self.file(run, name).exists()

    def lock(self, run: str) -> FileLock:
        """A lock on a run between processes, and between machines where the file system's locks work across them.

        The system frees it when its owner dies. `with store.lock(run):` waits; `.acquire(blocking=False)` does not,
        and raises filelock.Timeout.
        """
        self._make()
        path = inside(self.root, LOCKS, f"{run}.lock")
        path.parent.mkdir(exist_ok=True)
        return FileLock(path)

    def is_free(self, run: str) -> bool:
        """Whether no process holds a run's lock at this moment, as far as can be seen. Writes nothing."""
        return not is_locked(inside(self.root, LOCKS, f"{run}.lock"))

    def write(self, run: str, name: str, data: bytes) -> None:
        """Store a blob (a checkpoint, a base policy) atomically, bound to its run, its name and the code."""
        self._make()
        write_file(self.file(run, name), seal(run, name, self._code_of(run), data))

    def read(self, run: str, name: str, *, any_code: bool = False) -> bytes | None:
        """A blob; None if it is absent, and also, with a report, if it is damaged or was not written in this place.

        `any_code` reads what other code has written as well.
        """
        try:
            return unseal(run, name, None if any_code else self._code_of(run), read_bytes(self.file(run, name)))
        except FileNotFoundError:
            return None
        except (ValueError, OSError) as error:
            self.report(f"{self.root / run / name} is not used: {error}")
            return None

    def _code_of(self, run: str) -> str:
        """The code that a blob depends on: a base policy is shared by all objectives."""
        return self.shared_code if run.startswith(BASE) else self.code

    @property
    def shared_code(self) -> str:
        """The part of `code` that does not depend on the objective."""
        return shared_part(self.code)

    def drop(self, run: str, name: str, problem: str) -> None:
        """Report a blob that cannot be used, and remove it, so that it is made again. Hold the run's lock."""
        self.report(f"{self.root / run / name} {problem}: removed, to be made again")
        remove(self.file(run, name))

    def finish(
        self, config: RunConfig, rows: list[dict[str, Any]], pass_rates: pd.DataFrame, provenance: dict[str, Any]
    ) -> None:
        """Store a run's tables and mark it as done, last of all; then drop its checkpoint and any failure.

        `rows` are the metrics of each evaluation, in order (see `Tables`); `pass_rates` has the columns step,
        instance, pass_rate, n. The code version, packages and machine are added to `provenance`.
        """
        made = {
            "code": self.code,
            "wall_seconds": round(time.monotonic() - self._opened, 3),
            "peak_memory_mb": origin.peak_memory_mb(),
            **origin.environment(),
            **provenance,
        }
        self.put(config, pd.DataFrame(rows), pass_rates, made)

    def put(self, config: RunConfig, metrics: pd.DataFrame, pass_rates: pd.DataFrame, made: Mapping[str, Any]) -> None:
        """As `finish`, with all of the provenance given."""
        contents = (config.model_dump_json(indent=1).encode(), to_csv(metrics), to_csv(pass_rates), to_json(made))
        run = config.hash
        self._make()
        sums = {}
        for name in self._blobs(run):
            if not name.startswith(CHECKPOINT) and self.read(run, name) is not None:
                sums[name] = _file_sum(name, read_bytes(self.file(run, name)))
        for name, data in zip(TABLES, contents, strict=True):
            write_file(self.file(run, name), data)
            sums[name] = _file_sum(name, data)
        manifest = to_json(sums)
        write_file(self.file(run, MANIFEST), manifest)
        write_file(self.file(run, DONE), checksum(manifest).encode() + b"\n")
        remove(self.file(run, FAILED))
        self.tidy(run)

    def _blobs(self, run: str) -> list[str]:
        """The blobs in a run's folder, damaged or not."""
        folder = self.folder(run)
        return sorted(path.name for path in folder.iterdir() if is_blob(path)) if folder.is_dir() else []

    def fail(self, config: RunConfig, traceback: str) -> None:
        """Record that a run failed and why. Its checkpoint stays: a rerun goes on from it."""
        self._make()
        self.discard(config.hash)
        write_file(self.file(config.hash, "config.json"), config.model_dump_json(indent=1).encode())
        record = {"traceback": traceback, "code": self.code, "when": time.time()}
        write_file(self.file(config.hash, FAILED), to_json(record))

    def check(self, run: str) -> Check:
        """What the store holds of a run. Every file of a finished run is checked against its checksum."""
        try:
            if not self.has(run, DONE):
                if self.has(run, FAILED):
                    return Check("failed", self.failure(run).strip().rpartition("\n")[2])
                if any(self.has(run, name) for name in (*TABLES[1:], MANIFEST)):
                    return Check("corrupt", "half-written: no done marker")
                return Check("missing")
            made = self._contents(run)[1]
        except FileNotFoundError as error:
            return Check("corrupt", f"{Path(str(error.filename)).name} is missing")
        except (ValueError, OSError) as error:
            return Check("corrupt", str(error))
        if self.code and made.get("code") != self.code:
            return Check("stale", "made by another version of the code", made.get(TAKEN_FROM, ""))
        return Check("done", "", made.get(TAKEN_FROM, ""))

    def _contents(self, run: str) -> tuple[dict[str, bytes], dict[str, Any]]:
        """A finished run's tables and provenance, each file read once and checked.

        Raises ValueError or FileNotFoundError otherwise.
        """
        manifest = read_bytes(self.file(run, MANIFEST))
        if read_bytes(self.file(run, DONE)).strip() != checksum(manifest).encode():
            raise ValueError("the manifest does not match the done marker")
        sums = from_json(manifest, MANIFEST, dict[str, str])
        contents = {}
        for name, expected in {**dict.fromkeys(TABLES, ""), **sums}.items():
            contents[name] = read_bytes(self.file(run, name))
            if _file_sum(name, contents[name]) != expected:
                raise ValueError(f"{name} does not match its checksum")
        if read_config(contents["config.json"].decode(errors="replace"), "config.json").hash != run:
            raise ValueError("config.json is of another run")
        return contents, made_from(contents["provenance.json"])

    def finished(self, run: str) -> Finished | None:
        """A finished run's tables, and where they come from; None unless it is "done".

        All files are read once, so that a run that is being replaced is never read half old and half new. Raises
        ValueError where the files are no tables although their checksums are right.
        """
        try:
            contents, made = self._contents(run)
        except (ValueError, OSError):
            return None
        stale = self.code and made.get("code") != self.code
        return None if stale else Finished(*self._parsed(run, contents), made)

    def tables(self, run: str) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The metrics and pass rates of a finished run, whatever code made it. Raises ValueError if it is not whole."""
        try:
            contents, _ = self._contents(run)
        except FileNotFoundError as error:
            raise ValueError(str(error)) from None
        return self._parsed(run, contents)

    def _parsed(self, run: str, contents: dict[str, bytes]) -> tuple[pd.DataFrame, pd.DataFrame]:
        try:
            return run_tables(contents["metrics.csv"], contents["pass_rates.csv"])
        except ValueError as error:
            raise ValueError(f"{self.folder(run)}: its tables {error}; remove that folder") from None

    def status(self, run: str) -> str:
        """ "done", "failed", "missing", "corrupt" or "stale"."""
        return self.check(run).state

    def failure(self, run: str) -> str:
        """The recorded traceback of a failed run; "" if there is none."""
        try:
            text = read_json(self.file(run, FAILED), dict[str, Any]).get("traceback", "")
        except (OSError, ValueError):
            return ""
        return text if isinstance(text, str) else ""

    def config(self, run: str) -> RunConfig:
        """The configuration of a stored run. Raises ValueError, or OSError if there is none."""
        path = self.file(run, "config.json")
        return read_config(read_text(path), str(path))

    def provenance(self, run: str) -> dict[str, Any]:
        """Where a finished run comes from; {} if that cannot be read."""
        try:
            return made_from(read_bytes(self.file(run, "provenance.json")))
        except (OSError, ValueError):
            return {}

    def discard(self, run: str) -> None:
        """Remove a run's results, the done marker first. Its checkpoint stays; `read` checks whether it can be used."""
        products = [name for name in self._blobs(run) if not name.startswith(CHECKPOINT)]
        for name in (DONE, MANIFEST, *TABLES, FAILED, *products):
            remove(self.file(run, name))

    def tidy(self, run: str) -> None:
        """Remove what a killed writer has left behind, and the checkpoint of a finished run. Hold the run's lock."""
        tidy(self.folder(run))
        if self.has(run, DONE):
            for name in self._blobs(run):
                if name.startswith(CHECKPOINT):
                    remove(self.file(run, name))

    def tidy_all(self) -> None:
        """Remove what killed writers have left behind anywhere."""
        for folder in {path.parent for path in self.root.glob("*/.*.tmp")} | {self.root}:
            tidy(folder)

    def bytes_per_run(self) -> float:
        """Mean size of the stored runs (of the first hundred); 100 kB where there are none to judge by."""
        folders = [path.parent for path in itertools.islice(self.root.glob("*/" + DONE), 100)]
        total = 0
        for folder in folders:
            with contextlib.suppress(OSError):  # another sweep may be tidying up
                total += sum(file.lstat().st_size for file in folder.iterdir())
        return total / len(folders) if folders else 1e5


def _checked(run: str) -> str:
    if not _FOLDER.fullmatch(run):
        raise ValueError(f"'{run}' is not the name of a run: 16 digits out of 0123456789abcdef")
    return run


def _file_sum(name: str, data: bytes) -> str:
    return checksum(data) if name in TABLES else hashlib.sha256(data).hexdigest()
