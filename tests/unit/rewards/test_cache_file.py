"""The file of the judge cache: the faults it can have, what is told of it, and its end."""

from __future__ import annotations

import signal
import sqlite3
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from owlcap.errors import ConfigError
from rewards.cache import Reply, cache_stats, clear_cache
from rewards.cache_file import VERSION, find_replies, network_file_system
from tests.unit.rewards.cache_use import filled, opened, output, put, python


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "made" / "judge.sqlite"


def test_processes_that_find_a_corrupt_file_together_begin_one_new_file(path: Path):
    path.parent.mkdir()
    path.write_bytes(b"not a database" * 1000)
    code = 'cache.put(sys.argv[2], Reply("yes", ""), model="m", kind="units")'
    for process in [python(code, path, number) for number in range(4)]:
        output(process)
    assert cache_stats(path).num_replies == 4
    assert len(list(path.parent.glob("judge.sqlite.corrupt-*"))) == 1


def test_a_process_killed_while_it_writes_leaves_a_readable_file(path: Path):
    code = """
for number in range(10**9):
    cache.put(str(number), Reply("x" * 5000, ""), model="m", kind="units")
    print(number, flush=True)
"""
    process = python(code, path)
    assert process.stdout is not None
    written = [int(process.stdout.readline()) for _ in range(300)]
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    cache = opened(path)
    assert all(cache.get(str(number)) == Reply("x" * 5000, "") for number in written)
    put(cache, "after")
    assert sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.parametrize("damage", ["header", "truncated"])
def test_a_corrupt_file_is_set_aside_and_a_new_one_begun(path: Path, damage: str, caplog: pytest.LogCaptureFixture):
    filled(path, *"abcdefgh", text="x" * 5000)
    content = path.read_bytes()
    path.write_bytes(b"garbage" + content[7:] if damage == "header" else content[:5000])
    cache = opened(path)
    put(cache, "z")
    assert opened(path).get("z") is not None
    assert "set aside" in caplog.text
    assert len(list(path.parent.glob("judge.sqlite.corrupt-*"))) == 1


def test_a_page_that_turns_out_corrupt_ends_the_use_of_the_file_and_nothing_else(
    path: Path, caplog: pytest.LogCaptureFixture
):
    filled(path, *(str(number) for number in range(500)), text="x" * 3000)
    content = bytearray(path.read_bytes())
    content[5 * 4096 :] = b"\xff" * (len(content) - 5 * 4096)
    path.write_bytes(content)
    cache = opened(path)
    put(cache, "new")
    assert [cache.get(str(number)) for number in range(500)].count(None) > 0
    assert cache.get("new") == Reply("yes", "chat-new")
    assert "left out from here on" in caplog.text


def let_others_in(path: Path) -> None:
    for folder in path.parents:
        if folder == Path(tempfile.gettempdir()):
            return
        folder.chmod(0o755)


@pytest.mark.parametrize("folder_mode", [0o777, 0o555])
def test_a_file_that_may_not_be_written_is_read(path: Path, folder_mode: int):
    filled(path, "a")
    let_others_in(path)
    path.parent.chmod(folder_mode)
    path.chmod(0o444)
    code = (
        'print(cache.get("a").text); cache.put("b", Reply("no", ""), model="m", kind="k"); print(cache.get("b").text)'
    )
    out, err = output(python(code, path, user=65534))
    assert out.split() == ["yes", "no"]
    assert "read only" in err
    assert opened(path).get("b") is None


def test_a_folder_that_may_not_be_written_costs_no_more_than_the_file(path: Path):
    path.parent.mkdir()
    let_others_in(path)
    path.parent.chmod(0o555)
    code = 'cache.put("b", Reply("no", ""), model="m", kind="k"); print(cache.get("b").text)'
    out, err = output(python(code, path, user=65534))
    assert out == "no"
    assert "no judge cache" in err


def test_a_full_disk_leaves_the_file_read_only_and_what_it_holds_readable(path: Path):
    filled(path, "a")
    code = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
for number in range(100):
    cache.put(str(number), Reply("x" * 10_000, ""), model="m", kind="units")
