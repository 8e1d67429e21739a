"""Export: write a Hugging Face folder under a hidden name, prove that it is the policy, then give it its name.

source (run, checkpoint, folder) -> .OUT.xxxx/ weights, processor, generation config, owlcap.json
                                 -> logprobs against the source, in transformers and in vLLM (check.py)
                                 -> README.md, fsync, rename to OUT
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from owlcap.config import ModelSection, VideoSection
from owlcap.errors import CheckpointError, ExportError, OwlcapError
from owlcap.export.card import HERE, render_card
from owlcap.export.check import CheckFigures, check_folder
from owlcap.export.checkpoint import consolidate
from owlcap.export.probe import probe_sample
from owlcap.export.serve import OVERLAY_URL, VIDEO_URL, chat_request, serve_arguments, serve_line, server_arguments
from owlcap.export.source import ExportSource, find_source
from owlcap.inference.engine import Dtype, engine_settings, read_model_config, stored_dtype
from owlcap.inference.settings import PolicySettings, write_settings
from owlcap.runs import versions
from owlcap.types import Sample


@dataclass(frozen=True, slots=True)
class ExportReport:
    """A finished export."""

    folder: Path
    figures: CheckFigures
    settings: PolicySettings
    serve_command: tuple[str, ...]  # program and arguments
    num_bytes: int

    @property
    def serve_line(self) -> str:
        """`serve_command` for a shell."""
        return serve_line(self.serve_command)

    @property
    def request(self) -> dict[str, Any]:
        """An example request to the server."""
        overlays = (OVERLAY_URL,) if self.settings.motion.enabled else ()  # one a key frame
        return chat_request(self.settings, self.settings.name or self.folder.name, VIDEO_URL, overlays)

    def text(self) -> str:
        """What the command line shows."""
        figures, video = self.figures, self.settings.video
        return "\n".join(
            (
                f"exported to {self.folder} ({self.num_bytes / 2**20:.1f} MiB, {figures.dtype})",
                f"checked over {figures.num_tokens} caption tokens: transformers against the source differs by at most "
                f"{figures.source_max:.1e}, vLLM against transformers by {figures.vllm_max:.1e} "
                f"(mean {figures.vllm_mean:.1e})",
                f"videos at {video.fps:g} frames a second, {video.min_frames} to {video.max_frames} frames; question: "
                f"{self.settings.prompt}",
                f"its caption of the probe clip: {figures.caption}",
                "serve it with:",
                self.serve_line,
                "ask it with the message's parts in this order, POST /v1/chat/completions:",
                json.dumps(self.request, ensure_ascii=False),
            )
        )


def export(
    source: str | Path,
    out: str | Path,
    *,
    name: str | None = None,
    dtype: Dtype | None = None,
    sample: Sample | None = None,
    video: VideoSection | None = None,
    prompt: str | None = None,
    show: Callable[[str], None] | None = None,
) -> ExportReport:
    """Write and check a Hugging Face folder at `out`, which must not exist yet.

    Args:
        source: a run directory, one of its checkpoints, or a Hugging Face folder.
        name: what the policy is called when served; None takes the source's name, else that of the folder `out`.
        dtype: of the weights; None keeps the source's.
        sample: the clip of the check; None takes one of the run's data, or a synthetic one.
        video: how the policy's videos are sampled; None takes what the source says, else the defaults.
        prompt: the policy's question; None takes what the source says.
        show: takes the finished report as text.

    Raises:
        ExportError: `source` holds no policy, `out` exists or cannot be written, or the folder does not
            reproduce the source; nothing is then left at `out`.
        ModelError: the source, or the model that a checkpoint's run started from, cannot be loaded.
        CheckpointError: the checkpoint is not complete.
    """
    found, out = find_source(source), Path(out).absolute()
    if out.exists():
        raise ExportError("the folder to write exists already", where=str(out), cure="choose another, or remove it")
    known = found.settings or PolicySettings()
    settings = PolicySettings(
        video or known.video, prompt or known.prompt, known.max_new_tokens, name or known.name or out.name, known.motion
    )
    staging = _make_staging(out)
    try:
        folder, model = staging / out.name, _model_folder(found, staging, dtype)
        kept = dtype or stored_dtype(read_model_config(model))
        _write_policy(model, folder, settings, kept)
        figures = _check(folder, model, kept, sample or probe_sample(found.config, settings, staging), settings)
        name = settings.name or out.name
        line = serve_line(server_arguments(HERE, engine_settings(folder, settings), name=name))
        card = render_card(name, found, settings, figures, line, versions())
        (folder / "README.md").write_text(card, encoding="utf-8")
        _publish(folder, out)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    num_bytes = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    report = ExportReport(out, figures, settings, tuple(serve_arguments(out)), num_bytes)
    if show:
        show(report.text())
    return report


def _make_staging(out: Path) -> Path:
    """A hidden folder beside `out`, on the same file system, so that the last step is a rename."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    except OSError as error:
        raise _not_writable(out, error.strerror or str(error)) from error


def _not_writable(out: Path, reason: str) -> ExportError:
    what = f"the folder cannot be written: {reason}"
    return ExportError(what, where=str(out), cure="free some space, or choose a folder you can write to")


def _model_folder(found: ExportSource, staging: Path, dtype: Dtype | None) -> Path:
    """The source's Hugging Face folder; of a checkpoint, one made from its shards."""
    if found.model is not None:
        return found.model
    assert found.checkpoint is not None
    assert found.config is not None
    section = found.config.model
    return consolidate(found.checkpoint, section.path, dtype or section.dtype, staging / "checkpoint")


def _write_policy(model: Path, folder: Path, settings: PolicySettings, dtype: Dtype) -> None:
    """Weights, processor with the policy's video settings, generation config and `owlcap.json`."""
    from owlcap.models.load import load_policy, load_processor, save_policy

    policy = load_policy(ModelSection(path=str(model), dtype=dtype, gradient_checkpointing=False))
    policy.config.use_cache = True  # off for training only
    try:
        save_policy(policy, load_processor(model, settings.video, settings.motion), folder)
        write_settings(folder, settings)
    except CheckpointError as error:
        raise _not_writable(folder, error.what) from error
    except OSError as error:
        raise _not_writable(folder, error.strerror or str(error)) from error


def _check(folder: Path, source: Path, dtype: Dtype, sample: Sample, settings: PolicySettings) -> CheckFigures:
    """Compare the written folder with its source; every failure is an ExportError."""
    try:
        return check_folder(folder, source, dtype, sample, settings)
    except ExportError:
        raise
    except OwlcapError as error:
        raise ExportError(
            f"the exported folder could not be checked, so it is not kept: {error.what}",
            where=error.where,
            allowed=error.allowed,
            cure=error.cure,
        ) from error


def _publish(folder: Path, out: Path) -> None:
    """Flush the folder to disk and give it its name."""
    from owlcap.models.load import replace_folder

    try:
        replace_folder(folder, out)
    except OSError as error:
        raise _not_writable(out, error.strerror or str(error)) from error
