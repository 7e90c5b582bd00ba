"""Our weights as the advantages of other people's trainers: one module for each, which loads its trainer.

`trl`, `verl`, `skyrl` and `openrlhf` are named after the trainers that they load; `prime_rl` loads none. `per_token` is
what those that lay rewards out over tokens share. What each trainer does by itself, and how to see that ours is on:
docs/trainers.md.

Comes in: rewards as a trainer has them, an objective's name and knobs. Goes out: advantages as it takes them.
"""

__all__ = ["openrlhf", "per_token", "prime_rl", "skyrl", "trl", "verl"]
