"""Finished runs come back from committed tables: the same bytes again, nothing damaged, and only on the same code."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sweep_cases import RUN, Serial, config, experiment, run_sweep

from maxrl_bench.cli import listing, main
from maxrl_bench.storage import columns
from maxrl_bench.storage import tables as results
from maxrl_bench.storage.provenance import code_fingerprint
from maxrl_bench.storage.store import Store
from maxrl_bench.sweeps import driver, tabulate
from maxrl_bench.sweeps.experiment import Experiment


def read(path: Path) -> bytes:
    """A file of tables, unpacked."""
    data = path.read_bytes()
    return data if path.name == results.ORIGIN else results.unpack(path.name, data)


def publish(root: Path, *experiments: Experiment) -> dict[str, bytes]:
    """Write the tables of experiments; returns the bytes of all files."""
    store = Store(root / "store")
    for one in experiments:
        tabulate.write_tables(one, store, root)
    return {f"{e.name}/{name}": read(root / e.name / name) for e in experiments for name in results.FILES}


def swept(root: Path, *experiments: Experiment) -> dict[str, bytes]:
    run_sweep(root, *experiments)
    return publish(root, *experiments)


def fresh_clone(root: Path) -> None:
    shutil.rmtree(root / "store")


def measured(store: Store, seed: int, rollouts: int) -> None:
    """A run as training leaves it: 0 rollouts for exact pass rates, else pass@k up to so many; large counts, gaps."""
    rng, run = np.random.default_rng(seed), config(seed, eval_rollouts=rollouts or 1024)
    rows = []
    for step in (0, 2, 4, 6):
        row = dict.fromkeys(columns.METRICS, math.nan) | {"step": step, "rollouts": 48 * step, "seconds": rng.random()}
        row |= {f"pass@{k}": rng.random() for k in columns.PASS_AT_K if k <= (rollouts or 1024)}
        row |= {
            "contexts_evaluated": 10**6 + step,
            "contexts_named": 123456789 * step,
            "grad_norm": rng.normal() * 1e-7,
        }
        row = {name: v for name, v in row.items() if not (name.startswith("pass@") and math.isnan(v))}
        rows.append(row | ({} if rollouts else {"log_p": -rng.random()}))
    steps, instances = np.repeat([0, 2, 4, 6], 3), np.tile(range(3), 4)
    norms = np.where(steps == 2, math.nan, rng.random(12))
    rates = {"step": steps, "instance": instances, "pass_rate": rng.random(12), "n": rollouts, "grad_norm": norms}
    made = {"processor": f"machine {seed % 2}", "code": code_fingerprint("fourrooms", "grpo", RUN)}
    store.finish(run, rows, pd.DataFrame(rates), made)


def test_tables_written_from_runs_taken_back_are_the_same_bytes_whatever_tables_they_come_from(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    for seed in range(5):
        measured(store, seed, 256 * (seed % 2))
    sampled, exact = (config(1, eval_rollouts=256), config(3, eval_rollouts=256)), (config(0), config(2), config(4))
    whole, few = experiment(exact[0], *sampled, exact[2], name="whole"), experiment(*sampled, name="few")
    mixed = experiment(sampled[0], exact[2], exact[0], name="mixed")
    before = publish(tmp_path, few, whole, mixed)
    assert b"pass@512" not in before[f"few/{results.METRICS}"]
    assert before["whole/provenance.json"].count(b'"processor"') == 2
    fresh_clone(tmp_path)
    pool = Serial()
    run_sweep(tmp_path, few, whole, mixed, pool=pool)
    assert pool.jobs == []
    assert publish(tmp_path, few, whole, mixed) == before
    for gone in (few, mixed):  # each is made again from tables of the others, which have other columns
        fresh_clone(tmp_path)
        shutil.rmtree(tmp_path / gone.name)
        run_sweep(tmp_path, gone, pool=pool)
        after = publish(tmp_path, gone)
        assert after == {name: data for name, data in before.items() if name.startswith(f"{gone.name}/")}
    assert len(pool.jobs) == 0


def test_seeds_are_added_to_published_tables_without_computing_the_old_ones_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = [config(seed) for seed in (0, 1)], [config(seed) for seed in (2, 3)]
    before = swept(tmp_path, experiment(*old))
    fresh_clone(tmp_path)
    pool, study = Serial(), experiment(*old, *new)
    report = run_sweep(tmp_path, study, pool=pool)
    assert sorted(pool.jobs) == sorted(run.hash for run in new)
    assert report.done == {run.hash for run in (*old, *new)}
    assert f"2 runs are taken from {tmp_path / 'study'}" in capsys.readouterr().err
    after = publish(tmp_path, study)[f"study/{results.METRICS}"]
    assert after.startswith(before[f"study/{results.METRICS}"])
    assert len(after) > len(before[f"study/{results.METRICS}"])
    assert run_sweep(tmp_path, study).computed == 0


def test_a_run_is_taken_once_and_an_experiment_s_own_tables_come_first(tmp_path: Path) -> None:
    shared = config(0)
    swept(tmp_path, experiment(shared, config(1), name="first"), experiment(shared, name="second"))
    fresh_clone(tmp_path)
    plan = driver.make_plan([experiment(shared, name="second")], tmp_path, run_function=RUN)
    assert plan.held == {shared.hash: "second"}
    assert driver.make_plan([experiment(shared, name="third")], tmp_path, run_function=RUN).held == {
        shared.hash: "first"
    }
    assert not (tmp_path / "store").exists()  # to look is not to write


def edited(path: Path, old: str, new: str) -> None:
    text = read(path).decode()
    assert old in text
    data = text.replace(old, new, 1).encode()
    path.write_bytes(data if path.name == results.ORIGIN else results.pack(data))


@pytest.mark.parametrize("damage", ["a digit", "half a file", "another code", "no longer JSON", "without checksums"])
def test_damaged_and_edited_tables_never_become_runs_and_are_told_once(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    study = experiment(config(0), config(1))
    swept(tmp_path, study)
    fresh_clone(tmp_path)
    folder = tmp_path / "study"
    origin, metrics, rates = (folder / name for name in (results.ORIGIN, results.METRICS, results.PASS_RATES))
    match damage:
        case "a digit":
            edited(metrics, ",48,", ",49,")
        case "half a file":
            rates.write_bytes(rates.read_bytes()[:-9])
        case "another code":
            edited(origin, code_fingerprint("fourrooms", "grpo", RUN), "0" * 16)
        case "no longer JSON":
            edited(origin, "{", "<<<<<<<")
        case "without checksums":  # as of an older version
            told = json.loads(origin.read_text())
            del told["checksums"][results.RUNS]
            origin.write_text(json.dumps(told))
    capsys.readouterr()
    pool = Serial()
    run_sweep(tmp_path, study, pool=pool)
    assert len(pool.jobs) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "no runs are taken" in line]
    assert len(lines) == 1
    assert str(folder) in lines[0]


def test_results_of_other_code_are_not_taken_unless_they_are_to_be_kept(tmp_path: Path) -> None:
    study = experiment(config(0))
    store = Store(tmp_path / "store", "ffff")
    store.finish(
        config(0), [{"step": 0, "pass@1": 0.5}], pd.DataFrame({"step": [0], "instance": 0, "pass_rate": 0.5}), {}
    )
    publish(tmp_path, study)
    fresh_clone(tmp_path)
    assert driver.make_plan([study], tmp_path, run_function=RUN).held == {}
    pool = Serial()
    run_sweep(tmp_path, study, pool=pool, keep_stale=True)
    assert pool.jobs == []
    assert store.provenance(config(0).hash)["code"] == "ffff"
    assert run_sweep(tmp_path, study).computed == 1


def test_recompute_takes_nothing_and_computes_what_was_taken_but_once(tmp_path: Path) -> None:
    study, full = experiment(config(0), config(1)), experiment(config(0), config(1), config(2))
    swept(tmp_path, study)
    fresh_clone(tmp_path)
    shutil.copytree(tmp_path, tmp_path / "other")
    assert run_sweep(tmp_path / "other", study, recompute=True).computed == 2
    run_sweep(tmp_path, full)  # takes two, computes one
    pool = Serial()
    run_sweep(tmp_path, full, pool=pool, recompute=True)
    assert sorted(pool.jobs) == sorted([config(0).hash, config(1).hash])
    assert run_sweep(tmp_path, full, recompute=True).computed == 0
    assert Store(tmp_path / "store").has(config(0).hash, "policy.pt")


def test_what_another_process_is_at_is_left_to_it(tmp_path: Path) -> None:
    study = experiment(config(0), config(1))
    swept(tmp_path, study)
    fresh_clone(tmp_path)
    plan = driver.make_plan([study], tmp_path, run_function=RUN)
    store = Store(tmp_path / "store")
    with store.lock(config(0).hash):
        told: list[str] = []
        gone = driver.taken.take(plan.held, plan.configs, plan.store, tmp_path, told.append)
    assert gone == {config(0).hash}
    assert told == [f"1 runs are taken from {tmp_path / 'study'} (--recompute computes them)"]
    assert (store.status(config(0).hash), store.status(config(1).hash)) == ("missing", "done")


def test_dry_run_and_status_say_where_runs_are_from_before_and_after(tmp_path: Path) -> None:
    swept(tmp_path, experiment(config(0), config(1)))
    fresh_clone(tmp_path)
    study = experiment(config(0), config(1), config(2))
    taken = f"2 taken from {tmp_path / 'study'}, 1 missing"
    assert taken in listing.status([study], str(tmp_path), RUN)
    plan = driver.make_plan([study], tmp_path, run_function=RUN)
    assert taken in listing.dry_run(plan, 1)
    assert "to do: 1 runs" in listing.dry_run(plan, 1)
    assert not (tmp_path / "store").exists()
    run_sweep(tmp_path, study)
    assert f"2 taken from {tmp_path / 'study'}, 1 done" in listing.status([study], str(tmp_path), RUN)


def test_a_policy_that_tables_do_not_hold_is_told_with_the_command_that_trains_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    swept(tmp_path, experiment(config(0)))
    fresh_clone(tmp_path)
    run_sweep(tmp_path, experiment(config(0)))
    run = config(0).hash
    assert main.main(["watch", "--run", run, "--results", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "holds no policy: its results are from the tables of study; `maxrl-bench run --recompute --config " in said
    again = ["run", "--config", f"{tmp_path}/store/{run}/config.json", "--results", str(tmp_path)]
    assert main.main([*again, "--run-function", RUN]) == 0
    assert "done already" in capsys.readouterr().out
    assert main.main([*again, "--run-function", RUN, "--recompute"]) == 0
    assert "done in" in capsys.readouterr().out
    assert Store(tmp_path / "store").has(run, "policy.pt")
