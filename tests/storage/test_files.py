"""Writing and deleting: whole or not at all, never through a link, never another's."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from maxrl_bench.storage import files
from maxrl_bench.storage.files import inside, remove, tidy, write_file


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    write_file(tmp_path / "new" / "folder" / "a", b"old")
    write_file(tmp_path / "new" / "folder" / "a", b"new")
    assert (tmp_path / "new" / "folder" / "a").read_bytes() == b"new"
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["a"]


def test_a_full_disk_leaves_the_old_file_and_no_fragment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_file(tmp_path / "a", b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space") as refused:
        write_file(tmp_path / "a", b"new")
    assert refused.value.filename == str(tmp_path / "a")  # and not the partial file's name
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("target", ["file", "folder", "missing"])
def test_a_link_below_the_root_is_refused_wherever_it_is(tmp_path: Path, target: str) -> None:
    outside, root = tmp_path / "outside", tmp_path / "root"
    (outside / "folder").mkdir(parents=True)
    (outside / "file").write_bytes(b"the user's")
    (root / "plain").mkdir(parents=True)
    for link in (root / "link", root / "plain" / "link"):
        link.symlink_to(outside / target)
        names = link.relative_to(root).parts
        for path in (names, (*names, "deeper")):
            with pytest.raises(ValueError, match=r"link is a symbolic link; links in .* neither followed nor replaced"):
                inside(root, *path)
        with pytest.raises(ValueError, match="is a symbolic link and is not replaced"):
            write_file(link, b"ours")
        with pytest.raises(ValueError, match="is a symbolic link and is not removed"):
            remove(link)
        assert link.is_symlink()
    assert (outside / "file").read_bytes() == b"the user's"
    assert sorted(path.name for path in outside.iterdir()) == ["file", "folder"]


def test_the_root_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "results").symlink_to(tmp_path / "disk")
    write_file(inside(tmp_path / "results", "study", "metrics.csv"), b"x")
    assert (tmp_path / "disk" / "study" / "metrics.csv").read_bytes() == b"x"


@pytest.mark.parametrize("names", [("..",), ("a", ".."), ("a/../../b",), ("/etc",), ("a", "/etc/passwd")])
def test_a_name_that_leaves_the_root_is_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="leads out of"):
        inside(tmp_path, *names)


def test_folders_and_pipes_are_neither_replaced_nor_removed(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name, what in (("folder", "a folder"), ("pipe", "a special file")):
        with pytest.raises(ValueError, match=f"is {what} and is not replaced"):
            write_file(tmp_path / name, b"")
        with pytest.raises(ValueError, match=f"is {what} and is not removed"):
            remove(tmp_path / name)
    remove(tmp_path / "absent")


def test_only_what_dead_writers_have_left_is_tidied_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Partial files are made by writers that are stopped before the last step."""
    code = (
        "import os, pathlib, sys, maxrl_bench.storage.files as files\n"
        "os.replace = lambda partial, path: os._exit(0)\n"
        f"files.write_file(pathlib.Path({str(tmp_path)!r}) / 'dead', b'x')"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    [dead] = tmp_path.iterdir()

    at_work: list[Path] = []

    def while_another_tidies(partial: Path, path: Path) -> None:
        tidy(tmp_path)
        at_work.append(partial)
        assert partial.exists()

    monkeypatch.setattr(os, "replace", while_another_tidies)
    write_file(tmp_path / "living", b"x")
    [living] = at_work
    assert not dead.exists()
    assert living.exists()

    elsewhere = tmp_path / ".a.00000000-00000000.tmp"
    mine = tmp_path / ".mine.tmp"
    for path in (elsewhere, mine):
        path.write_text("")
    link = tmp_path / dead.name
    link.symlink_to(mine)
    tidy(tmp_path)
    assert set(tmp_path.iterdir()) == {elsewhere, mine, link}
    old = time.time() - 2 * files._UNSEEN_SECONDS
    os.utime(elsewhere, (old, old))
    tidy(tmp_path)
    assert not elsewhere.exists()
    tidy(tmp_path / "no such folder")


def test_whose_partial_file_it_is_does_not_hang_on_process_numbers(tmp_path: Path) -> None:
    """A stopped writer lives, a finished one does not, whoever has its number now."""
    code = (
        "import os, pathlib, signal, maxrl_bench.storage.files as files\n"
        "os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGSTOP)\n"
        f"files.write_file(pathlib.Path({str(tmp_path)!r}) / 'a', b'x')"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    writer = subprocess.Popen([sys.executable, "-c", code], env=environment)
    try:
        os.waitpid(writer.pid, os.WUNTRACED)
        tidy(tmp_path)
        [partial] = tmp_path.iterdir()
        copy = tmp_path / partial.name.replace(".a.", ".b.")
        copy.write_bytes(partial.read_bytes())  # the same writer's, by its name, but nobody is at it
        tidy(tmp_path)
        assert list(tmp_path.iterdir()) == [partial]
    finally:
        writer.kill()
        writer.wait()
    tidy(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_where_locks_are_not_seen_and_where_none_is_taken_yet_age_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(descriptor: int, how: int) -> None:
        raise OSError(37, "No locks available")

    begun, full = (tmp_path / f".{name}.{files._MACHINE}-00000000.tmp" for name in "ab")
    begun.touch()
    full.write_bytes(b"x")
    with monkeypatch.context() as without_locks:
        without_locks.setattr("fcntl.flock", unsupported)
        write_file(tmp_path / "c", b"x")
        tidy(tmp_path)
        assert {begun, full} <= set(tmp_path.iterdir())
    tidy(tmp_path)
    assert begun.exists()
    assert not full.exists()
    old = time.time() - 2 * files._EMPTY_SECONDS
    os.utime(begun, (old, old))
    tidy(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["c"]
