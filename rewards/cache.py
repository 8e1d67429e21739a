"""Judges' replies kept in one sqlite file of a machine, shared by its processes, addressed by what was asked.

The key is the hash of model, template, parameters and prompt, so that an edited template or another temperature
never finds an old reply. The file is opened in WAL mode: readers do not wait for the writer, and a process killed
while it writes leaves the file as it was before. The file must be on a local disk: WAL needs shared memory.

A cache is a convenience: a file that cannot be written is read only, one that is corrupt is set aside and begun
anew, and both say so once. What was asked is remembered in the process in any case, so that the units of a
reference are the same for a whole group.
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
from owlcap.errors import ConfigError
from owlcap.logging import get_logger

SCHEMA = """
CREATE TABLE IF NOT EXISTS replies (
    key TEXT PRIMARY KEY, model TEXT NOT NULL, kind TEXT NOT NULL, reply_id TEXT NOT NULL, text TEXT NOT NULL,
    size INTEGER NOT NULL, created REAL NOT NULL, used REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_used ON replies (used);
"""
BUSY_S = 5.0  # to wait for another process's write
REMEMBERED = 20_000  # replies held in the process
TRIM_EVERY = 500  # writes between two looks at the limits
TOUCH_EVERY_S = 3600.0  # a reply's time of use is not written more often
DAY_S = 86_400.0

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server answered."""

    text: str
    id: str


@dataclass(frozen=True, slots=True)
class CacheStats:
    """What is in a cache file."""

    path: str
    num_replies: int
    num_bytes: int  # of the file, its log included
    by_model: Mapping[str, int]  # replies
    oldest: float | None  # seconds since 1970


def cache_key(model: str, template_hash: str, parameters: Mapping[str, Any], prompt: str) -> str:
    """Content address of a question."""
    asked = json.dumps([model, template_hash, parameters, prompt], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(asked.encode()).hexdigest()


def cache_path(settings: CacheSection) -> Path:
    """Where the cache file is."""
    if settings.path is not None:
        return Path(settings.path).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "owlcap" / "judge.sqlite"


class ReplyCache:
    """Replies by key: in memory, and in the file that the settings name. Safe to use from several threads."""

    def __init__(self, settings: CacheSection) -> None:
        self._settings = settings
        self._memory: OrderedDict[str, Reply] = OrderedDict()
        self._lock = threading.Lock()
        self._writes = 0
        self._writable = True
        self._file = _open(cache_path(settings)) if settings.enabled else None

    def get(self, key: str) -> Reply | None:
        """The reply under a key, None where there is none or it is too old."""
        with self._lock:
            reply = self._memory.get(key)
            if reply is not None:
                self._memory.move_to_end(key)
                return reply
            reply = self._read(key)
            if reply is not None:
                self._remember(key, reply)
            return reply

    def put(self, key: str, reply: Reply, *, model: str, kind: str) -> None:
        """Keep a reply."""
        with self._lock:
            self._remember(key, reply)
            now = time.time()
            row = (key, model, kind, reply.id, reply.text, len(reply.text.encode()), now, now)
            self._write("INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
            self._writes += 1
            if self._writes % TRIM_EVERY == 0:
                self._trim()

    def drop(self, key: str) -> None:
        """Forget a reply: one that can no longer be read."""
        with self._lock:
            self._memory.pop(key, None)
            self._write("DELETE FROM replies WHERE key = ?", (key,))

    def close(self) -> None:
        """Close the file; what is remembered stays."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None

    def _remember(self, key: str, reply: Reply) -> None:
        self._memory[key] = reply
        if len(self._memory) > REMEMBERED:
            self._memory.popitem(last=False)

    def _read(self, key: str) -> Reply | None:
        if self._file is None:
            return None
        try:
            row = self._file.execute(
                "SELECT text, reply_id, created, used FROM replies WHERE key = ?", (key,)
            ).fetchone()
        except sqlite3.Error as error:
            self._give_up(error)
            return None
        now = time.time()
        if row is None or now - row[2] > self._settings.max_age_days * DAY_S:
            return None
        if now - row[3] > TOUCH_EVERY_S:
            self._write("UPDATE replies SET used = ? WHERE key = ?", (now, key))
        return Reply(row[0], row[1])

    def _write(self, statement: str, values: tuple[Any, ...]) -> None:
        if self._file is None or not self._writable:
            return
        try:
            self._file.execute(statement, values)
        except sqlite3.OperationalError as error:
            if "locked" in str(error):  # another process is writing for long: this reply is asked for again one day
                logger.warning("the judge cache was busy for %g s: a reply is not kept", BUSY_S)
                return
            self._writable = False
            logger.warning("the judge cache is read only from here on: %s", error)
        except sqlite3.Error as error:
            self._give_up(error)

    def _trim(self) -> None:
        """Drop replies that are too old, then the least recently used ones above the size limit."""
        self._write("DELETE FROM replies WHERE created < ?", (time.time() - self._settings.max_age_days * DAY_S,))
        limit = int(self._settings.max_gib * 2**30)
        self._write(
            "DELETE FROM replies WHERE key IN (SELECT key FROM (SELECT key, SUM(size) OVER (ORDER BY used DESC, key) AS"
            " total FROM replies) WHERE total > ?)",
            (limit,),
        )

    def _give_up(self, error: sqlite3.Error) -> None:
        """Go on without the file: a cache must not cost a caption its score."""
        logger.warning("the judge cache is left out from here on: %s; owlcap cache clear begins a new one", error)
        if self._file is not None:
            self._file.close()
            self._file = None


def cache_stats(path: Path) -> CacheStats:
    """What is in a cache file.

    Raises:
        ConfigError: no such file, or not a cache.
    """
    if not path.is_file():
        raise ConfigError(f"no judge cache: {path}", cure="it is made when a judge is asked for the first time")
    try:
        file = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=BUSY_S)
        try:
            by_model = dict(
                file.execute("SELECT model, COUNT(*) FROM replies GROUP BY model ORDER BY model").fetchall()
            )
            oldest = file.execute("SELECT MIN(created) FROM replies").fetchone()[0]
        finally:
            file.close()
    except sqlite3.Error as error:
        raise ConfigError(
            f"not a judge cache: {error}", where=str(path), cure="owlcap cache clear begins a new one"
        ) from error
    num_bytes = sum(part.stat().st_size for part in _parts(path) if part.exists())
    return CacheStats(str(path), sum(by_model.values()), num_bytes, by_model, oldest)


def clear_cache(path: Path) -> int:
    """Remove a cache file; the number of bytes freed. Processes that have it open go on with what they remember."""
    freed = 0
    for part in _parts(path):
        if part.exists():
            freed += part.stat().st_size
            part.unlink()
    return freed


def _parts(path: Path) -> tuple[Path, ...]:
    return tuple(path.with_name(path.name + suffix) for suffix in ("", "-wal", "-shm"))


def _open(path: Path) -> sqlite3.Connection | None:
    """The file, made if need be; read only where it cannot be written; None where there is no reading it either."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return _connect(path)
    except sqlite3.DatabaseError as error:
        if not isinstance(error, sqlite3.OperationalError):
            return _begin_anew(path, error)
        problem: Exception = error
    except OSError as error:
        problem = error
    try:
        file = sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True, check_same_thread=False)
        file.execute("SELECT key FROM replies LIMIT 1")
    except sqlite3.Error:
        logger.warning("no judge cache: %s: %s", path, problem)
        return None
    logger.warning("the judge cache %s is read only: %s", path, problem)
    return file


def _connect(path: Path) -> sqlite3.Connection:
    file = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        file.execute("PRAGMA journal_mode=WAL")
        file.execute("PRAGMA synchronous=NORMAL")
        file.executescript(SCHEMA)
    except sqlite3.Error:
        file.close()
        raise
    return file


def _begin_anew(path: Path, error: sqlite3.DatabaseError) -> sqlite3.Connection | None:
    aside = path.with_name(f"{path.name}.corrupt-{int(time.time())}")
    logger.warning("the judge cache %s cannot be read (%s): set aside as %s, a new one is begun", path, error, aside)
    try:
        path.rename(aside)
        for part in _parts(path)[1:]:
            part.unlink(missing_ok=True)
        return _connect(path)
    except (OSError, sqlite3.Error) as second:
        logger.warning("no judge cache: %s: %s", path, second)
        return None
