"""A results folder that somebody has been at: nothing foreign is believed, nothing outside or of the user's touched."""

import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sweep_cases import RUN, config, experiment, run_sweep, tables_without_seconds

from maxrl_bench.cli.publish import publish
from maxrl_bench.storage import tables as results
from maxrl_bench.storage.formats import checksum, to_json
from maxrl_bench.storage.store import DONE, FAILED, LOCKS, MANIFEST, TABLES, Store
from maxrl_bench.sweeps import driver as sweep
from maxrl_bench.sweeps import tabulate
from maxrl_bench.sweeps.worker import execute

OTHERS = (config(0), config(1))
A, B = (config.hash for config in OTHERS)
BASES = ("base-0", "base-1")  # of fake_run: one for each seed


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """results/ with two finished runs."""
    report = run_sweep(tmp_path / "results", experiment(*OTHERS))
    assert len(report.done) == 2
    return tmp_path / "results"


def contents(folder: Path) -> dict[str, Any]:
    """All that lies below a folder, with the times of its files."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def swap(first: Path, second: Path) -> None:
    ours, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(ours)


# --- blobs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "put", "why"),
    [
        ((A, "checkpoint.pt"), (B, "checkpoint.pt"), f"it is checkpoint.pt of {A}"),
        ((A, "checkpoint.pt"), (A, "policy.pt"), f"it is checkpoint.pt of {A}"),
        (("base-0", "policy.pt"), ("base-1", "policy.pt"), "it is policy.pt of base-0"),
        ((A, "policy.pt"), ("base-1", "policy.pt"), f"it is policy.pt of {A}"),
    ],
)
def test_a_blob_is_only_what_it_was_written_as(
    tmp_path: Path, written: tuple[str, str], put: tuple[str, str], why: str
) -> None:
    notes: list[str] = []
    store = Store(tmp_path / "store", "c0de", notes.append)
    store.write(*put, b"its own")
    store.write(*written, b"foreign")
    shutil.copyfile(store.file(*written), store.file(*put))
    assert store.read(*put) is None
    assert store.read(*put, any_code=True) is None
    assert notes == [f"{store.file(*put)} is not used: {why}"] * 2
    assert store.read(*written) == b"foreign"


@pytest.mark.parametrize(("old", "new"), [(A, B), ("policy.pt", "other.pt"), ("c0de", "beef"), ("blob 3", "blob 2")])
def test_an_edited_last_line_is_damage(tmp_path: Path, old: str, new: str) -> None:
    notes: list[str] = []
    store = Store(tmp_path / "store", "c0de", notes.append)
    store.write(A, "policy.pt", b"weights")
    path = store.file(A, "policy.pt")
    path.write_bytes(path.read_bytes().replace(old.encode(), new.encode(), 1))
    assert store.read(A, "policy.pt") is None
    assert "damaged" in notes[0]


def test_a_base_policy_is_made_once_for_all_objectives(tmp_path: Path) -> None:
    first, second = (Store(tmp_path / "store", f"5ha4ed-{row}", pytest.fail) for row in ("a", "b"))
    first.write("base-0", "policy.pt", b"base")
    assert second.read("base-0", "policy.pt") == b"base"
    first.write(A, "checkpoint.pt", b"half way")
    notes: list[str] = []
    other = Store(tmp_path / "store", "0ther-a", notes.append)
    assert (other.read("base-0", "policy.pt"), other.read(A, "checkpoint.pt")) == (None, None)
    assert len(notes) == 2


def test_swapped_base_policies_are_made_again(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = tables_without_seconds(root, OTHERS)
    store = root / "store"
    swap(*(store / base / "policy.pt" for base in BASES))
    for run in (A, B):
        shutil.rmtree(store / run)
    assert len(run_sweep(root, experiment(*OTHERS)).done) == 2
    assert tables_without_seconds(root, OTHERS) == before
    assert "is not used: it is policy.pt of base-1" in capsys.readouterr().err


@pytest.mark.parametrize("how", ["damaged", "removed", "another run's"])
def test_a_policy_is_a_product_of_its_run(root: Path, how: str) -> None:
    store = Store(root / "store", report=pytest.fail)
    path, whole = store.file(A, "policy.pt"), store.file(A, "policy.pt").read_bytes()
    if how == "damaged":
        path.write_bytes(whole[:-1])
    elif how == "removed":
        path.unlink()
    else:
        shutil.copyfile(store.file(B, "policy.pt"), path)
    state = store.check(A)
    assert state.state == "corrupt"
    assert "policy.pt" in state.why
    assert run_sweep(root, experiment(*OTHERS)).computed == 1
    assert path.read_bytes() == whole


def test_a_run_that_is_made_again_keeps_no_product_of_the_old(root: Path) -> None:
    store = Store(root / "store", report=pytest.fail)
    store.discard(A)
    assert [path.name for path in store.folder(A).iterdir()] == []


# --- looking ------------------------------------------------------------------------------------------------------


def test_to_look_changes_nothing(root: Path) -> None:
    store = Store(root / "store", "c0de", lambda note: None)
    damaged = store.file(A, "policy.pt")
    damaged.write_bytes(damaged.read_bytes()[:-1])
    (store.folder(B) / MANIFEST).write_text("[]")
    (store.folder(B) / f".x.tmp.{'0' * 8}-1-{'0' * 8}.tmp").write_text("")
    before = contents(root)
    for run, other in ((A, B), (B, A)):
        store.check(run)
        store.failure(run)
        store.provenance(run)
        store.config(run)
        store.finished(run)
        store.is_free(other)
        for name in ("policy.pt", "checkpoint.pt"):
            store.read(run, name)
            store.read(run, name, any_code=True)
    store.bytes_per_run()
    sweep.make_plan([experiment(*OTHERS)], root, run_function=RUN)
    assert contents(root) == before


def test_to_look_at_a_store_that_is_not_there_makes_none(tmp_path: Path) -> None:
    store = Store(tmp_path / "results" / "store", create=False)
    assert store.check(A)[:2] == ("missing", "")
    assert store.is_free(A)
    assert store.bytes_per_run() > 0
    assert store.read(A, "policy.pt") is None
    sweep.make_plan([experiment(*OTHERS)], tmp_path / "results", run_function=RUN)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["..", "../../mymodel", "/etc", "", "FORMAT", A.upper(), A + "0", f"{A}/x", LOCKS])
def test_runs_have_names_of_16_digits(tmp_path: Path, name: str) -> None:
    (tmp_path / "mymodel").mkdir()
    (tmp_path / "mymodel" / "policy.pt").write_bytes(b"torch")
    notes: list[str] = []
    store = Store(tmp_path / "results" / "store", report=notes.append)
    assert store.read(name, "policy.pt") is None
    assert "is not the name of a run" in notes[0]
    for use in (store.discard, store.folder, store.tables, lambda run: store.write(run, "policy.pt", b"")):
        with pytest.raises(ValueError, match="is not the name of a run"):
            use(name)
    assert (tmp_path / "mymodel" / "policy.pt").read_bytes() == b"torch"


# --- links --------------------------------------------------------------------------------------------------------


LINKS = [
    *("store", f"store/{A}", f"store/{LOCKS}", f"store/{LOCKS}/{A}.lock", "store/FORMAT", "store/base-0"),
    *(f"store/{A}/{name}" for name in (*TABLES, MANIFEST, DONE, "policy.pt", "checkpoint.pt")),
]


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("to", ["moved", "users"])
def test_a_sweep_neither_follows_nor_replaces_a_link(root: Path, link: str, to: str) -> None:
    """In the place of the link was what it points to now, or it points to something of the user's."""
    path, outside = root / link, root.parent / "outside"
    if not path.exists():
        path.write_bytes(b"")
    is_folder = path.is_dir()
    path.rename(outside)
    if to == "users":
        shutil.rmtree(outside) if is_folder else outside.unlink()
        if is_folder:
            outside.mkdir()
            (outside / "policy.pt").write_bytes(b"the user's")
        else:
            outside.write_bytes(b"the user's")
    path.symlink_to(outside)
    before = contents(outside) if is_folder else outside.read_bytes()
    told = outcome_of_sweep(root)
    assert "\n" not in told
    # A finished run needs neither its lock nor a checkpoint, nor one with a checkpoint of its own its base policy.
    assert "symbolic link" in told or link in (f"store/{A}/checkpoint.pt", f"store/{LOCKS}/{A}.lock", "store/base-0")
    assert path.is_symlink()
    assert (contents(outside) if is_folder else outside.read_bytes()) == before


