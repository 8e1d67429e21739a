"""Models' server for dry runs and tests of the data pipelines: OpenAI-compatible, and it knows the toy world alone.

    python tools/model_server.py DATA.jsonl --port 8001

It looks at the pictures it is shown, finds the toy clip whose frames are nearest, and answers the prompts of
owlcap/data/pipeline/prompts from that clip's known captions: a motion caption is the brief one, a fused caption the
full one. Every third clip gets another clip's caption, so that an examination has something to drop. Prompts without
pictures are CSER's, which tools/judge_server.py answers, or ask for questions about a caption.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import re
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from aiohttp import web
from PIL import Image

from owlcap.config import VideoSection
from owlcap.data.rows import Row
from owlcap.data.video import decode
from tools.judge_server import STATEMENT, JudgeServer, answer, clauses, label

MODEL = "toy-models"
SIDE = 28  # pixels: what pictures are compared at
WRONG_EVERY = 3  # clips, of which one gets a wrong caption
TEXT = re.compile(r'^[A-Z]+: (".*")$', re.M)
COUNTS = re.compile(r"Write (\d+) open questions and (\d+) statements, of which (\d+) are true")


class ToyModels(JudgeServer):
    """The server in a thread of its own. A context manager.

    Args:
        data: rows of the toy world.
        fail_after: requests that are answered; later ones get HTTP 500. None: all are.
    """

    def __init__(self, data: Path, port: int = 0, fail_after: int | None = None) -> None:
        super().__init__(port=port)
        self.fail_after = fail_after
        self.kinds: Counter[str] = Counter()  # answered, by what they asked
        self._rows: list[Row] = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
        video = VideoSection(fps=60, min_frames=2, max_frames=96, min_pixels=784, max_pixels=3136)
        frames = [decode(data.parent / row["videos"][0], video).frames for row in self._rows]
        self._of_frame = np.concatenate([np.full(len(clip), number) for number, clip in enumerate(frames)])
        self._known = np.stack([_small(frame) for clip in frames for frame in clip])

    def __enter__(self) -> ToyModels:
        super().__enter__()
        return self

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "owlcap"}]})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        asked: dict[str, Any] = await request.json()
        self.seen.num_requests += 1
        if self.fail_after is not None and self.seen.num_requests > self.fail_after:
            return web.json_response({"error": {"message": "out of order"}}, status=500)
        content = asked["messages"][-1]["content"]
        parts: list[dict[str, Any]] = [{"type": "text", "text": content}] if isinstance(content, str) else content
        prompt = parts[-1]["text"]
        row = self._seen_in([part["image_url"]["url"] for part in parts if part["type"] == "image_url"])
        text = await self._say(prompt, row)
        return web.json_response(self._completion(prompt, text, asked, None, self.seen.num_requests))

    def _seen_in(self, urls: list[str]) -> int | None:
        """The clip that most pictures are of."""
        votes: Counter[int] = Counter()
        for url in urls:
            picture = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB")
            nearest = np.abs(self._known - _small(np.asarray(picture))).mean((1, 2, 3)).argmin()
            votes[int(self._of_frame[nearest])] += 1
        return votes.most_common(1)[0][0] if votes else None

    async def _say(self, prompt: str, row: int | None) -> str:
        if row is None:
            if counts := COUNTS.search(prompt):
                self.kinds["questions"] += 1
                return json.dumps(questions(json.loads(TEXT.findall(prompt)[-1]), *map(int, counts.groups())))
            self.kinds["units"] += 1
            return await answer(prompt)
        captions = self._rows[row].get("captions", {})
        full = captions["full"]
        if "STATEMENTS:" in prompt:
            self.kinds["verdicts"] += 1
            verdicts = [await _verdict(json.loads(text), full) for text in STATEMENT.findall(prompt)]
            return json.dumps({str(number): verdict for number, verdict in enumerate(verdicts, start=1)})
        if "DESCRIPTION:" in prompt:
            self.kinds["fusion"] += 1
            told = row + 1 if row % WRONG_EVERY == WRONG_EVERY - 1 else row
            return self._rows[told % len(self._rows)].get("captions", {})["full"]
        self.kinds["caption"] += 1
        return full if "SUMMARY:" in prompt else captions["brief"]


def questions(caption: str, num_open: int, num_statements: int, num_true: int) -> dict[str, Any]:
    """Questions about a caption, one of each category in turn; true statements are its clauses."""
    units = clauses(caption)
    categories = ("movement", "interaction", "motivation", "expression", "attributes")
    asked: list[dict[str, Any]] = []
    for number in range(num_open):
        unit = units[number % len(units)]
        kind = categories[number % len(categories)]
        asked.append({"category": kind, "question": f"What is said in part {number + 1}?", "answer": unit})
    for number in range(num_statements):
        unit, kind = units[number % len(units)], categories[number % len(categories)]
        is_true = number < num_true
        statement = f"{unit} (point {number + 1})" if is_true else f"Nobody: {unit} (point {number + 1})"
        asked.append({"category": kind, "question": statement, "answer": is_true})
    return {"questions": asked}


async def _verdict(statement: str, full: str) -> str:
    return "supported" if statement in full else await label(statement, full)


def _small(frame: np.ndarray) -> np.ndarray:
    """float32 [SIDE, SIDE, 3]."""
    return np.asarray(Image.fromarray(frame).resize((SIDE, SIDE)), np.float32)


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--port", type=int, default=8001)
    given = parser.parse_args()
    with ToyModels(given.data, given.port) as server:
        print(f'model "{MODEL}" at {server.url}', flush=True)
        with suppress(KeyboardInterrupt):
            threading.Event().wait()
        print(f"{server.seen.num_requests} requests")


if __name__ == "__main__":
    main()
