"""The engine against others: how fast, how much memory.

`run` times a training step over the number of rollouts, against the textbook loop, TRL and a vectorised environment
(`baselines`) and against a previous version of the engine (`versions`, `stepper`), says where the time goes (`parts`),
and holds the ratios against bars (`table`).

Comes in: a quiet machine. Goes out: build/bench/: bench.json, bench.png, a table with a verdict for each bar.
"""

__all__ = ["run"]
