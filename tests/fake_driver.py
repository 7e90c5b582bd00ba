"""`maxrl-bench sweep` with a stand-in for training: python fake_driver.py FILE RESULTS [WORKERS [FUNCTION]]."""

import sys

from maxrl_bench.cli.commands import SweepOptions, sweep

if __name__ == "__main__":
    experiment, results, *rest = sys.argv[1:]
    options = SweepOptions([experiment], results=results, no_plots=True, run_function="fake_run:run", workers=2)
    if rest:
        options.workers = int(rest[0])
    if rest[1:]:
        options.run_function = rest[1]
    raise SystemExit(sweep(options))
