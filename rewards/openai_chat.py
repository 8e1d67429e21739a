"""A judge's model behind any OpenAI-compatible server: vLLM, or a hosted one.

429, 5xx, timeouts, lost connections and invalid replies are tried again with growing, jittered waits (or as long as
a Retry-After header says); all tries of a question share one deadline. What still fails is a JudgeError, so the
rollout is unscored: never a zero.

A question is asked once: equal ones in flight share a request, and answered ones come from the cache.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from typing import Any, TypeVar

import openai
import stamina

from owlcap.config import JudgeSection
from owlcap.errors import ConfigError, JudgeError
from rewards.cache import Reply, ReplyCache, cache_key
from rewards.chat import Answer, InvalidReply, Question, Usage
from rewards.endpoints import Endpoint, Endpoints
from rewards.limits import RateLimiter

NO_KEY = "none"  # local servers ask for no key, but the SDK insists on a value
TRY_SHARE = 0.5  # of the call's deadline: a try that hangs leaves time for another
CHARACTERS_A_TOKEN = 4.0  # of English; what a request is thought to take before it is sent
FIRST_OUTPUT_TOKENS = 300.0  # the same, for the first reply
CHECK_S = 10.0  # for a server to list its models

T = TypeVar("T")


@dataclass(slots=True)
class _Flight:
    """A request that several askers wait for; cancelled when the last of them is."""

    task: asyncio.Task[Reply]
    num_waiting: int = 0


@dataclass(slots=True)
class _Loop:
    """What belongs to the event loop it was first used in."""

    loop: asyncio.AbstractEventLoop
    endpoints: Endpoints
    slots: asyncio.Semaphore
    flights: dict[str, _Flight] = field(default_factory=dict)


class OpenAIChat:
    """Asks `settings.model` on the least loaded of `settings.base_urls`.

    Args:
        cache: of replies; shared by the models of a process.
        limiter: of requests and tokens a minute; knows this judge as `limited_as`.
    """

    def __init__(self, settings: JudgeSection, cache: ReplyCache, limiter: RateLimiter, limited_as: str) -> None:
        if not settings.base_urls:
            raise ConfigError("no judge server is given", where="rewards.judge.base_urls", cure="name at least one")
        self._settings, self._cache = settings, cache
        self._limiter, self._limited_as = limiter, limited_as
        self._key = os.environ.get(settings.api_key_env) or NO_KEY
        self._usage = Usage()
        self._output_tokens: dict[str, float] = {}  # of the last reply to a kind of question
        self._state: _Loop | None = None

    @property
    def name(self) -> str:
        """See ChatModel."""
        return self._settings.model

    @property
    def usage(self) -> Usage:
        """See ChatModel."""
        return self._usage

    async def ask(self, question: Question[T]) -> Answer[T]:
        """See ChatModel."""
        key = cache_key(self._settings.model, question.template_hash, self._parameters(question), question.prompt)
        known = await asyncio.to_thread(self._cache.get, key)
        if known is not None:
            try:
                answer = Answer(question.read(known.text), known.id)
            except InvalidReply:  # kept by an older version, or tampered with
                await asyncio.to_thread(self._cache.drop, key)
            else:
                self._usage += Usage(num_cached=1)
                return answer
        reply = await self._shared(key, question)
        return Answer(question.read(reply.text), reply.id)

    async def check(self) -> None:
        """Ask every server for its list of models.

        Raises:
            JudgeError: a server does not answer, refuses the key, or does not have the model.
        """
        state = self._open()
        for url, client in state.endpoints.clients():
            where = f"judge {self._settings.model} at {url}"
            try:
                models = [model.id for model in (await client.with_options(timeout=CHECK_S).models.list()).data or ()]
            except openai.NotFoundError:
                continue  # some servers list nothing
            except (openai.OpenAIError, ValueError) as error:
                raise self._failure(self._described(error), self._cure(error), where) from None
            if models and self._settings.model not in models:
                raise JudgeError(
                    f'the server does not have the model "{self._settings.model}"',
                    where=where,
                    allowed=", ".join(sorted(models)[:10]),
                    cure="correct rewards.judge.model, or serve it under this name (--served-model-name)",
                )

    async def close(self) -> None:
        """See ChatModel. Requests in flight are cancelled."""
        if self._state is not None and self._state.loop is asyncio.get_running_loop():
            tasks = [flight.task for flight in self._state.flights.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._state.endpoints.close()
        self._state = None

    async def _shared(self, key: str, question: Question[Any]) -> Reply:
        """The reply of the request in flight for this key, which is sent if there is none."""
        flights = self._open().flights
        flight = flights.get(key)
        if flight is None:
            flight = flights[key] = _Flight(asyncio.ensure_future(self._ask_and_keep(key, question)))
            flight.task.add_done_callback(lambda _: flights.pop(key, None))
        else:
            self._usage += Usage(num_cached=1)
        flight.num_waiting += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.num_waiting -= 1
            if not flight.num_waiting:
                flight.task.cancel()  # nothing to do where it is done

    async def _ask_and_keep(self, key: str, question: Question[Any]) -> Reply:
        try:
            reply = await self._ask_within_deadline(question)
        except JudgeError:
            self._usage += Usage(num_failed=1)
            raise
        await asyncio.to_thread(self._cache.put, key, reply, model=self._settings.model, kind=question.kind)
        return reply

    async def _ask_within_deadline(self, question: Question[Any]) -> Reply:
        state, settings = self._open(), self._settings
        last: list[Exception] = []  # of the tries so far, for the message where time runs out between two of them
        async with state.slots:
            await self._admit(question)
            try:
                async with asyncio.timeout(settings.call_deadline_s):
                    return await self._ask_until_valid(question, state, last)
            except TimeoutError:
                after = f"; the last try: {self._described(last[-1])}" if last else ""
                cure = self._cure(last[-1]) if last else None
                raise self._failure(f"no valid reply within {settings.call_deadline_s:g} s{after}", cure) from None
            except InvalidReply as error:
                raise self._failure(f"no valid reply in {settings.max_tries} tries; the last: {error}") from error
            except openai.OpenAIError as error:
                raise self._failure(self._described(error), self._cure(error)) from None

    async def _ask_until_valid(self, question: Question[Any], state: _Loop, last: list[Exception]) -> Reply:
        async for attempt in stamina.retry_context(
            on=_backoff,
            attempts=self._settings.max_tries,
            timeout=None,
            wait_initial=0.2,
            wait_max=10.0,
            wait_jitter=1.0,
        ):
            with attempt:
                if attempt.num > 1:
                    self._usage += Usage(num_retries=1)
                    await self._admit(question)
                try:
                    async with state.endpoints.lease() as client:
                        return await self._try(question, client)
                except (InvalidReply, openai.OpenAIError) as error:
                    last.append(error)
                    raise
        raise AssertionError("the last attempt returns or raises")

    async def _try(self, question: Question[Any], client: openai.AsyncOpenAI) -> Reply:
        self._usage += Usage(num_requests=1)
        try:
            completion = await client.chat.completions.create(
                model=self._settings.model,
                messages=[{"role": "user", "content": question.prompt}],
                **self._parameters(question),
            )
        except ValueError as error:  # a body that is not JSON
            raise InvalidReply(f"the server's answer is not JSON: {error}") from error
        await self._account(question, completion)
        text = _content(completion, self._settings.max_tokens)
        question.read(text)
        return Reply(text, str(getattr(completion, "id", None) or ""))

    def _parameters(self, question: Question[Any]) -> dict[str, Any]:
        """What is sent besides model and prompt."""
        settings = self._settings
        parameters: dict[str, Any] = {"temperature": settings.temperature, "max_tokens": settings.max_tokens}
        if settings.extra_body:
            parameters["extra_body"] = dict(settings.extra_body)
        if question.schema is not None and settings.structured_output == "json_object":
            parameters["response_format"] = {"type": "json_object"}
        elif question.schema is not None and settings.structured_output == "json_schema":
            schema = {"name": question.kind, "schema": dict(question.schema), "strict": True}
            parameters["response_format"] = {"type": "json_schema", "json_schema": schema}
        return parameters

    async def _admit(self, question: Question[Any]) -> None:
        await self._limiter.admit(self._limited_as, self._expected_tokens(question))

    def _expected_tokens(self, question: Question[Any]) -> float:
        output = self._output_tokens.get(question.kind, FIRST_OUTPUT_TOKENS)
        return len(question.prompt) / CHARACTERS_A_TOKEN + output

    async def _account(self, question: Question[Any], completion: object) -> None:
        """Count what the server says the request took."""
        said = getattr(completion, "usage", None)
        details = getattr(said, "prompt_tokens_details", None)
        inputs, outputs = _count(said, "prompt_tokens"), _count(said, "completion_tokens")
        price = inputs * self._settings.usd_per_million_input + outputs * self._settings.usd_per_million_output
        self._usage += Usage(
            input_tokens=inputs,
            input_tokens_reused=_count(details, "cached_tokens"),
            output_tokens=outputs,
            usd=price / 1e6,
        )
        expected = self._expected_tokens(question)
        if inputs or outputs:
            self._output_tokens[question.kind] = float(outputs)
            await self._limiter.settle(self._limited_as, inputs + outputs - expected)

    def _open(self) -> _Loop:
        loop = asyncio.get_running_loop()
        if self._state is None or self._state.loop is not loop:
            timeout = self._settings.call_deadline_s * TRY_SHARE
            endpoints = [
                Endpoint(url, openai.AsyncOpenAI(base_url=url, api_key=self._key, max_retries=0, timeout=timeout))
                for url in self._settings.base_urls
            ]
            slots = asyncio.Semaphore(self._settings.concurrency)
            self._state = _Loop(loop, Endpoints(endpoints, self._settings), slots)
        return self._state

    def _failure(self, what: str, cure: str | None = None, where: str | None = None) -> JudgeError:
        place = where or f"judge {self._settings.model} at {', '.join(self._settings.base_urls)}"
        return JudgeError(what, where=place, cure=cure)

    def _described(self, error: Exception) -> str:
        return str(error) if isinstance(error, InvalidReply) else self._redacted(f"{type(error).__name__}: {error}")

    def _cure(self, error: Exception) -> str | None:
        if isinstance(error, (openai.AuthenticationError, openai.PermissionDeniedError)):
            return f"put a valid key into the environment variable {self._settings.api_key_env}"
        if isinstance(error, openai.NotFoundError):
            return "check rewards.judge.model and base_urls (most end in /v1)"
        if isinstance(error, openai.APIConnectionError):
            return "start the judge's server, or correct rewards.judge.base_urls"
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


def _count(usage: object, name: str) -> int:
    value = getattr(usage, name, None)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _backoff(error: Exception) -> bool | float:
    """Whether to try again, or after how many seconds when the server says so."""
    if isinstance(error, openai.APIStatusError):
        if error.status_code not in (408, 429) and error.status_code < 500:
            return False
        after = error.response.headers.get("retry-after", "")
        return float(after) if after.isdecimal() else True
    return isinstance(error, (InvalidReply, openai.APIConnectionError))
