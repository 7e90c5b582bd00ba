"""Files and names from outside: what is read is regular, bounded and text; a name cannot lead elsewhere."""

from __future__ import annotations

import lzma
import os
import time

import pytest

from maxrl_bench import inputs
from maxrl_bench.names import check_name, check_run, is_name, shorten


@pytest.mark.parametrize("name", ["a", "maze", "x-y", "x_1.v2", "9lives", "A" * 100])
def test_names(name):
    assert check_name(name, "profile") == name


NO_NAMES = [
    "",
    ".",
    "..",
    "...",
    "../x",
    "a/b",
    "a\\b",
    "a b",
    "a.",
    ".a",
    "-a",
    "_a",
    "a\n",
    "a\0",
    "\na",
    "con",
    "NUL",
]
NO_NAMES += ["com1.x", "ａ", "mаze", "é", "a" * 101, "javascript:alert(1)", "a|b", "<b>", "=1", "~", None, 3, ["a"]]


@pytest.mark.parametrize("name", NO_NAMES)
def test_what_is_no_name(name):
    with pytest.raises(ValueError, match="a name has at most 100 characters") as caught:
        check_name(name, "experiment file")
    assert str(caught.value).isprintable()
    assert str(caught.value).startswith("experiment file ")


def test_names_of_runs():
    assert check_run("0123456789abcdef") == "0123456789abcdef"
    for name in ("", "0123456789abcde", "0123456789ABCDEF", "0123456789abcdef\n", "../../0123456789", "x" * 16, None):
        with pytest.raises(ValueError, match="16 digits"):
            check_run(name)
    assert is_name("0123456789abcdef")


def test_a_value_in_a_message_is_one_short_line():
    nested: list = []
    for _ in range(100_000):
        nested = [nested]
    for value in ("a\nb", "\x1b[2J", "x" * 1000, 1 << 100_000, nested, "\ud800", {"a\n": 1}):
        assert len(shorten(value)) <= 60
        assert shorten(value).isprintable()
    while nested:  # taken apart by hand: repr is not the only thing that recurses
        nested = nested[0]


def _refused(path, read=inputs.read_text):
    started = time.monotonic()
    with pytest.raises(ValueError, match="^[^\n]*$") as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert time.monotonic() - started < 60  # nothing waits for a writer that never comes
    return str(caught.value)


def test_only_regular_files_are_read(tmp_path):
    fifo, loop, nowhere, folder = (tmp_path / name for name in ("fifo", "loop", "nowhere", "folder"))
    os.mkfifo(fifo)
    loop.symlink_to(loop)
    nowhere.symlink_to(tmp_path / "absent")
    folder.mkdir()
    for path in (fifo, folder, "/dev/zero", "/dev/stdin"):
        assert "not a regular file" in _refused(path)
    assert "cannot be read" in _refused(loop)
    assert "link to nothing" in _refused(nowhere)
    assert "cannot be read" in _refused(tmp_path / ("x" * 300))
    with pytest.raises(FileNotFoundError, match="absent: no such file"):
        inputs.read_text(tmp_path / "absent")
    linked = tmp_path / "linked"
    (folder / "real").write_text("text")
    linked.symlink_to(folder / "real")
    assert inputs.read_text(linked) == "text"


def test_size_is_bounded(tmp_path):
    path = tmp_path / "large"
    path.write_bytes(b"12345")
    assert inputs.read_bytes(path, limit=5) == b"12345"
    assert "larger than 4 bytes" in _refused(path, lambda path: inputs.read_bytes(path, limit=4))
    with open(path, "wb") as file:
        file.truncate(2**40)  # sparse: takes no room
    assert "larger than" in _refused(path, inputs.read_toml)
    data = lzma.compress(b"0" * 1000)
    assert inputs.unxz(data, "x.xz", 1000) == b"0" * 1000
    for bad in (data[:-5], data + b"x", b"not xz"):
        with pytest.raises(ValueError, match=r"x\.xz: is not xz"):
            inputs.unxz(bad, "x.xz", 1000)
    greedy = [{"id": lzma.FILTER_LZMA2, "dict_size": 2**28, "mode": lzma.MODE_FAST, "mf": lzma.MF_HC3}]
    with pytest.raises(ValueError, match=r"x\.xz: is not xz data: Memory usage limit exceeded"):
        inputs.unxz(lzma.compress(b"0", filters=greedy), "x.xz")  # its header asks for 256 MB to read one byte
    with pytest.raises(ValueError, match=r"x\.xz: unpacks to more than 999"):
        inputs.unxz(data, "x.xz", 999)


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    path = tmp_path / "file"
    path.write_bytes("\ufeffa = 1\r\n".encode())
    assert inputs.read_toml(path) == {"a": 1}
    path.write_bytes('\ufeff{"a": 1}'.encode())
    assert inputs.read_json(path) == {"a": 1}
    path.write_bytes("a = 1".encode("utf-16"))
    assert "not UTF-8" in _refused(path, inputs.read_toml)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = " + "[" * 33 + "]" * 33, "nested"),
        ("a = " + "[" * 100_000, "nested"),
        ("a = " + "{a=" * 40 + "1" + "}" * 40, "nested"),
        ("[" + "a." * 50_000 + "a]", "nested"),
        ("x = { " + '"a" . ' * 50_000 + "a = 1 }", "nested"),
        ("a = " + "9" * 400, "64 bits"),
        ("a = " + "9" * 5000, "digits"),
        ("a = 0x" + "f" * 100_000, "64 bits"),
        ("a =", "not TOML"),
        ('a = "\\u001b[2J"', "control characters"),
        ('a = "\\u202eabc"', "control characters"),
        ('a = "abc\\u2067"', "control characters"),
        ('"a\\nb" = 1', "cannot be printed"),
        ("a = \0", "not TOML"),
        ("'" * 500_000, "not TOML"),
        ("a" * 1_000_000, "not TOML"),
    ],
)
def test_bad_toml(tmp_path, text, said):
    path = tmp_path / "x.toml"
    path.write_text(text)
    assert said in _refused(path, inputs.read_toml)


def test_the_deepest_toml_and_plain_punctuation(tmp_path):
    assert inputs.from_toml("a = " + "[" * 31 + "]" * 31, "x")
    text = "..... and so on, see a.b.c. or 1.2.3, ..."
    assert inputs.from_toml(f"a = '''{text}\n{'.' * 500}'''", "x")["a"].startswith(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 33 + "]" * 33, "nested"),
        ("[" * 100_000, "nested"),
        ("9" * 400, "64 bits"),
        ("9" * 5000, "digits"),
        ("{", "not JSON"),
        ("", "not JSON"),
        (r'"\ud800"', "not Unicode"),
        (r'{"\ud800": 1}', "cannot be printed"),
    ],
)
def test_bad_json(tmp_path, text, said):
    path = tmp_path / "x.json"
    path.write_text(text)
    assert said in _refused(path, inputs.read_json)


def test_the_shape_of_json(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"a": "text"}')
    assert inputs.read_json(path, dict[str, str]) == {"a": "text"}
    for text, said in (("[]", "dictionary"), ('{"a": 3}', "key 'a'"), ("null", "dictionary"), ('"a"', "dictionary")):
        path.write_text(text)
        assert said in _refused(path, lambda path: inputs.read_json(path, dict[str, str]))
