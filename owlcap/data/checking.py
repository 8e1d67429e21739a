"""`owlcap data check`: every row and video opened, the exact prompt with its tokens, duplicates and leaks."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from owlcap.config import DataSection, MotionSection, VideoSection
from owlcap.data.overlap import (
    Gaps,
    Marks,
    Overlap,
    caption_mark,
    file_mark,
    marks_of_benchmark,
    marks_of_rows,
    row_ids,
    scan_to_compare,
)
from owlcap.data.sizing import CELL
from owlcap.data.video import TEMPORAL_PATCH, VideoLoader
from owlcap.errors import DataError, PromptError, VideoError
from owlcap.types import Sample, VideoClip

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLProcessor

EXAMPLES = 5  # of each problem that are shown
CLIPS_AHEAD = 4  # of the rows that are looked at, a worker

Progress = Callable[[int, int], None]


@dataclass(slots=True)
class Spread:
    """Smallest, mean and largest of numbers that come one by one."""

    count: int = 0
    total: float = 0.0
    least: float = float("inf")
    most: float = float("-inf")

    def add(self, value: float) -> None:
        """Count one more."""
        self.count += 1
        self.total += value
        self.least, self.most = min(self.least, value), max(self.most, value)

    def text(self, form: str = ",.0f") -> str:
        """E.g. "12 to 40, mean 21.3"."""
        if not self.count:
            return "none"
        return f"{self.least:{form}} to {self.most:{form}}, mean {self.total / self.count:,.1f}"


@dataclass(slots=True)
class CheckReport:
    """What a check found."""

    path: Path
    num_rows: int = 0
    problems: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    words: Spread = field(default_factory=Spread)  # of captions
    frames: Spread = field(default_factory=Spread)
    seconds: Spread = field(default_factory=Spread)
    video_tokens: Spread = field(default_factory=Spread)
    text_tokens: Spread = field(default_factory=Spread)
    prompt_tokens: Spread = field(default_factory=Spread)
    max_prompt_tokens: int = 0
    first_prompt: str = ""  # as the policy sees it, its video tokens counted
    overlaps: list[Overlap] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """No bad row, no duplicate, no leak."""
        return not self.problems

    def note(self, kind: str, where: str, what: str = "") -> None:
        """Count a problem; the first few are kept as examples."""
        self.problems[kind] += 1
        shown = self.examples.setdefault(kind, [])
        if len(shown) < EXAMPLES:
            shown.append(f"{where}: {what}" if what else where)

    def text(self) -> str:
        """One table, the first prompt, and examples of what is wrong."""
        lines = [
            ("rows", f"{self.num_rows:,} in {self.path}"),
            ("caption words", self.words.text()),
            ("frames a clip", self.frames.text()),
            ("seconds a clip", self.seconds.text(",.1f")),
            ("video tokens", self.video_tokens.text()),
        ]
        if self.text_tokens.count:
            lines.append(("text tokens", self.text_tokens.text()))
            lines.append(("prompt tokens", f"{self.prompt_tokens.text()}; at most {self.max_prompt_tokens:,} allowed"))
        for one in self.overlaps:
            told = f"{len(one.by_id)} ids, {len(one.by_video)} videos, {len(one.by_caption)} captions in common"
            gaps = one.gaps.text()
            lines.append((f"against {one.name}", f"{told} ({one.num_rows:,} rows{'; ' + gaps if gaps else ''})"))
        lines += [(f"! {kind}", f"{count:,}") for kind, count in self.problems.most_common()]
        lines.append(("found", f"{sum(self.problems.values()):,} problems" if self.problems else "nothing wrong"))
        width = max(len(name) for name, _ in lines)
        table = [f"{name:<{width}}  {told}" for name, told in lines]
        if self.first_prompt:
            table += ["", "the first prompt:", self.first_prompt]
        for kind, shown in self.examples.items():
            table += ["", f"{kind}:", *(f"  {one}" for one in shown)]
        return "\n".join(table)


def check_data(
    path: Path,
    data: DataSection,
    video: VideoSection,
    *,
    motion: MotionSection | None = None,
    processor: Qwen2_5_VLProcessor | None = None,
    against: Sequence[Path] = (),
    benchmarks: Sequence[Path] = (),
    progress: Progress | None = None,
) -> CheckReport:
    """Open every row and video of a JSONL.

    Args:
        motion: whether and how the policy is shown the rows' overlays; None: it is not.
        processor: of the policy; None counts no text tokens and renders no prompt.
        against: other splits, which must share no row with this one.
        benchmarks: annotation files or video folders that must not be trained on.
        progress: called with (rows done, rows in all).

    Raises:
        DataError: a file cannot be read at all.
    """
    report = CheckReport(path, max_prompt_tokens=data.max_prompt_tokens)
    samples: list[tuple[int, Sample]] = []
    bad: list[tuple[int, Sample]] = []  # what can be compared of bad rows
    gaps = Gaps()
    for number, sample, known in scan_to_compare(path, data, gaps):
        report.num_rows += 1
        if isinstance(sample, DataError):
            allowed = f" Allowed: {sample.allowed}." if sample.allowed else ""
            told = f"{sample.what}{allowed} Cure: {sample.cure}."
            report.note(_kind(sample), sample.where or f"{path}:{number}", told)
            bad += [] if known is None else [(number, known)]
        else:
            samples.append((number, sample))
            report.words.add(len(sample.caption.split()))
    marks = _find_duplicates(report, samples)
    for done, (sample, clip) in enumerate(_decoded([sample for _, sample in samples], video, motion), start=1):
        _look(report, sample, clip, processor, f"{path}:{samples[done - 1][0]}")
        if progress is not None:
            progress(done, len(samples))
    others = [*map(marks_of_rows, against), *map(marks_of_benchmark, benchmarks)]
    if others:
        marks += [file_mark(Path(sample.video)) for _, sample in bad]
    report.overlaps = [_overlap(report, [*samples, *bad], marks, other, gaps) for other in others]
    return report


def _kind(error: DataError) -> str:
    if "used twice" in error.what:
        return "duplicate ids"
    if "UTF-8" in error.what:
        return "wrong encoding"
    return "broken JSON" if "not JSON" in error.what else "bad rows"


def _find_duplicates(report: CheckReport, samples: Sequence[tuple[int, Sample]]) -> list[bytes | None]:
    """Hash of each row's video; rows that ask the same of the same video are told."""
    hashes: list[bytes | None] = []
    of_files: dict[str, bytes | None] = {}
    asked: dict[object, int] = {}
    captions: dict[bytes, tuple[int, bytes]] = {}
    for number, sample in samples:
        if sample.video not in of_files:
            of_files[sample.video] = file_mark(Path(sample.video))
        content = of_files[sample.video]
        hashes.append(content)
        key = (content, sample.start_s, sample.end_s, sample.prompt)
        if content is not None and asked.setdefault(key, number) != number:
            report.note("same video and question", f"{report.path}:{number}", f"as line {asked[key]}")
        mark = caption_mark(sample.caption)
        if mark is not None and content is not None:
            first, other = captions.setdefault(mark, (number, content))
            if other != content:
                report.note("same caption, other video", f"{report.path}:{number}", f"as line {first}")
    return hashes