def outcome_of_sweep(root: Path) -> str:
    """What a sweep says of the failed runs, or of the store; the other runs have to be done."""
    try:
        report = run_sweep(root, experiment(*OTHERS, config(2)))
    except ValueError as error:
        return str(error)
    assert len(report.done) + len(report.failed) == 3
    return " ".join(report.failed.values())


@pytest.mark.parametrize("link", ["study", "study/metrics.csv.xz", "study/provenance.json", "study/pass_rates.csv.xz"])
def test_tables_are_neither_read_nor_written_through_links(root: Path, link: str) -> None:
    study, store = experiment(*OTHERS), Store(root / "store")
    tabulate.write_tables(study, store, root)
    path, outside = root / link, root.parent / "outside"
    path.rename(outside)
    path.symlink_to(outside)
    before = contents(outside) if outside.is_dir() else outside.read_bytes()
    for use in (lambda: tabulate.write_tables(study, store, root), lambda: results.load("study", root)):
        with pytest.raises(ValueError, match="is a symbolic link"):
            use()
    assert path.is_symlink()
    assert (contents(outside) if outside.is_dir() else outside.read_bytes()) == before
    assert results.experiments(root) == ["study"]  # named, so that whoever reads them all says what is wrong


# --- what is lost in the middle -----------------------------------------------------------------------------------


