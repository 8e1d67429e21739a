"""Rows of a data set: JSONL in the messages + videos form that ms-swift and TRL users know.

One object a line:

    {"id": "train-000001",
     "messages": [{"role": "user", "content": "Describe the video.<video>"}, {"role": "assistant", "content": "..."}],
     "videos": ["videos/train-000001.mp4"],
     "captions": {"full": "...", "brief": "..."},      optional: other captions, by name
     "reference": "...",                               optional: what rewards compare with
     "facts": [{"text": "shirt=red", "tag": "detail"}],  optional
     "questions": [{"question": "Who waves?", "options": ["a man", "a girl"], "answer": "a girl"}],  optional
     "keypoints": ["a girl waves", ...],               optional: what a good caption conveys
     "overlays": ["overlays/train-000001/0.png", ...], optional: key frames with a body mesh, for the motion pathway
     "start_s": 0.0, "end_s": 2.0}                     optional: the part of the video that is meant

The policy sees the video where `<video>` stands in the question, or after the question where it stands nowhere.
Every fault is a DataError that names file:line and a cure.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from owlcap.config import DataSection
from owlcap.data.text_file import no_rows, skip_mark
from owlcap.errors import DataError, VideoError
from owlcap.types import Choice, Fact, Sample, Tag

VIDEO_MARK = "<video>"
TARGET_MESSAGES = "messages"  # DataSection.target: the assistant message
DEFAULT_REFERENCE = "reference"  # DataSection.reference: the row's own `reference`, if it has one
TAGS: tuple[Tag, ...] = ("motion", "detail")
MAX_OPTIONS = 26  # of a question: one a letter


def normal_prompt(prompt: str) -> str:
    """A question without space around it, and without a mark at its end: that is where an unmarked video stands."""
    return prompt.strip().removesuffix(VIDEO_MARK).strip()


class Message(TypedDict):
    """One turn; `<video>` in a user turn marks the video."""

    role: str
    content: str


class FactRow(TypedDict):
    """A Fact as JSON."""

    text: str
    tag: Tag


class QuestionRow(TypedDict):
    """A Choice as JSON."""

    question: str
    options: list[str]
    answer: str


class Row(TypedDict):
    """One line of the file."""

    id: str
    messages: list[Message]
    videos: list[str]
    captions: NotRequired[dict[str, str]]
    reference: NotRequired[str]
    facts: NotRequired[list[FactRow]]
    questions: NotRequired[list[QuestionRow]]
    keypoints: NotRequired[list[str]]
    overlays: NotRequired[list[str]]
    start_s: NotRequired[float]
    end_s: NotRequired[float]


def read_rows(path: str | Path, data: DataSection | None = None, *, check_files: bool = False) -> list[Sample]:
    """Read a JSONL file into samples; relative video paths resolve against the file's folder.

    Args:
        path: the JSONL file.
        data: which caption is the target, which the reference, and a prompt that replaces each row's own.
        check_files: also check that every video file exists (a VideoError names the first that does not).

    Raises:
        DataError: the file cannot be read, has no rows, or a row is bad; the error names file:line and the cure.
    """
    samples: list[Sample] = []
    for _, sample in scan_rows(path, data, check_files=check_files):
        if isinstance(sample, DataError):
            raise sample
        samples.append(sample)
    return samples


def scan_rows(
    path: str | Path, data: DataSection | None = None, *, check_files: bool = False, clips_only: bool = False
) -> Iterator[tuple[int, Sample | DataError]]:
    """Each row's line number with its sample, or with the error of a bad one. One row is in memory at a time.

    Args:
        clips_only: look at ids, videos and times alone; rows may lack questions and captions, and samples do.

    Raises:
        DataError: the file cannot be read, or has no rows.
    """
    path = Path(path)
    data = data or DataSection(train=str(path))
    lines_of_ids: dict[str, int] = {}
    try:
        num_rows = 0
        with path.open("rb") as file:
            skip_mark(file, path)
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                num_rows += 1
                try:
                    sample = parse_row(line, path, number, data, check_files=check_files, clips_only=clips_only)
                    if sample.id in lines_of_ids:
                        raise DataError(
                            f"The id {sample.id!r} is used twice.",
                            where=f"{path}:{number}",
                            allowed=f"ids that are unique in the file; line {lines_of_ids[sample.id]} has this one",
                            cure="rename or delete one of the two rows",
                        )
                except DataError as error:
                    yield number, error
                    continue
                lines_of_ids[sample.id] = number
                yield number, sample
        if not num_rows:
            raise no_rows(path)
    except OSError as error:
        raise DataError(
            f"The data file cannot be read: {error.strerror}.",
            where=str(path),
            cure="check the path (data.train, data.validation, evaluation.data), or make a toy set: owlcap data toy",
        ) from error


def parse_row(
    line: bytes, path: Path, number: int, data: DataSection, *, check_files: bool = False, clips_only: bool = False
) -> Sample:
    """The sample of one line, which is line `number` of the file at `path`; its clip alone with `clips_only`.

    Raises:
        DataError: the row is bad; a VideoError where `check_files` misses its video.
    """
    where = f"{path}:{number}"
    reader = _RowReader(_parse_line(line, where), where, path, number)
    return reader.clip(check_files) if clips_only else reader.sample(data, check_files)


def write_rows(path: str | Path, rows: Iterable[Row]) -> None:
    """Write rows as JSONL, all or nothing: to a temporary file beside `path`, flushed to disk, then renamed.

    Raises:
        DataError: the folder cannot be written, or the disk is full; `path` is then as it was.
    """
    path = Path(path)
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes files that only their owner can read
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise DataError(
            f"The data file cannot be written: {error.strerror}.",
            where=str(path),
            cure="free some space or choose a folder that can be written",
        ) from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def _parse_line(line: bytes, where: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(
            f"The row is not UTF-8 (byte {error.start} of the line).", where=where, cure="save the file as UTF-8"
        ) from error
    except json.JSONDecodeError as error:
        raise DataError(
            f"The row is not JSON: {error.msg} (column {error.colno}).",
            where=where,
            allowed="one complete JSON object a line",
            cure="mend or delete this line",
        ) from error
    if not isinstance(row, dict):
        raise DataError(
            f"The row is a JSON {type(row).__name__}.",
            where=where,
            allowed="a JSON object with messages and videos",
            cure="mend or delete this line",
        )
    return row


class _RowReader:
    """Checks one row; knows where it stands, so that every message can say so."""

    def __init__(self, row: Mapping[str, Any], where: str, path: Path, number: int) -> None:
        self.row, self.where, self.path, self.number = row, where, path, number

    def clip(self, check_files: bool) -> Sample:
        start_s, end_s = self._seconds()
        return Sample(self._id(), self._video(check_files), "", "", "", start_s=start_s, end_s=end_s)

    def sample(self, data: DataSection, check_files: bool) -> Sample:
        prompt, answer = self._messages()
        captions = self._captions()
        if data.target == TARGET_MESSAGES:
            if answer is None:
                raise self._bad(
                    "The row has no assistant message.",
                    'messages that end with {"role": "assistant", "content": caption}',
                    "add the caption, or set data.target to a name under captions",
                )
            caption = self._not_empty(answer, "assistant message")
        else:
            caption = self._named_caption(captions, data.target, "data.target")
        prompt = normal_prompt(data.prompt if data.prompt is not None else prompt)
        if not prompt.replace(VIDEO_MARK, "").strip():
            raise self._bad(
                "The row's user message asks nothing.",
                "a text beside the video mark",
                "add a question or set data.prompt",
            )
        start_s, end_s = self._seconds()
        return Sample(
            id=self._id(),
            video=self._video(check_files),
            prompt=prompt,
            caption=caption,
            reference=self._reference(captions, caption, data.reference),
            facts=self._facts(),
            start_s=start_s,
            end_s=end_s,
            questions=tuple(
                self._question(row, f"questions[{index}]") for index, row in enumerate(self._list("questions"))
            ),
            keypoints=self._texts(self._list("keypoints"), "keypoints"),
            overlays=tuple(str(self.path.parent / path) for path in self._texts(self._list("overlays"), "overlays")),
        )

    def _bad(self, what: str, allowed: str, cure: str) -> DataError:
        return DataError(what, where=self.where, allowed=allowed, cure=cure)

    def _id(self) -> str:
        value = self.row.get("id", f"{self.path.stem}-{self.number:06d}")
        if not isinstance(value, str | int) or isinstance(value, bool) or value == "":
            raise self._bad(f"The row's id is {value!r}.", "a text or a number", "give it a name, or leave id out")
        return str(value)

    def _messages(self) -> tuple[str, str | None]:
        messages = self.row.get("messages")
        allowed = "messages: one user message, then one assistant message, each with role and content"
        if not isinstance(messages, list) or not messages:
            raise self._bad("The row has no messages.", allowed, "add the key messages")
        roles: list[Any] = []
        texts: list[str] = []
        for message in messages:
            if not isinstance(message, dict) or not isinstance(message.get("content"), str):
                raise self._bad(
                    f"A message of the row is {message!r:.80}.", allowed, "give it a role and a text content"
                )
            roles.append(message.get("role"))
            texts.append(message["content"])
        if roles not in (["user"], ["user", "assistant"]):
            raise self._bad(
                f"The row's messages have the roles {', '.join(map(repr, roles))}.",
                allowed,
                "split longer conversations into rows, and put system text into the user message",
            )
        if texts[0].count(VIDEO_MARK) > 1:
            raise self._bad("The user message marks more than one video.", f"one {VIDEO_MARK} a row", "split the row")
        return texts[0], texts[1] if len(texts) == 2 else None

    def _captions(self) -> Mapping[str, Any]:
        captions = self.row.get("captions", {})
        if not isinstance(captions, dict):
            raise self._bad(
                "The row's captions are not an object.", '{"name": "caption", ...}', "mend the key captions"
            )
        return captions

    def _named_caption(self, captions: Mapping[str, Any], name: str, key: str) -> str:
        if name not in captions:
            known = ", ".join([TARGET_MESSAGES if key == "data.target" else DEFAULT_REFERENCE, *captions])
            raise self._bad(
                f"The row has no caption {name!r}.", known, f"set {key} to one of these, or add the caption"
            )
        return self._not_empty(captions[name], f"caption {name!r}")

    def _not_empty(self, text: Any, name: str) -> str:
        if not isinstance(text, str) or not text.strip():
            raise self._bad(f"The row's {name} has zero length.", "a text", "write the caption or delete the row")
        return text.strip()

    def _reference(self, captions: Mapping[str, Any], caption: str, name: str) -> str:
        if name != DEFAULT_REFERENCE:
            return self._named_caption(captions, name, "data.reference")
        if DEFAULT_REFERENCE in self.row:
            return self._not_empty(self.row[DEFAULT_REFERENCE], "reference")
        if DEFAULT_REFERENCE in captions:
            return self._not_empty(captions[DEFAULT_REFERENCE], "caption 'reference'")
        return caption

    def _video(self, check_files: bool) -> str:
        videos = self.row.get("videos")
        if not isinstance(videos, list) or len(videos) != 1 or not isinstance(videos[0], str) or not videos[0].strip():
            found = "no videos" if not videos else f"videos {videos!r:.80}"
            raise self._bad(f"The row has {found}.", 'videos: ["path.mp4"], one a row', "add the key videos")
        if "\0" in videos[0]:
            raise self._bad("The video's path has a zero byte in it.", "a file's path", "mend the key videos")
        video = self.path.parent / videos[0]  # an absolute path stays as it is
        if check_files and not video.is_file():
            raise VideoError(
                "The row's video does not exist.",
                where=f"{self.where} -> {video}",
                cure="restore the file, mend the path, or delete the row",
            )
        return str(video)

    def _facts(self) -> tuple[Fact, ...]:
        facts = self.row.get("facts", [])
        allowed = 'facts: [{"text": "shirt=red", "tag": "motion" or "detail"}]'
        if not isinstance(facts, list):
            raise self._bad("The row's facts are not a list.", allowed, "mend the key facts")
        for fact in facts:
            if not isinstance(fact, dict) or not isinstance(fact.get("text"), str) or fact.get("tag") not in TAGS:
                raise self._bad(f"A fact of the row is {fact!r:.80}.", allowed, "give it a text and a tag")
        return tuple(Fact(text=fact["text"], tag=fact["tag"]) for fact in facts)

    def _list(self, key: str) -> list[Any]:
        value = self.row.get(key, [])
        if not isinstance(value, list):
            raise self._bad(f"The row's {key} are not a list.", f"{key}: [...]", f"mend the key {key}")
        return value

    def _text(self, value: Any, field: str) -> str:
        if not isinstance(value, str) or not value.strip():
            raise self._bad(f"The row's {field} is {value!r:.80}.", "a text", f"mend or remove {field}")
        return value.strip()

    def _texts(self, values: list[Any], field: str) -> tuple[str, ...]:
        texts = tuple(self._text(value, f"{field}[{index}]") for index, value in enumerate(values))
        twice = [text for text in texts if texts.count(text) > 1]
        if twice:
            raise self._bad(f"The row's {field} have {twice[0]!r:.80} twice.", "texts that differ", "keep one")
        return texts

    def _question(self, row: Any, field: str) -> Choice:
        allowed = '{"question": text, "options": [text, ...], "answer": one of the options}'
        if not isinstance(row, dict):
            raise self._bad(f"The row's {field} is {row!r:.80}.", allowed, f"mend {field}")
        question = self._text(row.get("question"), f"{field}.question")
        options = row.get("options")
        if not isinstance(options, list) or not 2 <= len(options) <= MAX_OPTIONS:
            raise self._bad(
                f"The row's {field}.options are {options!r:.80}.",
                f"a list of 2 to {MAX_OPTIONS} texts",
                f"mend {field}",
            )
        texts = self._texts(options, f"{field}.options")
        answer = self._text(row.get("answer"), f"{field}.answer")
        if answer not in texts:
            raise self._bad(
                f"The row's {field}.answer is {answer!r:.80}.",
                f"the text of one of the options: {', '.join(map(repr, texts))}",
                f"mend {field}",
            )
        return Choice(question, texts, answer)

    def _seconds(self) -> tuple[float | None, float | None]:
        times: list[float | None] = []
        for key in ("start_s", "end_s"):
            value = self.row.get(key)
            wrong = isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf
            if value is not None and wrong:
                raise self._bad(f"The row's {key} is {value!r}.", "seconds, 0 or more", f"mend or remove {key}")
            times.append(None if value is None else float(value))
        start_s, end_s = times
        if end_s is not None and end_s <= (start_s or 0.0):
            raise self._bad(
                f"The row's end_s ({end_s}) is not after its start_s ({start_s or 0.0}).",
                "start_s < end_s, in seconds",
                "mend or remove the two",
            )
        return start_s, end_s
