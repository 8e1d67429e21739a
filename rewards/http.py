"""The reward suite over HTTP, for training systems outside of owlcap: `owlcap serve-rewards`.

    POST /v1/score   groups of captions -> a value with its evidence, or a stated failure, for each caption
    GET  /health     the process answers          GET /ready    the judges' servers answer too
    GET  /metrics    Prometheus                   GET /openapi.json, /docs

Scoring is waiting for judges, so one event loop carries it all. A caption that cannot be scored has `total: null` and
says why; it is never a zero. Above `Limits.in_flight` captions the server answers 429 with Retry-After.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, ConfigDict, Field, model_validator

from owlcap.errors import JudgeError, RewardError, one_line
from owlcap.types import Choice, RewardBreakdown, Sample, ScoredRollout
from rewards.http_metrics import HttpMetrics
from rewards.suite import RewardSuite

READY_FOR_S = 10.0  # a check of the judges' servers counts for so long
RETRY_AFTER_S = 1
Message = MutableMapping[str, Any]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request, and all of them together, may ask for."""

    body_bytes: int = 8 * 2**20
    captions: int = 512  # of one request
    in_flight: int = 1024  # captions of all requests
    deadline_s: float = 900.0  # of one request


class Strict(BaseModel):
    """Refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid")


class QuestionIn(Strict):
    """A multiple-choice question about the video, for the reward qa_probe."""

    question: str
    options: list[str] = Field(min_length=2, max_length=26)
    answer: str

    @model_validator(mode="after")
    def _answer_is_an_option(self) -> QuestionIn:
        if self.answer not in self.options:
            raise ValueError("answer is not among the options")
        return self


class GroupIn(Strict):
    """Captions of one clip and what they are compared with."""

    id: str = ""
    reference: str
    captions: list[str] = Field(min_length=1)
    keypoints: list[str] = []
    questions: list[QuestionIn] = []

    def sample(self) -> Sample:
        """As the rewards take it."""
        questions = tuple(Choice(one.question, tuple(one.options), one.answer) for one in self.questions)
        return Sample(
            id=self.id,
            video="",
            prompt="",
            caption=self.reference,
            reference=self.reference,
            questions=questions,
            keypoints=tuple(self.keypoints),
        )


class ScoreRequest(Strict):
    """What POST /v1/score takes."""

    groups: list[GroupIn] = Field(min_length=1)
    evidence: bool = True  # false leaves the units and their labels out


class UnscoredOut(BaseModel):
    """Why a caption has no value."""

    reward: str
    reason: str


class CaptionOut(BaseModel):
    """One caption's outcome: `total` is null where it is unscored, and only there."""

    total: float | None
    unscored: UnscoredOut | None
    parts: dict[str, Any]  # reward -> value, metrics, judgements
    metrics: dict[str, float]


class GroupOut(BaseModel):
    """The captions of one group, in order."""

    id: str
    captions: list[CaptionOut]


class ScoreResponse(BaseModel):
    """What POST /v1/score gives, groups in order."""

    groups: list[GroupOut]


def make_app(suite: RewardSuite, token: str | None = None, limits: Limits | None = None) -> FastAPI:
    """The application around a suite, which is closed with it.

    Args:
        token: what clients send as `Authorization: Bearer ...`; None lets everybody in.
    """
    server = _Server(suite, token, limits or Limits())

    @asynccontextmanager
    async def closing(app: FastAPI) -> AsyncIterator[None]:
        yield
        await suite.close()

    app = FastAPI(title="owlcap rewards", description=__doc__ or "", lifespan=closing)
    allowed = [Depends(server.authorize)]
    app.add_middleware(_BodyLimit, limit=server.limits.body_bytes)
    app.post("/v1/score", response_model=ScoreResponse, dependencies=allowed)(server.score)
    app.get("/ready", dependencies=allowed)(server.ready)
    app.get("/metrics", dependencies=allowed, response_class=Response)(server.show_metrics)
    app.get("/health")(_health)
    return app


async def _health() -> dict[str, str]:
    return {"status": "ok"}


