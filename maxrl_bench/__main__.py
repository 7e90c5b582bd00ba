"""`python -m maxrl_bench` is `maxrl-bench`."""

from maxrl_bench.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
