"""A judge's server for dry runs, tests and benchmarks: OpenAI-compatible, without a model, faulty on demand.

    python tools/judge_server.py --port 8000 --delay 1-40 --fail 0.05

    rewards.judge.kind=openai rewards.judge.model=lexical rewards.judge.base_urls=[http://127.0.0.1:8000/v1]

It answers the prompts of CSER, staged and joint, and of benchmarks (rewards/prompts): a caption's units are its
clauses, and a unit's label is the lexical judge's. Equal prompts get equal answers. Delays and faults are drawn from
the seed, the prompt and how often that prompt was asked before, so that a run does not depend on the order in which
requests arrive.

Tokens are counted by the split that Qwen's tokenizer makes before it looks pieces up (a word with its space, a digit, a
run of signs), so rare long words count too little. A prompt's tokens count as cached where an earlier prompt begins
with the same 64 characters, and the next 64, and so on, as in a server that never empties its prefix cache.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, get_args

from aiohttp import web

from owlcap.errors import JudgeError
from owlcap.types import Label, Tag
from rewards.judge_check import statement_label
from rewards.lexical import LexicalJudge
from rewards.tags import guess_tag
from rewards.text import words

HARMLESS = ("extra_text", "thinking")  # replies that can be read all the same
FAULTS = (
    *("429", "500", "reset", "truncated", "malformed", "wrong_counts", *HARMLESS, "silent", "length", "wrong_type"),
    "401",
)
PASSING = tuple(fault for fault in FAULTS if fault not in ("silent", "401", *HARMLESS))
MODEL = "lexical"
BLOCK = 64  # characters of a prompt that are cached together
TOKEN = re.compile(r" ?[^\W\d_]+|\d| ?[^\w\s]+|_|\s+")
FIELD = re.compile(r'^([A-Z ]+): (".*")$', re.M)
STATEMENT = re.compile(r'^\d+\. (".*")$', re.M)
CLAUSE = re.compile(r"(?<=[.!?;])\s+|,\s+(?:and\s+|then\s+)*|\s+(?:and|while|then|before|after)\s+")


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How the server answers.

    Attributes:
        delay_s: shortest and longest wait before a reply, uniform between.
        fail: share of requests with one of the `faults`.
        retry_after_s: what a 429 asks for.
        thinking_tokens: of thinking before each joint reply, as the released protocol has it.
    """

    delay_s: tuple[float, float] = (0.0, 0.0)
    fail: float = 0.0
    faults: tuple[str, ...] = PASSING
    retry_after_s: float = 0.0
    thinking_tokens: int = 0
    seed: int = 0
    concurrency: int | None = None  # replies in the making at the same time; others wait

    def __post_init__(self) -> None:
        odd = [fault for fault in self.faults if fault not in FAULTS]
        if odd or not self.faults:
            raise ValueError(f"unknown faults: {', '.join(odd) or 'none given'}; allowed: {', '.join(FAULTS)}")


@dataclass(slots=True)
class Seen:
    """What the server did so far."""

    num_requests: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    busy_s: float = 0.0  # sum of waits before replies
    blocks: set[int] = field(default_factory=set)  # hashes of beginnings of prompts
    asked: Counter[str] = field(default_factory=Counter)


