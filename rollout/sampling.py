"""From our sampling settings to vLLM's, and from vLLM's output back to completions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

from owlcap.errors import RolloutError
from owlcap.types import Completion, FinishReason, SamplingSettings

if TYPE_CHECKING:
    from vllm import CompletionOutput, SamplingParams
    from vllm.logprobs import FlatLogprobs

BAN = -100.0  # added to a logit: vLLM's lower bound, and a probability of at most e^-60 for any sane model


def sampling_params(sampling: SamplingSettings, banned_ids: Sequence[int], room: int) -> SamplingParams:
    """vLLM's parameters for one request.

    Vision tokens are banned: a sampled placeholder would break the positions of every later use of the completion.
    What they weighed goes to the other tokens in sampling. Logprobs at temperature 1 do not show it (they are the
    unchanged model's); at another temperature they do, and then differ from the learner's by log(1 - that weight):
    0.01 to 0.03 for a random tiny policy, next to nothing for one that has seen captions.

    Args:
        banned_ids: tokens that are never drawn.
        room: tokens the model length leaves after the prompt.

    Raises:
        RolloutError: settings that make no sense, such as several greedy completions.
    """
    from vllm import SamplingParams
    from vllm.exceptions import VLLMValidationError
    from vllm.sampling_params import RequestOutputKind

    try:
        return SamplingParams(
            n=sampling.num_completions,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            max_tokens=min(sampling.max_new_tokens, room),
            seed=sampling.seed,
            logprobs=0,  # of the drawn token only
            flat_logprobs=True,
            logit_bias=dict.fromkeys(banned_ids, BAN),
            detokenize=False,  # once at the end, in one batch
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
    except VLLMValidationError as error:
        raise RolloutError(
            f"vLLM refuses the sampling settings: {error}", where=str(sampling), cure="correct the SamplingSettings"
        ) from error


def completions_of(
    outputs: Sequence[CompletionOutput], decode: Callable[[list[list[int]]], list[str]], version: int
) -> tuple[Completion, ...]:
    """vLLM's finished outputs as completions, in the order of their seeds.

    Raises:
        RolloutError: an output ended for another reason than an end-of-turn token or the length limit.
    """
    ordered = sorted(outputs, key=lambda output: output.index)
    texts = decode([list(output.token_ids) for output in ordered])
    return tuple(_completion(output, text, version) for output, text in zip(ordered, texts, strict=True))


def _completion(output: CompletionOutput, text: str, version: int) -> Completion:
    if output.finish_reason not in ("stop", "length"):
        raise RolloutError(
            f"vLLM ended a completion with reason {output.finish_reason!r}",
            allowed="stop or length",
            cure="see its log",
        )
    logprobs = tuple(cast("FlatLogprobs", output.logprobs).logprobs)
    assert len(logprobs) == len(output.token_ids), "vLLM returned another number of logprobs than of tokens"
    return Completion(
        token_ids=tuple(output.token_ids),
        logprobs=cast("tuple[float, ...]", logprobs),
        text=text,
        finish_reason=cast("FinishReason", output.finish_reason),
        policy_version=version,
    )