def test_a_store_that_is_removed_in_the_middle_is_taken_up_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.write(A, "checkpoint.pt", b"half way")
    shutil.rmtree(store.root)  # or unmounted
    store.write(A, "checkpoint.pt", b"further")
    assert Store(store.root).read(A, "checkpoint.pt") == b"further"
    (store.root / "FORMAT").unlink()
    assert Store(store.root, create=False).read(A, "checkpoint.pt") == b"further"
    Store(store.root)
    assert (store.root / "FORMAT").exists()


def test_a_folder_of_the_users_is_still_no_store(tmp_path: Path) -> None:
    (tmp_path / A).mkdir()
    (tmp_path / "thesis").mkdir()
    with pytest.raises(ValueError, match="it holds 'thesis' but no FORMAT file"):
        Store(tmp_path)


@pytest.mark.parametrize("place", [A, "base-2", LOCKS])
def test_a_file_where_a_folder_belongs_is_told(root: Path, place: str) -> None:
    path = root / "store" / place
    if path.is_dir():
        shutil.rmtree(path)
    path.write_text("mine")
    told = outcome_of_sweep(root)
    assert f"{place} is not a folder; remove it" in told
    assert "\n" not in told
    assert path.read_text() == "mine"
    assert Store(root / "store").check(A).state == ("corrupt" if place == A else "done")


def test_a_file_where_the_tables_belong_is_told(root: Path) -> None:
    (root / "study").write_text("mine")
    study = experiment(*OTHERS)
    for use in (lambda: tabulate.write_tables(study, Store(root / "store"), root), lambda: results.load("study", root)):
        with pytest.raises(ValueError, match="study is not a folder; remove it"):
            use()
    assert (root / "study").read_text() == "mine"


def test_the_marker_may_have_other_line_ends(root: Path) -> None:
    marker = root / "store" / "FORMAT"
    marker.write_bytes(marker.read_bytes().replace(b"\n", b"\r\n"))
    assert Store(root / "store").check(A).state == "done"
    marker.write_bytes(b"\x00\x1b[2J" * 99)
    with pytest.raises(ValueError, match="written by an incompatible version") as refused:
        Store(root / "store")
    assert str(refused.value).isprintable()


# --- JSON of any shape, with checksums that match -----------------------------------------------------------------

VALUES: tuple[Any, ...] = (None, True, 0, -1, 1e308, 2**70, "", "\ud800", "x", [], [1], {}, {"a": 1}, "[" * 9)


def variants(value: Any) -> Iterator[Any]:
    """A JSON value with each part, at every depth, replaced by each of VALUES or left out."""
    yield from VALUES
    if isinstance(value, dict):
        for key in value:
            yield {name: part for name, part in value.items() if name != key}
            yield from ({**value, key: inner} for inner in variants(value[key]))


def raw(value: Any) -> bytes:
    return b"[" * 100_000 if value == "[" * 9 else json.dumps(value).encode()


