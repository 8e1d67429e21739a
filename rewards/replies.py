"""Reading a judge's reply: the JSON object in it, whatever stands around it."""

from __future__ import annotations

import json

from rewards.chat import InvalidReply

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"


def read_object(text: str) -> dict[str, object]:
    """The JSON object from a reply's first { to its last }; thinking before it and text around it are allowed.

    Two objects in one reply are invalid, and so is a key that comes twice: one of them may be quoted from a caption
    that holds a finished verdict.

    Raises:
        InvalidReply: no JSON object, or thinking that does not end.
    """
    text = _after_thinking(text.strip())
    start, end = text.find("{"), text.rfind("}")
    if start == -1 or end < start:
        raise InvalidReply("no JSON object")
    try:
        return json.loads(text[start : end + 1], object_pairs_hook=_once)
    except InvalidReply:
        raise
    except (ValueError, RecursionError) as error:  # RecursionError: thousands of nested brackets
        raise InvalidReply(f"not JSON: {error}") from error


def read_list(reply: dict[str, object], key: str) -> list[object]:
    """The list under `key`.

    Raises:
        InvalidReply: there is none.
    """
    value = reply.get(key)
    if not isinstance(value, list):
        raise InvalidReply(f"{key} is not a list")
    return value


def read_text(value: object, where: str) -> str:
    """A string that says something, without space around it.

    Raises:
        InvalidReply: another type, or empty.
    """
    if not isinstance(value, str) or not value.strip():
        raise InvalidReply(f"{where} is not a statement")
    return encodable(value.strip())


def encodable(text: str) -> str:
    """Text with lone surrogates (legal in JSON, not in UTF-8) replaced, so that it can be sent and saved."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise InvalidReply("a key comes twice")
    return found


def _after_thinking(text: str) -> str:
    if text.startswith("{"):
        return text
    thinking, closed, rest = text.partition(THINK_CLOSE)
    if not closed and THINK_OPEN in thinking:
        raise InvalidReply("the thinking does not end")
    return rest if closed else text
