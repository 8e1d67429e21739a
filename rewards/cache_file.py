"""The sqlite file of the judge cache: opening, looking into and clearing it, whatever state it is in.

WAL mode: readers do not wait for the writer, and a process killed while it writes leaves the file as it was before.
WAL needs memory that processes share, so the file must be on a local disk.

A cache is a convenience, so nothing here stops a run: a file that cannot be written is read only, a corrupt one is
set aside and begun anew, one of an older version is emptied, and any other is left out; each says so once.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from owlcap.errors import ConfigError
from owlcap.logging import get_logger

VERSION = 1  # of the table
SCHEMA = f"""
BEGIN IMMEDIATE;
DROP TABLE IF EXISTS replies;
CREATE TABLE replies (
    key TEXT PRIMARY KEY, model TEXT NOT NULL, kind TEXT NOT NULL, reply_id TEXT NOT NULL,
    created REAL NOT NULL, used REAL NOT NULL, text TEXT NOT NULL
);
CREATE INDEX by_used ON replies (used, key);
CREATE INDEX by_created ON replies (created);
PRAGMA user_version = {VERSION};
COMMIT;
"""
BUSY_S = 5.0  # to wait for another process's write
NETWORK = {"nfs", "nfs4", "cifs", "smb3", "lustre", "gpfs", "beegfs", "ceph", "glusterfs", "fuse.sshfs"}

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CacheStats:
    """What is in a cache file."""

    path: str
    num_replies: int
    num_bytes: int  # of the file, its log included
    by_model: Mapping[str, int]  # replies
    oldest: float | None  # seconds since 1970


def open_cache(path: Path) -> sqlite3.Connection | None:
    """The file, made if need be; read only where it cannot be written; None where there is no using it at all."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        network = network_file_system(path)
        if network is not None:
            logger.warning("no judge cache: %s is on %s; set rewards.cache.path to a local disk", path, network)
            return None
        with _alone(path.parent):
            try:
                return _connect(path)
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError as error:
                _set_aside(path, error)
                return _connect(path)
    except (OSError, sqlite3.Error) as error:
        problem = error
    try:
        file = _connect_to_read(path)
    except sqlite3.Error:
        logger.warning("no judge cache: %s: %s", path, problem)
        return None
    logger.warning("the judge cache %s is read only: %s", path, problem)
    return file


def cache_stats(path: Path) -> CacheStats:
    """What is in a cache file.

    Raises:
        ConfigError: no such file, or not a cache.
    """
    if not path.is_file():
        raise ConfigError(f"no judge cache: {path}", cure="it is made when a judge is asked for the first time")
    try:
        with closing(_connect_to_read(path)) as file:
            by_model = dict(
                file.execute("SELECT model, COUNT(*) FROM replies GROUP BY model ORDER BY model").fetchall()
            )
            oldest = file.execute("SELECT MIN(created) FROM replies").fetchone()[0]
    except sqlite3.Error as error:
        raise ConfigError(
            f"not a judge cache: {error}",
            where=str(path),
            cure="delete it, or name another --path; a run sets a broken cache aside by itself",
        ) from error
    num_bytes = sum(part.stat().st_size for part in _parts(path) if part.exists())
    return CacheStats(str(path), sum(by_model.values()), num_bytes, by_model, oldest)


def find_replies(path: Path, reply_ids: Collection[str]) -> dict[str, str]:
    """Texts of the replies with these ids that are still in a cache file, by id.

    An id that several replies have (a server that numbers from 1 at each start) is left out.

    Raises:
        ConfigError: no such file, or not a cache.
    """
    if not path.is_file():
        raise ConfigError(f"no judge cache: {path}", cure="it is made when a judge is asked for the first time")
    found: dict[str, list[str]] = {}
    try:
        with closing(_connect_to_read(path)) as file:
            for id, text in file.execute("SELECT reply_id, text FROM replies"):
                if id in reply_ids:
                    found.setdefault(id, []).append(text)
    except sqlite3.Error as error:
        raise ConfigError(f"not a judge cache: {error}", where=str(path)) from error
    return {id: texts[0] for id, texts in found.items() if len(texts) == 1}


def clear_cache(path: Path) -> int:
    """Remove a cache file, and corrupt ones that were set aside; the number of bytes freed.

    Processes that have it open go on with what they remember.

    Raises:
        ConfigError: it cannot be removed.
    """
    freed = 0
    try:
        with _alone(path.parent):
            for part in (*_parts(path), *path.parent.glob(f"{path.name}.corrupt-*")):
                if part.exists():
                    size = part.stat().st_size
                    part.unlink()
                    freed += size
    except FileNotFoundError:
        return freed  # no such folder
    except OSError as error:
        raise ConfigError(f"the judge cache cannot be removed: {error}", where=str(path)) from error
    return freed


def network_file_system(path: Path) -> str | None:
    """The kind of network file system that a file is on, None on a local disk."""
    mounts = {Path(mount.mountpoint): mount.fstype for mount in psutil.disk_partitions(all=True)}
    kind = next((mounts[folder] for folder in path.resolve().parents if folder in mounts), "")
    return kind if kind in NETWORK else None


def _parts(path: Path) -> tuple[Path, ...]:
    return tuple(path.with_name(path.name + suffix) for suffix in ("", "-wal", "-shm"))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold a lock on the folder: processes that start together must not make, or set aside, one file at once."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        deadline = time.monotonic() + BUSY_S
        while time.monotonic() < deadline:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.01)
        yield
    finally:
        os.close(handle)


def _connect(path: Path) -> sqlite3.Connection:
    file = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        file.execute("PRAGMA journal_mode = WAL")
        file.execute("PRAGMA synchronous = NORMAL")
        tables = {name for (name,) in file.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if tables - {"replies"}:
            raise sqlite3.OperationalError("it is another program's database")
        if _version(file) < VERSION:
            file.executescript(SCHEMA)
        _check_version(file)
    except sqlite3.Error:
        file.close()
        raise
    return file


def _connect_to_read(path: Path) -> sqlite3.Connection:
    """Without leave to write. In a folder without it, sqlite must be told that nobody else writes either."""
    for mode in ("mode=ro", "mode=ro&immutable=1"):
        file = sqlite3.connect(f"{path.resolve().as_uri()}?{mode}", uri=True, check_same_thread=False)
        try:
            _check_version(file)
            return file
        except sqlite3.Error as error:
            file.close()
            problem = error
    raise problem


def _version(file: sqlite3.Connection) -> int:
    return file.execute("PRAGMA user_version").fetchone()[0]


def _check_version(file: sqlite3.Connection) -> None:
    version = _version(file)
    if version != VERSION:
        raise sqlite3.OperationalError(f"it is of version {version}; this program reads version {VERSION}")


def _set_aside(path: Path, error: sqlite3.DatabaseError) -> None:
    aside = path.with_name(f"{path.name}.corrupt-{time.time_ns()}")
    logger.warning("the judge cache %s cannot be read (%s): set aside as %s, a new one is begun", path, error, aside)
    path.rename(aside)
    for part in _parts(path)[1:]:
        part.unlink(missing_ok=True)
