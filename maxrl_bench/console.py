"""Output whose failure stops no run: on a closed pipe, a full disk, or a terminal that cannot show a character."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
import traceback
import warnings
from collections.abc import Iterable, Iterator
from typing import Any, TextIO, cast


class Tolerant:
    """A text stream that stops writing at the first error, kept as `error`; characters that it lacks become escapes."""

    def __init__(self, stream: TextIO):
        self._stream = stream
        self.error: OSError | ValueError | None = None

    def write(self, text: str) -> int:
        """Write text, unless writing has failed."""
        if self.error is None:
            encoding = getattr(self._stream, "encoding", None) or "utf-8"
            try:
                self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
            except (OSError, ValueError) as error:  # ValueError: the stream is closed
                self.error = error
        return len(text)

    def flush(self) -> None:
        """Flush, unless writing has failed."""
        if self.error is None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self.error = error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def tolerant_output() -> Iterator[list[Tolerant]]:
    """Within it, stdout and stderr are `Tolerant`; gives both."""
    before = sys.stdout, sys.stderr
    # Python has None for a stream that is closed from the start.
    streams = [Tolerant(io.StringIO() if stream is None else stream) for stream in before]
    sys.stdout, sys.stderr = cast(TextIO, streams[0]), cast(TextIO, streams[1])
    try:
        yield streams
    finally:
        for stream in streams:
            stream.flush()
        sys.stdout, sys.stderr = before
        for stream in streams:
            if stream.error is not None:
                _drain(stream)


def lost(streams: Iterable[Tolerant]) -> str:
    """Why output is missing; "" if all is written, or if the reader of a pipe has closed it."""
    for stream in streams:
        stream.flush()
        if stream.error is not None and getattr(stream.error, "errno", None) not in (errno.EPIPE, errno.EINVAL):
            return getattr(stream.error, "strerror", None) or str(stream.error)
    return ""


def keep_descriptors() -> None:
    """Open descriptors 0 to 2 where they are closed, so that no file gets their number, and output with it."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest free number is given, which is this one.
            os.open(os.devnull, os.O_RDWR)


def warnings_are_not_errors() -> None:
    """Show the warnings that PYTHONWARNINGS or -W would raise: libraries warn while they are imported."""
    options = [option for option in sys.warnoptions if not option.startswith("e")]
    if options == sys.warnoptions:
        return
    sys.warnoptions[:] = options  # for the processes that we start
    if "PYTHONWARNINGS" in os.environ:
        given = os.environ["PYTHONWARNINGS"].split(",")
        os.environ["PYTHONWARNINGS"] = ",".join(option for option in given if not option.strip().startswith("e"))
    for action, message, category, module, line in list(warnings.filters):
        if action == "error":
            warnings.filters.remove((action, message, category, module, line))  # type: ignore[attr-defined]
    warnings.filterwarnings("default")


def printable(text: str) -> str:
    """Text in which characters that cannot be shown or encoded (control characters, lone surrogates) are escapes."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def told(error: BaseException) -> str:
    """An exception in one line of at most 500 characters, even if its own text is long or raises an error."""
    lines = traceback.format_exception_only(error)  # does not mind what `str` raises
    text = printable(" ".join(" ".join(lines).split()))
    return text if len(text) <= 500 else text[:497] + "..."


def _drain(stream: Tolerant) -> None:
    """Let what is still buffered go nowhere, or the interpreter fails on it when it ends (exit code 120)."""
    with contextlib.suppress(OSError, ValueError):
        descriptor = stream.fileno()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, descriptor)
        os.close(null)
