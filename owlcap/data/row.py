"""One row of a data set: checked, and made into a sample. A fault is a DataError that names file:line and a cure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from owlcap.config import DataSection
from owlcap.data.text_file import parse_json
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


def _parse_line(line: bytes, where: str) -> Mapping[str, Any]:
    try:
        row = parse_json(line.decode("utf-8"))
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
                f"The row has no caption {name!r}.", known, f"set {key} to one of these, or add the caption to the row"
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
