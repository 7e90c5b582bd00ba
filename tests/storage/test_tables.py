"""The run store and the tables: nothing that is not whole is ever read as a result."""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from filelock import Timeout

from maxrl_bench.config import RunConfig
from maxrl_bench.storage import files, provenance
from maxrl_bench.storage import tables as results
from maxrl_bench.storage.formats import checksum
from maxrl_bench.storage.store import DONE, MANIFEST, TABLES, Store
from maxrl_bench.sweeps import tabulate
from maxrl_bench.sweeps.experiment import Experiment

ROWS = [
    {"step": 0, "rollouts": 0, "seconds": 0.0, "pass@1": 0.1 + 0.2, "log_p": math.nan},
    {"step": 5, "rollouts": 80, "seconds": 1.5, "pass@1": 1 / 3, "log_p": -1e-17},
    {"step": 9, "rollouts": 144, "seconds": 2.5, "pass@1": 0.5, "log_p": -0.25},
]
RATES = pd.DataFrame(
    {"step": [0, 0, 5, 5, 9, 9], "instance": [0, 1] * 3, "pass_rate": [1 / 3, 0, 0.5, 1e-9, 2 / 3, 1], "n": 0}
)


def config(seed: int = 0, **settings: object) -> RunConfig:
    return RunConfig(**{"task": "fourrooms", "objective": "grpo", "seed": seed, **settings})


def experiment(*runs: RunConfig) -> Experiment:
    return Experiment("study", Path("study.toml"), "laptop", "Why?", (), (), 0, runs)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", report=pytest.fail)


def finish(store: Store, *configs: RunConfig) -> None:
    for stored in configs:
        store.finish(stored, ROWS, RATES, {"seconds": 2.5})


def test_a_finished_run_reads_back_bit_for_bit(store: Store) -> None:
    store.write(config().hash, "checkpoint.pt", b"half way")
    finish(store, config())
    metrics, rates = store.tables(config().hash)
    pd.testing.assert_frame_equal(metrics, pd.DataFrame(ROWS), check_exact=True)
    pd.testing.assert_frame_equal(rates, RATES, check_exact=True, check_dtype=False)
    assert store.status(config().hash) == "done"
    assert store.config(config().hash) == config()
    assert store.read(config().hash, "checkpoint.pt") is None
    made = store.provenance(config().hash)
    assert {
        "code",
        "commit",
        "dirty",
        "packages",
        "processor",
        "wall_seconds",
        "seconds",
        "peak_memory_mb",
    } <= made.keys()


def damage_by_truncation(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def damage_by_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [damage_by_truncation, damage_by_a_bit, Path.unlink, lambda p: p.write_bytes(b"")])
@pytest.mark.parametrize("name", [*TABLES, MANIFEST, DONE])
def test_a_damaged_file_makes_the_run_corrupt_and_keeps_it_out_of_the_tables(store: Store, name: str, damage) -> None:
    finish(store, config(0), config(1))
    damage(store.folder(config(0).hash) / name)
    check = store.check(config(0).hash)
    assert check.state == "corrupt"
    assert check.why
    tables = tabulate.write_tables(experiment(config(0), config(1)), store, store.root.parent)
    assert tables is not None
    assert set(tables.metrics["run"]) == set(tables.pass_rates["run"]) == {config(1).hash}
    assert list(tables.provenance["missing"]) == [config(0).hash]
    finish(store, config(0))
    assert store.status(config(0).hash) == "done"


def test_a_run_in_a_foreign_folder_is_corrupt(store: Store) -> None:
    finish(store, config(0))
    shutil.copytree(store.folder(config(0).hash), store.folder(config(1).hash))
    assert store.check(config(1).hash)[:2] == ("corrupt", "config.json is of another run")


