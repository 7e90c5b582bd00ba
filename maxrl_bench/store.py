"""The run store: one folder per run, named by the hash of its configuration, shared by all experiments.

    results/store/<run>/
        config.json  metrics.csv  pass_rates.csv  provenance.json
        manifest.json           the checksums of those
        DONE                    the checksum of the manifest: written last, so that its absence means "not finished"
        checkpoint.pt ...       blobs that begin with their own checksum
        failed.json             the traceback, if the last attempt failed

Every file is written beside its place, synced, and moved there in one step: a reader sees the old or the new, whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import json
import os
import secrets
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from filelock import FileLock, Timeout

from maxrl_bench import provenance as origin
from maxrl_bench.config import RunConfig, read_config
from maxrl_bench.files import write_file

FORMAT = "maxrl_bench results, format 1\n"
TABLES = ("config.json", "metrics.csv", "pass_rates.csv", "provenance.json")
MANIFEST, DONE, FAILED = "manifest.json", "DONE", "failed.json"
CHECKPOINT = "checkpoint"  # blobs whose names begin so are removed when the run is finished
_BLOB_MAGIC = b"maxrl_bench blob 1"

# pandas 3 reads floats exactly by itself, and deprecates being asked to.
_EXACT: dict[str, Any] = {} if int(pd.__version__.partition(".")[0]) >= 3 else {"float_precision": "round_trip"}


class Check(NamedTuple):
    """What the store holds of a run: "done", "failed", "missing", "corrupt" or "stale", and why."""

    state: str
    why: str = ""


def checksum(data: bytes) -> str:
    """SHA-256; of text with its line ends as written, whatever a checkout has made of them."""
    return hashlib.sha256(data.replace(b"\r\n", b"\n")).hexdigest()


def to_csv(table: pd.DataFrame) -> bytes:
    """A table as CSV: every float in the shortest form that reads back as the same bits."""
    return table.to_csv(index=False, lineterminator="\n").encode()


def from_csv(data: bytes) -> pd.DataFrame:
    """The inverse of `to_csv`. A run's name stays text, though some look like numbers (12e45...)."""
    return pd.read_csv(io.BytesIO(data), dtype={"run": str}, **_EXACT)


def to_json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


