"""TRL's conversational data sets: {"messages"} or {"prompt", "completion"}, with contents that are text or parts.

Source: TRL's "Dataset formats and types". Parts are {"type": "text", "text"} and {"type": "video", "video"?}; a video
part without a path takes the row's column `videos` (or `video`). A row with a `prompt` alone is for GRPO; its
reference is in `reference`, `solution` or `ground_truth`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from owlcap.data.formats.turns import BadRow, Turns, VideoBytes, mark_video, one_video, own_keys, pair_up, row_id
from owlcap.data.row import VIDEO_MARK

REFERENCES = ("solution", "ground_truth")


def fits(row: Mapping[str, Any]) -> str | None:
    """Evidence that a row is of this format, or None."""
    if isinstance(row.get("prompt"), list):
        return "prompt is a list of messages"
    messages = row.get("messages")
    if isinstance(messages, list) and any(
        isinstance(m, Mapping) and isinstance(m.get("content"), list) for m in messages
    ):
        return "messages whose content is a list of parts"
    return None


def convert(row: Mapping[str, Any]) -> Turns:
    """The row's questions and answers.

    Raises:
        BadRow: with the reason.
    """
    messages = row.get("messages")
    if messages is None:
        messages = [*_listed(row, "prompt"), *(_listed(row, "completion") if row.get("completion") is not None else ())]
    if not isinstance(messages, list):
        raise BadRow("messages", "the row has neither messages nor prompt")
    inside: list[Mapping[str, Any]] = []
    system, pairs = pair_up([_said(message, inside) for message in messages])
    column = next((name for name in ("videos", "video") if row.get(name) is not None), None)
    if column is not None:
        video: str | VideoBytes = one_video(row, column)
    else:
        video = one_video({"video": inside}, "video")
    extra = own_keys(row)
    for name in REFERENCES:
        if isinstance(row.get(name), str):
            extra.setdefault("reference", row[name])
    return Turns(tuple((mark_video(q), a) for q, a in pairs), video, row_id(row), system, extra)


def _listed(row: Mapping[str, Any], key: str) -> list[Any]:
    value = row.get(key)
    if not isinstance(value, list):
        raise BadRow("messages", f"{key} is {value!r:.60}; allowed: a list of messages")
    return value


def _said(message: object, videos: list[Mapping[str, Any]]) -> tuple[str, str]:
    """Role and text of a message; videos named in its parts go to `videos`."""
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise BadRow("messages", f"a message is {message!r:.60}; allowed: role and content")
    content = message.get("content")
    if isinstance(content, str):
        return message["role"], content
    texts: list[str] = []
    for part in content if isinstance(content, list) else ():
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind == "video":
            texts.append(VIDEO_MARK)
            if part.get("video") is not None or part.get("path") is not None:
                videos.append(part)
        else:
            raise BadRow("messages", f"a part of a message is {part!r:.60}; allowed: text and video")
    return message["role"], "".join(texts)
