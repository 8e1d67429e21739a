"""From a sample and its decoded clip to what the policy is given: the one place where prompts are built.

A prompt is the chat template around one user turn, with the video where the row marks it or else after the text (as
OwlCap trains it), and no system prompt of our own. The same text and frames go to the Hugging Face processor
(learner, SFT) and to vLLM (rollouts); both get the frames as they are, with the metadata from which the seconds
between temporal patches follow. Overlays of the motion pathway stand directly before the video, one image item each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from owlcap.data.row import VIDEO_MARK
from owlcap.errors import ModelError, PromptError
from owlcap.types import OverlayInputs, Prompt, Sample, VideoClip, VisionInputs

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLProcessor

# Frames arrive sampled and sized by owlcap.data.video. Pass this as vLLM's mm_processor_kwargs too: a second resize
# would change them, since small frames of long clips may lie under the processor's own min_pixels.
PROCESSOR_KWARGS: Mapping[str, Mapping[str, bool]] = {
    "videos_kwargs": {"do_resize": False, "do_sample_frames": False},
    "images_kwargs": {"do_resize": False},
}
VISION_TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>")


def message_parts(
    prompt: str, video: Mapping[str, Any] | None = None, overlays: Sequence[Mapping[str, Any]] = ()
) -> list[dict[str, Any]]:
    """A user message's parts in the order in which the policy sees them.

    Args:
        prompt: as in Sample.prompt, with or without the mark of the video's place.
        video: the video's part; default {"type": "video"}.
        overlays: the overlays' parts, such as {"type": "image"}.
    """
    before, _, after = (text.strip() for text in prompt.partition(VIDEO_MARK))
    shown = [*map(dict, overlays), dict(video or {"type": "video"})]
    parts = [{"type": "text", "text": before}, *shown, {"type": "text", "text": after}]
    return [part for part in parts if part.get("text") != ""]


def render_prompt(processor: Qwen2_5_VLProcessor, sample: Sample, num_overlays: int = 0) -> str:
    """The prompt as text, with one unexpanded placeholder for each overlay and one for the video, and the assistant's
    turn opened.

    Raises:
        ModelError: the checkpoint has no chat template.
        PromptError: the template or the prompt does not leave exactly those placeholders.
    """
    if not (processor.chat_template or getattr(processor.tokenizer, "chat_template", None)):
        raise ModelError(
            "the model has no chat template",
            where=str(processor.tokenizer.name_or_path),
            allowed="a folder with chat_template.jinja, or chat_template in tokenizer_config.json",
            cure="start from an instruction-tuned checkpoint (Qwen2.5-VL-7B-Instruct), or copy its chat_template.jinja",
        )
    parts = message_parts(sample.prompt, overlays=[{"type": "image"}] * num_overlays)
    turns = [{"role": "user", "content": parts}]
    text = processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)  # type: ignore[arg-type]
    assert isinstance(text, str)
    for token, name, wanted in ((processor.video_token, "video", 1), (processor.image_token, "image", num_overlays)):
        if (count := text.count(token)) != wanted:
            raise PromptError(
                f"the prompt has {count or 'no'} {name} tokens where it must have {wanted or 'no'} placeholder",
                where=sample.id,
                cure=f"the chat template must render {name} parts, and the row's prompt must not contain {token}",
            )
    return text


def encode_prompt(processor: Qwen2_5_VLProcessor, clip: VideoClip, sample: Sample, max_tokens: int) -> Prompt:
    """Token ids with the placeholders of video and overlays expanded, and the vision tower's inputs.

    Raises:
        PromptError: no video tokens, or more than `max_tokens` tokens.
        ModelError: the checkpoint has no chat template.
    """
    (prompt,) = _encode(processor, [clip], [render_prompt(processor, sample, len(clip.overlays))])
    _check(processor, prompt, sample, max_tokens)
    return prompt


def encode_prompts(
    processor: Qwen2_5_VLProcessor, clips: Sequence[VideoClip], samples: Sequence[Sample], max_tokens: int
) -> list[Prompt | PromptError]:
    """`encode_prompt` of several samples at once (twice as fast for short clips), an error in place of a bad one.

    Raises:
        ModelError: the checkpoint has no chat template.
    """
    answers: list[Prompt | PromptError | None] = []
    texts: list[str] = []
    for sample, clip in zip(samples, clips, strict=True):
        try:
            texts.append(render_prompt(processor, sample, len(clip.overlays)))
            answers.append(None)
        except PromptError as error:
            answers.append(error)
    usable = [i for i, answer in enumerate(answers) if answer is None]
    for i, prompt in zip(usable, _encode(processor, [clips[i] for i in usable], texts), strict=True):
        try:
            _check(processor, prompt, samples[i], max_tokens)
            answers[i] = prompt
        except PromptError as error:
            answers[i] = error
    return [answer for answer in answers if answer is not None]


def _encode(processor: Qwen2_5_VLProcessor, clips: Sequence[VideoClip], texts: Sequence[str]) -> list[Prompt]:
    """One run of the processor over several rendered prompts and their clips."""
    if not clips:
        return []
    import torch
    from transformers.video_utils import VideoMetadata

    items = [video_item(clip) for clip in clips]
    metadata = [{key: value for key, value in item[1].items() if key != "do_sample_frames"} for item in items]
    encoded = processor(
        text=list(texts),
        images=[picture for clip in clips for picture in clip.overlays] or None,
        videos=[frames for frames, _ in items],
        video_metadata=[VideoMetadata(**values) for values in metadata],  # type: ignore[call-arg]
        **PROCESSOR_KWARGS,  # type: ignore[arg-type]
    )
    grids = [(t, h, w) for t, h, w in torch.as_tensor(encoded["video_grid_thw"]).tolist()]
    pixels = torch.as_tensor(encoded["pixel_values_videos"]).split([t * h * w for t, h, w in grids])
    # As float32 numbers, which is what vLLM computes positions with: 1/3 must truncate the same way.
    seconds = torch.as_tensor(encoded["second_per_grid_ts"], dtype=torch.float32).tolist()
    overlays = _overlay_inputs(encoded, [len(clip.overlays) for clip in clips])
    return [
        Prompt(tuple(ids), VisionInputs(patches.numpy(), grid, second, pictures))
        for ids, patches, grid, second, pictures in zip(
            encoded["input_ids"], pixels, grids, seconds, overlays, strict=True
        )
    ]


def _overlay_inputs(encoded: Mapping[str, Any], counts: Sequence[int]) -> list[OverlayInputs | None]:
    """Of each prompt, its overlays out of the processor's answer; `counts` pictures each."""
    import torch

    if not any(counts):
        return [None] * len(counts)
    grids = iter([(t, h, w) for t, h, w in torch.as_tensor(encoded["image_grid_thw"]).tolist()])
    pixels, start = torch.as_tensor(encoded["pixel_values"]).numpy(), 0
    answers: list[OverlayInputs | None] = []
    for count in counts:
        own = tuple(next(grids) for _ in range(count))
        end = start + sum(t * h * w for t, h, w in own)
        answers.append(OverlayInputs(pixels[start:end], own) if own else None)
        start = end
    return answers


