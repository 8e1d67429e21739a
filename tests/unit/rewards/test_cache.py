"""The judge cache: replies that are kept, found, too old or too many."""

from __future__ import annotations

import re
import sqlite3
import threading
import time
from pathlib import Path

import pytest
from pydantic import ValidationError

import rewards.cache
from owlcap.config import CacheSection
from rewards.cache import Reply, ReplyCache, cache_key, cache_path, cache_stats
from tests.unit.rewards.cache_use import filled, opened, output, put, python

DAY_S = 86_400.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "made" / "judge.sqlite"


def test_a_reply_outlives_its_process(path: Path):
    filled(path, "a")
    assert opened(path).get("a") == Reply("yes", "chat-a")
    assert opened(path).get("b") is None


def test_a_reply_can_be_replaced_and_dropped(path: Path):
    cache = opened(path)
    put(cache, "a", text="no")
    put(cache, "a", text="yes")
    assert opened(path).get("a") == Reply("yes", "chat-a")
    cache.drop("a")
    assert cache.get("a") is None
    assert opened(path).get("a") is None


def test_the_key_changes_with_each_part_of_a_question():
    keys = {
        cache_key(*asked)
        for asked in (
            ("m", "t", {"temperature": 0.7}, "p"),
            ("n", "t", {"temperature": 0.7}, "p"),
            ("m", "u", {"temperature": 0.7}, "p"),
            ("m", "t", {"temperature": 0.8}, "p"),
            ("m", "t", {"temperature": 0.7, "seed": 1}, "p"),
            ("m", "t", {"temperature": 0.7}, "q"),
        )
    }
    assert len(keys) == 6
    assert cache_key("m", "t", {"a": 1, "b": 2}, "p") == cache_key("m", "t", {"b": 2, "a": 1}, "p")


def test_any_text_comes_back_as_it_was(path: Path):
    text = "\x00 ünï 跳舞 \u2028 '\"; DROP TABLE replies" + "x" * 100_000
    filled(path, "a", text=text)
    reply = opened(path).get("a")
    assert reply is not None
    assert reply.text == text


def test_processes_write_and_read_one_file_at_once(path: Path):
    code = """
for number in range(200):
    cache.put(f"{sys.argv[2]}-{number}", Reply("yes", ""), model=sys.argv[2], kind="units")
    assert ReplyCache(CacheSection(path=sys.argv[1])).get(f"{sys.argv[2]}-{number}") is not None
"""
    outputs = [output(process) for process in [python(code, path, f"process-{number}") for number in range(4)]]
    assert [err for _, err in outputs] == [""] * 4
    assert cache_stats(path).by_model == {f"process-{number}": 200 for number in range(4)}


def test_threads_share_a_cache(path: Path):
    cache = opened(path)

    def work(name: str) -> None:
        for number in range(100):
            put(cache, f"{name}-{number}")
            cache.get(f"other-{number}")

    threads = [threading.Thread(target=work, args=(name,)) for name in ("one", "other")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache_stats(path).num_replies == 200


def test_a_reply_that_is_too_old_is_not_found_and_goes_when_the_file_is_opened(path: Path):
    filled(path, "old", "new")
    connection = sqlite3.connect(path)
    connection.execute("UPDATE replies SET created = ? WHERE key = 'old'", (time.time() - 11 * DAY_S,))
    connection.commit()
    assert opened(path, max_age_days=12).get("old") is not None
    cache = opened(path, max_age_days=10)
    assert cache.get("old") is None
    assert cache.get("new") is not None
    assert connection.execute("SELECT key FROM replies").fetchall() == [("new",)]


def test_the_file_keeps_to_its_size_and_what_was_used_last_stays(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rewards.cache, "TOUCH_EVERY_S", 0.0)
    monkeypatch.setattr(rewards.cache, "REMEMBERED", 0)
    limit = 1_000_000
    cache = opened(path, max_gib=limit / 2**30)
    for number in range(2000):
        put(cache, str(number), text="x" * 2000)
        assert cache.get("0") is not None
    stats = cache_stats(path)
    assert 0.3 * limit < stats.num_replies * 2000 < limit
    assert path.stat().st_size < 1.5 * limit
    kept = {int(key) for (key,) in sqlite3.connect(path).execute("SELECT key FROM replies")}
    assert kept - {0} == set(range(2000 - len(kept) + 1, 2000))


def test_a_limit_that_nothing_fits_into_ends_with_an_empty_file(path: Path):
    filled(path, *"abc")
    opened(path, max_gib=1e-9).close()
    assert cache_stats(path).num_replies == 0


def test_use_is_told_to_the_file_no_more_than_once_an_hour(path: Path):
    filled(path, "a")
    connection = sqlite3.connect(path, isolation_level=None)

    def used() -> float:
        return connection.execute("SELECT used FROM replies").fetchone()[0]

    first = used()
    cache = opened(path)
    cache.get("a")
    assert used() == first
    connection.execute("UPDATE replies SET used = ?", (first - 7200,))
    opened(path).get("a")
    assert used() >= first


def test_memory_is_bounded_by_its_characters(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rewards.cache, "REMEMBERED", 100)
    cache = ReplyCache(CacheSection(enabled=False))
    put(cache, "a", "b", "c", text="x" * 40)
    assert [cache.get(key) is not None for key in "abc"] == [False, True, True]
    cache.get("b")
    put(cache, "d", text="x" * 40)
    assert [cache.get(key) is not None for key in "bcd"] == [True, False, True]


def test_without_a_file_replies_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache = ReplyCache(CacheSection(enabled=False))
    put(cache, "a")
    assert cache.get("a") is not None
    assert list(tmp_path.iterdir()) == []


def test_where_the_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_path(CacheSection()) == tmp_path / "owlcap" / "judge.sqlite"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_path(CacheSection(path="~/mine.sqlite")) == tmp_path / "mine.sqlite"


@pytest.mark.parametrize("name", ["captions.jsonl", "folder/.sqlite"])
def test_a_name_that_may_be_somebodys_data_is_refused(name: str):
    with pytest.raises(ValidationError, match=rf"{re.escape(name)}.*must end in \.sqlite"):
        CacheSection(path=name)