@pytest.mark.parametrize("name", ["provenance.json", MANIFEST, "config.json", FAILED])
def test_json_of_any_shape_in_a_run_is_no_result_or_a_good_one(root: Path, name: str) -> None:
    store, study = Store(root / "store", report=lambda note: None), experiment(*OTHERS)
    path = store.folder(A) / name
    if name == FAILED:
        (store.folder(A) / DONE).unlink()
        path.write_bytes(to_json({"traceback": "x", "code": "x", "when": 1.0}))
    sums = json.loads((store.folder(A) / MANIFEST).read_bytes())
    good, states = json.loads(path.read_bytes()), set()
    if name == "provenance.json":
        good = {key: good[key] for key in ("code", "wall_seconds")} | {"packages": {"torch": good["packages"]["torch"]}}
    for value in variants(good):
        data = raw(value)
        path.write_bytes(data)
        manifest = data if name == MANIFEST else to_json({**sums, name: checksum(data)})
        if name != FAILED:
            (store.folder(A) / MANIFEST).write_bytes(manifest)
            (store.folder(A) / DONE).write_text(checksum(manifest))
        state = store.check(A)
        states.add(state.state)
        assert "\n" not in state.why
        state.why.encode()
        store.failure(A).encode()
        store.provenance(A)
        assert (store.finished(A) is not None) == (state.state == "done")
    sweep.make_plan([study], root, run_function=RUN)
    assert states <= ({"failed"} if name == FAILED else {"done", "corrupt"})
    if name != FAILED:
        tables = tabulate.write_tables(study, store, root)
        assert tables is not None
        assert set(tables.metrics["run"]) >= {B}


def test_json_of_any_shape_beside_the_tables_is_one_line(root: Path) -> None:
    tabulate.write_tables(experiment(*OTHERS, config(2)), Store(root / "store"), root)
    path = root / "study" / results.ORIGIN
    good = json.loads(path.read_bytes())
    good["runs"] = dict(list(good["runs"].items())[:1])
    good["made_by"][0] = {key: good["made_by"][0][key] for key in ("packages", "runs", "cores")}
    refused = 0
    for value in variants(good):
        path.write_bytes(raw(value))
        told = outcome_of_load(root)
        refused += bool(told)
        assert "\n" not in told
        sweep.make_plan([experiment(*OTHERS)], root, run_function=RUN)
    assert refused > 100


def outcome_of_load(root: Path) -> str:
    try:
        loaded = results.load("study", root)
    except ValueError as error:
        return str(error)
    assert isinstance(loaded.provenance["file"], str)
    assert all(isinstance(made, dict) for made in loaded.provenance.get("made_by", []))
    return ""


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        (results.METRICS, b"run,step\nx,0\n", "has no column 'task'"),
        (results.METRICS, b"", "is no table"),
        (results.METRICS, None, "column 'pass@1' must hold numbers"),
        (results.PASS_RATES, b"run,step,instance,pass_rate,n\n", "has no rows"),
        (results.PASS_RATES, b'"', "is no table"),
        (results.PASS_RATES, b"run,step,instance,pass_rate,n\nx,0,0,high,0\n", "column 'pass_rate' must hold numbers"),
    ],
)
def test_tables_that_are_none_are_one_line(root: Path, name: str, text: bytes | None, why: str) -> None:
    tabulate.write_tables(experiment(*OTHERS), Store(root / "store"), root)
    path, origin = root / "study" / name, root / "study" / results.ORIGIN
    if text is None:
        text = results.load("study", root).metrics.assign(**{"pass@1": "high"}).to_csv(index=False).encode()
    path.write_bytes(results.pack(text))
    summary = json.loads(origin.read_bytes())
    summary["checksums"][name] = checksum(text)
    origin.write_bytes(to_json(summary))
    with pytest.raises(ValueError, match=why) as refused:
        results.load("study", root)
    assert "\n" not in str(refused.value)


# --- two versions of the code, and foreign files ------------------------------------------------------------------


