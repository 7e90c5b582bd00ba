"""Blobs (checkpoints, policies): bytes with a last line that binds them to their run, their name and the code.

maxrl_bench blob 3 <run> <name> <code, or -> <SHA-256 of all that and of the content>

The line comes last, so that `torch.load` opens policy.pt as it is: zip files may have something behind their end.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

_MAGIC = b"maxrl_bench blob 3 "
_LONGEST = 1000  # bytes that the last line has at most


def _digest(run: str, name: str, code: str, content: bytes) -> str:
    digest = hashlib.sha256(f"{run} {name} {code}\n".encode())
    digest.update(content)
    return digest.hexdigest()


def seal(run: str, name: str, code: str, content: bytes) -> bytes:
    """A blob of some content."""
    code = code or "-"
    return content + b"\n" + _MAGIC + f"{run} {name} {code} {_digest(run, name, code, content)}\n".encode()


def unseal(run: str, name: str, code: str | None, blob: bytes) -> bytes:
    """The content of a blob. Raises ValueError if it is damaged, or not of this run, name and code (None: of any)."""
    content, _, last = blob.removesuffix(b"\n").rpartition(b"\n")
    words = last.removeprefix(_MAGIC).decode(errors="replace").split(" ")
    if not blob.endswith(b"\n") or not last.startswith(_MAGIC) or len(words) != 4:
        raise ValueError("it is damaged, or no blob of this version")
    of_run, of_name, of_code, digest = words
    if digest != _digest(of_run, of_name, of_code, content):
        raise ValueError("it is damaged")
    if (of_run, of_name) != (run, name):
        raise ValueError(f"it is {of_name} of {of_run}")
    if code is not None and of_code != (code or "-"):
        raise ValueError("another version of the code made it")
    return content


def is_blob(path: Path) -> bool:
    """Whether a file was made by `seal`, by its last line."""
    if path.is_symlink() or not path.is_file():
        return False
    with open(path, "rb") as file:
        file.seek(-min(_LONGEST, file.seek(0, os.SEEK_END)), os.SEEK_END)
        return file.read().removesuffix(b"\n").rpartition(b"\n")[2].startswith(_MAGIC)
