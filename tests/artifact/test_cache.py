"""The cache of compiled modules: whole entries or none, whoever writes, whatever breaks."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import graphc
from graphc import driver
from graphc.artifact import cache
from graphc.artifact.cache import Cache, key_of

FILES = {"a.o": b"code", "b.o": bytes(1000)}


@pytest.fixture
def store(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def test_what_was_written_is_read(store: Cache, tmp_path: Path) -> None:
    assert store.read("k") is None and not store.copy("k", tmp_path)
    store.write("k", FILES)
    assert store.read("k") == FILES
    target = tmp_path / "copy"
    target.mkdir()
    assert store.copy("k", target)
    assert {p.name: p.read_bytes() for p in target.iterdir()} == FILES


def test_a_folder_is_kept_with_its_permissions(store: Cache, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    (source / "run").write_bytes(b"#!")
    (source / "run").chmod(0o755)
    store.keep("k", source)
    assert store.copy("k", target)
    assert (target / "run").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("damage", ["alter", "shorten", "remove", "index", "escape"])
def test_a_damaged_entry_is_missing_and_is_written_again(
    store: Cache, tmp_path: Path, damage: str
) -> None:
    store.write("k", FILES)
    file, index = store.root / "k" / "b.o", store.root / "k" / "entry.json"
    if damage == "alter":
        file.write_bytes(bytes(999) + b"x")
    elif damage == "shorten":
        file.write_bytes(b"")
    elif damage == "remove":
        file.unlink()
    elif damage == "index":
        index.write_text("{")
    else:
        index.write_text('{"../../secret": "00"}')
    assert store.read("k") is None and not store.copy("k", tmp_path)
    store.write("k", FILES)
    assert store.read("k") == FILES


def test_a_cache_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    store = Cache(tmp_path / "file" / "cache")
    store.write("k", FILES)
    assert store.read("k") is None


def test_a_full_disk_leaves_nothing_half_written(
    store: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write("k", FILES)

    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    store.write("other", FILES)
    assert sorted(p.name for p in store.root.iterdir()) == ["k"]


def test_what_a_crash_left_behind_goes(store: Cache) -> None:
    store.write("k", FILES)
    old, new = store.root / ".x.1.1", store.root / ".x.2.2"
    for path in (old, new):
        path.mkdir()
        (path / "half").write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    store.write("other", FILES)
    assert not old.exists() and new.exists()


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    store = Cache(tmp_path / "cache", limit=3500)
    for age, key in enumerate("abc"):
        store.write(key, {"x": bytes(1000)})
        os.utime(store.root / key, (1000 + age,) * 2)
    assert store.read("a") is not None  # and is young again
    store.write("d", {"x": bytes(1000)})
    assert sorted(p.name for p in store.root.iterdir()) == ["a", "c", "d"]


def test_two_processes_write_the_same_at_once(store: Cache) -> None:
    program = (
        "import sys, pathlib; from graphc.artifact.cache import Cache\n"
        f"store = Cache(pathlib.Path({str(store.root)!r}))\n"
        "for i in range(40):\n"
        "    store.write(f'k{i}', {'x': bytes(20000)})\n"
        "    assert store.read(f'k{i}') == {'x': bytes(20000)}\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(2)]
    assert [process.wait(timeout=60) for process in running] == [0, 0]
    assert len(list(store.root.iterdir())) == 40


def test_keys_tell_apart_what_differs() -> None:
    one = {"w": np.zeros((2, 3), np.float32)}
    keys = {
        key_of("a", ("x", one)),
        key_of("b", ("x", one)),
        key_of("a", ("y", one)),
        key_of("a", ("x", {"v": one["w"]})),
        key_of("a", ("x", {"w": np.zeros((3, 2), np.float32)})),
        key_of("a", ("x", {"w": np.zeros((2, 3), np.int32)})),
        key_of("a", ("x", {"w": np.ones((2, 3), np.float32)})),
        key_of("a", ("xy", one)),
        key_of("a", ("x", "y", one)),
    }
    assert len(keys) == 9
    assert key_of("a", ("x", one)) == key_of("a", ("x", {"w": one["w"].copy()}))


def test_the_folder_has_to_be_the_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "mine"))
    assert cache.find() is not None
    (tmp_path / "mine").chmod(0o777)
    assert cache.find() is None
    monkeypatch.setenv(cache.VARIABLE, "off")
    assert cache.find() is None


def test_a_second_compile_generates_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    (tmp_path / "m.nn").write_text(
        "model M {\n    input x: f32[N, 3]\n    output y = x -> fc: Linear(2)\n}\n"
    )
    model = graphc.load(tmp_path / "m.nn")
    first = model.compile(directory=tmp_path / "one")
    x = np.ones((2, 3), np.float32)
    monkeypatch.setattr(driver, "generate", None)
    second = model.compile(directory=tmp_path / "two")
    names = sorted(p.name for p in first.path.iterdir())
    assert names == sorted(p.name for p in second.path.iterdir())
    assert all((first.path / n).read_bytes() == (second.path / n).read_bytes() for n in names)
    assert (first(x=x)["y"] == second(x=x)["y"]).all()
    with pytest.raises(TypeError):  # other weights are another module
        model.compile(model.initialise(seed=1))
