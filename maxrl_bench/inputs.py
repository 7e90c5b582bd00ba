"""Reads every file that comes from outside: experiments, tables, all that lies in a results folder.

A file may come from anybody, so it must be a regular file (links are followed), bounded
in size; text is UTF-8 with or without a byte-order mark; what is parsed is bounded in depth and in its numbers. A file
that is not there raises FileNotFoundError; everything else that can be wrong raises ValueError. Both are one line that
names the file.
"""

from __future__ import annotations

import errno
import functools
import json
import lzma
import os
import re
import stat
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from maxrl_bench.names import did_you_mean, shorten

TOML_BYTES, JSON_BYTES, TABLE_BYTES = 2**20, 2**24, 2**31
DEPTH = 32  # of tables and lists in each other
_CHUNK = 2**20
_XZ_MEMORY = 2**27  # more than any preset of xz needs; a header may ask for gigabytes
# tomllib takes a time cubic in the parts of a dotted key.
_DOTTED = re.compile(r"""(?<![\w-])(?:(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+)""" + f"{{{DEPTH}}}")
# Those of terminals, and those that turn the direction of all text after them.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


class MissingFile(FileNotFoundError):
    """There is no such file."""

    def __str__(self) -> str:
        return f"{self.filename}: no such file"


class _NotTOML(ValueError):
    pass


def read_bytes(path: str | Path, limit: int = TABLE_BYTES) -> bytes:
    """The content of a regular file of at most `limit` bytes."""
    path = Path(path)
    try:
        return _read(path, limit)
    except FileNotFoundError:
        if path.is_symlink():
            raise ValueError(f"{path}: is a link to nothing") from None
        raise MissingFile(errno.ENOENT, "no such file", str(path)) from None
    except OSError as error:  # a loop of links, no permission, a name that is too long
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from None


def _read(path: Path, limit: int) -> bytes:
    if not stat.S_ISREG(os.stat(path).st_mode):  # opening a device can have effects
        raise ValueError(f"{path}: is not a regular file")
    # By now it may be a FIFO: opening that would wait for ever without O_NONBLOCK.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{path}: is not a regular file")
        chunks, size = [], 0
        if status.st_size > limit:
            raise ValueError(f"{path}: is larger than {limit:,} bytes, the most that is read")
        while chunk := file.read(_CHUNK):
            chunks.append(chunk)
            size += len(chunk)
            if size > limit:
                raise ValueError(f"{path}: is larger than {limit:,} bytes, the most that is read")
    return b"".join(chunks)


def read_text(path: str | Path, limit: int = JSON_BYTES) -> str:
    """A file's text, without its byte-order mark."""
    return _text(read_bytes(path, limit), str(path))


def read_toml(path: str | Path) -> dict[str, Any]:
    """The content of a TOML file."""
    return from_toml(read_bytes(path, TOML_BYTES), str(path))


def read_json(path: str | Path, shape: Any = Any) -> Any:
    """The content of a JSON file, checked to be of a `shape`: a type such as dict[str, str], or a pydantic model."""
    return from_json(read_bytes(path, JSON_BYTES), str(path), shape)


def from_toml(data: bytes | str, source: str) -> dict[str, Any]:
    """The content of TOML text; errors name `source`."""
    text = _text(data, source)
    if _DOTTED.search(text):
        raise ValueError(f"{source}: is nested more than {DEPTH} deep")
    try:
        value = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _NotTOML(f"{source}: is not TOML: {_flat(error)}") from None
    except RecursionError:
        raise ValueError(f"{source}: is nested more than {DEPTH} deep") from None
    except ValueError:  # the one error that tomllib lets through
        raise ValueError(f"{source}: holds a number of too many digits") from None
    _check(value, source, _CONTROL)
    return value


def from_toml_value(text: str, source: str) -> Any:
    """The value of TOML text, or the text itself if it is no TOML value; errors name `source`."""
    try:
        value = from_toml(f"value = {text}", source)
    except _NotTOML:
        return text
    return value["value"] if len(value) == 1 else text  # more, where the text goes on in another line


