"""What objectives do to somebody's own prompts, and which one suits a goal: `maxrl_bench.advise`.

`counts` reads a file of successes and attempts, `mixture` infers the pass rates behind them, `effects` says exactly
what an objective does to prompts of these pass rates, `families` which member of a family gains most towards a goal,
`measured` what the reference experiments found; `advising` puts it all together, `result` is how it comes out, and
`wording` the advice in words.

Comes in: pass rates or counts of a user's own, N, a goal. Goes out: an `Advice`, for text, JSON and a figure.
"""

__all__ = ["advising", "counts", "effects", "result"]
