"""What all tests share: the table of measured against claimed orders, printed at the end of `pytest -m unbiased`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded: the cores are shared among test processes

_ORDERS = pytest.StashKey[list[tuple[str, str, str]]]()


def pytest_configure(config: pytest.Config) -> None:
    # In the background of a shell, and under nohup, these are ignored, by the processes that tests start as well.
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)
    config.stash[_ORDERS] = []


@pytest.fixture(autouse=True)
def own_process() -> Iterator[None]:
    """What the program does to its process (import path, environment) ends with the test that called it.

    Fixtures of a wider scope call it too, before this one: so each test begins from the session's beginning.
    """
    _restore()
    path = list(sys.path)
    yield
    sys.path[:] = path
    _restore()


@pytest.fixture(autouse=True, scope="session")
def quick_figures() -> Iterator[None]:
    """What figures need to be right but not to be drawn; the tests of resampling and of the objectives' figures ask.

    200,000 resamples, and all figures of the objectives where one shows that these are drawn.
    """
    from maxrl_bench.analysis import bootstrap
    from maxrl_bench.report import objective_figures

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bootstrap, "RESAMPLES", 4000)
        patch.setattr(objective_figures, "FIGURES", (objective_figures.rollouts_needed,))
        yield


_ENVIRONMENT = dict(os.environ)


def _restore() -> None:
    own = {name: value for name, value in os.environ.items() if name.startswith("PYTEST_")}  # kept by pytest itself
    os.environ.clear()
    os.environ.update(_ENVIRONMENT | own)


@pytest.fixture
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder on the import path, for packages of somebody else's; nothing of them is known after the test."""
    from outside_package import forget

    from maxrl_bench import plugins

    folder = tmp_path_factory.mktemp("outside")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        forget()
        yield folder
    plugins._added.clear()
    forget()
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(folder)):
            del sys.modules[name]


@pytest.fixture
def report_order(request: pytest.FixtureRequest) -> Callable[[str, str, str], None]:
    """report_order(objective, claimed, measured) adds a row to the table."""

    def add(*row: Any) -> None:
        request.config.stash[_ORDERS].append(row)

    return add


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = config.stash[_ORDERS]
    if not rows or "unbiased" not in config.option.markexpr:
        return
    terminalreporter.section("orders, by enumeration of all outcomes of 8 rollouts")
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    for name, claimed, measured in rows:
        terminalreporter.write_line(f"{name:<{widths[0]}}   claimed {claimed:<{widths[1]}}   measured {measured}")
