"""The bench's numbers as a table and a figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def table(measured: dict[str, Any]) -> str:
    """All measurements, for a terminal."""
    lines = [
        f"One core, {measured['peak_gflops']:.0f} GFLOP/s in matrix products, torch {measured['torch']}; "
        f"objective {measured['objective']}; processor seconds, medians.",
        "",
        *_versions(measured["versions"]),
        "9x9 mazes, 16 instances, 0.35 M parameters, warm-started",
        "      N   s/step  rollouts/s  contexts         named    share    MiB  of peak",
    ]
    for row in measured["engine"]:
        lines.append(
            f"{row['rollouts']:>7} {row['seconds']:>8.3f} {row['per_second']:>11,.0f} {row['contexts_evaluated']:>9,} "
            f"{row['contexts_named']:>13,} {row['contexts_evaluated'] / row['contexts_named']:>8.2%} "
            f"{row['peak_mib']:>6.0f} {row['peak_share']:>8.0%}"
        )
    for row in measured["textbook"]:
        lines.append(
            f"textbook loop, N = {row['rollouts']}, {row['instances']} instances: {row['seconds']:.1f} s, "
            f"{row['per_second']:.1f} rollouts/s"
        )
    lines += ["", "Where a step's time goes, by part"]
    for task, parts in measured["parts"].items():
        total = sum(parts.values())
        shares = ", ".join(f"{part} {taken / total:.0%}" for part, taken in parts.items())
        lines.append(f"{task}, {total * 1000:.0f} ms: {shares}")
    lines += ["", "FourRooms"]
    for row in measured["navigation"]["engine"].values():
        lines.append(
            f"engine, 16 levels, N = {row['rollouts']}: {row['seconds']:.3f} s, {row['per_second']:,.0f} rollouts/s"
        )
    for row in measured["navigation"]["vector_env"]:
        lines.append(
            f"SyncVectorEnv, {row['levels']} levels, N = {row['rollouts']}: {row['seconds']:.1f} s, "
            f"{row['per_second']:,.1f} rollouts/s"
        )
    lines += ["", *_trl(measured)]
    for bar in measured["bars"]:
        verb, verdict = ("at least" if bar["at_least"] else "at most"), ("met" if bar["met"] else "NOT MET")
        lines.append(f"{verdict:>7}: {bar['claim']}: {bar['measured']:,.2f} ({verb} {bar['bar']:g})")
    return "\n".join(lines)


def _versions(rows: list[dict[str, Any]]) -> list[str]:
    if not rows:
        return ["No previous version to compare with: name a checkout by --against.", ""]
    lines = [
        "Previous version -> this one, in turn",
        "task            N    s/step         evaluation     gradient norms",
    ]
    for row in rows:
        pairs = " ".join(f"{old:.3f} -> {new:.3f}" for old, new in (row["step"], row["evaluate"], row["norms"]))
        lines.append(
            f"{row['task']:<12} {row['rollouts']:>4}    {pairs}    step x {row['step'][1] / row['step'][0]:.2f}"
        )
    return [*lines, ""]


def _trl(measured: dict[str, Any]) -> list[str]:
    if "trl" not in measured:
        return ["TRL: not part of the quick bench.", ""]
    trl = measured["trl"]
    if trl is None:
        return ["TRL is not installed: pip install trl", ""]
    lines = [
        f"17x17 mazes, 8 instances, 3 M parameters, warm-started; TRL writes {trl['tokens_per_rollout']} tokens each"
    ]
    for row in trl["engine"]:
        lines.append(f"engine, N = {row['rollouts']}: {row['seconds']:.2f} s, {row['per_second']:,.0f} rollouts/s")
    return [*lines, f"TRL, N = 16: {trl['trl_seconds']:.1f} s, {trl['trl_per_second']:.1f} rollouts/s", ""]


def draw(measured: dict[str, Any], path: Path) -> None:
    """Seconds per step, and contexts read and named, against the number of rollouts."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    rows = measured["engine"]
    groups = [row["rollouts"] for row in rows]
    left.plot(groups, [row["seconds"] for row in rows], "o-", color="#0072B2", label="engine")
    rate = measured["textbook"][0]["per_second"]
    left.plot(
        groups, [16 * n / rate for n in groups], "--", color="#D55E00", label="textbook loop, at its measured rate"
    )
    on_all_instances = [row for row in measured["textbook"] if row["instances"] == 16]
    left.plot(
        [row["rollouts"] for row in on_all_instances],
        [row["seconds"] for row in on_all_instances],
        "s",
        color="#D55E00",
    )
    left.set_ylabel("seconds per step, one core")
    right.plot(groups, [row["contexts_evaluated"] for row in rows], "o-", color="#0072B2", label="read by the engine")
    right.plot(
        groups, [row["contexts_named"] for row in rows], "s--", color="#D55E00", label="read by the textbook loop"
    )
    right.set_ylabel("contexts per step")
    for axes in (left, right):
        axes.set(xscale="log", yscale="log", xlabel="rollouts per instance, N")
        axes.legend(frameon=False)
        axes.grid(alpha=0.3)
    figure.suptitle("9x9 mazes, 16 instances, 0.35 M parameters")
    figure.savefig(path, dpi=150)
