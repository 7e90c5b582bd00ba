"""Writing and deleting files: whole or not at all, and never through a link.

Version control carries symbolic links, and a results folder may come from anywhere. What lies below results/ or plots/
is therefore named by `inside`, which refuses links below the root; the root itself is the user's choice.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import secrets
import stat
import time
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

# Partial files name their writer, by machine and process, so that one writer never removes what another is at.
_MACHINE = hashlib.blake2b(platform.node().encode(), digest_size=4).hexdigest()
_PARTIAL = re.compile(r"\..+\.([0-9a-f]{8})-(\d+)-[0-9a-f]{8}\.tmp")
_FOREIGN_SECONDS = 86400.0  # after which what another machine has left half-written counts as left behind


def inside(root: str | Path, *names: str) -> Path:
    """The path `names` below `root`. Raises ValueError if it leaves `root` or a part of it is a symbolic link."""
    path = Path(root)
    for part in Path(*names).parts:
        if part == ".." or Path(part).is_absolute() or Path(part).drive:
            raise ValueError(f"'{Path(*names)}' leads out of {root}")
        path = path / part
        if path.is_symlink():
            raise ValueError(f"{path} is a symbolic link; links in {root} are neither followed nor replaced: remove it")
    return path


def write_file(path: Path, data: bytes) -> None:
    """Put `data` at `path` in one step that survives power loss: written beside it, synced, moved over it.

    Missing folders are made. Raises ValueError if something else than a regular file is there (a link, a folder, a
    device), and OSError if it cannot be written; the old file is whole then.
    """
    _refuse_special(path, "replaced")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{_MACHINE}-{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with open(partial, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def remove(path: Path) -> None:
    """Remove a file, if it is there. Raises ValueError if something else than a regular file is there."""
    _refuse_special(path, "removed")
    path.unlink(missing_ok=True)


def tidy(folder: Path) -> None:
    """Remove the partial files in `folder` whose writers are dead, and nothing else."""
    if folder.is_symlink() or not folder.is_dir():
        return
    for path in folder.iterdir():
        match = _PARTIAL.fullmatch(path.name)
        if match and _is_left_behind(path, match[1], int(match[2])):
            with contextlib.suppress(FileNotFoundError):  # another process may be tidying up as well
                remove(path)


def is_locked(path: Path) -> bool:
    """Whether some process holds a lock file (of `filelock`), as far as can be seen. Writes nothing."""
    if os.name != "posix":
        if not path.exists():
            return False
        with contextlib.suppress(Timeout), FileLock(path).acquire(blocking=False):
            return False
        return True
    import fcntl

    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without such locks
        return False
    finally:
        os.close(descriptor)
    return False


def _is_left_behind(path: Path, machine: str, process: int) -> bool:
    try:
        if path.is_symlink():
            return False
        if machine != _MACHINE:
            return time.time() - path.stat().st_mtime > _FOREIGN_SECONDS
        return bool(psutil.Process(process).status() == psutil.STATUS_ZOMBIE)
    except FileNotFoundError:
        return False
    except psutil.NoSuchProcess:
        return True


def _refuse_special(path: Path, verb: str) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        what = "a symbolic link" if stat.S_ISLNK(mode) else "a folder" if stat.S_ISDIR(mode) else "a special file"
        raise ValueError(f"{path} is {what} and is not {verb}; remove it")


def _sync_folder(path: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
