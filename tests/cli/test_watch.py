import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from maxrl_bench.cli.main import main
from maxrl_bench.cli.watch import base_state, watch
from maxrl_bench.config import RunConfig
from maxrl_bench.rollouts.policies import make_policy
from maxrl_bench.storage.store import Store
from maxrl_bench.tasks import make_task
from maxrl_bench.training.loop import base_policy

SIZES = {"layers": 1, "width": 32, "heads": 2, "kv_heads": 1, "mlp": 32}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def trained(task_name: str, split: str, index: int) -> bytes:
    """A policy that knows the demonstrated answer of one instance."""
    task = make_task(task_name)
    policy = make_policy(task.contexts, task.num_actions, np.random.default_rng(0), **SIZES)
    batch, optimizer = task.batch(split, [index]), torch.optim.Adam(policy.parameters(), lr=1e-2)
    for _ in range(300):
        optimizer.zero_grad()
        loss = batch.demonstration_loss(policy)
        if loss < 1e-4:
            break
        loss.backward()
        optimizer.step()
    buffer = io.BytesIO()
    torch.save(policy.state_dict(), buffer)
    return buffer.getvalue()


def test_a_trained_policy_is_seen_to_succeed_and_to_walk_to_the_goal(tmp_path: Path) -> None:
    out = tmp_path / "new folder" / "walk.gif"
    shown = watch("maze-7", "test", 2, trained("maze-7", "test", 2), out, sizes=SIZES)
    demonstrations = make_task("maze-7").batch("test", [2]).demonstrations  # type: ignore[attr-defined]
    route = [action for action in demonstrations[0].tolist() if action >= 0]
    assert f"maze-7, test instance 2: success after {len(route)} actions" in shown
    with Image.open(out) as gif:
        assert gif.n_frames == len(route) + 1  # type: ignore[attr-defined]
        gif.seek(len(route))
        last = np.asarray(gif.convert("RGB")).astype(int)
    goal = last[5 * 24 : 6 * 24, 5 * 24 : 6 * 24]
    assert ((goal[..., 0] > 200) & (goal[..., 1] < 100)).any()  # the red agent stands there


def test_an_untrained_policy_is_shown_as_text_with_its_pass_rate(tmp_path: Path) -> None:
    shown = watch("add-2", index=1)
    assert "=" in shown
    assert "pass rate on this instance 0.00" in shown
    assert watch("add-2", index=1) == shown
    out = tmp_path / "rollout.txt"
    assert str(out) in watch("add-2", "test", 1, None, out)
    assert out.read_text() == shown + "\n"


def test_digits_and_programs_are_shown() -> None:
    assert "named" in watch("digits")
    assert "hidden:" in watch("programs-1")


@pytest.mark.parametrize("stored", [True, False])
def test_the_base_policy_of_a_run_is_shown_and_the_store_left_as_it_was(
    stored: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = RunConfig(task={"name": "add-2"}, objective={"name": "rloo"}, policy=SIZES, seed=3, warm_start_steps=3)
    root = tmp_path / "store"
    # Made by other code than the one that looks at it.
    base = base_policy(config, make_task("add-2"), Store(root if stored else tmp_path / "elsewhere", code="other"))
    Store(root)
    (root / config.hash).mkdir()
    (root / config.hash / "config.json").write_text(config.model_dump_json())
    before = sorted(path for path in root.glob("*/*") if path.parent.name != ".locks")
    loaded = torch.load(io.BytesIO(base_state(config, Store(root))), weights_only=True)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in base.state_dict().items())
    assert main(["watch", "--run", config.hash, "--base", "--results", str(tmp_path)]) == 0
    with torch.no_grad():
        p = float(make_task("add-2").batch("test", [0]).log_pass_rate(base).exp()[0])
    assert f"pass rate on this instance {p:.3g}" in capsys.readouterr().out
    assert sorted(path for path in root.glob("*/*") if path.parent.name != ".locks") == before


def test_a_base_policy_without_a_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch", "add-2", "--base", "--results", str(tmp_path)]) == 2
    assert "--base needs a stored run" in capsys.readouterr().err


def test_what_cannot_be_shown_is_refused_with_one_line(tmp_path: Path) -> None:
    state = trained("add-2", "test", 0)
    with pytest.raises(ValueError, match="does not fit task 'maze-7'"):
        watch("maze-7", policy_state=state, sizes=SIZES)
    with pytest.raises(ValueError, match=r"must end in \.gif"):
        watch("maze-7", out=tmp_path / "maze.png")
    for name in ("digits.png", "digits.gif", "digits"):
        with pytest.raises(ValueError, match=r"is shown as text: the file must end in \.txt"):
            watch("digits-2", out=tmp_path / name)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="did you mean 'maze-9'"):
        watch("maze-99")


def test_what_lies_at_the_file_is_not_written_through(tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("precious")
    (tmp_path / "link.txt").symlink_to(mine)
    (tmp_path / "folder.gif").mkdir()
    with pytest.raises(ValueError, match="is a symbolic link and is not replaced"):
        watch("digits-2", out=tmp_path / "link.txt")
    with pytest.raises(ValueError, match="is a folder"):
        watch("maze-7", out=tmp_path / "folder.gif")
    with pytest.raises(ValueError, match="cannot be written"):
        watch("digits-2", out=mine / "out.txt")
    assert mine.read_text() == "precious"


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (b"", "it is not a file of torch's"),
        (b"PK\x03\x04 no archive", "it is not a file of torch's"),
        ([1, 2], "it holds a list, not a table"),
        ({"a": 1}, "it holds no policy"),
        ({}, "its parameter 'first.1.weight' is missing"),
    ],
)
def test_a_foreign_policy_is_one_line(state: object, reason: str) -> None:
    if not isinstance(state, bytes):
        buffer = io.BytesIO()
        torch.save(state, buffer)
        state = buffer.getvalue()
    with pytest.raises(ValueError, match=f"does not fit task 'digits-2' and its network's sizes: ({reason})") as told:
        watch("digits-2", policy_state=state)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("name", ["../../mymodel", "0123456789ABCDEF", "x" * 16, ".", "base-0123456789abcdef"])
def test_only_the_name_of_a_run_is_looked_up(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mymodel").mkdir()
    (tmp_path / "mymodel" / "policy.pt").write_bytes(b"mine")
    Store(tmp_path / "results" / "store")
    assert main(["watch", "--run", name, "--results", str(tmp_path / "results")]) == 2
    assert "is not the name of a run" in capsys.readouterr().err
    assert (tmp_path / "mymodel" / "policy.pt").read_bytes() == b"mine"


def test_a_run_that_is_not_there_makes_no_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch", "--run", "0123456789abcdef", "--results", str(tmp_path / "none")]) == 2
    assert "holds no run 0123456789abcdef" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_default_name_of_a_file_is_one_that_every_system_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    watch("empty-8", task_options={"size": 6})
    assert [path.name for path in tmp_path.iterdir()] == ["empty-8-size=6-test-0.gif"]
