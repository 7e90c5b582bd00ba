"""What a sweep shows while it works: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TextIO

from tqdm import tqdm


def duration(seconds: float | None) -> str:
    """Seconds in a form to read: 8 s, 3 min, 2 h 05 min; "unknown" for None."""
    if seconds is None:
        return "unknown"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


@contextlib.contextmanager
def shown_steps(total: int, stream: TextIO | None = None) -> Iterator[Callable[[Mapping[str, float]], None]]:
    """Gives a callback for training, which shows how far one run is: a bar, or a line for each evaluation."""
    stream = stream or sys.stderr
    if not stream.isatty():
        yield lambda row: print(f"step {row['step']:.0f} of {total}: pass@1 {row['pass@1']:.4g}", file=stream)
        return
    form = "{n_fmt}/{total_fmt} |{bar}| {elapsed}, {rate_fmt}{postfix}"
    with tqdm(total=total, unit="step", bar_format=form, dynamic_ncols=True, file=stream) as bar:

        def show(row: Mapping[str, float]) -> None:
            bar.set_postfix_str(f"pass@1 {row['pass@1']:.4g}", refresh=False)
            bar.update(int(row["step"]) - bar.n)
            bar.refresh()

        yield show


class Progress:
    """Finished, running and failed runs, the rate, and the time left.

    `grows`: runs may be added to the `total` (`extend`); a "+" behind it says so.
    """

    def __init__(self, total: int, stored: int, stream: TextIO | None = None, *, grows: bool = False):
        stream = stream or sys.stderr
        self._stream, self._total, self._started = stream, total, time.monotonic()
        self._more = "+" * grows  # behind the total, to which seeds may be added
        self.finished = stored
        self.failed = 0
        self._bar = None
        if stream.isatty() or (stream is sys.stderr and "ipykernel" in sys.modules):  # a notebook draws bars, too
            # tqdm's estimate of the time left ignores that long runs come first; ours is in the postfix.
            form = f"{{n_fmt}}/{{total_fmt}}{self._more} |{{bar}}| {{elapsed}}, {{rate_fmt}}{{postfix}}"
            self._bar = tqdm(total=total, initial=stored, unit="run", bar_format=form, dynamic_ncols=True, file=stream)

    def extend(self, more: int, stored: int) -> None:
        """More runs are asked for, some of which are stored."""
        self._total += more
        self.finished += stored
        if self._bar is not None:
            self._bar.total += more
            self._bar.update(stored)

    def line(self, text: str) -> None:
        """Print a line above the bar."""
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
        else:
            print(text, file=self._stream, flush=True)

    def finish(self, text: str, left: float | None, *, failed: bool = False) -> None:
        """Count a finished or failed run."""
        self.finished += not failed
        self.failed += failed
        if self._bar is not None:
            self._bar.update()
            if failed:
                self.line(text)
        else:
            self.line(f"[{self.finished + self.failed}/{self._total}{self._more}] {text}; {duration(left)} left")

    def show(self, running: Iterable[str], left: float | None = None) -> None:
        """Update the bar with the runs in progress, and the time left where that is known."""
        if self._bar is not None:
            failed = f"{self.failed} FAILED | " * bool(self.failed)
            time_left = f"{duration(left)} left | " * (left is not None)
            self._bar.set_postfix_str(f"{time_left}{failed}{' + '.join(running)}")

    def close(self) -> None:
        """Stop updating the bar, and leave it on the screen."""
        if self._bar is not None:
            self._bar.close()