class JudgeServer:
    """The server in a thread of its own, on the loopback; port 0 takes a free one. A context manager."""

    def __init__(self, behaviour: Behaviour = Behaviour(), port: int = 0) -> None:
        self.behaviour = behaviour
        self.seen = Seen()
        self._port = port
        self._loop = asyncio.new_event_loop()
        self._slots = asyncio.Semaphore(behaviour.concurrency) if behaviour.concurrency else None
        self._thread = threading.Thread(target=self._loop.run_forever, name="judge-server", daemon=True)

    def __enter__(self) -> JudgeServer:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    @property
    def url(self) -> str:
        """What goes into rewards.judge.base_urls."""
        return f"http://127.0.0.1:{self._port}/v1"

    async def _start(self) -> None:
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_post("/v1/chat/completions", self._complete)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/stats", self._stats)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        self._port = self._runner.addresses[0][1]

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "owlcap"}]})

    async def _stats(self, _: web.Request) -> web.Response:
        return web.json_response({"requests": self.seen.num_requests, "busy_s": self.seen.busy_s})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        prompt: str = asked["messages"][-1]["content"]
        seen = self.seen
        seen.num_requests += 1
        seen.asked[prompt] += 1
        draw = random.Random(f"{self.behaviour.seed}:{seen.asked[prompt]}:{prompt}")
        delay = draw.uniform(*self.behaviour.delay_s)
        fault = draw.choice(self.behaviour.faults) if draw.random() < self.behaviour.fail else None
        if fault is not None:
            seen.faults[fault] += 1
        if self._slots is None:
            return await self._reply(request, asked, prompt, delay, fault)
        async with self._slots:
            return await self._reply(request, asked, prompt, delay, fault)

    async def _reply(
        self, request: web.Request, asked: dict[str, Any], prompt: str, delay: float, fault: str | None
    ) -> web.StreamResponse:
        started = time.perf_counter()
        try:
            text = await answer(prompt)
        except ValueError as error:
            return _error(400, str(error))
        if "PREDICTED: " in prompt and self.behaviour.thinking_tokens:
            text = f"<think>\n{'so ' * self.behaviour.thinking_tokens}</think>\n{text}"
        await asyncio.sleep(max(0.0, delay - (time.perf_counter() - started)))
        self.seen.busy_s += delay
        if fault == "silent":
            await asyncio.sleep(3600.0)
        if fault == "reset" and request.transport is not None:
            request.transport.abort()
            return web.Response()
        if fault == "429":
            return _error(429, "too many requests", {"Retry-After": f"{self.behaviour.retry_after_s:g}"})
        if fault in ("401", "500"):
            return _error(int(fault), "no such key" if fault == "401" else "out of order")
        if fault == "wrong_type":
            return web.Response(text="<html>a gateway's page</html>", content_type="text/html")
        return web.json_response(self._completion(prompt, spoiled(text, fault), asked, fault, self.seen.num_requests))

    def _completion(
        self, prompt: str, text: str, asked: dict[str, Any], fault: str | None, number: int
    ) -> dict[str, Any]:
        finish = "length" if fault == "length" else "stop"
        inputs, outputs = num_tokens(prompt), num_tokens(text)
        usage = {
            "prompt_tokens": inputs,
            "completion_tokens": outputs,
            "total_tokens": inputs + outputs,
            "prompt_tokens_details": {"cached_tokens": round(inputs * self._known_share(prompt))},
        }
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
        return {
            "id": f"chatcmpl-{number}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": asked.get("model", MODEL),
            "choices": [choice],
            "usage": usage,
        }

    def _known_share(self, prompt: str) -> float:
        """Share of the prompt that stands at the beginning of an earlier one, in whole blocks."""
        ends = range(BLOCK, len(prompt) + 1, BLOCK)
        beginnings = [hash(prompt[:end]) for end in ends]
        known = 0
        for beginning in beginnings:
            if beginning not in self.seen.blocks:
                break
            known += 1
        self.seen.blocks.update(beginnings)
        return known * BLOCK / len(prompt)


async def answer(prompt: str) -> str:
    """The reply to a prompt of CSER or of a benchmark, as compact JSON where it is an object.

    Raises:
        ValueError: another prompt.
    """
    captions = {name: json.loads(text) for name, text in FIELD.findall(prompt)}
    statements = [json.loads(text) for text in STATEMENT.findall(prompt)]
    if captions.keys() == {"PREDICTED", "REFERENCE"}:
        said, truth = captions["PREDICTED"], captions["REFERENCE"]
        return _json({"Pred_units": await _joint(said, truth), "Gt_units": await _joint(truth, said, covered=True)})
    if len(captions) == 1 and prompt.startswith("Check"):
        (caption,) = captions.values()
        return _json({str(number): await label(one, caption) for number, one in enumerate(statements, start=1)})
    if captions.keys() == {"CAPTION"} and prompt.startswith("Split"):
        found = clauses(captions["CAPTION"])
        return _json({tag: [unit for unit in found if guess_tag(unit) == tag] for tag in get_args(Tag)})
    benchmark = await _benchmark_answer(captions, statements)
    if benchmark is not None:
        return benchmark
    raise ValueError("this server answers the prompts of CSER (units, check_*, joint) and of benchmarks only")


