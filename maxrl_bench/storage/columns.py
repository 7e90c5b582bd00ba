"""The columns that training writes into the table of metrics, besides what identifies a run."""

PASS_AT_K = tuple(2**i for i in range(11))  # 1, 2, 4, ..., 1024
METRICS = (
    "step",
    "rollouts",
    "seconds",
    *(f"pass@{k}" for k in PASS_AT_K),  # of sampled pass rates, up to the number of evaluation rollouts
    "log_p",
    "entropy",
    "grad_norm",
    "clipped_share",
    "success_share",
    "train_pass_rate",
    "contexts_evaluated",
    "contexts_named",
    "cosine_ml",
    "hard_gradient",
)
