"""`python -m maxrl_bench` is `maxrl-bench`."""

from maxrl_bench.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
