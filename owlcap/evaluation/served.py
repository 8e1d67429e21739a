"""A served policy in the place of rollout engines: any OpenAI-compatible server that takes `video_url` parts."""

from __future__ import annotations

import base64
import mimetypes
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from owlcap.errors import ConfigError, RolloutError
from owlcap.types import Completion, RolloutFailure, RolloutGroup
from rollout.settings import GenerationRequest

CONCURRENCY = 8  # requests in flight; each carries a video
DEADLINE_S = 600.0  # of one request
MAX_RETRIES = 3
KEY_VARIABLE = "OWLCAP_SERVER_API_KEY"


def is_address(source: str | Path) -> bool:
    """Whether a source of captions is a server's address."""
    return str(source).startswith(("http://", "https://"))


class ServedPolicy:
    """Captions clips as `rollout.pool.RolloutPool` does; token ids and log-probabilities are not known.

    Args:
        address: ends in /v1.
        model: the model's name at the server; None takes the only one that it lists.

    Raises:
        RolloutError: the server does not answer.
        ConfigError: `model` is None and the server has several.
    """

    def __init__(self, address: str, model: str | None = None) -> None:
        import openai

        self._client = openai.OpenAI(
            base_url=address,
            api_key=os.environ.get(KEY_VARIABLE) or "none",
            timeout=DEADLINE_S,
            max_retries=MAX_RETRIES,
        )
        try:
            self.model = model or _only(address, [one.id for one in self._client.models.list().data])
        except openai.OpenAIError as error:
            raise RolloutError(f"the server does not answer: {error}", where=address) from error

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[RolloutGroup | RolloutFailure]:
        """One result a request, as they finish; a request that the server refuses is a failure of its own clip."""
        with ThreadPoolExecutor(CONCURRENCY) as threads:
            try:
                for future in as_completed([threads.submit(self._one, request) for request in requests]):
                    yield future.result()
            finally:
                threads.shutdown(cancel_futures=True)

    def _one(self, request: GenerationRequest) -> RolloutGroup | RolloutFailure:
        import openai

        try:
            answer = self._client.chat.completions.create(**self._body(request))
        except (openai.OpenAIError, OSError) as error:
            return RolloutFailure(request.sample, type(error).__name__, str(error)[:200])
        completions = tuple(
            Completion(
                (), (), choice.message.content or "", "length" if choice.finish_reason == "length" else "stop", 0
            )
            for choice in answer.choices
        )
        if not completions:
            return RolloutFailure(request.sample, "RolloutError", "the server's answer is not a chat completion")
        return RolloutGroup(request.sample, completions)

    def _body(self, request: GenerationRequest) -> dict[str, Any]:
        from owlcap.export.serve import chat_request
        from owlcap.inference.settings import PolicySettings

        video = request.sample.video
        content = base64.b64encode(Path(video).read_bytes()).decode()
        url = f"data:{mimetypes.guess_type(video)[0] or 'video/mp4'};base64,{content}"
        sampling = request.sampling
        settings = PolicySettings(prompt=request.sample.prompt, max_new_tokens=sampling.max_new_tokens)
        body = chat_request(settings, self.model, url) | {"temperature": sampling.temperature}
        if sampling.num_completions > 1:
            body["n"] = sampling.num_completions
        return body | ({} if sampling.seed is None else {"seed": sampling.seed})


def _only(address: str, models: Sequence[str]) -> str:
    if len(models) != 1:
        raise ConfigError(
            f"the server has {len(models)} models",
            where=address,
            allowed=", ".join(models),
            cure="name one by --served-model",
        )
    return models[0]
