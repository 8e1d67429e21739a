"""Loading and saving a policy: the checks that turn a wrong folder into one clear error, and atomic writes."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from owlcap.config import ModelSection, MotionSection, VideoSection
from owlcap.errors import CheckpointError, ModelError, first_line

if TYPE_CHECKING:
    import torch
    from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

    from owlcap.models.attention import Attention

MODEL_TYPE = "qwen2_5_vl"
MOTION_ARCHITECTURE = "MotionQwen2_5_VLForConditionalGeneration"  # of checkpoints with a motion merger
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def load_policy(model: ModelSection, device: str = "cpu") -> Qwen2_5_VLForConditionalGeneration:
    """Load a Qwen2.5-VL checkpoint for training, frozen and checkpointed as the settings say, in eval mode.

    One with a motion merger becomes the class of owlcap.models.macm.

    `attention: flash_attention_2` applies to the vision tower; the language model then runs FlexAttention, as flash
    attention takes no shared-prefix mask.

    Raises:
        ModelError: the folder is missing or incomplete, or holds another kind of model, or flash attention 2 is chosen
            and cannot run here.
    """
    import torch

    from owlcap.models.attention import chosen_attention
    from owlcap.models.lora import add_lora
    from owlcap.models.patch_embed import use_patch_product
    from owlcap.models.vision_attention import use_even_attention

    folder = model_folder(model.path)
    check_folder(folder)
    on_gpu = device.startswith("cuda")
    attention = chosen_attention(model.attention, on_gpu)
    of_vision = "flash_attention_2" if attention == "flash_attention_2" else "sdpa"
    with quiet_transformers():
        try:
            policy, info = policy_class(folder).from_pretrained(  # type: ignore[misc]
                folder,
                dtype=torch.float32 if model.dtype == "fp32" else torch.bfloat16,
                attn_implementation={"": "sdpa", "text_config": "sdpa", "vision_config": of_vision},
                output_loading_info=True,
            )
        except (ImportError, ValueError) as error:
            if attention != "flash_attention_2":
                raise
            raise ModelError(  # its package or a GPU is missing
                f"model.attention is {attention}: {first_line(error)}",
                allowed="auto, sdpa; flex on a GPU",
                cure="install flash-attn on the learner's machines, or set model.attention=auto",
            ) from error
    check_complete(folder, info["missing_keys"])
    use_patch_product(policy)
    use_even_attention(policy)
    _use_attention(policy, attention, on_gpu)
    if model.lora is not None:
        add_lora(policy, model.lora)
    freeze(
        policy,
        vision=model.freeze_vision,
        projector=model.freeze_projector,
        motion_projector=model.freeze_motion_projector,
    )
    if model.gradient_checkpointing:
        policy.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    policy.config.use_cache = False
    return policy.eval().to(device)  # type: ignore[arg-type]


def _use_attention(policy: Qwen2_5_VLForConditionalGeneration, attention: Attention, on_gpu: bool) -> None:
    """Choose the language model's; SDPA on a GPU is as transformers has it, with the whole mask."""
    from owlcap.models.flex_attention import use_flex_attention
    from owlcap.models.prefix_attention import use_shared_prefix_attention

    if attention != "sdpa":
        use_flex_attention(policy)
    elif not on_gpu:
        use_shared_prefix_attention(policy)


def check_complete(folder: Path, missing: Collection[str]) -> None:
    """Raise ModelError if weights are missing from a checkpoint folder."""
    if missing:
        raise ModelError(
            f"the checkpoint lacks {len(missing)} weights, first {min(missing)}",
            where=str(folder),
            cure="download or export the folder again",
        )


def freeze(
    policy: Qwen2_5_VLForConditionalGeneration, *, vision: bool, projector: bool, motion_projector: bool = False
) -> None:
    """Set which parts get gradients: the vision blocks (with the patch embedding), their merger (the projector), and
    the motion merger where there is one.
    """
    visual = policy.model.visual
    visual.requires_grad_(not vision)
    visual.merger.requires_grad_(not projector)
    if hasattr(visual, "motion_merger"):
        visual.motion_merger.requires_grad_(not motion_projector)  # type: ignore[union-attr]


def policy_class(folder: Path) -> type[Qwen2_5_VLForConditionalGeneration]:
    """The transformers class of a checkpoint folder."""
    if has_motion(folder):
        from owlcap.models.macm import MotionQwen2_5_VLForConditionalGeneration

        return MotionQwen2_5_VLForConditionalGeneration
    from transformers import Qwen2_5_VLForConditionalGeneration

    return Qwen2_5_VLForConditionalGeneration


