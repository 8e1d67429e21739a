"""What a run grew from and cannot change in mid-run: the model, the data, and the order they are taken in.

A checkpoint holds this as names and values (`Origin`). A continuation with other weights, rows, seed or batch size
would be no run that anybody could repeat, and would look like one. Files are known by their content: they may move.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from owlcap.config import RlRun, Run, SftRun

Origin = tuple[tuple[str, str], ...]  # setting, value

SAMPLES, SAMPLE_BYTES = 256, 4096  # read of each file of weights, evenly spread


def origin_of(cfg: Run, num_rows: int) -> Origin:
    """Of a run's settings and the files they name.

    Args:
        num_rows: of training data.

    Raises:
        OSError: a file cannot be read.
    """
    model = model_fingerprint(cfg.model.path)
    facts: dict[str, object] = {
        "seed": cfg.seed,
        "model.path": model,
        "data.train": f"{num_rows} rows, content {_file_digest(Path(cfg.data.train))}",
        "model.freeze_vision": cfg.model.freeze_vision,
        "model.freeze_projector": cfg.model.freeze_projector,
    }
    if cfg.motion.enabled:
        facts["model.freeze_motion_projector"] = cfg.model.freeze_motion_projector
    if isinstance(cfg, RlRun):
        reference = cfg.reference_model
        facts["reference_model"] = model if reference is None else model_fingerprint(reference)
        facts["rollout.prompts_per_step"] = cfg.rollout.prompts_per_step
    if isinstance(cfg, SftRun):
        facts["sft.batch_size"] = cfg.sft.batch_size
        if cfg.sft.qa is not None:
            facts["sft.qa"] = f"content {_file_digest(Path(cfg.sft.qa))}"
            facts["sft.qa_share"] = cfg.sft.qa_share
    return tuple((name, str(value)) for name, value in facts.items())


def origin_differences(saved: Origin, current: Origin) -> list[str]:
    """What a checkpoint grew from and the run that wants it does not, one line each."""
    old, new = dict(saved), dict(current)
    return [
        f"{name}: checkpoint {old.get(name, 'none')}, run {new.get(name, 'none')}"
        for name in old | new
        if old.get(name) != new.get(name)
    ]


def model_fingerprint(path: str) -> str:
    """Name of a model folder's content: its configuration, and of all weights sizes, headers and samples; of a Hub
    name that name.

    A file's samples are read and not the whole, as a model has tens of GB. Training changes nearly every value.
    """
    folder = Path(path)
    if not folder.is_dir():
        return f"Hub name {path}"
    digest = hashlib.blake2b(digest_size=8)
    for file in [folder / "config.json", *sorted(folder.glob("*.safetensors"))]:
        if file.is_file():
            digest.update(f"{file.name} {file.stat().st_size} ".encode())
            _add_samples(digest, file)
    return f"content {digest.hexdigest()}"


def _add_samples(digest: hashlib.blake2b, path: Path) -> None:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        header = 8 + int.from_bytes(file.read(8), "little") if path.suffix == ".safetensors" else size
        file.seek(0)
        digest.update(file.read(min(header, size)))
        for number in range(SAMPLES if header < size else 0):
            file.seek(header + (size - header) * number // SAMPLES)
            digest.update(file.read(SAMPLE_BYTES))


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest()
