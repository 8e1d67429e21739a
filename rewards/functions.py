"""A plain function as a reward.

    def brief(caption, sample, per_word=0.01): ...     -> a number          called for each caption
    async def varied(captions, sample): ...            -> one number each   called once for all captions of a group

The name of the first parameter says which of the two it is; `sample` may be left out; all other parameters are the
term's options. In place of a number a function may give a Score (a number with figures and evidence), an Unscored
with its reason, or None, which is unscored too. A function that is not async runs in a thread.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from numbers import Real
from typing import Any

from owlcap.errors import ConfigError
from owlcap.types import Sample, Score, Unscored
from rewards.failures import score_each

ONE, ALL, SAMPLE = "caption", "captions", "sample"


def is_reward_function(plugin: object) -> bool:
    """Whether this is such a function: callable, not a class, with a parameter `caption` or `captions`."""
    if not callable(plugin) or inspect.isclass(plugin):
        return False
    try:
        return not {ONE, ALL}.isdisjoint(inspect.signature(plugin).parameters)
    except ValueError:  # some built-in functions do not tell
        return False


class FunctionReward:
    """The reward that a function makes.

    Args:
        name: of the reward.
        options: of its term, passed to the function by name.

    Raises:
        ConfigError: a signature that does not fit, an option that is unknown or missing.
    """

    def __init__(self, name: str, function: Callable[..., Any], options: Mapping[str, Any]) -> None:
        self.name = name
        self.place = _place(function)
        self._function, self._options = function, dict(options)
        parameters = inspect.signature(function).parameters
        self._takes_sample = SAMPLE in parameters
        self._takes_all = ALL in parameters
        self.per_caption = not self._takes_all
        self._check(parameters)

    async def score_group(self, sample: Sample, captions: Sequence[str]) -> Any:
        """What the function says, numbers and None as Score and Unscored. Anything odd is left for the suite to refuse.

        Raises:
            Exception: whatever the function raises; a JudgeError leaves its caption unscored.
        """
        given = {SAMPLE: sample} if self._takes_sample else {}
        if not self._takes_all:
            return await score_each(self.name, captions, lambda caption: self._score({ONE: caption, **given}))
        values = await self._call({ALL: tuple(captions), **given})
        return [self._outcome(value) for value in values] if isinstance(values, Sequence) else values

    async def _score(self, given: Mapping[str, Any]) -> Any:
        return self._outcome(await self._call(given))

    async def _call(self, given: Mapping[str, Any]) -> Any:
        def call() -> Any:
            return self._function(**given, **self._options)

        result = call() if inspect.iscoroutinefunction(self._function) else await _in_thread(call)
        return await result if inspect.isawaitable(result) else result

    def _outcome(self, value: object) -> object:
        if value is None:
            return Unscored(self.name, "the function returned None")
        return Score(value) if isinstance(value, Real) else value  # type: ignore[arg-type]  # Real: numpy's too

    def _check(self, parameters: Mapping[str, inspect.Parameter]) -> None:
        if ONE in parameters and ALL in parameters:
            raise ConfigError(
                f"the reward {self.name} takes {ONE} and {ALL}",
                where=self.place,
                allowed=f"{ONE} to be called for each caption, or {ALL} to be called once a group",
            )
        by_position = [name for name, one in parameters.items() if one.kind is one.POSITIONAL_ONLY]
        if by_position:
            raise ConfigError(
                f"the reward {self.name} takes {by_position[0]} by position only",
                where=self.place,
                cure="remove the / from its parameters: they are passed by name",
            )
        own = {
            name: one
            for name, one in parameters.items()
            if name not in (ONE, ALL, SAMPLE) and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
        }
        takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
        unknown = [] if takes_any else [key for key in self._options if key not in own]
        missing = [name for name, one in own.items() if one.default is one.empty and name not in self._options]
        for names, what in ((unknown, "unknown option"), (missing, "no value for the option")):
            if names:
                raise ConfigError(
                    f'{what} "{names[0]}" of the reward {self.name}',
                    where=self.place,
                    allowed=", ".join(own) or "no options: the function has no further parameters",
                )


async def _in_thread(call: Callable[[], Any]) -> Any:
    """Call in a daemon thread of its own: one that never returns holds up no other work and not the process's end."""
    done: Future[tuple[Any, BaseException | None]] = Future()

    def run() -> None:
        if not done.set_running_or_notify_cancel():
            return
        try:
            done.set_result((call(), None))
        except BaseException as error:  # raised below, where the suite sees it
            done.set_result((None, error))

    threading.Thread(target=run, name="reward function", daemon=True).start()
    result, error = await asyncio.wrap_future(done)
    if error is not None:
        raise error
    return result


def _place(function: Callable[..., Any]) -> str:
    """Name, file and line of a function; of a callable object its class's."""
    source = inspect.unwrap(function)
    code = getattr(source, "__code__", None) or getattr(type(source).__call__, "__code__", None)
    name = getattr(source, "__qualname__", type(source).__qualname__)
    return f"{name} ({code.co_filename}:{code.co_firstlineno})" if code else name
