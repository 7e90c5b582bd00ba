"""What a reader sees: figures, and one page that explains them.

One file per kind of figure (`curves`, `lengths`, `coverage`, `pareto`, `instances`, `settings`, `summary`,
`fronts`, `objective_figures`, `advice_figure`), all drawn in one `style` and `palette`, compared with one `reference`,
listed in `figures`; `build` draws an experiment's and writes its summary, `page` writes the page over all experiments,
which `findings` open (what the results say, with numbers in place of `placeholders`; README.md and docs/paper.md have
them too), `folder` replaces what the last drawing made and nothing else.

Comes in: evidence and verdicts. Goes out: plots/: PNG, captions, tables, index.html and README.md.
"""

__all__ = ["advice_figure", "build", "figures", "folder", "objective_figures", "page", "style"]
