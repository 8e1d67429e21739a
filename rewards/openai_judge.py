"""A judge behind any OpenAI-compatible server: vLLM, or a hosted one.

One call per caption in the joint protocol. 429, 5xx, timeouts, connections lost in the middle and invalid replies
are tried again with growing, jittered waits (or as long as a Retry-After header says); all tries of a call share
one deadline. What still fails is a JudgeError, so the rollout is unscored: never a zero.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass

import openai
import stamina

from owlcap.config import JudgeSection
from owlcap.errors import ConfigError, JudgeError
from owlcap.types import Judgement
from rewards.joint import PROMPT_FILE, InvalidReply, parse_reply, render_prompt

NO_KEY = "none"  # local servers ask for no key, but the SDK insists on a value
TRY_SHARE = 0.5  # of the call's deadline: a try that hangs leaves time for another


@dataclass(slots=True)
class _Endpoint:
    client: openai.AsyncOpenAI
    in_flight: int = 0


@dataclass(frozen=True, slots=True)
class _Connections:
    """Clients and the limit on calls in flight; both belong to the event loop they were first used in."""

    loop: asyncio.AbstractEventLoop
    endpoints: tuple[_Endpoint, ...]
    slots: asyncio.Semaphore


class OpenAIJudge:
    """Judges by `settings.model` on the least loaded of `settings.base_urls`."""

    def __init__(self, settings: JudgeSection) -> None:
        if not settings.base_urls:
            raise ConfigError(
                "no judge server is given", where="rewards.cser.judge.base_urls", cure="name at least one"
            )
        self._settings = settings
        self._key = os.environ.get(settings.api_key_env) or NO_KEY
        self._template = PROMPT_FILE.read_text(encoding="utf-8")
        self._connections: _Connections | None = None

    async def judge(self, predicted: str, reference: str) -> Judgement:
        """Ask the model for both unit lists.

        Raises:
            JudgeError: refused or lost connection, HTTP error, no answer in time, or no valid reply in all tries.
        """
        if not reference.strip():
            raise JudgeError("the reference caption is empty", cure="give every row a reference caption")
        prompt = render_prompt(predicted, reference, self._template)
        connections = self._open()
        async with connections.slots:
            try:
                async with asyncio.timeout(self._settings.call_deadline_s):
                    return await self._ask_until_valid(prompt, connections)
            except TimeoutError as error:
                raise self._failure(f"no valid reply within {self._settings.call_deadline_s:g} s") from error
            except InvalidReply as error:
                raise self._failure(f"no valid reply in {self._settings.max_tries} tries; the last: {error}") from error
            except openai.OpenAIError as error:
                raise self._failure(
                    f"{type(error).__name__}: {self._redacted(str(error))}", cure=self._cure(error)
                ) from None

    async def close(self) -> None:
        """Close the connections of this event loop."""
        if self._connections is not None and self._connections.loop is asyncio.get_running_loop():
            await asyncio.gather(*(endpoint.client.close() for endpoint in self._connections.endpoints))
        self._connections = None

    async def _ask_until_valid(self, prompt: str, connections: _Connections) -> Judgement:
        async for attempt in stamina.retry_context(
            on=_backoff,
            attempts=self._settings.max_tries,
            timeout=None,
            wait_initial=0.2,
            wait_max=10.0,
            wait_jitter=1.0,
        ):
            with attempt:
                endpoint = min(connections.endpoints, key=lambda candidate: candidate.in_flight)
                endpoint.in_flight += 1
                try:
                    return await self._ask(prompt, endpoint.client)
                finally:
                    endpoint.in_flight -= 1
        raise AssertionError("the last attempt returns or raises")

    async def _ask(self, prompt: str, client: openai.AsyncOpenAI) -> Judgement:
        settings = self._settings
        try:
            completion = await client.chat.completions.create(
                model=settings.model,
                messages=[{"role": "user", "content": prompt}],
                temperature=settings.temperature,
                max_tokens=settings.max_tokens,
            )
        except ValueError as error:  # a body that is not JSON
            raise InvalidReply(f"the server's answer is not JSON: {error}") from error
        text = _content(completion, settings.max_tokens)
        return parse_reply(text, judge=settings.model, reply_id=str(getattr(completion, "id", None) or ""))

    def _open(self) -> _Connections:
        loop = asyncio.get_running_loop()
        if self._connections is None or self._connections.loop is not loop:
            timeout = self._settings.call_deadline_s * TRY_SHARE
            clients = (
                openai.AsyncOpenAI(base_url=url, api_key=self._key, max_retries=0, timeout=timeout)
                for url in self._settings.base_urls
            )
            endpoints = tuple(_Endpoint(client) for client in clients)
            self._connections = _Connections(loop, endpoints, asyncio.Semaphore(self._settings.concurrency))
        return self._connections

    def _failure(self, what: str, cure: str | None = None) -> JudgeError:
        where = f"judge {self._settings.model} at {', '.join(self._settings.base_urls)}"
        return JudgeError(what, where=where, cure=cure)

    def _cure(self, error: openai.OpenAIError) -> str | None:
        if isinstance(error, (openai.AuthenticationError, openai.PermissionDeniedError)):
            return f"put a valid key into the environment variable {self._settings.api_key_env}"
        if isinstance(error, openai.NotFoundError):
            return "check rewards.cser.judge.model and base_urls (most end in /v1)"
        if isinstance(error, openai.APIConnectionError):
            return "start the judge's server, or correct rewards.cser.judge.base_urls"
        return None

    def _redacted(self, message: str) -> str:
        """Without the key, which some servers repeat in their error messages."""
        return message if self._key == NO_KEY else message.replace(self._key, "***")


def _content(completion: object, max_tokens: int) -> str:
    """Text of the first choice. The SDK does not check a server's answer against its own types."""
    choices = getattr(completion, "choices", None)
    if not isinstance(choices, list) or not choices:
        raise InvalidReply("the server's answer is not a chat completion")
    if getattr(choices[0], "finish_reason", None) == "length":
        raise InvalidReply(f"cut off at max_tokens ({max_tokens})")
    content = getattr(getattr(choices[0], "message", None), "content", None)
    if not isinstance(content, str):
        raise InvalidReply("the message has no text")
    return content


def _backoff(error: Exception) -> bool | float:
    """Whether to try again, or after how many seconds when the server says so."""
    if isinstance(error, (InvalidReply, openai.APITimeoutError)):
        return True
    if isinstance(error, openai.APIStatusError):
        if error.status_code not in (408, 429) and error.status_code < 500:
            return False
        after = error.response.headers.get("retry-after", "")
        return float(after) if after.isdecimal() else True
    return isinstance(error, openai.APIConnectionError) and not _refused(error)


def _refused(error: BaseException | None) -> bool:
    """Whether no connection came about (refused, no such host, no trust): trying again at once does not help.

    A connection that was lost once it stood is a ConnectionError other than refused, or no OSError at all.
    """
    while error is not None:
        if isinstance(error, ConnectionRefusedError):
            return True
        if isinstance(error, OSError) and not isinstance(error, ConnectionError):
            return True
        error = error.__cause__ or error.__context__
    return False