def has_motion(folder: Path) -> bool:
    """Whether a checkpoint folder (of `check_folder`) says that it has a motion merger."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return MOTION_ARCHITECTURE in (config.get("architectures") or ())


def check_motion(path: str | Path, motion: MotionSection) -> None:
    """Raise ModelError where the motion pathway is on and the checkpoint has no motion merger."""
    folder = model_folder(path)
    check_folder(folder)
    if motion.enabled and not has_motion(folder):
        raise ModelError(
            "motion.enabled is true, and the checkpoint has no motion merger",
            where=str(path),
            allowed=f"a checkpoint whose config.json names the architecture {MOTION_ARCHITECTURE}",
            cure=f"owlcap model add-motion {path} OUT, and set model.path to OUT; or set motion.enabled=false",
        )


def load_processor(
    path: str | Path, video: VideoSection | None = None, motion: MotionSection | None = None
) -> Qwen2_5_VLProcessor:
    """Load the processor of a checkpoint.

    With `video`, its frame rate, frame counts and pixel bounds become the processor's own, and with `motion` (where
    it is on) the bounds of overlays, so that a folder saved with it is served with the settings it was trained with.

    Raises:
        ModelError: no processor of this kind, or no chat template.
    """
    from transformers import AutoProcessor, Qwen2_5_VLProcessor
    from transformers.image_utils import SizeDict

    folder = model_folder(path)
    check_folder(folder)
    try:
        processor = AutoProcessor.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"the processor cannot be loaded: {first_line(error)}",
            where=str(folder),
            allowed="a folder with preprocessor_config.json or processor_config.json, and tokenizer files",
            cure="copy the processor's files from the base model",
        ) from error
    if not isinstance(processor, Qwen2_5_VLProcessor):
        raise ModelError(
            f"the processor is a {type(processor).__name__}",
            where=str(folder),
            allowed="Qwen2_5_VLProcessor",
            cure="use a Qwen2.5-VL checkpoint",
        )
    if not processor.chat_template:
        raise ModelError(
            "the model has no chat template",
            where=str(folder),
            allowed="a folder with chat_template.jinja or chat_template.json",
            cure="start from an instruction-tuned checkpoint (Qwen2.5-VL-7B-Instruct), or copy its chat template",
        )
    if video is not None:
        settings = processor.video_processor
        settings.size = SizeDict(shortest_edge=video.min_pixels, longest_edge=video.max_pixels)
        settings.fps, settings.min_frames, settings.max_frames = video.fps, video.min_frames, video.max_frames
    if motion is not None and motion.enabled:
        processor.image_processor.size = SizeDict(shortest_edge=motion.min_pixels, longest_edge=motion.max_pixels)
    return processor


def save_policy(
    model: Qwen2_5_VLForConditionalGeneration,
    processor: Qwen2_5_VLProcessor,
    folder: str | Path,
    state_dict: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Write a complete Hugging Face folder, all or nothing: to a temporary name, flushed to disk, then renamed.

    Args:
        folder: replaced when it exists.
        state_dict: the weights, where the model itself holds only a shard of them.

    Raises:
        CheckpointError: the disk is full or cannot be written; what was at `folder` before is still there.
    """
    from safetensors import SafetensorError

    folder = Path(folder).absolute()
    temporary: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        with quiet_transformers():
            model.save_pretrained(temporary, state_dict=dict(state_dict) if state_dict is not None else None)
            processor.save_pretrained(temporary)
        replace_folder(temporary, folder)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"the model cannot be written: {error}",
            where=str(folder),
            cure="free some space or choose another run_dir, then run again with --resume",
        ) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def replace_folder(temporary: Path, folder: Path) -> None:
    """Flush every file of `temporary` to disk and rename it to `folder`, putting an existing one aside first."""
    temporary.chmod(0o755)  # mkdtemp makes folders that only their owner can read
    for path in temporary.rglob("*"):
        if path.is_file():
            path.chmod(0o644)
            _fsync(path)
    _fsync(temporary)
    aside = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(aside, ignore_errors=True)
    if folder.exists():
        folder.rename(aside)
    temporary.rename(folder)
    _fsync(folder.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def policy_state_dict(model: Qwen2_5_VLForConditionalGeneration) -> Iterator[tuple[str, torch.Tensor]]:
    """Names and tensors as vLLM's weight loader takes them.

    `lm_head.weight` is among them even when it is tied to the embeddings: vLLM's CPU engine keeps a packed copy of
    it, which would otherwise stay stale.
    """
    for name, tensor in model.state_dict().items():
        yield name, tensor.detach()


def may_be_model(path: str | Path) -> bool:
    """Whether this is a folder, or can be a checkpoint's name on the Hub."""
    return Path(path).is_dir() or (not Path(path).exists() and HUB_NAME.fullmatch(str(path)) is not None)


def model_folder(path: str | Path) -> Path:
    """The local folder of a checkpoint; a Hub name (`Qwen/Qwen2.5-VL-7B-Instruct`) is downloaded or found in the cache.

    Raises:
        ModelError: there is no such folder, and no such checkpoint on the Hub or no way to reach it.
    """
    if Path(path).is_dir():
        return Path(path)
    cure = "make a model first (owlcap demo), correct model.path, or download the checkpoint into a folder"
    if not may_be_model(path):
        raise ModelError("there is no such model folder", where=str(path), cure=cure)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(str(path)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(
            f"neither a folder nor a checkpoint that can be downloaded: {first_line(error)}",
            where=str(path),
            cure=cure,
        ) from error


def check_folder(folder: Path) -> None:
    """Raise ModelError unless `folder` holds a readable config.json of a Qwen2.5-VL model."""
    config = folder / "config.json"
    try:
        model_type = json.loads(config.read_text()).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(
            "the folder has no readable config.json",
            where=str(config),
            allowed="a Hugging Face checkpoint folder",
            cure="download the folder again; of a run or its checkpoint: owlcap export FOLDER OUT, then take OUT",
        ) from error
    if model_type != MODEL_TYPE:
        raise ModelError(
            f"the model is of type {model_type!r}", where=str(config), allowed=MODEL_TYPE, cure="use a Qwen2.5-VL model"
        )
    if not any(folder.glob("*.safetensors")):
        raise ModelError(
            "the folder has no weights",
            where=str(folder),
            allowed="*.safetensors",
            cure="download or export the folder again",
        )


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' own progress bars off while loading and saving; ours say what matters."""
    from transformers.utils import logging

    was_on = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            logging.enable_progress_bar()
