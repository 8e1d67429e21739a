"""LLaVA's conversations: {"id", "video": path, "conversations": [{"from": "human", "value": "<image>\\n..."}, ...]}.

Source: LLaVA-Video-178K's files, which mark the video with <image>; ShareGPT4Video's and Video-ChatGPT's, which write
<video>, have the same keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from owlcap.data.formats import sharegpt
from owlcap.data.formats.turns import Turns

LAYOUT = replace(sharegpt.DEFAULT, videos="video")


def fits(row: Mapping[str, Any]) -> str | None:
    """Evidence that a row is of this format, or None."""
    if "video" in row and sharegpt.fits({**row, "videos": []}) is not None:
        return "conversations with from and value, and one video"
    return None


def convert(row: Mapping[str, Any]) -> Turns:
    """The row's questions and answers.

    Raises:
        BadRow: with the reason.
    """
    return sharegpt.convert(row, LAYOUT)
