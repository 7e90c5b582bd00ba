"""A row that somebody adds to OBJECTIVES is tested by existing, and breaks no test by being unlike ours."""

import os
import re
import subprocess
import sys
from pathlib import Path

from new_rows import ROWS

# Whole files that run over the table, and the tests of others that are named after a row or look at all of them.
FILES = (
    *(f"objectives/test_{name}.py" for name in ("table", "mistakes", "unbiased", "population")),
    "cli/test_cards.py",
)
ALSO = "formulas or labels or limit or look or list_of or only_some"


def test_the_suite_holds_for_rows_that_are_added() -> None:
    here = Path(__file__).parents[1]
    command = [sys.executable, "-m", "pytest", "-p", "new_rows", "-q", "-p", "no:cacheprovider"]
    command += [*(f"tests/{name}" for name in FILES), "-k", f"{' or '.join(ROWS)} or {ALSO} or stated_edge"]
    environment = {
        **os.environ,
        "PYTEST_ADDOPTS": "",
        "PYTHONPATH": os.pathsep.join([str(here), os.environ.get("PYTHONPATH", "")]),
    }
    done = subprocess.run(command, cwd=here.parent, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) > 10 * len(ROWS)