class _Server:
    """What the routes share."""

    def __init__(self, suite: RewardSuite, token: str | None, limits: Limits) -> None:
        self.suite, self.token, self.limits = suite, token, limits
        self.metrics = HttpMetrics(lambda: suite.usage)
        self.in_flight = 0
        self._ready_until = 0.0

    async def authorize(
        self, sent: Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))]
    ) -> None:
        """Refuse a request without the token."""
        if self.token is None:
            return
        given = sent.credentials if sent is not None else ""
        if not secrets.compare_digest(given.encode(), self.token.encode()):
            raise HTTPException(401, "wrong or missing bearer token", headers={"WWW-Authenticate": "Bearer"})

    async def score(self, body: ScoreRequest, request: Request) -> ScoreResponse:
        """Score the captions of every group against its reference."""
        wanted = sum(len(group.captions) for group in body.groups)
        if wanted > self.limits.captions:
            raise HTTPException(413, f"{wanted} captions in one request; at most {self.limits.captions}: send several")
        if self.in_flight and self.in_flight + wanted > self.limits.in_flight:
            raise HTTPException(
                429, f"{self.in_flight} captions are being scored", headers={"Retry-After": str(RETRY_AFTER_S)}
            )
        self.in_flight += wanted
        self.metrics.in_flight.set(self.in_flight)
        try:
            async with asyncio.timeout(self.limits.deadline_s):
                scores = await _unless_gone(request, self._score_groups(body.groups))
        except TimeoutError as error:
            raise HTTPException(504, f"not scored within {self.limits.deadline_s:g} s") from error
        except RewardError as error:
            raise HTTPException(500, one_line(error)) from error
        finally:
            self.in_flight -= wanted
            self.metrics.in_flight.set(self.in_flight)
        groups = zip(body.groups, scores, strict=True)
        return ScoreResponse(groups=[_group_out(group, found, body.evidence) for group, found in groups])

    async def ready(self) -> dict[str, str]:
        """Whether the judges' servers answer and have their models."""
        if time.monotonic() >= self._ready_until:
            try:
                await self.suite.check()
            except JudgeError as error:
                raise HTTPException(503, one_line(error)) from error
            self._ready_until = time.monotonic() + READY_FOR_S
        return {"status": "ready"}

    async def show_metrics(self) -> Response:
        """Figures for Prometheus."""
        return Response(generate_latest(self.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    async def _score_groups(self, groups: Sequence[GroupIn]) -> list[tuple[ScoredRollout, ...]]:
        async def one(group: GroupIn) -> tuple[ScoredRollout, ...]:
            started = time.perf_counter()
            scores = await self.suite.score_group(group.sample(), group.captions)
            self.metrics.count(scores, time.perf_counter() - started)
            return scores

        try:
            async with asyncio.TaskGroup() as tasks:
                scoring = [tasks.create_task(one(group)) for group in groups]
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from failed
        return [task.result() for task in scoring]


async def _unless_gone(
    request: Request, work: Awaitable[list[tuple[ScoredRollout, ...]]]
) -> list[tuple[ScoredRollout, ...]]:
    """The work's result; the work is cancelled when the client hangs up."""
    working = asyncio.ensure_future(work)
    listening = asyncio.ensure_future(_hung_up(request))
    try:
        await asyncio.wait({working, listening}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise HTTPException(499, "the client hung up")
        return working.result()
    finally:
        for task in (working, listening):
            task.cancel()
        await asyncio.gather(working, listening, return_exceptions=True)


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _group_out(group: GroupIn, scores: Sequence[ScoredRollout], evidence: bool) -> GroupOut:
    return GroupOut(id=group.id, captions=[_caption_out(score, evidence) for score in scores])


def _caption_out(score: ScoredRollout, evidence: bool) -> CaptionOut:
    if not isinstance(score, RewardBreakdown):
        return CaptionOut(total=None, unscored=UnscoredOut(**asdict(score)), parts={}, metrics={})
    parts = {name: asdict(part) for name, part in score.parts.items()}
    if not evidence:
        for part in parts.values():
            del part["judgements"]
    return CaptionOut(total=score.total, unscored=None, parts=parts, metrics=dict(score.metrics))


class _BodyLimit:
    """Refuses a body above the limit while it is read, whatever its headers say."""

    def __init__(self, app: Callable[..., Awaitable[None]], limit: int) -> None:
        self._app, self._limit = app, limit

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._limit:
                raise HTTPException(413, f"the body is larger than {self._limit} bytes")
            return message

        await self._app(scope, counted if scope["type"] == "http" else receive, send)
