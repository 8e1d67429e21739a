"""Small annotations of every benchmark, and judges that answer from a script."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from owlcap.evaluation.benchmarks.values import ItemScore

SUBSETS = ("movie_animation", "movie_live_action", "vertical_video", "videvo", "youtube")


def dream_row(idx: int, subset: str, reference: str, events: Sequence[str] | None) -> dict[str, Any]:
    return {
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "video", "text": None, "reference": None, "video": {"video_file": "<placeholder>"}},
                    {"type": "text", "text": "Describe the video in detail.", "reference": None, "video": None},
                ],
            },
            {"role": "assistant", "content": [{"type": "text", "text": "", "reference": reference, "video": None}]},
        ],
        "dataset": f"DREAM/{subset}",
        "task": "video/caption",
        "idx": idx,
        "vid": idx,
        "extra_info": {"duration": 4.0, **({} if events is None else {"events": list(events)})},
    }


def write_lines(path: Path, *rows: Mapping[str, Any] | str) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def item(id_: str, group: str, **values: float) -> ItemScore:
    return ItemScore(id_, group, values, "text", "reference")


def field(prompt: str, name: str) -> str:
    """What stands after "NAME: " in a prompt."""
    (line,) = (line for line in prompt.splitlines() if line.startswith(f"{name}: "))
    return json.loads(line.partition(": ")[2])
