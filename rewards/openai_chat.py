"""A judge's model behind any OpenAI-compatible server: vLLM, or a hosted one.

429, 5xx, timeouts, lost connections and invalid replies are tried again with growing, jittered waits (or as long as
a Retry-After header says); all tries of a question share one deadline, which begins when the first has a slot and the
rate limit lets it through. What still fails is a JudgeError, so the rollout is unscored: never a zero.

A question is asked once: equal ones in flight share a request, and answered ones come from the cache.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import openai
import stamina

from owlcap.config import JudgeSection
from owlcap.errors import ConfigError, JudgeError
from rewards.cache import Reply, ReplyCache, cache_key
from rewards.chat import Answer, InvalidReply, Question, Usage
from rewards.endpoints import Endpoint, Endpoints
from rewards.faults import SECTION, ServerFault, server_fault, start_server, title
from rewards.limits import RateLimiter
from rewards.replies import encodable
from rewards.slots import Slots

NO_KEY = "none"  # local servers ask for no key, but the SDK insists on a value
TRY_SHARE = 0.5  # of the call's deadline: a try that hangs leaves time for another
CHARACTERS_A_TOKEN = 4.0  # of English; what a request is thought to take before it is sent
TOKENS_A_PICTURE = 300.0  # the same, for what is shown
FIRST_OUTPUT_TOKENS = 300.0  # the same, for the first reply
CHECK_S = 10.0  # for a server to list its models

T = TypeVar("T")


@dataclass(slots=True)
class _Flight:
    """A question that several askers wait for; cancelled when the last of them leaves."""

    task: asyncio.Task[Answer[Any]]
    num_waiting: int = 0


@dataclass(slots=True)
class _Loop:
    """What belongs to the event loop it was first used in."""

    loop: asyncio.AbstractEventLoop
    endpoints: Endpoints
    slots: Slots
    flights: dict[str, _Flight] = field(default_factory=dict)


class OpenAIChat:
    """Asks `settings.model` on the least loaded of `settings.base_urls`.

    Args:
        cache: of replies; shared by the models of a process.
        limiter: of requests and tokens a minute; knows this judge as `limited_as`.
        section: where its settings stand, for messages.

    Raises:
        ConfigError: no server, an address that is none, or a key that no header can carry.
    """

    def __init__(
        self,
        settings: JudgeSection,
        cache: ReplyCache,
        limiter: RateLimiter,
        limited_as: str,
        section: str = SECTION,
    ) -> None:
        self._settings, self._cache = settings, cache
        self._section, self._title = section, title(section)
        self._limiter, self._limited_as = limiter, limited_as
        self._key = _key(settings, self._title)
        self._usage = Usage()
        self._output_tokens: dict[str, float] = {}  # of the last reply to a kind of question
        self._state: _Loop | None = None
        _check_addresses(settings, section)

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
        parameters = {"kind": question.kind, **self._parameters(question)}
        if question.media:
            parameters["media"] = [one.hash for one in question.media]
        key = cache_key(self._settings.model, question.template_hash, parameters, question.prompt)
        flights = self._open().flights
        joins = key in flights
        if not joins:
            flights[key] = _Flight(asyncio.ensure_future(self._look_up_or_ask(key, question)))
            flights[key].task.add_done_callback(_retrieve)
        flight = flights[key]
        flight.num_waiting += 1
        try:
            answer = await asyncio.shield(flight.task)
        except asyncio.CancelledError:
            asker = asyncio.current_task()
            if flight.task.cancelled() and asker is not None and not asker.cancelling():
                raise self._failure(f"the {self._title} was closed before it answered") from None
            raise
        finally:
            flight.num_waiting -= 1
            if not flight.num_waiting:
                flight.task.cancel()  # nothing to do where it is done
                if flights.get(key) is flight:
                    del flights[key]
        self._usage += Usage(num_cached=int(joins))
        return answer

    async def check(self) -> None:
        """Ask every server for its list of models.

        Raises:
            JudgeError: a server does not answer, refuses the key, or does not have the model.
        """
        for url, client in self._open().endpoints.clients():
            where = f"{self._title} {self._settings.model} at {url}"
            try:
                models = await self._models_of(client)
            except openai.OpenAIError as error:
                fault = server_fault(error, self._settings, self._key, self._section)
                # A time-out here is no matter of the questions' deadline, which its cure speaks of.
                cure = None if isinstance(error, openai.APIConnectionError) else fault.cure
                raise JudgeError(
                    f"the {self._title}'s server cannot be asked: {fault}",
                    where=where,
                    cure=cure or start_server(self._section),
                ) from None
            except (ValueError, RecursionError, AttributeError):
                cure = f"check {self._section}.base_urls (most end in /v1)"
                raise JudgeError("the server's list of models is not JSON", where=where, cure=cure) from None
            if models and self._settings.model not in models:
                raise JudgeError(
                    f'the server does not have the model "{self._settings.model}"',
                    where=where,
                    allowed=", ".join(models[:10]),
                    cure=f"correct {self._section}.model, or serve it under this name (--served-model-name)",
                )

    async def close(self) -> None:
        """See ChatModel. Who waits for an answer gets a JudgeError."""
        state, self._state = self._state, None
        if state is not None and state.loop is asyncio.get_running_loop():
            tasks = [flight.task for flight in state.flights.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await state.endpoints.close()

    async def _models_of(self, client: openai.AsyncOpenAI) -> list[str]:
        """What a server lists; nothing where it has no list, but answers a question of one token."""
        try:
            listed = (await client.with_options(timeout=CHECK_S).models.list()).data
        except openai.NotFoundError:
            with suppress(openai.BadRequestError, openai.UnprocessableEntityError):  # it is there, and wants other keys
                await client.chat.completions.create(
                    model=self._settings.model, messages=[{"role": "user", "content": "Hello."}], max_tokens=1
                )
            return []
        return sorted(str(getattr(model, "id", "")) for model in listed or ())

    async def _look_up_or_ask(self, key: str, question: Question[T]) -> Answer[T]:
        known = await asyncio.to_thread(self._cache.get, key)
        if known is not None:
            try:
                answer = Answer(question.read(known.text), known.id)
            except InvalidReply:  # kept by an older version, or tampered with
                await asyncio.to_thread(self._cache.drop, key)
            else:
                self._usage += Usage(num_cached=1)
                return answer
        try:
            reply, value = await self._ask_within_deadline(question)
        except JudgeError:
            self._usage += Usage(num_failed=1)
            raise
        await asyncio.to_thread(self._cache.put, key, reply, model=self._settings.model, kind=question.kind)
        return Answer(value, reply.id)

    async def _ask_within_deadline(self, question: Question[T]) -> tuple[Reply, T]:
        state, deadline_s = self._open(), self._settings.call_deadline_s
        tries: list[ServerFault | InvalidReply] = []  # the failed ones so far
        try:
            async with asyncio.timeout(None) as deadline:
                return await self._ask_until_valid(question, state, tries, deadline)
        except TimeoutError:
            last = tries[-1] if tries else state.endpoints.fault
            told = f"; the last problem: {last}" if last else ""
            raise self._failure(f"no valid reply within {deadline_s:g} s{told}", last) from None
        except InvalidReply as error:
            raise self._failure(f"no valid reply in {len(tries)} tries; the last: {error}", error) from None
        except ServerFault as fault:
            raise self._failure(str(fault), fault) from None

    async def _ask_until_valid(
        self, question: Question[T], state: _Loop, tries: list[ServerFault | InvalidReply], deadline: asyncio.Timeout
    ) -> tuple[Reply, T]:
        async for attempt in stamina.retry_context(
            on=_backoff,
            attempts=self._settings.max_tries,
            timeout=None,
            wait_initial=0.2,
            wait_max=10.0,
            wait_jitter=1.0,
        ):
            with attempt:
                self._usage += Usage(num_retries=int(attempt.num > 1))
                async with state.slots.hold(further_try=attempt.num > 1):
                    expected = await self._admit(question)
                    if deadline.when() is None:
                        deadline.reschedule(state.loop.time() + self._settings.call_deadline_s)
                    try:
                        async with state.endpoints.lease() as client:
                            return await self._try(question, expected, client)
                    except (InvalidReply, ServerFault) as error:
                        tries.append(error)
                        raise
        raise AssertionError("the last attempt returns or raises")

    async def _try(self, question: Question[T], expected: float, client: openai.AsyncOpenAI) -> tuple[Reply, T]:
        self._usage += Usage(num_requests=1)
        try:
            completion = await client.chat.completions.create(
                model=self._settings.model,
                messages=[{"role": "user", "content": question.content}],
                **self._parameters(question),
            )
        except openai.OpenAIError as error:
            raise server_fault(error, self._settings, self._key, self._section) from None
        except (ValueError, RecursionError) as error:  # RecursionError: thousands of nested brackets
            raise InvalidReply("the server's answer is not JSON") from error
        await self._account(question, expected, completion)
        text = _content(completion)
        return Reply(text, encodable(str(getattr(completion, "id", None) or ""))), question.read(text)

    def _parameters(self, question: Question[Any]) -> dict[str, Any]:
        """What is sent besides model and prompt."""
        settings = self._settings
        limits = {"temperature": settings.temperature, "max_tokens": settings.max_tokens}
        parameters: dict[str, Any] = {name: value for name, value in limits.items() if value is not None}
        if settings.extra_body:
            parameters["extra_body"] = dict(settings.extra_body)
        if question.schema is not None and settings.structured_output == "json_object":
            parameters["response_format"] = {"type": "json_object"}
        elif question.schema is not None and settings.structured_output == "json_schema":
            schema = {"name": question.kind, "schema": dict(question.schema), "strict": True}
            parameters["response_format"] = {"type": "json_schema", "json_schema": schema}
        return parameters

    async def _admit(self, question: Question[Any]) -> float:
        """Wait for the rate limit's leave; the number of tokens it was asked for."""
        output = self._output_tokens.get(question.kind, FIRST_OUTPUT_TOKENS)
        expected = len(question.prompt) / CHARACTERS_A_TOKEN + len(question.media) * TOKENS_A_PICTURE + output
        await self._limiter.admit(self._limited_as, expected)
        return expected

    async def _account(self, question: Question[Any], expected: float, completion: object) -> None:
        """Count what the server says the request took; what it does not say is taken to be as expected."""
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
        if inputs or outputs:
            self._output_tokens[question.kind] = float(outputs)
            await self._limiter.settle(self._limited_as, inputs + outputs - expected)

    def _open(self) -> _Loop:
        loop = asyncio.get_running_loop()
        if self._state is None or self._state.loop is not loop:
            timeout = self._settings.call_deadline_s * TRY_SHARE
            endpoints = [
                Endpoint(
                    url, openai.AsyncOpenAI(base_url=url, api_key=self._key or NO_KEY, max_retries=0, timeout=timeout)
                )
                for url in self._settings.base_urls
            ]
            self._state = _Loop(loop, Endpoints(endpoints, self._settings), Slots(self._settings.concurrency))
        return self._state

    def _failure(self, what: str, error: Exception | None = None) -> JudgeError:
        where = f"{self._title} {self._settings.model} at {', '.join(self._settings.base_urls)}"
        return JudgeError(what, where=where, cure=error.cure if isinstance(error, ServerFault) else None)


