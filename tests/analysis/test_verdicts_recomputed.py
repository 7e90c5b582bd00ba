"""The committed verdicts, recomputed from claims.csv alone by scipy; and effects that an audit found in the tables."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest
from scipy import stats as reference

from maxrl_bench.analysis.claims import judge
from maxrl_bench.analysis.compare import CANNOT, UNDECIDED, settle
from maxrl_bench.analysis.evidence import Evidence

ROOT = Path(__file__).resolve().parents[2]
COMMITTED = ROOT / "plots" / "claims" / "claims.csv"
# The metrics tables that were audited, by checksum.
AUDITED = {"conventions": "fdc80bfb173b", "objectives": "3cc42ff5e460", "baselines": "4e5d136de731"}
AGAINST = {"higher": ["worse"], "lower": ["worse"], "equal": ["better", "worse"]}


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return pd.read_csv(COMMITTED)


def p_values(row: pd.Series) -> dict[str, float]:
    """The two-sided p value of each declaration, from effect, interval and degrees of freedom."""
    error = (row["high"] - row["low"]) / 2 / reference.t.ppf(0.975, row["df"])

    def at(value: float) -> float:
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
    assert len(alone) >= 15
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


def claim(ours: str, theirs: str, metric: str, **changes: object) -> dict[str, object]:
    sides = {"compare": {"objective": ours}, "against": {"objective": theirs}}
    return {"id": "one", "statement": "A claim", "metric": metric, **sides, **changes}


@pytest.mark.parametrize(
    ("experiment", "ours", "theirs", "metric", "limits"),
    [
        ("conventions", "maxrl_alg1_exact", "maxrl_alg1", "pass@1", (-0.039, 0.019)),
        ("conventions", "maxrl_alg1_exact", "maxrl_alg1", "pass@128", (-0.022, 0.034)),
        ("objectives", "maxrl_alg1", "grpo", "pass@1", (-0.016, 0.004)),
        ("baselines", "maxrl_alg1", "grpo", "pass@1", (-0.106, -0.035)),
    ],
)
def test_limits_that_an_audit_computed(
    experiment: str, ours: str, theirs: str, metric: str, limits: tuple[float, float]
) -> None:
    """From the tables as they were at the audit, to its three digits; skipped once the experiments are run anew."""
    (judged,) = judge(audited(experiment), [claim(ours, theirs, metric)])
    result = judged.comparisons[0].result
    assert (result.low, result.high) == pytest.approx(limits, abs=0.001)


def audited(experiment: str) -> Evidence:
    evidence = Evidence.load(experiment, ROOT / "results")
    if evidence.provenance["checksums"]["metrics.csv"][:12] != AUDITED[experiment]:
        pytest.skip("the tables are not those of the audit")
    return evidence
