"""Replies in the forms that the published scripts ask for: JSON, or a Python dict, with small slips mended.

What is mended is what those scripts mend: code fences, a missing outer brace, commas too many or too few. Text around
the object and thinking before it are taken away as well, where the scripts would ask again.
"""

from __future__ import annotations

import ast
import json
import re
import warnings

from rewards.chat import InvalidReply
from rewards.replies import THINK_CLOSE

TRAILING_COMMA = re.compile(r",\s*([}\]])")
FENCE = re.compile(r"```(?:json|python)?")
MISSING_COMMA = re.compile(r"}\s*{")


def read_dict(text: str) -> dict[str, object]:
    """The object of a reply.

    Raises:
        InvalidReply: there is none.
    """
    text = FENCE.sub("", text.rpartition(THINK_CLOSE)[2]).strip()
    within = text[max(text.find("{"), 0) : text.rfind("}") + 1]
    for candidate in (whole for body in (text, within) for whole in (_braced(body), _mended(_braced(body)))):
        for read in (json.loads, _literal):
            try:
                found = read(candidate)
            except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
                continue
            if isinstance(found, dict) and found:
                return found
    raise InvalidReply("no JSON object or Python dict")


def _braced(body: str) -> str:
    opened = body if body.startswith("{") else "{" + body
    return opened if opened.endswith("}") else opened + "}"


def _mended(body: str) -> str:
    return TRAILING_COMMA.sub(r"\1", MISSING_COMMA.sub("}, {", " ".join(body.split())))


def _literal(text: str) -> object:
    with warnings.catch_warnings():  # of a reply's stray backslashes, nobody wants to hear
        warnings.simplefilter("ignore")
        return ast.literal_eval(text)
