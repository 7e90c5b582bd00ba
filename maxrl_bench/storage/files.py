"""Writing and deleting files: atomically, and never through a symbolic link.

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

from filelock import FileLock, Timeout

# A partial file names its writer's machine and is locked while the writer is at it, so that no other removes it.
# Process numbers would not do: they are used again, and mean something else in each container.
_MACHINE = hashlib.blake2b(platform.node().encode(), digest_size=4).hexdigest()
_PARTIAL = re.compile(r"\..+\.([0-9a-f]{8})-[0-9a-f]{8}\.tmp")
_UNSEEN_SECONDS = 86400.0  # after which a partial file whose lock cannot be seen from here counts as left behind
_EMPTY_SECONDS = 60.0  # the same for an empty one: its writer may be about to lock it


def inside(root: str | Path, *names: str) -> Path:
    """The path `names` below `root`.

    Raises ValueError if it leaves `root`, if a part of it is a symbolic link, or something else than a folder is in its
    way.
    """
    path = Path(root)
    above = None
    for part in Path(*names).parts:
        if part == ".." or Path(part).is_absolute() or Path(part).drive:
            raise ValueError(f"'{Path(*names)}' leads out of {root}")
        path = path / part
        if path.is_symlink():
            raise ValueError(f"{path} is a symbolic link; links in {root} are neither followed nor replaced: remove it")
        if above is not None and above.exists() and not above.is_dir():
            raise ValueError(f"{above} is not a folder; remove it")
        above = path
    return path


def write_file(path: Path, data: bytes) -> None:
    """Put `data` at `path` in one step that survives power loss: written beside it, synced, moved over it.

    Missing folders are made. Raises ValueError if something else than a regular file is there (a link, a folder, a
    device), and OSError if it cannot be written; the old file is whole then.
    """
    _refuse_special(path, "replaced")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{_MACHINE}-{secrets.token_hex(4)}.tmp")
    try:
        with open(partial, "xb") as file:
            _lock(file.fileno())
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            if os.name != "posix":
                file.close()  # what is open cannot be moved there
            os.replace(partial, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        if isinstance(error, OSError):  # so that the message names `path`, not the partial file
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    _sync_folder(path.parent)


def existing(path: Path) -> Path:
    """The path, or the folder nearest above it that there is."""
    path = Path(os.path.abspath(path))
    return next((place for place in (path, *path.parents) if os.path.lexists(place)), path)


def check_would_be_writable(folder: Path) -> None:
    """As `check_writable`, but nothing is made. Raises ValueError that names what is in the way."""
    place = existing(folder)
    if not place.is_dir():
        raise ValueError(f"{folder} cannot be written: {place} is no folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ValueError(f"{folder} cannot be written: {place} is read-only")


def check_writable(folder: Path) -> None:
    """Make a folder if it is not there. Raises OSError if it cannot be, or if no file can be written in it."""
    probe = folder / f".probe.{secrets.token_hex(4)}"
    write_file(probe, b"")
    probe.unlink()


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
        if match and _is_left_behind(path, match[1]):
            with contextlib.suppress(FileNotFoundError):  # another process may be tidying up as well
                remove(path)


def is_locked(path: Path) -> bool | None:
    """Whether some process has locked a file; None where that cannot be seen. Writes nothing."""
    if os.name != "posix":
        if not path.exists():
            return False
        with contextlib.suppress(Timeout), FileLock(path).acquire(blocking=False):
            return False
        return True
    import fcntl

    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without such locks
        return None
    finally:
        os.close(descriptor)
    return False


def _lock(descriptor: int) -> None:
    if os.name != "posix":
        return
    import fcntl

    with contextlib.suppress(OSError):  # a file system without such locks
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _is_left_behind(path: Path, machine: str) -> bool:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return False
    if not stat.S_ISREG(status.st_mode):
        return False
    age = time.time() - status.st_mtime
    locked = is_locked(path) if os.name == "posix" and machine == _MACHINE else None
    if locked is None:
        return age > _UNSEEN_SECONDS
    return not locked and (status.st_size > 0 or age > _EMPTY_SECONDS)


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
