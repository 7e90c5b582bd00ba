"""Keeps the working directory off the import path: a user's own signal.py or numpy.py must not replace a module.

Python puts the working directory first for `python -m`, `python -c` (with which worker processes begin) and an empty
entry of PYTHONPATH. Only a run function of the user's own asks for it, and then it comes last.
"""

# Nothing else may be imported before `close`: it could be the user's own.
import os
import sys

OWN = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def close() -> None:
    """Take the working directory off the import path of this process and of those that it starts."""
    os.environ["PYTHONSAFEPATH"] = "1"
    if "PYTHONPATH" in os.environ:
        os.environ["PYTHONPATH"] = os.pathsep.join(_elsewhere(os.environ["PYTHONPATH"].split(os.pathsep)))
    sys.path[:] = _elsewhere(sys.path)
    if not any(os.path.realpath(entry) == os.path.realpath(OWN) for entry in sys.path):
        sys.path.append(OWN)  # a checkout that is not installed, used from within


def call(pickled: bytes) -> object:
    """Call a pickled (function, arguments, keywords) in a worker that somebody else started, whose path may be open.

    What the call needs is imported when it is unpickled: after the path is closed.
    """
    close()
    import pickle

    function, arguments, keywords = pickle.loads(pickled)
    return function(*arguments, **keywords)


def open_for_own() -> None:
    """Put the working directory at the end of this process's import path, for a run function that lies there.

    Only the folders beside this package in a checkout (`envs`, `tests`) come after it: they are no modules of ours.
    """
    here = os.getcwd()
    if here not in sys.path:
        checkout = sys.path[-1] == OWN and os.path.exists(os.path.join(OWN, "pyproject.toml"))
        sys.path.insert(len(sys.path) - checkout, here)


def _elsewhere(entries: list[str]) -> list[str]:
    here = os.path.realpath(os.curdir)
    return [entry for entry in entries if os.path.realpath(entry or os.curdir) != here]
