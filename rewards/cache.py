"""Judges' replies kept in one sqlite file of a machine, shared by its processes, addressed by what was asked.

The key is the hash of model, template, parameters and prompt, so that an edited template or another temperature
never finds an old reply. What was asked is also remembered in the process, file or no file, so that the units of a
reference are the same for a whole group. The file and its faults are in rewards/cache_file.py.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from owlcap.config import CacheSection
from owlcap.logging import get_logger
from rewards.cache_file import BUSY_S, CacheStats, cache_stats, clear_cache, network_file_system, open_cache

__all__ = [
    "CacheStats",
    "Reply",
    "ReplyCache",
    "cache_key",
    "cache_path",
    "cache_stats",
    "clear_cache",
    "network_file_system",
]

REMEMBERED = 50_000_000  # characters of replies held in the process
TRIM_EVERY = 100  # writes between two looks at the limits
TOUCH_EVERY_S = 3600.0  # a reply's time of use is not written more often
DAY_S = 86_400.0

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server answered."""

    text: str
    id: str


@dataclass(slots=True)
class _Kept:
    """A reply in memory."""

    reply: Reply
    used: float  # seconds since 1970, as the file says


def cache_key(model: str, template_hash: str, parameters: Mapping[str, Any], prompt: str) -> str:
    """Content address of a question."""
    asked = json.dumps([model, template_hash, parameters, prompt], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(asked.encode()).hexdigest()


def cache_path(settings: CacheSection) -> Path:
    """Where the cache file is."""
    if settings.path is None:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return Path(base) / "owlcap" / "judge.sqlite"
    return Path(settings.path).expanduser()


class ReplyCache:
    """Replies by key: in memory, and in the file that the settings name. Safe to use from several threads."""

    def __init__(self, settings: CacheSection) -> None:
        self._settings = settings
        self._memory: OrderedDict[str, _Kept] = OrderedDict()
        self._num_characters = 0  # in memory
        self._lock = threading.Lock()
        self._num_writes = 0
        self._writable = True
        self._file = open_cache(cache_path(settings)) if settings.enabled else None
        self._trim()

    def get(self, key: str) -> Reply | None:
        """The reply under a key, None where there is none or it is too old."""
        with self._lock:
            kept = self._forget(key) or self._read(key)
            if kept is None:
                return None
            now = time.time()
            if now - kept.used > TOUCH_EVERY_S:
                kept.used = now
                self._write("UPDATE replies SET used = ? WHERE key = ?", (now, key))
            self._remember(key, kept)
            return kept.reply

    def put(self, key: str, reply: Reply, *, model: str, kind: str) -> None:
        """Keep a reply."""
        with self._lock:
            now = time.time()
            self._forget(key)
            self._remember(key, _Kept(reply, now))
            self._write(
                "INSERT OR REPLACE INTO replies (key, model, kind, reply_id, created, used, text)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (key, model, kind, reply.id, now, now, reply.text),
            )
            self._num_writes += 1
            if self._num_writes % TRIM_EVERY == 0:
                self._trim()

    def drop(self, key: str) -> None:
        """Forget a reply: one that can no longer be read."""
        with self._lock:
            self._forget(key)
            self._write("DELETE FROM replies WHERE key = ?", (key,))

    def close(self) -> None:
        """Close the file; what is remembered stays."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None

    def _remember(self, key: str, kept: _Kept) -> None:
        self._memory[key] = kept
        self._num_characters += len(kept.reply.text)
        while self._num_characters > REMEMBERED:
            _, oldest = self._memory.popitem(last=False)
            self._num_characters -= len(oldest.reply.text)

    def _forget(self, key: str) -> _Kept | None:
        kept = self._memory.pop(key, None)
        if kept is not None:
            self._num_characters -= len(kept.reply.text)
        return kept

    def _read(self, key: str) -> _Kept | None:
        rows = self._run("SELECT text, reply_id, created, used FROM replies WHERE key = ?", (key,))
        if not rows or time.time() - rows[0][2] > self._settings.max_age_days * DAY_S:
            return None
        text, reply_id, _, used = rows[0]
        return _Kept(Reply(text, reply_id), used)

    def _write(self, statement: str, values: tuple[Any, ...] = ()) -> int:
        """The number of rows that were changed."""
        if not self._writable:
            return 0
        return len(self._run(f"{statement} RETURNING 1", values))

    def _run(self, statement: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Rows of a statement; none where it fails: a cache must not cost a caption its score."""
        if self._file is None:
            return []
        try:
            return self._file.execute(statement, values).fetchall()
        except sqlite3.OperationalError as error:
            if "locked" in str(error):  # another process is writing for long: this reply is asked for again one day
                logger.warning("the judge cache was busy for %g s: a reply is not kept", BUSY_S)
            elif self._writable:
                self._writable = False
                logger.warning("the judge cache is read only from here on: %s", error)
        except sqlite3.Error as error:
            logger.warning("the judge cache is left out from here on: %s; owlcap cache clear begins a new one", error)
            self._file.close()
            self._file = None
        return []

    def _trim(self) -> None:
        """Drop replies that are too old, and a tenth of all, the least recently used, while the file is too large."""
        self._write("DELETE FROM replies WHERE created < ?", (time.time() - self._settings.max_age_days * DAY_S,))
        while self._num_bytes() > self._settings.max_gib * 2**30:
            oldest = "SELECT key FROM replies ORDER BY used, key LIMIT (SELECT COUNT(*) / 10 + 1 FROM replies)"
            if not self._write(f"DELETE FROM replies WHERE key IN ({oldest})"):
                return

    def _num_bytes(self) -> int:
        """Of the file's pages in use: what is deleted leaves pages that the next replies fill."""
        rows = self._run(
            "SELECT (page_count - freelist_count) * page_size"
            " FROM pragma_page_count, pragma_freelist_count, pragma_page_size"
        )
        return rows[0][0] if rows else 0
