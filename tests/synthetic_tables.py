"""Made-up result tables for the tests of statistics, figures and report. Never results: nothing here was trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from maxrl_bench.storage.files import write_file
from maxrl_bench.storage.formats import checksum, to_csv, to_json
from maxrl_bench.storage.store import FORMAT
from maxrl_bench.storage.tables import METRICS, PASS_RATES, pack

KS = tuple(2**i for i in range(11))
# Final skill, spread of skill over instances, rollouts' head start: chosen so that rankings differ between metrics.
OBJECTIVES = {
    "REINFORCE": ("reinforce", -1.6, 2.6),
    "RLOO": ("rloo", -0.4, 2.4),
    "GRPO": ("grpo", 0.6, 2.6),
    "MaxRL": ("maxrl_alg1", 0.5, 1.3),
    "exact ML": ("ml", 0.9, 1.1),
}
TASKS = {"fourrooms": ("navigation", 0.0), "lava-crossing": ("navigation", -0.8), "maze-9": ("maze", 0.4)}


def make_tables(
    tasks: dict[str, tuple[str, float]] = TASKS,
    objectives: dict[str, tuple[str, float, float]] = OBJECTIVES,
    settings: tuple[dict[str, float], ...] = ({},),
    seeds: int = 5,
    steps: tuple[int, ...] = tuple(range(0, 201, 20)),
    instances: int = 64,
    grad_norm: bool = False,
    sampled: tuple[str, ...] = (),
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Metrics and pass-rate tables in the project's schema; `settings` are values of columns: {"num_rollouts": 16}."""
    metrics: list[dict[str, Any]] = []
    rates = []
    for task, (family, shift) in tasks.items():
        for label, (name, skill, spread) in objectives.items():
            for number, values in enumerate(settings if name != "ml" else settings[:1]):
                for seed in range(seeds):
                    rng = np.random.default_rng([len(task), len(label), ord(label[0]), number, seed])
                    where = {
                        "num_rollouts": 64,
                        "batch_size": 16,
                        "learning_rate": 1e-3,
                        "train_instances": 0,
                        **values,
                    }
                    lift = 0.25 * np.log2(where["num_rollouts"] / 64) * (name.startswith("maxrl") + 0.2)
                    lift -= 0.3 * np.log10(where["learning_rate"] / 1e-3) ** 2
                    own = rng.normal(size=instances) * spread + rng.normal() * 0.25 + shift + rng.exponential() * 0.2
                    run = f"{abs(hash_text(f'{task}{label}{number}{seed}')):016x}"
                    for i, step in enumerate(steps):
                        done = i / (len(steps) - 1)
                        p = 1 / (1 + np.exp(-(own - 4 + (4 + skill + lift) * np.sqrt(done) + rng.normal() * 0.1)))
                        n = 1024 if task in sampled else 0
                        p = rng.binomial(n, p) / n if n else p
                        rollouts = 0 if name == "ml" else step * where["num_rollouts"] * where["batch_size"]
                        metrics.append(
                            {
                                "run": run,
                                "task": task,
                                "family": family,
                                "objective": label,
                                "objective_name": name,
                                **where,
                                "seed": seed,
                                "step": step,
                                "rollouts": rollouts,
                                "seconds": step * (0.05 + where["num_rollouts"] / 4000) * (1 + 0.05 * rng.random()),
                                **{f"pass@{k}": float(np.mean(1 - (1 - p) ** k)) for k in KS},
                                "log_p": np.nan if n else float(np.mean(np.log(p))),
                                "entropy": 1.4 * np.exp(-(1.2 + skill / 2) * done) + 0.02 * rng.random(),
                                "grad_norm": np.nan if i == 0 else rng.random(),
                                "clipped_share": 0.1,
                                "success_share": np.nan
                                if i == 0 or name == "ml"
                                else float(np.mean(1 - (1 - p) ** 64)),
                                "train_pass_rate": np.nan if i == 0 else float(p.mean()),
                                "contexts_evaluated": 10 * i,
                                "contexts_named": 100 * i,
                                "cosine_ml": np.nan
                                if i == 0 or n
                                else (1.0 if name == "ml" else 0.5 + 0.1 * skill + 0.1 * rng.random()),
                            }
                        )
                        if i in (0, len(steps) - 1):
                            rows = pd.DataFrame(
                                {"run": run, "step": step, "instance": np.arange(instances), "pass_rate": p, "n": n}
                            )
                            if grad_norm and not n:
                                rows["grad_norm"] = (
                                    (1 - p)
                                    * p ** (0.2 if name in ("ml", "maxrl_alg1") else 0.9)
                                    * (1 + rng.random(instances))
                                )
                            rates.append(rows)
    return pd.DataFrame(metrics), pd.concat(rates, ignore_index=True)


def hash_text(text: str) -> int:
    """A small stable hash: Python's own changes from process to process."""
    value = 1469598103934665603
    for byte in text.encode():
        value = (value ^ byte) * 1099511628211 % 2**63
    return value


def write(root: Path, experiment: str, metrics: pd.DataFrame, pass_rates: pd.DataFrame, **provenance: Any) -> Path:
    """results/<experiment>/ as the harness writes it."""
    contents = {METRICS: to_csv(metrics), PASS_RATES: to_csv(pass_rates)}
    summary = {"format": FORMAT.strip(), "experiment": experiment, "missing": {}, **provenance}
    summary["checksums"] = {name: checksum(data) for name, data in contents.items()}
    folder = root / experiment
    folder.mkdir(parents=True, exist_ok=True)
    write_file(folder / "provenance.json", to_json(summary))
    for name, data in contents.items():
        write_file(folder / name, pack(data))
    return folder
