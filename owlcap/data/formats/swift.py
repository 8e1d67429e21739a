"""ms-swift: {"messages": [{"role", "content"}], "videos": [path], "solution"?}; <video> marks the place.

Source: ms-swift's guide "Custom dataset". Our own rows are of this form, with more keys. LLaMA-Factory's files with
OpenAI roles (its mllm_video_demo) look the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from owlcap.data.formats.turns import BadRow, Turns, mark_video, one_video, own_keys, pair_up, row_id
from owlcap.data.rows import Row


def fits(row: Mapping[str, Any]) -> str | None:
    """Evidence that a row is of this format, or None."""
    messages = row.get("messages")
    if isinstance(messages, list) and messages and "videos" in row and _is_plain(messages[0]):
        return "messages with role and content, and a list videos"
    return None


def convert(row: Mapping[str, Any]) -> Turns:
    """The row's questions and answers.

    Raises:
        BadRow: with the reason.
    """
    messages = row.get("messages")
    if not isinstance(messages, list) or not all(map(_is_plain, messages)):
        raise BadRow("messages", "messages is not a list of {role, content} with text in both")
    system, pairs = pair_up([(message["role"], message["content"]) for message in messages])
    extra = own_keys(row)
    if isinstance(row.get("solution"), str) and "reference" not in extra:
        extra["reference"] = row["solution"]  # what GRPO's rewards compare with
    asked = tuple((mark_video(question), answer) for question, answer in pairs)
    return Turns(asked, one_video(row, "videos"), row_id(row), system, extra)


def export(row: Row, video: str) -> dict[str, Any]:
    """One of our rows with an absolute video path; rewards find the reference under `solution`."""
    answers = [message["content"] for message in row["messages"] if message["role"] == "assistant"]
    return {**row, "videos": [video], "solution": row.get("reference", answers[-1] if answers else "")}


def _is_plain(message: object) -> bool:
    return (
        isinstance(message, Mapping)
        and isinstance(message.get("role"), str)
        and isinstance(message.get("content"), str)
    )
