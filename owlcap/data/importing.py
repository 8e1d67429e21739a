"""`owlcap data import`: rows of any known format become a JSONL of ours, and what could not is kept beside it.

OUT                     the rows
OUT.problems.jsonl      every row that was not taken over: where it stood, why, and the row itself
OUT's name-videos/      videos that were stored inside the rows
"""

from __future__ import annotations

import base64
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from itertools import count as count_from
from pathlib import Path
from typing import IO, Any

from owlcap.config import DataSection
from owlcap.data.formats.detect import AUTO, Part, Source, open_source
from owlcap.data.formats.reading import Found, Problem
from owlcap.data.formats.turns import BadRow, VideoBytes
from owlcap.data.formats.webdataset_tar import SHARD_ENDINGS
from owlcap.data.outputs import check_output
from owlcap.data.row import parse_row
from owlcap.data.rows import Row, write_rows
from owlcap.errors import DataError, VideoError

EXAMPLES = 3  # of each kind of problem that are shown


@dataclass(slots=True)
class ImportReport:
    """What an import read and wrote."""

    source: Source
    out: Path
    num_read: int = 0
    num_written: int = 0
    num_repeats: int = 0  # rows that an index asked to take more than once
    num_split: int = 0  # further rows made of conversations with several questions
    num_renamed: int = 0  # whose own id had been made up for another row before
    num_left_out: int = 0  # rows that an index's repeat_time below 1 leaves out
    problems: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)  # of each kind, the first few

    @property
    def problems_file(self) -> Path:
        """Where the rows are that were not taken over."""
        return self.out.with_name(self.out.name + ".problems.jsonl")

    def text(self) -> str:
        """The report as lines."""
        notes = [
            (self.num_split, "made of further questions of a conversation"),
            (self.num_repeats, "repeated as the index asks"),
            (self.num_renamed, "got another id: theirs had been made up for a row before"),
            (self.num_left_out, "left out as the index asks"),
        ]
        lines = [
            f"format     {self.source.format} ({self.source.evidence})",
            f"read       {self.num_read:,} rows",
            f"written    {self.num_written:,} rows to {self.out}",
            *(f"           {count:,} {what}" for count, what in notes if count),
        ]
        for kind, count in self.problems.most_common():
            lines.append(f"problem    {count:,} {kind}")
            lines += [f"             {example}" for example in self.examples[kind]]
            if count > EXAMPLES:
                lines.append(f"             and {count - EXAMPLES:,} more")
        if self.problems:
            lines.append(f"           all of these rows, with their reasons, are in {self.problems_file}")
        return "\n".join(lines)


def import_data(
    source: Path, out: Path, *, format: str = AUTO, video_root: Path | None = None, check_files: bool = True
) -> ImportReport:
    """Write a data set of any known format as JSONL of ours.

    Args:
        format: one of `owlcap.data.formats.detect.FORMATS`, or "auto".
        video_root: the folder that relative video paths start at; None: that of the file they stand in.
        check_files: a row whose video is not there is a problem.

    Raises:
        DataError: nothing can be read, OUT is what is read, no row can be taken over (the problems are written all the
            same), or the disk cannot be written. OUT is then as it was.
    """
    report = ImportReport(open_source(source, format), out)
    read = [source, *(part.path for part in report.source.parts)]
    check_output(out, read, ".jsonl", beside=[report.problems_file])
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with report.problems_file.open("w", encoding="utf-8") as problems:
            write_rows(out, _some(_Importer(report, problems, video_root, check_files).rows(), report))
    except OSError as error:
        raise DataError(
            f"The rows cannot be written: {error.strerror}.", where=str(out), cure="choose a folder that can be written"
        ) from error
    finally:
        if not report.problems:
            report.problems_file.unlink(missing_ok=True)
    return report


def _some(rows: Iterator[Row], report: ImportReport) -> Iterator[Row]:
    """The rows; an error at the end where there are none, so that nothing is written."""
    yield from rows
    if report.num_written:
        return
    counts = ", ".join(f"{number:,} {kind}" for kind, number in report.problems.most_common())
    kind = next(iter(report.problems.most_common(1)), ("", 0))[0]
    cure = "docs/data.md has each format's keys"
    if "missing video" in report.problems:
        cure = "name the folder that relative video paths start at: --video-root FOLDER"
    raise DataError(
        f"No row could be taken over: {report.num_read:,} read, {counts or 'no problem'}"
        + (f"; first: {report.examples[kind][0]}." if kind else "."),
        where=str(report.source.parts[0].path),
        cure=f"{cure}; the rows with their reasons are in {report.problems_file}" if kind else cure,
    )


def part_names(paths: Sequence[Path]) -> list[str]:
    """A name for each file, which made-up ids begin with: its own, longer where another file's is the same."""
    shard = [next((end for end in SHARD_ENDINGS if path.name.endswith(end)), path.suffix) for path in paths]
    bare = [os.path.abspath(path).removesuffix(ending) for path, ending in zip(paths, shard, strict=True)]
    stems = [os.path.basename(path) for path in bare]
    root = os.path.commonpath([os.path.dirname(path) for path in bare])
    names: list[str] = []
    for path, stem in zip(bare, stems, strict=True):
        name = stem if stems.count(stem) == 1 else os.path.relpath(path, root).replace(os.sep, "-")
        names.append(_free([name], set(names))[0])
    return names


