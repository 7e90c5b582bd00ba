"""Times training steps of the checkout that it is run in: a script, so that `versions` can time two versions at once.

    PYTHONPATH=CHECKOUT python -P stepper.py

Reads one JSON list per line from standard input and answers with one line of JSON: ["make", settings] begins a run and
answers its number; [what, number] answers the processor seconds of a training step ("step"), of an evaluation
("evaluate") or of measuring gradient norms ("norms"). Uses no name that the previous version does not have.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from maxrl_bench.config import RunConfig
from maxrl_bench.storage.store import Store
from maxrl_bench.training.loop import Run


def act(run: Run, what: str) -> None:
    """Do one of the things that are timed."""
    if what == "step":
        run.step()
    elif what == "evaluate":
        run.held_out.evaluate(run.policy, run.state.step)
    else:
        run.gradient_norms()


def main() -> None:
    """Answer until the input ends."""
    torch.set_num_threads(1)
    runs: list[Run] = []
    with tempfile.TemporaryDirectory() as folder:
        for line in sys.stdin:
            what, argument = json.loads(line)
            answer: Any = len(runs)
            if what == "make":
                runs.append(Run(RunConfig(**argument), Store(Path(folder))))
            else:
                started = time.process_time()
                act(runs[argument], what)
                answer = time.process_time() - started
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
