"""Training curves from which learning rates are chosen, for tests of the rule and of the file that it writes."""

# pass@1 at steps 0, 10, 20 by (objective, rate, seed). By its end point 0.1 would win for grpo; by its area, 0.01 does.
CURVES = {
    ("grpo", 0.001, 0): (0.9, 0.1, 0.2),
    ("grpo", 0.001, 1): (0.9, 0.1, 0.2),
    ("grpo", 0.01, 0): (0.1, 0.5, 0.5),
    ("grpo", 0.01, 1): (0.1, 0.3, 0.5),
    ("grpo", 0.1, 0): (0.1, 0.0, 0.8),
    ("grpo", 0.1, 1): (0.1, 0.0, 0.9),
    ("ml", 0.001, 0): (0.1, 0.2, 0.2),
    ("ml", 0.001, 1): (0.1, 0.2, 0.2),
    ("ml", 0.01, 0): (0.1, 0.3, 0.3),
    ("ml", 0.01, 1): (0.1, 0.3, 0.3),
    ("ml", 0.1, 0): (0.1, 0.6, 0.6),
    ("ml", 0.1, 1): (0.1, 0.1, 0.1),
}