def test_a_kill_at_any_write_never_leaves_a_run_that_looks_done(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file of `finish` is moved to its place by os.replace; stop before each of them in turn."""
    moves = len(TABLES) + 2
    real = os.replace
    for allowed in range(moves):
        done = 0

        def replace(source, target, allowed=allowed):
            nonlocal done
            if done == allowed:
                raise KeyboardInterrupt
            done += 1
            real(source, target)

        monkeypatch.setattr(os, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            finish(store, config(allowed))
        monkeypatch.setattr(os, "replace", real)
        assert store.status(config(allowed).hash) == ("missing" if allowed < 2 else "corrupt")
        assert not list(store.root.rglob("*.tmp"))
    assert tabulate.write_tables(experiment(*map(config, range(moves))), store, store.root.parent) is None
    assert results.experiments(store.root.parent) == []


def test_an_older_result_is_not_mixed_with_a_half_written_one(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    finish(store, config())
    monkeypatch.setattr(
        os, "replace", lambda source, target: Path(source).rename(target) if "metrics" in str(target) else 1 / 0
    )
    with pytest.raises(ZeroDivisionError):
        store.finish(config(), ROWS[:1], RATES, {})
    assert store.status(config().hash) in ("corrupt", "missing", "done")
    if store.status(config().hash) == "done":
        assert len(store.tables(config().hash)[0]) == len(ROWS)


@pytest.mark.parametrize("damage", [damage_by_truncation, damage_by_a_bit, lambda p: p.write_bytes(b"torch")])
def test_a_damaged_blob_is_reported_and_read_as_absent_until_it_is_made_again(tmp_path: Path, damage) -> None:
    notes: list[str] = []
    store = Store(tmp_path / "store", report=notes.append)
    store.write("base-1", "policy.pt", b"weights" * 99)
    assert store.read("base-1", "policy.pt") == b"weights" * 99
    damage(store.folder("base-1") / "policy.pt")
    assert store.read("base-1", "policy.pt") is None
    assert "is damaged" in notes[0]
    assert (store.folder("base-1") / "policy.pt").exists()  # to look is not to remove
    store.write("base-1", "policy.pt", b"again")
    assert store.read("base-1", "policy.pt") == b"again"
    assert len(notes) == 1


def test_what_other_code_made_is_stale_and_its_checkpoints_are_not_taken_up(tmp_path: Path) -> None:
    notes: list[str] = []
    old, new = Store(tmp_path / "s", "aaaa"), Store(tmp_path / "s", "bbbb", notes.append)
    finish(old, config())
    old.write(config(1).hash, "checkpoint.pt", b"half way")
    assert old.status(config().hash) == "done"
    assert new.check(config().hash)[:2] == ("stale", "made by another version of the code")
    assert new.read(config(1).hash, "checkpoint.pt", any_code=True) == b"half way"
    assert new.read(config(1).hash, "checkpoint.pt") is None
    assert "another version" in notes[0]


def test_a_failure_is_recorded_with_its_reason_until_the_run_succeeds(store: Store) -> None:
    store.write(config().hash, "checkpoint.pt", b"half way")
    store.fail(config(), "Traceback ...\nFloatingPointError: nan at step 3\n")
    assert store.check(config().hash)[:2] == ("failed", "FloatingPointError: nan at step 3")
    assert store.config(config().hash) == config()  # for the command that reproduces it
    assert store.read(config().hash, "checkpoint.pt") == b"half way"
    finish(store, config())
    assert store.check(config().hash)[:2] == ("done", "")


def test_folders_that_are_no_store_are_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match=r"not a results store: it holds 'thesis.tex'"):
        Store(tmp_path / "other")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "FORMAT").write_text("maxrl_bench results, format 0\n")
    with pytest.raises(ValueError, match="incompatible version"):
        Store(tmp_path / "old")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="cannot be used"):
        Store(tmp_path / "file")
    assert [p.name for p in (tmp_path / "other").iterdir()] == ["thesis.tex"]


def test_a_lock_dies_with_its_owner(store: Store) -> None:
    code = (
        f"import sys; from maxrl_bench.storage.store import Store; lock = Store({str(store.root)!r}).lock('r');"
        "lock.acquire(); print('held', flush=True); sys.stdin.read()"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    owner = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == b"held\n"
    with pytest.raises(Timeout):
        store.lock("r").acquire(blocking=False)
    assert not store.is_free("r")
    owner.kill()
    owner.communicate()
    assert store.is_free("r")


def test_tables_join_runs_with_their_configuration_in_the_order_of_the_experiment(store: Store) -> None:
    runs = [
        config(1),
        config(0, objective={"name": "maxrl_order", "order": 4}),
        config(0, task={"name": "fourrooms", "horizon": 9}),
    ]
    finish(store, *reversed(runs))
    tables = tabulate.write_tables(experiment(*runs, config(5)), store, store.root.parent)
    assert tables is not None
    metrics = tables.metrics
    assert list(metrics.columns[: len(results.IDENTITY)]) == list(results.IDENTITY)
    assert list(metrics["run"].unique()) == [run.hash for run in runs]
    assert list(metrics["step"]) == [0, 5, 9] * 3
    assert list(metrics["task"].unique()) == ["fourrooms", "fourrooms(horizon=9)"]
    assert list(metrics["objective_name"].unique()) == ["grpo", "maxrl_order"]
    assert set(metrics["family"]) == {"navigation"}
    assert metrics["pass@1"][0] == 0.3  # stored as 0.1 + 0.2: tables have 6 digits
    # Only the first and the last evaluation.
    assert list(tables.pass_rates["step"].unique()) == [0, 9]
    assert list(tables.pass_rates["pass_rate"][:2]) == [0.333333, 0.0]
    assert list(tables.provenance["missing"]) == [config(5).hash]
    assert sum(made["runs"] for made in tables.provenance["made_by"]) == 3

    folder = store.root.parent / "study"
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    tabulate.write_tables(experiment(*runs, config(5)), store, store.root.parent)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first


def test_a_run_whose_name_looks_like_a_number_stays_text(store: Store) -> None:
    storedlike_number = next(c for c in map(config, range(10**6)) if c.hash.isdigit())
    finish(store, storedlike_number)
    tables = tabulate.write_tables(experiment(storedlike_number), store, store.root.parent)
    assert tables is not None
    assert set(tables.metrics["run"]) == {storedlike_number.hash}


def test_tables_that_are_not_whole_are_refused_in_one_line(store: Store) -> None:
    root = store.root.parent
    with pytest.raises(ValueError, match="no results of experiment 'study'"):
        results.load("study", root)
    finish(store, config())
    tabulate.write_tables(experiment(config()), store, root)
    with pytest.raises(ValueError, match="did you mean 'study'"):
        results.load("studi", root)
    for name in (results.METRICS, results.PASS_RATES):
        path = root / "study" / name
        whole = path.read_bytes()
        text = results.unpack(name, whole)
        path.write_bytes(results.pack(text.replace(b"\n", b"\r\n")))  # as a checkout on Windows may leave it
        assert len(results.load("study", root).metrics) == 3
        for damaged in (results.pack(text.replace(b"3", b"4", 1)), whole[:-9], b"", b"foreign"):
            path.write_bytes(damaged)
            with pytest.raises(ValueError, match=f"{name} does not match its checksum"):
                results.load("study", root)
        path.write_bytes(whole)
    provenance = root / "study" / "provenance.json"
    whole = provenance.read_bytes()
    for damaged in (b"", b"[]", b"\xff", whole[:50]):
        provenance.write_bytes(damaged)
        with pytest.raises(ValueError, match="damaged"):
            results.load("study", root)
    provenance.write_bytes(json.dumps({**json.loads(whole), "format": "2"}).encode())
    with pytest.raises(ValueError, match="incompatible version"):
        results.load("study", root)


def test_pkpo_of_older_tables_is_read_as_what_it_was(store: Store) -> None:
    """`pkpo` was the form without a baseline; no run is stored under that name any more."""
    root = store.root.parent
    runs = [config(objective=objective) for objective in ({"name": "pkpo_plain", "k": 16}, {"name": "pkpo", "k": 16})]
    finish(store, *runs)
    tabulate.write_tables(experiment(*runs), store, root)
    now = results.load("study", root).metrics
    assert [*now["objective_name"].unique()] == ["pkpo_plain", "pkpo_loo"]

    file, origin = root / "study" / results.METRICS, root / "study" / "provenance.json"
    newer = results.unpack(results.METRICS, file.read_bytes())
    older = newer.replace(b"PKPO (plain) k=16,pkpo_plain", b"PKPO k=16,pkpo")
    assert older != newer
    file.write_bytes(results.pack(older))
    told = json.loads(origin.read_bytes())
    told["checksums"][results.METRICS] = checksum(older)
    origin.write_bytes(json.dumps(told).encode())
    pd.testing.assert_frame_equal(results.load("study", root).metrics, now)


def test_export_writes_csv_and_parquet(store: Store, tmp_path: Path) -> None:
    finish(store, config())
    tables = tabulate.write_tables(experiment(config()), store, tmp_path)
    assert tables is not None
    results.export("study", tmp_path / "x.csv", tmp_path)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "x.csv", dtype={"run": str}), tables.metrics)
    with pytest.raises(ValueError, match=r"accepted: .csv, .parquet"):
        results.export("study", tmp_path / "x.xls", tmp_path)
    pytest.importorskip("pyarrow")
    results.export("study", tmp_path / "x.parquet", tmp_path)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "x.parquet"), tables.metrics, check_dtype=False)


def test_parquet_without_pyarrow_is_one_line(store: Store, tmp_path: Path) -> None:
    finish(store, config())
    tabulate.write_tables(experiment(config()), store, tmp_path)
    code = (
        "import sys; sys.modules['pyarrow'] = None; from maxrl_bench.cli.main import main;"
        "sys.exit(main(['export', 'study', 'x.parquet', '--results', '.']))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "maxrl-bench: Parquet needs pyarrow: pip install 'maxrl-bench[parquet]'\n"
    assert not (tmp_path / "x.parquet").exists()


def test_a_store_that_can_only_be_read_is_told_before_a_sweep(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.check_writable()
    assert sorted(path.name for path in store.root.iterdir()) == ["FORMAT"]

    def refuse(path: Path, data: bytes) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files, "write_file", refuse)
    with pytest.raises(ValueError, match="cannot be written: Permission denied"):
        Store(store.root).check_writable()


def test_a_repository_that_we_are_merely_installed_in_is_not_our_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "_git", lambda *arguments: None if arguments[0] == "ls-files" else "abc")
    made = provenance.environment.__wrapped__()
    assert made["commit"] is None
    assert made["dirty"] is None