def _free(names: list[str], used: set[str]) -> list[str]:
    """The names, with the first number behind them that makes all of them new."""
    for ending in chain([""], (f"-{number}" for number in count_from(2))):
        tried = [name + ending for name in names]
        if used.isdisjoint(tried):
            return tried
    raise AssertionError


class _Importer:
    """Rows one after another, counted in the report."""

    def __init__(self, report: ImportReport, problems: IO[str], video_root: Path | None, check_files: bool) -> None:
        self._report, self._problems, self._root, self._check = report, problems, video_root, check_files
        self._ids: set[str] = set()
        self._own: set[tuple[int, str]] = set()  # ids that stand in the source, by turn
        self._data = DataSection(train=str(report.out))
        self._videos = report.out.with_name(f"{report.out.stem}-videos")

    def rows(self) -> Iterator[Row]:
        """The rows to write."""
        parts = self._report.source.parts
        for part, name in zip(parts, part_names([part.path for part in parts]), strict=True):
            for turn in range(max(1, int(part.repeat))):
                yield from self._part(part, name, turn)

    def _part(self, part: Part, name: str, turn: int) -> Iterator[Row]:
        found_rows = list(part.rows()) if part.repeat < 1 else part.rows()
        kept = int(len(found_rows) * part.repeat) if isinstance(found_rows, list) else None
        for number, found in enumerate(found_rows, start=1):
            if kept is not None and number > kept:
                self._report.num_left_out += 1
                continue
            if turn == 0:
                self._report.num_read += 1
            if isinstance(found, Problem):
                self._tell(found, turn)
                continue
            try:
                yield from self._convert(part, name, found, number, turn)
            except BadRow as error:
                self._tell(Problem(found.where, error.kind, str(error), found.row), turn)

    def _convert(self, part: Part, prefix: str, found: Found, number: int, turn: int) -> Iterator[Row]:
        """The rows of one; all of them or, by a BadRow, none."""
        turns = part.convert(found.row)
        if turns.id is not None and (turn, turns.id) in self._own:
            raise BadRow("duplicate id", f"the id {turns.id!r} is used before")
        name = f"{prefix}-{number:06d}"
        if isinstance(turns.video, VideoBytes):
            video = self._store(turns.video, name)
        else:
            video = str((self._root or part.path.parent) / turns.video)
        ready: list[Row] = []
        for row in turns.rows(f"{prefix}-{found.name}" if found.name else name, self._relative(video)):
            if turn:
                row["id"] += f"-repeat{turn + 1}"
            if isinstance(overlays := turns.extra.get("overlays"), list):
                row["overlays"] = [self._relative(str(part.path.parent / str(one))) for one in overlays]
            try:
                line = json.dumps(row, ensure_ascii=False).encode()
                parse_row(line, self._report.out, number, self._data, check_files=self._check)
            except VideoError:
                raise BadRow("missing video", f"there is no file {video}") from None
            except DataError as error:
                raise BadRow("bad row", f"{error.what} Allowed: {error.allowed}") from None
            except (UnicodeEncodeError, TypeError, ValueError) as error:
                raise BadRow("bad row", str(error)) from None
            ready.append(row)
        names = _free([row["id"] for row in ready], self._ids)
        if turns.id is not None:
            self._own.add((turn, turns.id))
            self._report.num_renamed += names[0] != ready[0]["id"]
        for row, free in zip(ready, names, strict=True):
            row["id"] = free
        self._ids.update(names)
        self._report.num_written += len(ready)
        self._report.num_split += (len(ready) - 1) if not turn else 0
        self._report.num_repeats += len(ready) if turn else 0
        yield from ready

    def _store(self, video: VideoBytes, name: str) -> str:
        self._videos.mkdir(exist_ok=True)
        file = self._videos / f"{name}{video.suffix}"
        file.write_bytes(video.content)
        return str(file)

    def _relative(self, video: str) -> str:
        """Relative where the video lies below the rows' folder, so that the two can be moved together."""
        absolute, folder = os.path.abspath(video), os.path.abspath(self._report.out.parent)
        return os.path.relpath(absolute, folder) if absolute.startswith(folder + os.sep) else absolute

    def _tell(self, problem: Problem, turn: int) -> None:
        if turn:
            return  # told at the first time
        self._report.problems[problem.kind] += 1
        examples = self._report.examples.setdefault(problem.kind, [])
        if len(examples) < EXAMPLES:
            examples.append(f"{problem.where}: {problem.what}")
        told = {"where": problem.where, "kind": problem.kind, "what": problem.what, "row": problem.raw}
        self._problems.write(json.dumps(told, ensure_ascii=True, default=_plain) + "\n")


def _plain(value: Any) -> Any:
    """What JSON has no form for: the bytes of a video."""
    return {"base64": base64.b64encode(value).decode()} if isinstance(value, bytes) else repr(value)
