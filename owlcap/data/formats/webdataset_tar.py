"""WebDataset tars: files of one name are one sample, e.g. 000017.mp4 with 000017.txt or 000017.json.

The caption is in .txt or .caption, or in the JSON: as `caption` or `text`, or as a whole row of another format.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from owlcap.data.formats.reading import Found, Problem
from owlcap.data.text_file import parse_json
from owlcap.errors import ConfigError

VIDEO_ENDINGS = ("mp4", "avi", "mov", "mkv", "webm")
TEXT_ENDINGS = ("txt", "caption")
SHARD_ENDINGS = (".tar", ".tar.gz", ".tgz")


def tar_files(source: Path) -> list[Path]:
    """The shards: the file itself, or those of a folder."""
    files = sorted(source.iterdir()) if source.is_dir() else [source]
    return [file for file in files if file.name.endswith(SHARD_ENDINGS)]


def read_tar(path: Path) -> Iterator[Found | Problem]:
    """Samples of one shard as rows: `video` (its bytes), `caption`, and the keys of its JSON but for `id`.

    Raises:
        ConfigError: the package webdataset is not installed.
    """
    try:
        from webdataset.tariterators import base_plus_ext
    except ImportError as error:
        raise ConfigError(
            "the package webdataset is not installed", cure="install owlcap's extra `data`: pip install 'owlcap[data]'"
        ) from error
    key, files = None, {}
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                name, ending = base_plus_ext(member.name)
                if not member.isfile() or name is None:
                    continue
                if name != key:
                    if files:
                        yield _row(path, str(key), files)
                    key, files = name, {}
                files[str(ending).lower()] = tar.extractfile(member).read()  # type: ignore[union-attr]
        if files:
            yield _row(path, str(key), files)
    except (tarfile.TarError, EOFError, OSError) as error:  # the sample that it broke in is not whole
        yield Problem(f"{path}: {key or 'its beginning'}", "broken tar", str(error), sorted(files))


def _row(path: Path, key: str, files: dict[str, bytes]) -> Found | Problem:
    where, names = f"{path}: {key}", sorted(f"{key}.{ending}" for ending in files)
    row: dict[str, Any] = {}
    try:
        if "json" in files:
            row = parse_json(files["json"].decode("utf-8-sig"))
            if not isinstance(row, dict):
                return Problem(where, "not an object", "its JSON is no object", row)
        for ending in TEXT_ENDINGS:
            if ending in files:
                row["caption"] = files[ending].decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        return Problem(where, "wrong encoding", f"not UTF-8: byte {error.start}", names)
    except ValueError as error:
        return Problem(where, "broken JSON", str(error), files["json"].decode("utf-8", "replace"))
    video = next((ending for ending in VIDEO_ENDINGS if ending in files), None)
    if video is None:
        return Problem(where, "no video", f"no file ends in {', '.join(VIDEO_ENDINGS)}", names)
    stored = {"bytes": files[video], "path": f"{Path(key).name}.{video}"}
    row["videos" if "videos" in row else "video"] = stored
    return Found(where, {**row, "id": None}, name=key)  # shards may count from 0 each