class Store:
    """Runs by name, on disk. Reading never trusts a file whose checksum does not match.

    `code` is the fingerprint of the code in use: it is written with every result, results of other code are "stale",
    and blobs that other code wrote are not read, so that no run begins under one version and ends under another. ""
    asks for no such check of results. `report` is told, in a line, of whatever had to be thrown away.
    Raises ValueError if `root` is something else than a store of this format, or cannot be written.
    """

    def __init__(
        self, root: str | Path, code: str = "", report: Callable[[str], None] = warnings.warn, *, create: bool = True
    ):
        self.root, self.code, self.report = Path(root), code, report
        self._opened = time.monotonic()
        if create or os.path.lexists(self.root):
            self._open()

    def _open(self) -> None:
        marker = self.root / "FORMAT"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            if not marker.exists():
                foreign = [p.name for p in self.root.iterdir() if not p.name.startswith(".")]
                if foreign and not marker.exists():  # another process may have made it a store meanwhile
                    raise ValueError(f"{self.root} is not a results store: it holds '{foreign[0]}' but no FORMAT file")
                write_file(marker, FORMAT.encode())
            found = marker.read_text(errors="replace")
        except OSError as error:
            raise ValueError(f"results folder {self.root} cannot be used: {error.strerror}") from None
        if found != FORMAT:
            raise ValueError(
                f"{self.root} was written by an incompatible version ('{found.strip()[:60]}'; this one reads "
                f"and writes '{FORMAT.strip()}'); move it away or choose another folder with --results"
            )

    def check_writable(self) -> None:
        """Raises ValueError if nothing can be written; `Store` itself is content with reading an existing one."""
        self._open()
        probe = self.root / f".probe.{secrets.token_hex(4)}"
        try:
            write_file(probe, b"")
            probe.unlink()
        except OSError as error:
            raise ValueError(f"results folder {self.root} cannot be written: {error.strerror}") from None

    def folder(self, run: str) -> Path:
        """Where a run's files lie."""
        return self.root / run

    def lock(self, run: str) -> FileLock:
        """A lock on a run between processes, and between machines where the file system's locks work across them.

        The system frees it when its owner dies. `with store.lock(run):` waits; `.acquire(blocking=False)` does not,
        and raises filelock.Timeout.
        """
        folder = self.root / ".locks"
        folder.mkdir(exist_ok=True)
        return FileLock(folder / f"{run}.lock")

    def write(self, run: str, name: str, data: bytes) -> None:
        """Store a blob (a checkpoint, a base policy), whole or not at all."""
        header = b"%s %s %s\n" % (_BLOB_MAGIC, self.code.encode() or b"-", hashlib.sha256(data).hexdigest().encode())
        write_file(self.folder(run) / name, header + data)

    def read(self, run: str, name: str, *, any_code: bool = False) -> bytes | None:
        """A blob, or None if it is absent; one that is damaged or made by other code is reported and removed.

        `any_code` reads what other code has written as well.
        """
        path = self.folder(run) / name
        try:
            header, _, data = path.read_bytes().partition(b"\n")
        except FileNotFoundError:
            return None
        code, _, digest = header.removeprefix(_BLOB_MAGIC + b" ").partition(b" ")
        if not header.startswith(_BLOB_MAGIC) or digest.decode(errors="replace") != hashlib.sha256(data).hexdigest():
            problem = "is damaged"
        elif not any_code and code != (self.code.encode() or b"-"):
            problem = "was made by another version of the code"
        else:
            return data
        self.drop(run, name, problem)
        return None

    def drop(self, run: str, name: str, problem: str) -> None:
        """Report a blob that is of no use, and remove it, so that it is made again."""
        path = self.folder(run) / name
        self.report(f"{path} {problem}: removed, to be made again")
        path.unlink(missing_ok=True)

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
        contents = (
            config.model_dump_json(indent=1).encode(),
            to_csv(pd.DataFrame(rows)),
            to_csv(pass_rates),
            to_json(made),
        )
        folder = self.folder(config.hash)
        for name, data in zip(TABLES, contents, strict=True):
            write_file(folder / name, data)
        manifest = to_json({name: checksum(data) for name, data in zip(TABLES, contents, strict=True)})
        write_file(folder / MANIFEST, manifest)
        write_file(folder / DONE, checksum(manifest).encode() + b"\n")
        (folder / FAILED).unlink(missing_ok=True)
        self.tidy(config.hash)

    def fail(self, config: RunConfig, traceback: str) -> None:
        """Record that a run failed and why. Its checkpoint stays: a rerun goes on from it."""
        folder = self.folder(config.hash)
        self.discard(config.hash)
        write_file(folder / "config.json", config.model_dump_json(indent=1).encode())
        write_file(folder / FAILED, to_json({"traceback": traceback, "code": self.code, "when": time.time()}))

    def check(self, run: str) -> Check:
        """What the store holds of a run. Every file of a finished run is checked against its checksum."""
        folder = self.folder(run)
        if not (folder / DONE).exists():
            if (folder / FAILED).exists():
                return Check("failed", self.failure(run).strip().rpartition("\n")[2])
            if any((folder / name).exists() for name in (*TABLES[1:], MANIFEST)):
                return Check("corrupt", "half-written: no done marker")
            return Check("missing")
        try:
            manifest = (folder / MANIFEST).read_bytes()
            if (folder / DONE).read_text(errors="replace").strip() != checksum(manifest):
                return Check("corrupt", "the manifest does not match the done marker")
            sums = json.loads(manifest)
            for name in TABLES:
                if checksum((folder / name).read_bytes()) != sums.get(name):
                    return Check("corrupt", f"{name} does not match its checksum")
            if self.config(run).hash != run:
                return Check("corrupt", "config.json is of another run")
        except FileNotFoundError as error:
            return Check("corrupt", f"{Path(str(error.filename)).name} is missing")
        except (ValueError, AttributeError, OSError) as error:
            return Check("corrupt", str(error))
        if self.code and self.provenance(run).get("code") != self.code:
            return Check("stale", "made by another version of the code")
        return Check("done")

    def status(self, run: str) -> str:
        """ "done", "failed", "missing", "corrupt" or "stale"."""
        return self.check(run).state

    def failure(self, run: str) -> str:
        """The recorded traceback of a failed run; "" if there is none."""
        try:
            return str(json.loads((self.folder(run) / FAILED).read_bytes())["traceback"])
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def config(self, run: str) -> RunConfig:
        """The configuration of a stored run. Raises ValueError or OSError if it cannot be read."""
        path = self.folder(run) / "config.json"
        return read_config(path.read_text(encoding="utf-8"), str(path))

    def provenance(self, run: str) -> dict[str, Any]:
        """Where a finished run comes from; {} if that cannot be read."""
        try:
            made = json.loads((self.folder(run) / "provenance.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return made if isinstance(made, dict) else {}

    def discard(self, run: str) -> None:
        """Remove a run's results, the done marker first. Its checkpoint stays; `read` knows if it is any good."""
        for name in (DONE, MANIFEST, *TABLES, FAILED):
            (self.folder(run) / name).unlink(missing_ok=True)

    def tidy(self, run: str) -> None:
        """Remove what a killed writer has left behind, and the checkpoint of a finished run. Hold the run's lock."""
        folder = self.folder(run)
        if not folder.is_dir():
            return
        done = (folder / DONE).exists()
        for path in folder.iterdir():
            if path.suffix == ".tmp" or (done and path.name.startswith(CHECKPOINT)):
                path.unlink(missing_ok=True)

    def tidy_all(self) -> None:
        """Remove what killed writers have left behind anywhere, but for runs that somebody holds."""
        for run in {path.parent.name for path in self.root.glob("*/.*.tmp")}:
            with contextlib.suppress(Timeout), self.lock(run).acquire(blocking=False):
                self.tidy(run)

    def is_free(self, run: str) -> bool:
        """Whether nobody is working on a run at this moment, as far as can be seen; writes nothing."""
        if not (self.root / ".locks" / f"{run}.lock").exists():
            return True
        try:
            with self.lock(run).acquire(blocking=False):
                return True
        except Timeout:
            return False
        except OSError:  # a store that may only be read
            return True

    def bytes_per_run(self) -> float:
        """Mean size of the stored runs (of the first hundred); 100 kB where there are none to judge by."""
        folders = [path.parent for path in itertools.islice(self.root.glob("*/" + DONE), 100)]
        total = 0
        for folder in folders:
            for file in folder.iterdir():
                with contextlib.suppress(FileNotFoundError):  # another sweep may be tidying up
                    total += file.stat().st_size
        return total / len(folders) if folders else 1e5

    def tables(self, run: str) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The metrics and pass rates of a finished run, as the run gave them. Check it first."""
        folder = self.folder(run)
        return from_csv((folder / "metrics.csv").read_bytes()), from_csv((folder / "pass_rates.csv").read_bytes())
