"""`maxrl-bench sweep` with a stand-in for training: python fake_driver.py FILE RESULTS [WORKERS [SCHEDULER]]."""

import sys

from maxrl_bench.commands import SweepOptions, sweep

if __name__ == "__main__":
    experiment, results, *rest = sys.argv[1:]
    options = SweepOptions(
        [experiment], results=results, no_plots=True, run_function="fake_run:run", workers=int(rest[0]) if rest else 2
    )
    options.scheduler = rest[1] if len(rest) > 1 else None
    raise SystemExit(sweep(options))
