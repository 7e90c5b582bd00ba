"""The committed verdicts, recomputed from claims.csv alone: by scipy; where seeds followed the claims, by formula."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats as reference

from maxrl_bench.analysis.compare import CANNOT, UNDECIDED, settle
from maxrl_bench.sweeps.experiment import load_experiment

ROOT = Path(__file__).resolve().parents[2]
COMMITTED = ROOT / "plots" / "claims" / "claims.csv"
AGAINST = {"higher": ["worse"], "lower": ["worse"], "equal": ["better", "worse"]}


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return pd.read_csv(COMMITTED)


def at_every_look(differences: list[float], value: float, first: int) -> float:
    """One over the largest e value of any look: the scale-invariant mixture of arXiv 2310.03722 with g = 1/4."""
    largest = 1.0
    for n in range(first, len(differences) + 1):
        seen = np.array(differences[:n])
        r, v = 0.25 / (0.25 + n), n - 1
        if (
            np.ptp(seen) == 0
        ):  # without any spread the limit, unless a later seed refutes it: all but `value` are certain
            if np.ptp(differences) == 0 and seen[0] != value:
                largest = max(largest, r ** ((1 - n) / 2))
            continue
        square = n * (seen.mean() - value) ** 2 / seen.var(ddof=1)
        largest = max(largest, math.sqrt(r) * ((1 + square / v) / (1 + r * square / v)) ** ((v + 1) / 2))
    return 1 / largest


def p_values(row: pd.Series) -> dict[str, float]:
    """The two-sided p value of each declaration, from effect, interval and degrees of freedom; or from each seed's."""
    error = (row["high"] - row["low"]) / 2 / reference.t.ppf(0.975, row["df"])

    def at(value: float) -> float:
        if not math.isnan(row["first"]):
            return at_every_look(json.loads(row["by_seed"]), value, int(row["first"]))
        return float(2 * reference.t.sf(abs(row["effect"] - value) / error, row["df"]))

    sign = -1 if row["direction"] == "lower" else 1
    margin = row["margin"]
    above = margin if row["by_margin"] or row["direction"] == "equal" else 0.0
    below = margin if row["direction"] == "equal" else 0.0
    effect = sign * row["effect"]
    return {
        "practically equal": max(at(-margin), at(margin)) if abs(effect) < margin else 1.0,
        "better": at(sign * above) if effect > above else 1.0,
        "worse": at(-sign * below) if effect < -below else 1.0,
    }


def test_every_outcome_follows_from_its_row(table: pd.DataFrame) -> None:
    rows = table.dropna(subset="effect")
    assert len(rows) > 50
    for _, row in rows.iterrows():
        if row["seeds"] < 3:
            assert row["outcome"] == "cannot be judged"
            continue
        values = p_values(row)
        assert min(values.values()) == pytest.approx(row["p"], rel=2e-3, abs=1e-12)
        word = next((word for word, p in values.items() if p < 0.05), "undecided")
        assert row["outcome"] == ("undecided" if row["collapsed"] and row["seeds"] < 10 else word)


def test_every_verdict_follows_from_the_rows_of_its_claim(table: pd.DataFrame) -> None:
    alone: dict[tuple[str, str, str], tuple[str, float]] = {}
    final: dict[tuple[str, str, str], pd.Series] = {}
    for key, rows in table.groupby(["profile", "experiment", "claim"], sort=False):
        own = rows[rows["part"] == "claim"]
        final[key] = rows.iloc[0]
        against = own[own["outcome"].isin(AGAINST[own.iloc[0]["direction"]])] if len(own) else own
        claimed = {"practically equal" if direction == "equal" else "better" for direction in own["direction"]}
        if rows["p_claim"].isna().all():  # the notes of the page say what is lacking
            alone[key] = "cannot be judged", math.nan
        elif len(against):
            p = min(1.0, len(own) * against["p"].min())
            alone[key] = ("contradicted" if p < 0.05 else "undecided"), p
        elif "undecided" in set(own["outcome"]):
            alone[key] = "undecided", own["p"].max()
        else:
            alone[key] = ("supported" if set(own["outcome"]) == claimed else "practically equal"), own["p"].max()
    judged = {experiment.removesuffix(f"-{profile}"): profile for profile, experiment, _ in alone}
    claims = [load_experiment(ROOT / "experiments" / f"{name}.toml", own).claims for name, own in judged.items()]
    assert len(alone) == sum(map(len, claims)) > 0
    for profile in {key[0] for key in alone}:
        family = [key for key in alone if key[0] == profile]
        # Holm: the smallest times their number, the next times one less, and never less than the one before.
        order = sorted(family, key=lambda key: 1.0 if math.isnan(alone[key][1]) else alone[key][1])
        worst = 0.0
        for rank, key in enumerate(order):
            word, p = alone[key]
            assert final[key]["family"] == len(family)
            if word == "cannot be judged":
                assert final[key]["verdict"] == word
                continue
            worst = max(worst, min(1.0, p * (len(family) - rank)))
            assert final[key]["p_claim"] == pytest.approx(p, rel=2e-3)
            assert final[key]["p_adjusted"] == pytest.approx(worst, rel=2e-3)
            assert final[key]["verdict"] == (word if worst < 0.05 else "undecided")


def test_a_dummy_claim_flips_no_verdict(table: pd.DataFrame) -> None:
    """Nor does one that is certain; nor does it matter in which file a claim stands."""
    claims = table.drop_duplicates(["experiment", "claim"])
    alone = []
    for _, claim in claims.iterrows():
        word = claim["verdict"]
        own = table[(table["experiment"] == claim["experiment"]) & (table["claim"] == claim["claim"])]
        if word == UNDECIDED and (own.loc[own["part"] == "claim", "outcome"] != UNDECIDED).all():
            word = "decided alone"
        alone.append((word, claim["p_claim"]))
    verdicts = [word for word, _ in settle(alone)]
    for dummy in (1.0, 0.5, 1e-9, math.nan):
        more = settle([*alone, (CANNOT if math.isnan(dummy) else "decided", dummy)])
        assert [word for word, _ in more[:-1]] == verdicts
    assert [word for word, _ in settle(alone[::-1])[::-1]] == verdicts
