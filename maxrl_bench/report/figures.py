"""All figures by name. Each is one function: an experiment's evidence -> a drawing, or NotDrawable with the reason."""

from __future__ import annotations

from collections.abc import Callable

from maxrl_bench.analysis.evidence import Evidence
from maxrl_bench.report import coverage as figures_coverage
from maxrl_bench.report import curves as figures_curves
from maxrl_bench.report import fronts as figures_fronts
from maxrl_bench.report import instances as figures_instances
from maxrl_bench.report import lengths as figures_lengths
from maxrl_bench.report import pareto as figures_pareto
from maxrl_bench.report import settings as figures_settings
from maxrl_bench.report import summary as figures_summary
from maxrl_bench.report.style import Drawing

# In the order in which a page shows them.
FIGURES: dict[str, Callable[[Evidence], Drawing]] = {
    "coverage": figures_coverage.coverage,
    "pareto": figures_pareto.pareto,
    "training": figures_curves.training_curves,
    "lengths": figures_lengths.lengths,
    "end_points": figures_summary.end_points,
    "aggregates": figures_summary.aggregates,
    "improvement": figures_summary.improvement,
    "rollout_scaling": figures_settings.rollout_scaling,
    "order": figures_settings.order,
    "learning_rate": figures_settings.learning_rate,
    "fronts": figures_fronts.fronts,
    "cost_rollouts": figures_curves.cost_rollouts,
    "cost_seconds": figures_curves.cost_seconds,
    "success_share": figures_curves.success_share,
    "entropy": figures_curves.entropy,
    "cosine_ml": figures_curves.cosine_ml,
    "gradient_norms": figures_instances.gradient_norms,
    "initial_pass_rates": figures_instances.initial_pass_rates,
}
