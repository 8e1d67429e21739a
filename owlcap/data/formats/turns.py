"""What every format is brought to before it becomes a row: questions and answers about one video."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from owlcap.data.row import VIDEO_MARK
from owlcap.data.rows import Message, Row

IMAGE_MARK = "<image>"  # LLaVA marks videos with it too
PLAIN_CAPTION = "Describe the video in detail."  # asked where a format has captions but no questions
OUR_KEYS = (
    "captions",
    "reference",
    "facts",
    "questions",
    "keypoints",
    "overlays",
    "start_s",
    "end_s",
)  # rows that are ours already
TIMES = {"start_time": "start_s", "end_time": "end_s"}  # what others call them


class BadRow(ValueError):
    """A row that cannot be taken over; `kind` is what it is counted under."""

    def __init__(self, kind: str, what: str) -> None:
        super().__init__(what)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class VideoBytes:
    """A video that is stored in the row itself."""

    content: bytes
    suffix: str = ".mp4"


@dataclass(frozen=True, slots=True)
class Turns:
    """One row of any format: questions about a video with their answers.

    An answer is None where a row only asks, as for RL: then its reference is taken.
    """

    pairs: tuple[tuple[str, str | None], ...]
    video: str | VideoBytes
    id: str | None = None
    system: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)  # keys of our own rows

    def rows(self, fallback_id: str, video: str) -> Iterator[Row]:
        """A row for each question; the second and later get -turn2, -turn3, ... behind the id.

        Raises:
            BadRow: a question has neither an answer nor a reference.
        """
        name = self.id if self.id is not None else fallback_id
        for number, (question, answer) in enumerate(self.pairs, start=1):
            asked = question if VIDEO_MARK in question else VIDEO_MARK + question
            content = f"{self.system}\n\n{asked}" if self.system else asked
            answer = answer if answer is not None else self.extra.get("reference")
            if not isinstance(answer, str):
                raise BadRow("no caption", "a question has no answer, and the row no reference")
            messages: list[Message] = [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]
            row = Row(id=name if number == 1 else f"{name}-turn{number}", messages=messages, videos=[video])
            row.update(self.extra)  # type: ignore[typeddict-item]
            yield row


def one_video(row: Mapping[str, Any], key: str) -> str | VideoBytes:
    """The row's video: a path, a list of one path, or a dictionary with `path` or `bytes` as data sets store it.

    Raises:
        BadRow: none, several, or something else.
    """
    value = row.get(key)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        if len(value) > 1:
            raise BadRow("several videos", f"the row has {len(value)} videos; allowed: one")
        value = value[0] if value else None
    if isinstance(value, Mapping):
        content, value = value.get("bytes"), value.get("path") or value.get("video")
        if isinstance(content, bytes) and content:
            return VideoBytes(content, suffix_of(value))
    if isinstance(value, bytes) and value:
        return VideoBytes(value)
    if not isinstance(value, str) or not value.strip():
        raise BadRow("no video", f"{key} is {value!r:.60}; allowed: the path of one video")
    return value.removeprefix("file://")


def suffix_of(path: object) -> str:
    """The file ending of a stored video, .mp4 where its name does not say."""
    name = path if isinstance(path, str) else ""
    ending = name.rpartition(".")[2]
    return f".{ending}" if "." in name and ending.isalnum() and len(ending) <= 5 else ".mp4"


def pair_up(messages: Sequence[tuple[str, str]]) -> tuple[str, tuple[tuple[str, str | None], ...]]:
    """System text, and user turns with the answers that follow them.

    Args:
        messages: (role, text) with the roles system, user and assistant.

    Raises:
        BadRow: another role, an answer without a question, two questions in a row, or nothing asked.
    """
    system = "\n".join(text for role, text in messages if role == "system").strip()
    pairs: list[tuple[str, str | None]] = []
    for role, text in messages:
        if role == "user":
            if pairs and pairs[-1][1] is None:
                raise BadRow("roles", "two user messages follow one another")
            pairs.append((text, None))
        elif role == "assistant":
            if not pairs or pairs[-1][1] is not None:
                raise BadRow("roles", "an assistant message has no user message before it")
            pairs[-1] = (pairs[-1][0], text)
        elif role != "system":
            raise BadRow("roles", f"a message has the role {role!r}; allowed: system, user, assistant")
    if not pairs:
        raise BadRow("roles", "the row asks nothing: no user message")
    return system, tuple(pairs)


def mark_video(text: str) -> str:
    """A question with <video> where LLaVA and others write <image> for the frames.

    Raises:
        BadRow: more than one mark: the row shows several pictures.
    """
    if text.count(IMAGE_MARK) + text.count(VIDEO_MARK) > 1:
        raise BadRow("several videos", "a question marks several pictures; allowed: one video a row")
    return text.replace(IMAGE_MARK, VIDEO_MARK)


def own_keys(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a row has of our own optional keys."""
    return {**times(row), **{key: row[key] for key in OUR_KEYS if row.get(key) is not None}}


def times(row: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the video that is meant, by our keys or by OwlCap's; of those, 0 and null mean: not cut."""
    theirs = {ours: row[key] for key, ours in TIMES.items() if row.get(key)}
    return {**theirs, **{key: row[key] for key in TIMES.values() if row.get(key) is not None}}


def row_id(row: Mapping[str, Any]) -> str | None:
    """The row's id as text; None where it has none.

    Raises:
        BadRow: it is neither a text nor a number.
    """
    value = row.get("id")
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise BadRow("id", f"the id is {value!r:.60}; allowed: a text or a number")
    return str(value)