def _key(settings: JudgeSection, called: str) -> str:
    key = os.environ.get(settings.api_key_env, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(
            f"the {called}'s key holds characters that no key has",
            where=f"the environment variable {settings.api_key_env}",
            allowed="printable ASCII",
        )
    return key


def _check_addresses(settings: JudgeSection, section: str) -> None:
    where = f"{section}.base_urls"
    if not settings.base_urls:
        raise ConfigError(f"no {title(section)} server is given", where=where, cure="name at least one")
    for url in settings.base_urls:
        if "@" in url.partition("://")[2].partition("/")[0]:
            raise ConfigError(
                "a server's address holds a password, which messages would show",
                where=where,
                cure=f"leave it out, and put a key into the environment variable {settings.api_key_env}",
            )
        if not url.startswith(("http://", "https://")):
            raise ConfigError(
                f'"{url}" is no address of a server',
                where=where,
                allowed="http://... or https://...",
            )


def _retrieve(task: asyncio.Task[Answer[Any]]) -> None:
    """Look at a failure that nobody waits for any more, so that asyncio does not complain."""
    if not task.cancelled():
        task.exception()


def _content(completion: object) -> str:
    """Text of the first choice. The SDK does not check a server's answer against its own types."""
    choices = getattr(completion, "choices", None)
    if not isinstance(choices, list) or not choices:
        raise InvalidReply("the server's answer is not a chat completion")
    if getattr(choices[0], "finish_reason", None) == "length":
        raise InvalidReply("cut off at max_tokens, or at the end of the model's context")
    content = getattr(getattr(choices[0], "message", None), "content", None)
    if not isinstance(content, str):
        raise InvalidReply("the message has no text")
    return encodable(content)


def _count(usage: object, name: str) -> int:
    value = getattr(usage, name, None)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _backoff(error: Exception) -> bool | float:
    return error.retry if isinstance(error, ServerFault) else isinstance(error, InvalidReply)
