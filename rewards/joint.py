"""The joint protocol of OwlCap's released code: one prompt, one JSON reply with both unit lists.

    {"Pred_units": [{"units": "...", "response": "Yes", "tag": "motion"}, ...], "Gt_units": [...]}

Only the exact string "Yes" agrees. `tag` is ours; where it is missing it is guessed. The prompt's text is ours.
"""

from __future__ import annotations

import json
from pathlib import Path
from string import Template

from owlcap.types import Judgement, Label, Unit
from rewards.tags import guess_tag

PROMPT_FILE = Path(__file__).parent / "prompts" / "joint.txt"
_THINK_OPEN, _THINK_CLOSE = "<think>", "</think>"


class InvalidReply(ValueError):
    """A judge's reply that is not what the protocol asks for; asking again may help."""


def render_prompt(predicted: str, reference: str, template: str) -> str:
    """The template with both captions as JSON strings: quotes and line breaks inside them cannot end them."""
    return Template(template).substitute(predicted=_quoted(predicted), reference=_quoted(reference))


def parse_reply(text: str, *, judge: str, reply_id: str = "") -> Judgement:
    """Read a reply; thinking before and text around the JSON object are allowed.

    "Yes" is supported. Anything else is contradicted for a predicted unit (the question was whether it conflicts)
    and not_mentioned for a reference unit (the question was whether it is covered). No predicted units is an
    answer: the caption said nothing readable.

    Raises:
        InvalidReply: no JSON object, a list or field that is missing or ill-typed, or no reference units.
    """
    reply = _load(_answer(text))
    predicted = _units(reply, "Pred_units", otherwise="contradicted")
    reference = _units(reply, "Gt_units", otherwise="not_mentioned")
    if not reference:
        raise InvalidReply("Gt_units is empty")
    return Judgement(predicted, reference, judge=judge, reply_id=reply_id)


def _answer(text: str) -> str:
    """From the first { to the last } of what follows the thinking."""
    text = text.strip()
    if not text.startswith("{"):
        thinking, closed, rest = text.partition(_THINK_CLOSE)
        if not closed and _THINK_OPEN in thinking:
            raise InvalidReply("the thinking does not end")
        text = rest if closed else text
    start, end = text.find("{"), text.rfind("}")
    if start == -1 or end < start:
        raise InvalidReply("no JSON object")
    return text[start : end + 1]


def _load(text: str) -> dict[str, object]:
    try:
        reply = json.loads(text)
    except (ValueError, RecursionError) as error:  # RecursionError: thousands of nested brackets
        raise InvalidReply(f"not JSON: {error}") from error
    if not isinstance(reply, dict):
        raise InvalidReply("not a JSON object")
    return reply


def _units(reply: dict[str, object], key: str, *, otherwise: Label) -> tuple[Unit, ...]:
    rows = reply.get(key)
    if not isinstance(rows, list):
        raise InvalidReply(f"{key} is not a list")
    return tuple(_unit(row, f"{key}[{index}]", otherwise) for index, row in enumerate(rows))


def _unit(row: object, where: str, otherwise: Label) -> Unit:
    if not isinstance(row, dict):
        raise InvalidReply(f"{where} is not an object")
    text, response, tag = row.get("units"), row.get("response"), row.get("tag")
    if not isinstance(text, str) or not text.strip():
        raise InvalidReply(f"{where}.units is not a statement")
    if not isinstance(response, str):
        raise InvalidReply(f"{where}.response is not a string")
    text = encodable(text.strip())
    return Unit(
        text=text,
        tag=tag if tag == "motion" or tag == "detail" else guess_tag(text),
        label="supported" if response == "Yes" else otherwise,
    )


def encodable(text: str) -> str:
    """Text with lone surrogates (legal in JSON, not in UTF-8) replaced, so that it can be sent and saved."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _quoted(caption: str) -> str:
    return json.dumps(encodable(caption), ensure_ascii=False)
