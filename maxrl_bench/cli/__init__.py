"""The command line, the only part that prints.

`main` reads the arguments and calls one function of `commands`, `publish`, `listing`, `cards` or `watch`.

Comes in: arguments. Goes out: lines, files and an exit code.
"""

__all__ = ["main"]