async def _benchmark_answer(fields: dict[str, str], statements: list[str]) -> str | None:
    """The reply to a benchmark's prompt, by the names of its fields; None for another prompt."""
    if fields.keys() == {"DESCRIPTION"} and statements:
        relations = {"supported": "entailment", "contradicted": "contradiction", "not_mentioned": "neutral"}
        labels = [(one, relations[await label(one, fields["DESCRIPTION"])]) for one in statements]
        return _json({"events": [{"event": one, "relationship": found, "reason": ""} for one, found in labels]})
    if fields.keys() == {"DESCRIPTION"}:
        return _json({"events": clauses(fields["DESCRIPTION"])[:10]})
    if fields.keys() == {"DESCRIPTION", "QUESTION"}:  # the clause that shares most words with the question
        asked = set(words(fields["QUESTION"]))
        return max(clauses(fields["DESCRIPTION"]) or ["nothing"], key=lambda one: len(asked & set(words(one))))
    if fields.keys() == {"QUESTION", "CORRECT ANSWER", "GIVEN ANSWER"}:
        share = _shared_words(fields["CORRECT ANSWER"], fields["GIVEN ANSWER"])
        return str({"pred": "yes" if share >= 0.5 else "no", "score": round(5 * share)})  # as the published one does
    if fields.keys() == {"REFERENCE", "CAPTION"}:
        rating = round(10 * _shared_words(fields["REFERENCE"], fields["CAPTION"]))
        return _json(dict.fromkeys(("details", "interaction", "motivation", "micro_expression", "attributes"), rating))
    return None


def _shared_words(truth: str, said: str) -> float:
    """Share of the words of one text that the other has."""
    wanted = set(words(truth))
    return len(wanted & set(words(said))) / len(wanted) if wanted else 0.0


def clauses(caption: str) -> list[str]:
    """Units of a caption: its clauses, each once."""
    pieces = (piece.strip(" .;,") for piece in CLAUSE.split(caption))
    return list(dict.fromkeys(piece for piece in pieces if any(sign.isalpha() for sign in piece)))


async def label(statement: str, caption: str) -> Label:
    """The lexical judge's label of a statement, against a caption; of what it cannot read: not mentioned."""
    try:
        return statement_label((await LexicalJudge().judge(statement, caption)).predicted_units)
    except JudgeError:
        return "not_mentioned"


async def _joint(caption: str, other: str, *, covered: bool = False) -> list[dict[str, str]]:
    labels = [(unit, await label(unit, other)) for unit in clauses(caption)]
    yes = ("supported",) if covered else ("supported", "not_mentioned")
    return [
        {"units": unit, "tag": guess_tag(unit), "response": "Yes" if found in yes else "No"} for unit, found in labels
    ]


def spoiled(text: str, fault: str | None) -> str:
    """The reply's text with a fault in it."""
    if fault in ("truncated", "length"):
        return text[: len(text) // 2]
    if fault == "malformed":
        return text.replace('":', '"', 1).replace("}", ",]", 1)
    if fault == "wrong_counts":
        return _json(dict(list(json.loads(text[text.index("{") :]).items())[:-1]))  # a label or a list is missing
    if fault == "extra_text":
        return f"Here is my answer.\n```json\n{text}\n```\nI hope that this helps!"
    if fault == "thinking":
        return f"<think>\nWhat do the captions say?\n</think>\n\n{text}"
    return text


def num_tokens(text: str) -> int:
    """Tokens of a text, nearly: see the top of this file."""
    return len(TOKEN.findall(text))


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"error": {"message": message, "code": status}}, status=status, headers=headers)


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--delay", default="0-0", metavar="S-S", help="seconds before a reply, drawn between the two")
    parser.add_argument("--fail", type=float, default=0.0, metavar="SHARE", help="share of requests with a fault")
    parser.add_argument("--faults", default=",".join(PASSING), help=f"some of {','.join(FAULTS)}; default: %(default)s")
    parser.add_argument("--retry-after", type=float, default=0.0, metavar="S", help="what a 429 asks for")
    parser.add_argument("--thinking", type=int, default=0, metavar="TOKENS", help="before each joint reply")
    parser.add_argument("--concurrency", type=int, help="replies in the making at once; default: no limit")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    low, _, high = given.delay.partition("-")
    behaviour = Behaviour(
        (float(low), float(high or low)),
        given.fail,
        tuple(given.faults.split(",")),
        given.retry_after,
        given.thinking,
        given.seed,
        given.concurrency,
    )
    with JudgeServer(behaviour, given.port) as server:
        print(f'model "{MODEL}" at {server.url}', flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print(f"{server.seen.num_requests} requests, faults: {dict(server.seen.faults) or 'none'}")


if __name__ == "__main__":
    main()