def from_json(data: bytes | str, source: str, shape: Any = Any) -> Any:
    """The content of JSON text, checked to be of a `shape`; errors name `source`."""
    text = _text(data, source)
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{source}: is not JSON: {_flat(error)}") from None
    except RecursionError:
        raise ValueError(f"{source}: is nested more than {DEPTH} deep") from None
    except ValueError:
        raise ValueError(f"{source}: holds a number of too many digits") from None
    _check(value, source)
    if shape is Any:
        return value
    try:
        return _adapter(shape).validate_python(value)
    except ValidationError as error:
        raise ValueError(f"{source}: {one_line(error)}") from None


def unxz(data: bytes, source: str, limit: int = TABLE_BYTES) -> bytes:
    """The content, of at most `limit` bytes, of xz data with one stream; errors name `source`."""
    try:
        inflate = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
        inflated = inflate.decompress(data, limit + 1)
    except lzma.LZMAError as error:
        raise ValueError(f"{source}: is not xz data: {error}") from None
    if len(inflated) > limit:
        raise ValueError(f"{source}: unpacks to more than {limit:,} bytes, the most that is read")
    if not inflate.eof or inflate.unused_data:
        raise ValueError(f"{source}: is not xz data: it is cut off or goes on after its end")
    return inflated


def one_line(error: ValidationError, of: str = "", known: Iterable[str] = ()) -> str:
    """The first thing wrong with a value (of the key `of`), as one line; `known` keys make a hint for unknown ones."""
    errors = error.errors(include_url=False)
    unknown = [str(wrong["loc"][-1]) for wrong in errors if wrong["type"] == "extra_forbidden"]
    if unknown and known:  # a misspelt key before the one that is missing for it
        return f"key {shorten(unknown[0])} is unknown; {did_you_mean(unknown[0], known)}"
    first = errors[0]
    key = ".".join([of] * bool(of) + [str(part) for part in first["loc"]])
    cause = first.get("ctx", {}).get("error")
    message = _flat(cause) if cause is not None else first["msg"][0].lower() + first["msg"][1:]
    if first["type"] == "missing":
        return f"key '{key}' is missing"
    if not key:
        return message if cause is not None else f"{message}; got {shorten(first['input'])}"
    return f"key '{key}': {message}; got {shorten(first['input'])}"


def _text(data: bytes | str, source: str) -> str:
    if isinstance(data, str):
        return data
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{source}: is not UTF-8 text") from None


def _flat(error: object) -> str:
    return " ".join(str(error).split())


@functools.cache
def _adapter(shape: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(shape, config=ConfigDict(strict=True))
    except PydanticUserError:  # a model has a configuration of its own
        return TypeAdapter(shape)


def _check(value: Any, source: str, forbidden: re.Pattern[str] | None = None) -> None:
    """Raise ValueError on what could break later steps: deep nesting, numbers beyond 64 bits, broken Unicode."""
    layer, depth = [value], 0
    while layer:
        inner: list[Any] = []
        for part in layer:
            if isinstance(part, dict | list) and depth == DEPTH:
                raise ValueError(f"{source}: is nested more than {DEPTH} deep")
            if isinstance(part, dict):
                for key in part:
                    if not key.isprintable():
                        raise ValueError(f"{source}: key {shorten(key)} has characters that cannot be printed")
                inner += part.values()
            elif isinstance(part, list):
                inner += part
            elif isinstance(part, str):
                if not part.isascii() and any("\ud800" <= c <= "\udfff" for c in part):
                    raise ValueError(f"{source}: {shorten(part)} is not Unicode text")
                if forbidden is not None and forbidden.search(part):
                    raise ValueError(f"{source}: {shorten(part)} has control characters")
            elif type(part) is int and not -(2**63) <= part < 2**63:
                raise ValueError(f"{source}: holds a whole number of more than 64 bits")
        layer, depth = inner, depth + 1