def test_tables_take_the_runs_of_the_sweeps_own_code_only(root: Path) -> None:
    store = Store(root / "store")
    own = {run: store.provenance(run)["code"] for run in (A, B)}
    assert own[A] == own[B]
    other = Store(root / "store", "another")
    metrics, rates = store.tables(B)
    other.discard(B)
    other.finish(OTHERS[1], metrics.to_dict("records"), rates, {})  # by a sweep of other code, at the same time
    tables = tabulate.write_tables(experiment(*OTHERS), store, root, only=own)
    assert tables is not None
    assert set(tables.metrics["run"]) == {A}
    assert set(tables.provenance["missing"]) == {B}
    tables = tabulate.write_tables(experiment(*OTHERS), store, root, only={A: "", B: ""})  # --keep-stale
    assert tables is not None
    assert set(tables.metrics["run"]) == {A, B}


def test_a_sweep_whose_runs_another_version_replaces_says_so(root: Path) -> None:
    own = {run: Store(root / "store").provenance(run)["code"] for run in (A, B)}
    study = experiment(*OTHERS)
    assert publish(study, str(root), None, own).startswith("study: ")
    with pytest.raises(ValueError, match="1 of its runs are no longer this sweep's"):
        publish(study, str(root), None, {**own, B: "another"})
    assert set(results.load("study", root).metrics["run"]) == {A}
    with pytest.raises(ValueError, match="2 of its runs"):
        publish(study, str(root), None, dict.fromkeys(own, "another"))


def test_tables_are_read_whole_while_they_are_replaced(root: Path) -> None:
    store, study = Store(root / "store"), experiment(*OTHERS)
    tabulate.write_tables(study, store, root)
    stop = threading.Event()

    def replace_again_and_again() -> None:
        while not stop.is_set():
            for runs in ({A: ""}, {A: "", B: ""}):
                tabulate.write_tables(study, store, root, only=runs)

    writer = threading.Thread(target=replace_again_and_again)
    writer.start()
    try:
        for _ in range(60):
            assert A in set(results.load("study", root).metrics["run"])
    finally:
        stop.set()
        writer.join()


def test_foreign_files_in_the_store_are_left_alone(root: Path) -> None:
    store = Store(root / "store")
    foreign = [store.root / "notes.txt", store.root / "copies" / DONE, store.folder(A) / "checkpoint notes.txt"]
    for path in foreign:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    (store.root / "copies" / "lost").symlink_to("nowhere")
    (store.folder(A) / "checkpoints").mkdir()
    assert store.bytes_per_run() < 1e5
    store.tidy(A)
    store.tidy_all()
    assert run_sweep(root, experiment(*OTHERS, config(2))).computed == 1
    assert [path.read_text() for path in foreign] == ["mine"] * 3
    assert (store.folder(A) / "checkpoints").is_dir()


def test_a_worker_tells_of_a_link_in_its_way(root: Path) -> None:
    plan = sweep.make_plan([experiment(config(2))], root, run_function=RUN)
    job = plan.job(config(2).hash)
    (root.parent / "outside").mkdir()
    (root / "store" / config(2).hash).symlink_to(root.parent / "outside")
    outcome = execute(job)
    assert outcome.state == "failed"
    assert "symbolic link" in outcome.message
    assert os.listdir(root.parent / "outside") == []


# --- exports ------------------------------------------------------------------------------------------------------


def test_an_export_replaces_nothing(root: Path, tmp_path: Path) -> None:
    tabulate.write_tables(experiment(*OTHERS), Store(root / "store"), root)
    (tmp_path / "thesis.csv").write_text("mine")
    (tmp_path / "link.csv").symlink_to(tmp_path / "absent.csv")
    (tmp_path / "folder.csv").mkdir()
    for name in ("thesis.csv", "link.csv", "folder.csv"):
        with pytest.raises(ValueError, match=f"{name} exists already"):
            results.export("study", tmp_path / name, root)
    for name in ("x.xlsx", "x", "x.csv.gz"):
        with pytest.raises(ValueError, match=r"accepted: .csv, .parquet"):
            results.export("no study", tmp_path / name, root)
    with pytest.raises(ValueError, match=r"thesis.csv/x.csv cannot be written: "):
        results.export("study", tmp_path / "thesis.csv" / "x.csv", root)
    assert (tmp_path / "thesis.csv").read_text() == "mine"
    assert not (tmp_path / "absent.csv").exists()
    results.export("study", tmp_path / "new" / "X.CSV", root)
    assert (tmp_path / "new" / "X.CSV").read_bytes().startswith(b"run,task,")