def _check(processor: Qwen2_5_VLProcessor, prompt: Prompt, sample: Sample, max_tokens: int) -> None:
    check_length(prompt.token_ids, sample, max_tokens)
    if processor.video_token_id not in prompt.token_ids:
        raise PromptError("the prompt has no video tokens", where=sample.id, cure="check the processor's files")


def video_item(clip: VideoClip) -> tuple[Any, dict[str, Any]]:
    """The clip in the form that vLLM's `multi_modal_data={"video": [...]}` takes: frames and their metadata."""
    metadata = {
        "fps": clip.fps,
        "duration": clip.duration_s,
        "total_num_frames": clip.total_num_frames,
        "frames_indices": list(clip.frame_indices),
        "video_backend": "owlcap",
        "do_sample_frames": False,
    }
    return clip.frames, metadata


def expected_token_ids(
    processor: Qwen2_5_VLProcessor,
    text: str,
    grid_thw: tuple[int, int, int],
    overlay_grids: Sequence[tuple[int, int, int]] = (),
) -> tuple[int, ...]:
    """Token ids of a rendered prompt with each placeholder expanded to t*h*w / merge^2 tokens."""
    merge = processor.video_processor.merge_size**2
    sizes = iter([t * h * w // merge for t, h, w in (*overlay_grids, grid_thw)])
    ids: list[int] = processor.tokenizer(text)["input_ids"]  # type: ignore[assignment]
    vision = (processor.video_token_id, processor.image_token_id)
    return tuple(token for one in ids for token in ([one] * next(sizes) if one in vision else [one]))


def encode_completion(processor: Qwen2_5_VLProcessor, caption: str) -> tuple[int, ...]:
    """Token ids of a caption as the policy should write it: the text and the end-of-turn token."""
    ids: list[int] = processor.tokenizer(caption, add_special_tokens=False)["input_ids"]  # type: ignore[assignment]
    return (*ids, processor.tokenizer.eos_token_id)


def vision_token_ids(processor: Qwen2_5_VLProcessor) -> tuple[int, ...]:
    """Tokens that only a prompt may hold. Ban them in sampling: a sampled one breaks positions in every later use."""
    vocabulary = processor.tokenizer.get_vocab()
    return tuple(vocabulary[token] for token in VISION_TOKENS if token in vocabulary)


def check_length(token_ids: Sequence[int], sample: Sample, max_tokens: int) -> None:
    """Raise PromptError when a prompt has more than `max_tokens` tokens."""
    if len(token_ids) > max_tokens:
        raise PromptError(
            f"the prompt has {len(token_ids)} tokens, more than data.max_prompt_tokens ({max_tokens})",
            where=sample.id,
            cure="lower video.total_pixels or video.max_frames, or raise data.max_prompt_tokens and the model length",
        )


def check_prompt_ids(ours: Sequence[int], vllms: Sequence[int], sample: Sample) -> None:
    """Raise PromptError unless the processor's prompt ids and vLLM's are the same sequence."""
    if list(ours) == list(vllms):
        return
    pairs = zip(ours, vllms, strict=False)
    differs = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(ours), len(vllms)))
    raise PromptError(
        f"vLLM and the processor built different prompts: {len(vllms)} and {len(ours)} tokens, first difference at "
        f"token {differs}",
        where=sample.id,
        cure="use the same model folder on both sides, and pass PROCESSOR_KWARGS to vLLM",
    )
