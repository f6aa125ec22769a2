"""Checkpoints: all of it comes back, or an error; and whatever happens, an earlier one is there."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from graphc.train import checkpoint
from graphc.train.checkpoint import Checkpoints, load
from graphc.train.errors import CheckpointError, TrainError
from graphc.train.files import clean, only_writer, write_whole

ROOT = Path(__file__).parents[2]
WEIGHTS = {
    "fc.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "fc.bias": np.zeros(2, np.float32),
}
STATE = {
    **WEIGHTS,
    "optimizer.exp_avg.fc.weight": np.full((2, 3), 0.1, ml_dtypes.bfloat16),
    "step": np.array(7),
    "rng": np.array([1 << 62, -5]),
}


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def signed(data: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    """A record that was changed by somebody who knows how to sign it."""
    body = json.loads(data)
    del body["sha256"]
    change(body)
    return json.dumps({**body, "sha256": checkpoint._digest(body)}).encode()


def test_everything_comes_back(tmp_path: Path) -> None:
    record = {"epoch": 2, "history": [{"loss": 0.1}], "text": "é"}
    saved = Checkpoints(tmp_path / "c").save(7, STATE, WEIGHTS, record)
    found = load(saved)
    assert found.record == record and found.folder == saved
    assert set(found.state) == set(STATE)
    for name, array in STATE.items():
        assert found.state[name].dtype == array.dtype
        assert found.state[name].tobytes() == array.tobytes()
    assert set(found.weights) == set(WEIGHTS)
    state_bytes = (saved / "state.safetensors").read_bytes()
    assert b"fc.bias" not in state_bytes  # parameters are written once


def test_weights_that_are_not_the_state_are_written_besides(tmp_path: Path) -> None:
    average = {name: array + 1 for name, array in WEIGHTS.items()}
    found = load(Checkpoints(tmp_path).save(7, STATE, average, {}))
    np.testing.assert_array_equal(found.state["fc.bias"], [0, 0])
    np.testing.assert_array_equal(found.weights["fc.bias"], [1, 1])


def test_last_best_and_the_newest_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "c", keep=2)
    assert checkpoints.load() is None
    for step in range(1, 7):
        checkpoints.save(step, STATE, WEIGHTS, {"at": step}, best=step == 2)
    assert names(tmp_path / "c") == [
        "best", "last", "step-00000002", "step-00000005", "step-00000006",
    ]  # fmt: skip
    last, best = checkpoints.load("last"), checkpoints.load("best")
    assert last is not None and last.record == {"at": 6}
    assert best is not None and best.record == {"at": 2}
    checkpoints.save(6, STATE, WEIGHTS, {"at": "again"})
    assert load(tmp_path / "c" / "last").record == {"at": "again"}
    with pytest.raises(CheckpointError, match="at least one"):
        Checkpoints(tmp_path, keep=0)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("weights.safetensors", lambda b: b[:-1], "has .* bytes, its record says"),
        ("state.safetensors", lambda b: b[:-1] + bytes([b[-1] ^ 1]), "is not what was written"),
        ("state.safetensors", None, "state.safetensors: No such file"),
        ("checkpoint.json", None, "no checkpoint in"),
        ("checkpoint.json", lambda b: b[:20], "is no JSON"),
        ("checkpoint.json", lambda b: b"[]", "something else"),
        (
            "checkpoint.json",
            lambda b: b.replace(b'"format_version": 1', b'"format_version": 2'),
            "format 2",
        ),
        (
            "checkpoint.json",
            lambda b: b.replace(b'"epoch": 3', b'"epoch": 2'),
            "is not what was written",
        ),
        ("checkpoint.json", lambda b: signed(b, lambda r: r.pop("shared")), "has no shared"),
        ("checkpoint.json", lambda b: signed(b, lambda r: r.update(shared=["fc"])), "lacks 'fc'"),
        ("checkpoint.json", lambda b: signed(b, lambda r: r.update(shared=[[]])), "no name"),
        ("checkpoint.json", lambda b: signed(b, lambda r: r.update(files={})), "does not list"),
    ],
)
def test_damage_is_found(tmp_path: Path, file: str, change: object, message: str) -> None:
    saved = Checkpoints(tmp_path).save(7, STATE, WEIGHTS, {"epoch": 3})
    data = (saved / file).read_bytes()
    (saved / file).unlink()
    if callable(change):
        (saved / file).write_bytes(change(data))
    with pytest.raises(CheckpointError, match=message) as caught:
        load(tmp_path / "last")
    assert str(tmp_path) in str(caught.value)


def test_a_damaged_last_checkpoint_leaves_a_way(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (1, 2):
        checkpoints.save(step, STATE, WEIGHTS, {"at": step})
    (tmp_path / "step-00000002" / "state.safetensors").write_bytes(b"")
    with pytest.raises(
        CheckpointError, match=r"damaged: .*; to use .*: (ln -sfn \S+ \S+)$"
    ) as caught:
        checkpoints.load()
    subprocess.run(str(caught.value).split(": ")[-1].split(), check=True)
    found = checkpoints.load()
    assert found is not None and found.record == {"at": 1}


def test_a_link_that_leaves_the_folder_is_none(tmp_path: Path) -> None:
    Checkpoints(tmp_path / "a").save(7, STATE, WEIGHTS, {})
    (tmp_path / "b").mkdir()
    os.symlink("../a/step-00000007", tmp_path / "b" / "last")
    assert Checkpoints(tmp_path / "b").load() is None


@pytest.mark.parametrize("failing", ["write_safetensors", "sync", "exchange", "point"])
def test_a_full_disk_loses_nothing(
    tmp_path: Path, failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, STATE, WEIGHTS, {"at": 1})
    checkpoints.save(2, STATE, WEIGHTS, {"at": 2})
    before = names(tmp_path)

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, failing, full)
        with pytest.raises(
            CheckpointError, match=r"No space left on device; .*step-00000002 is as it was"
        ):
            checkpoints.save(2 if failing == "exchange" else 3, STATE, WEIGHTS, {"at": 3})
    assert load(tmp_path / "last").record == {"at": 2}
    checkpoints.save(4, STATE, WEIGHTS, {"at": 4})
    assert len(names(tmp_path)) == len(before)


LIMITED = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from graphc.train.checkpoint import Checkpoints
from graphc.train.errors import CheckpointError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
checkpoints = Checkpoints(Path(sys.argv[1]))
checkpoints.save(1, {"x": np.ones(10)}, {}, {"at": 1})
try:
    checkpoints.save(2, {"x": np.ones(100_000)}, {}, {"at": 2})
except CheckpointError as error:
    print(error)
"""


