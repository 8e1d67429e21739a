"""What is told of a failed request, and how long the next try waits; the waits themselves in virtual time."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import httpx
import openai
import pytest

from owlcap.config import CacheSection, JudgeSection
from owlcap.errors import JudgeError
from rewards.cache import ReplyCache
from rewards.chat import Question
from rewards.faults import ServerFault, server_fault
from rewards.limits import LocalLimiter
from rewards.openai_chat import OpenAIChat
from tests.virtual_time import now, run

Ask = Callable[..., tuple[list[float], float, str | None]]
REQUEST: Any = httpx.Request("POST", "http://judge/v1/chat/completions")


def status_error(status: int, **headers: str) -> openai.APIStatusError:
    response: Any = httpx.Response(status, headers=headers, request=REQUEST)
    return openai.APIStatusError("no", response=response, body=None)


def fault(error: openai.OpenAIError, key: str = "") -> ServerFault:
    return server_fault(error, JudgeSection(), key)


@pytest.mark.parametrize(
    ("status", "retried", "is_outage"),
    [
        (400, False, False),
        (401, False, False),
        (404, False, False),
        (408, True, False),
        (422, False, False),
        (429, True, False),
        (500, True, True),
        (503, True, True),
        (529, True, True),
    ],
)
def test_what_is_tried_again_and_what_counts_as_an_outage(status: int, retried: bool, is_outage: bool):
    told = fault(status_error(status))
    assert (told.retry, told.is_outage, told.is_refused) == (retried, is_outage, False)


@pytest.mark.parametrize("status", [404, 422, 429])
def test_the_cure_names_the_section_of_the_model_that_failed(status: int):
    error = status_error(status)
    told = str(server_fault(error, JudgeSection(), "", "motion_model").cure)
    assert "motion_model." in told
    assert told.replace("motion_model.", "rewards.judge.").replace("motion_model", "judge") == fault(error).cure


@pytest.mark.parametrize(("after", "least"), [("7", 7.0), ("0.5", 0.5), ("0", 0.0)])
def test_a_retry_after_header_is_kept_with_some_jitter(after: str, least: float):
    assert least <= fault(status_error(429, **{"retry-after": after})).retry <= least + 1


@pytest.mark.parametrize("after", ["soon", "", "-3", "nan", "Wed, 21 Oct 2026 07:28:00 GMT"])
def test_a_retry_after_that_is_no_number_of_seconds_is_left_to_the_growing_waits(after: str):
    assert fault(status_error(429, **{"retry-after": after})).retry is True


@pytest.mark.parametrize(
    ("cause", "is_refused"),
    [
        (ConnectionRefusedError(), True),
        (OSError("All connection attempts failed"), True),
        (ConnectionResetError(), False),
        (RuntimeError("server disconnected"), False),
    ],
)
def test_only_a_connection_that_never_stood_is_refused(cause: Exception, is_refused: bool):
    error = openai.APIConnectionError(request=REQUEST)
    error.__cause__ = cause
    assert fault(error).is_refused is is_refused


def test_a_time_out_is_an_outage_and_no_refusal():
    told = fault(openai.APITimeoutError(REQUEST))
    assert (told.retry, told.is_outage, told.is_refused) == (True, True, False)
    assert "call_deadline_s" in (told.cure or "")


def test_a_key_in_the_message_is_taken_out():
    error = openai.APIStatusError("bad sk-123", response=status_error(401).response, body=None)
    assert str(fault(error, key="sk-123")) == "APIStatusError: bad ***"
    assert str(fault(error)) == "APIStatusError: bad sk-123"


class Scripted:
    """Stands in for the SDK's client: raises these errors in turn, then answers."""

    def __init__(self, *errors: openai.OpenAIError) -> None:
        self.errors = list(errors)
        self.asked_at: list[float] = []
        self.chat = SimpleNamespace(completions=SimpleNamespace(create=self.create))

    async def create(self, **_: object) -> object:
        self.asked_at.append(now())
        if self.errors:
            raise self.errors.pop(0)
        return SimpleNamespace(
            id="chat-1", choices=[SimpleNamespace(finish_reason="stop", message=SimpleNamespace(content="yes"))]
        )

    async def close(self) -> None:
        pass


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Ask one question of such a client: when it was sent, when the outcome was there, and what went wrong."""

    def ask(*errors: openai.OpenAIError, **changes: Any) -> tuple[list[float], float, str | None]:
        client = Scripted(*errors)
        monkeypatch.setattr(openai, "AsyncOpenAI", lambda **_: client)
        settings = JudgeSection(kind="openai", call_deadline_s=60.0).model_copy(update=changes)
        limiter = LocalLimiter({"judge": settings})
        model = OpenAIChat(settings, ReplyCache(CacheSection(enabled=False)), limiter, limited_as="judge")

        async def main() -> tuple[float, str | None]:
            try:
                await model.ask(Question("word", "yes?", "t", str))
            except JudgeError as error:
                return now(), error.what
            return now(), None

        ended, what = run(main())
        return client.asked_at, ended, what

    return ask


def test_waits_grow_between_tries(asked: Ask):
    (first, second, third, fourth), _, what = asked(*[status_error(500)] * 3)
    assert what is None
    assert 0.2 <= second - first <= 1.2
    assert 0.4 <= third - second <= 1.4
    assert 0.8 <= fourth - third <= 1.8


def test_the_next_try_waits_as_long_as_the_server_says(asked: Ask):
    (first, second), _, what = asked(status_error(429, **{"retry-after": "40"}))
    assert what is None
    assert 40 <= second - first <= 41


@pytest.mark.parametrize("after", ["86400", "9" * 400])
def test_a_wait_beyond_the_deadline_ends_at_the_deadline(asked: Ask, after: str):
    times, ended, what = asked(status_error(429, **{"retry-after": after}))
    assert (times, ended) == ([0.0], 60.0)
    assert what == "no valid reply within 60 s; the last problem: APIStatusError: no"


def test_a_server_that_never_comes_up_costs_the_deadline_and_few_requests(
    asked: Ask,
):
    refused = openai.APIConnectionError(request=REQUEST)
    refused.__cause__ = ConnectionRefusedError()
    times, ended, what = asked(*[refused] * 99, breaker_rest_s=25.0, max_tries=99)
    assert len(times) == 3  # at once, and after each rest
    assert ended == 60.0
    assert what == "no valid reply within 60 s; the last problem: APIConnectionError: Connection error."


def test_an_outage_shorter_than_the_deadline_costs_no_answer(
    asked: Ask,
):
    refused = openai.APIConnectionError(request=REQUEST)
    refused.__cause__ = ConnectionRefusedError()
    times, _, what = asked(refused, refused, breaker_rest_s=20.0)
    assert what is None
    assert times[-1] == pytest.approx(40, abs=3)


def test_the_rate_limit_holds_for_tries_too(asked: Ask):
    times, _, what = asked(status_error(500), requests_per_minute=2.0, call_deadline_s=60.0)
    assert what is None
    assert times[1] - times[0] == pytest.approx(25)  # one in 30 s, less the burst of 5