def _decoded(
    samples: Sequence[Sample], video: VideoSection, motion: MotionSection | None
) -> Iterator[tuple[Sample, VideoClip | DataError]]:
    """Clips in order, a few ahead."""

    def load(sample: Sample) -> VideoClip | DataError:
        try:
            return loader.load(sample)
        except DataError as error:
            return error

    with VideoLoader(video, motion) as loader, ThreadPoolExecutor(video.num_workers) as threads:
        coming: list[Future[VideoClip | DataError]] = []
        for place, sample in enumerate(samples):
            for ahead in samples[place + len(coming) : place + CLIPS_AHEAD * video.num_workers]:
                coming.append(threads.submit(load, ahead))
            yield sample, coming.pop(0).result()


def _look(
    report: CheckReport, sample: Sample, clip: VideoClip | DataError, processor: Qwen2_5_VLProcessor | None, where: str
) -> None:
    """Count one clip and its prompt."""
    if isinstance(clip, DataError):
        kind = "missing videos" if not Path(sample.video).exists() else "unreadable videos"
        report.note(kind if isinstance(clip, VideoError) else "bad rows", where, f"{sample.video}: {clip.what}")
        return
    num_frames, height, width = clip.frames.shape[:3]
    tokens = num_frames // TEMPORAL_PATCH * (height // CELL) * (width // CELL)
    report.frames.add(num_frames)
    report.seconds.add(clip.duration_s)
    if processor is None:
        report.video_tokens.add(tokens)
        return
    from owlcap.data.prompts import encode_prompt

    try:
        prompt = encode_prompt(processor, clip, sample, max_tokens=2**31)
    except PromptError as error:
        report.note("prompts that cannot be built", where, error.what)
        return
    tokens = prompt.token_ids.count(processor.video_token_id)
    report.video_tokens.add(tokens)
    report.text_tokens.add(len(prompt.token_ids) - tokens)
    report.prompt_tokens.add(len(prompt.token_ids))
    if len(prompt.token_ids) > report.max_prompt_tokens:
        report.note("prompts too long", where, f"{len(prompt.token_ids):,} tokens")
    if not report.first_prompt:
        report.first_prompt = _shown(processor, prompt.token_ids)


def _shown(processor: Qwen2_5_VLProcessor, token_ids: Sequence[int]) -> str:
    """The prompt as text, with its run of video tokens counted instead of written out."""
    pad = processor.video_token
    text = processor.tokenizer.decode(list(token_ids))
    assert isinstance(text, str)
    return re.sub(f"(?:{re.escape(pad)})+", lambda found: f"{pad} x {len(found[0]) // len(pad)}", text)


def _overlap(
    report: CheckReport,
    samples: Sequence[tuple[int, Sample]],
    hashes: Sequence[bytes | None],
    other: Marks,
    gaps: Gaps,
) -> Overlap:
    """What the rows share with another set; each row that shares anything is a leak."""
    by_id: list[str] = []
    by_video: list[str] = []
    by_caption: list[str] = []
    for (number, sample), content in zip(samples, hashes, strict=True):
        here = f"{report.path}:{number}"
        names = row_ids(sample)
        name = next((name for name in reversed(names) if name in other.ids), "")
        marks = {caption_mark(sample.caption), caption_mark(sample.reference)} - {None}
        told = next((other.captions[mark] for mark in marks if mark in other.captions), None)
        for found, there, what in (
            (by_id, other.ids.get(name), names.get(name)),
            (by_video, other.videos.get(content) if content else None, "its video"),
            (by_caption, told, "its caption"),
        ):
            if there is not None:
                found.append(f"{here} is {there}")
                report.note(f"leaks of {other.name}", here, f"{what} is that of {there}")
    return Overlap(other.name, other.num_rows, tuple(by_id), tuple(by_video), tuple(by_caption), gaps + other.gaps)
