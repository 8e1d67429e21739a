"""What can go wrong with a request to a judge's server: whether to try again, and what a user can do about it."""

from __future__ import annotations

import random

import openai

from owlcap.config import JudgeSection

MAX_MESSAGE = 300  # characters of a server's error message: some send whole pages
SECTION = "rewards.judge"  # of the settings, where a model is not told of another
CURES = {  # of a request that the server refuses, by what its message speaks of
    "context length": "lower {0}.max_tokens or max_caption_words, or serve the model with a longer context",
    "max_tokens": "set {0}.max_tokens=null, and the server's own name of it in {0}.extra_body",
    "temperature": "set {0}.temperature=null",
    "": "if the server does not know response_format, set {0}.structured_output to json_object or none",
}


class ServerFault(Exception):
    """A request without an answer. Its text never holds the key: libraries log exceptions.

    Args:
        retry: whether to try again, or after how many seconds when the server says so.
        is_outage: the server gave no answer of its own: no connection, a time-out, HTTP 5xx.
        is_refused: no connection came about.
    """

    def __init__(
        self,
        what: str,
        *,
        cure: str | None,
        retry: bool | float = True,
        is_outage: bool = True,
        is_refused: bool = False,
    ) -> None:
        super().__init__(what)
        self.cure, self.retry, self.is_outage, self.is_refused = cure, retry, is_outage, is_refused


def title(section: str) -> str:
    """What messages call a model: the last part of its section's name, "judge" of rewards.judge."""
    return section.rpartition(".")[2]


def start_server(section: str) -> str:
    """The cure where no server answers."""
    return f"start the {title(section)}'s server, or correct {section}.base_urls"


def server_fault(error: openai.OpenAIError, settings: JudgeSection, key: str, section: str = SECTION) -> ServerFault:
    """The fault behind an error of the SDK. Some servers repeat the key in their messages: it is taken out."""
    told = str(error).replace(key, "***") if key else str(error)
    message = " ".join(told.split())
    short = message if len(message) <= MAX_MESSAGE else message[:MAX_MESSAGE] + "..."
    what = f"{type(error).__name__}: {short}"
    if isinstance(error, openai.APITimeoutError):
        return ServerFault(what, cure=f"raise {section}.call_deadline_s: one try may take half of it")
    if isinstance(error, openai.APIConnectionError):
        return ServerFault(what, cure=start_server(section), is_refused=_is_refused(error))
    if not isinstance(error, openai.APIStatusError):
        return ServerFault(what, cure=None, retry=False, is_outage=False)
    return ServerFault(
        what, cure=_cure(error, message, settings, section), retry=_retry(error), is_outage=error.status_code >= 500
    )


def _retry(error: openai.APIStatusError) -> bool | float:
    if error.status_code not in (408, 429) and error.status_code < 500:
        return False
    try:
        after = float(error.response.headers.get("retry-after", ""))
    except ValueError:  # none, or a date
        return True
    return after + random.random() if after >= 0 else True  # not all at the same moment


def _cure(error: openai.APIStatusError, message: str, settings: JudgeSection, section: str) -> str | None:
    if error.status_code in (401, 403):
        return f"put a valid key into the environment variable {settings.api_key_env}"
    if error.status_code == 404:
        return f"check {section}.model and base_urls (most end in /v1)"
    if error.status_code == 429:
        return f"lower {section}.concurrency, or set requests_per_minute and tokens_per_minute to what it allows"
    if error.status_code in (400, 422):
        return next(cure.format(section) for word, cure in CURES.items() if word in message)
    return None


def _is_refused(error: openai.APIConnectionError) -> bool:
    """Whether no connection came about: refused, no such host, no trust.

    A connection that was lost once it stood is a ConnectionError other than refused, or no OSError at all.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ConnectionRefusedError):
            return True
        if isinstance(cause, OSError) and not isinstance(cause, ConnectionError):
            return True
        cause = cause.__cause__ or cause.__context__
    return False