def test_a_file_that_cannot_grow_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, cwd=ROOT
    )
    assert "File too large" in done.stdout, done.stderr
    assert names(tmp_path) == ["last", "step-00000001"]
    assert load(tmp_path / "last").record == {"at": 1}


KILLED = """
import os, random, signal, sys, time
from pathlib import Path
import numpy as np
from graphc.train.checkpoint import Checkpoints, load

folder, rounds = Path(sys.argv[1]), int(sys.argv[2])
random.seed(0)

def child():
    checkpoints = Checkpoints(folder, keep=2)
    checkpoints.clean()
    found = checkpoints.load()
    step = 0 if found is None else found.record["at"]
    while True:
        step += 1
        weights = {"w": np.full(5000, step, np.float32)}
        state = {**weights, "v": np.full(20000, -step, np.int64)}
        checkpoints.save(step, state, weights, {"at": step}, best=step % 3 == 0)

reached = 0
for _ in range(rounds):
    pid = os.fork()
    if not pid:
        try:
            child()
        finally:
            os._exit(1)
    time.sleep(random.uniform(0.005, 0.12))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    for link in ("last", "best"):
        if (folder / link).exists():
            found = load(folder / link)
            at = found.record["at"]
            assert (found.state["w"] == at).all() and (found.state["v"] == -at).all()
            if link == "last":
                assert at >= reached, (at, reached)
                reached = at
Checkpoints(folder).clean()
print(reached, sorted(os.listdir(folder)))
"""


def test_killed_at_any_moment_the_last_checkpoint_is_whole(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), "15"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    reached, left = done.stdout.split(" ", 1)
    assert int(reached) > 3
    assert "new" not in left and "old" not in left


def test_one_run_at_a_time_writes_to_a_folder(tmp_path: Path) -> None:
    program = f"""
import os, signal
from pathlib import Path
from graphc.train.files import only_writer
with only_writer(Path({str(tmp_path / "out")!r})):
    print("in", flush=True)
    signal.pause()
"""
    other = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=ROOT)
    assert other.stdout is not None
    assert other.stdout.readline() == b"in\n"
    with pytest.raises(TrainError, match="another run"), only_writer(tmp_path / "out"):
        pass
    other.send_signal(signal.SIGKILL)
    other.communicate()
    with only_writer(tmp_path / "out"):
        pass


def test_leftovers_of_a_killed_writer_go(tmp_path: Path) -> None:
    for name in (".history.csv.123.new", ".weights.safetensors.9.new", ".mine.new", "a.1.new"):
        (tmp_path / name).write_text("")
    clean(tmp_path)
    assert names(tmp_path) == [".mine.new", "a.1.new"]


def test_a_text_is_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_whole(tmp_path / "a.csv", "one\n")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="full"):
        write_whole(tmp_path / "a.csv", "two\n")
    assert names(tmp_path) == ["a.csv"] and (tmp_path / "a.csv").read_text() == "one\n"


def test_records_are_json_without_surprises(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        Checkpoints(tmp_path).save(1, STATE, WEIGHTS, {"loss": float("nan")})
    assert names(tmp_path) == []
    saved = Checkpoints(tmp_path).save(1, STATE, WEIGHTS, {"loss": 0.1 + 0.2})
    assert json.loads((saved / "checkpoint.json").read_text())["record"] == {"loss": 0.1 + 0.2}