print(cache.get("a").text, len([n for n in range(100) if cache.get(str(n)) is not None]))
"""
    out, err = output(python(code, path))
    assert out == "yes 100"
    assert err.count("read only from here on") == 1
    assert opened(path).get("a") is not None


@pytest.mark.parametrize("kind", ["folder", "parent is a file"])
def test_a_path_that_cannot_be_a_file_leaves_the_memory(tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture):
    path = tmp_path / "judge.sqlite"
    if kind == "folder":
        path.mkdir()
    else:
        path.write_text("a file")
        path = path / "judge.sqlite"
    cache = opened(path)
    put(cache, "a")
    assert cache.get("a") is not None
    assert "no judge cache" in caplog.text


def test_a_file_of_an_older_version_is_emptied_and_one_of_a_newer_is_left_alone(
    path: Path, caplog: pytest.LogCaptureFixture
):
    path.parent.mkdir()
    old = sqlite3.connect(path)
    old.executescript("CREATE TABLE replies (key TEXT, text TEXT); INSERT INTO replies VALUES ('a', 'old')")
    old.close()
    filled(path, "b")
    assert opened(path).get("a") is None
    assert opened(path).get("b") is not None
    newer = sqlite3.connect(path)
    newer.execute(f"PRAGMA user_version = {VERSION + 1}")
    newer.close()
    put(opened(path), "c")
    assert f"version {VERSION + 1}" in caplog.text
    assert sqlite3.connect(path).execute("SELECT key FROM replies").fetchall() == [("b",)]


def test_another_programs_database_is_not_touched(path: Path, caplog: pytest.LogCaptureFixture):
    path.parent.mkdir()
    other = sqlite3.connect(path)
    other.executescript("CREATE TABLE experiments (id TEXT)")
    other.close()
    put(opened(path), "a")
    assert "another program" in caplog.text
    assert sqlite3.connect(path).execute("SELECT name FROM sqlite_master").fetchall() == [("experiments",)]


def test_a_network_disk_is_not_used(path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    def partitions(*, all: bool) -> list[object]:
        mount = psutil.disk_partitions(all=True)[0]
        return [
            mount._replace(mountpoint="/", fstype="ext4"),
            mount._replace(mountpoint=str(path.parent), fstype="nfs4"),
        ]

    monkeypatch.setattr("rewards.cache_file.psutil", type("psutil", (), {"disk_partitions": staticmethod(partitions)}))
    assert network_file_system(path) == "nfs4"
    assert network_file_system(path.parent.parent / "judge.sqlite") is None
    put(opened(path), "a")
    assert not path.exists()
    assert "set rewards.cache.path to a local disk" in caplog.text


def test_a_file_above_a_lowered_limit_is_trimmed_when_it_is_opened(path: Path):
    filled(path, *(str(number) for number in range(200)), text="x" * 5000)
    opened(path, max_gib=300_000 / 2**30).close()
    assert 20 < cache_stats(path).num_replies < 60


def test_a_busy_file_costs_the_reply_its_place_and_no_more(path: Path, caplog: pytest.LogCaptureFixture):
    cache = opened(path)
    assert cache._file is not None
    cache._file.execute("PRAGMA busy_timeout = 1")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    put(cache, "a")
    other.execute("ROLLBACK")
    put(cache, "b")
    assert cache.get("a") is not None
    assert (opened(path).get("a"), opened(path).get("b")) == (None, Reply("yes", "chat-b"))
    assert "busy" in caplog.text


def test_stats_tell_what_is_there(path: Path):
    cache = opened(path)
    put(cache, "a", "b")
    cache.put("c", Reply("no", ""), model="n", kind="labels")
    stats = cache_stats(path)
    assert (stats.num_replies, stats.by_model) == (3, {"m": 2, "n": 1})
    assert stats.num_bytes >= path.stat().st_size
    assert stats.oldest is not None
    assert time.time() - stats.oldest < 60


def test_stats_of_no_file_and_of_another_file_are_config_errors(path: Path):
    with pytest.raises(ConfigError, match="no judge cache"):
        cache_stats(path)
    path.parent.mkdir()
    path.write_text("captions")
    with pytest.raises(ConfigError, match="not a judge cache"):
        cache_stats(path)


def test_clearing_removes_the_file_and_what_was_set_aside(path: Path):
    filled(path, "a")
    path.write_bytes(b"garbage")
    put(opened(path), "b")
    assert clear_cache(path) > 0
    assert list(path.parent.iterdir()) == []
    assert clear_cache(path) == 0


def test_clearing_what_is_not_there_frees_nothing(tmp_path: Path):
    assert clear_cache(tmp_path / "no" / "judge.sqlite") == 0


def test_a_folder_is_not_cleared(path: Path):
    path.mkdir(parents=True)
    with pytest.raises(ConfigError, match="cannot be removed"):
        clear_cache(path)


def test_a_cache_that_is_cleared_while_it_is_open_goes_on(path: Path):
    cache = opened(path)
    put(cache, "a")
    clear_cache(path)
    put(cache, "b")
    assert cache.get("a") is not None
    assert opened(path).get("a") is None


def test_replies_are_found_again_by_the_ids_that_rollout_rows_carry(path: Path) -> None:
    filled(path, "a", "b", text="supported")
    assert find_replies(path, {"chat-a", "chat-gone"}) == {"chat-a": "supported"}


def test_a_reply_id_that_a_server_gave_twice_names_no_reply(path: Path) -> None:
    cache = opened(path)
    for key in ("first", "second"):
        cache.put(key, Reply(key, "chat-1"), model="m", kind="units")
    cache.close()
    assert find_replies(path, {"chat-1"}) == {}


def test_replies_are_not_looked_for_in_a_file_that_is_no_cache(path: Path) -> None:
    with pytest.raises(ConfigError, match="no judge cache"):
        find_replies(path, {"chat-1"})
    path.parent.mkdir()
    path.write_text("not sqlite")
    with pytest.raises(ConfigError, match="not a judge cache"):
        find_replies(path, {"chat-1"})
