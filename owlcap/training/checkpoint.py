"""Checkpoints on disk: a folder appears under its final name only when every byte of it is written.

    root/step-00000050/meta.json   what the checkpoint is (written last, before the rename)
                       engine/     DeepSpeed's files, one or more a rank
                       rng-*.pt    random generators of each rank

`CheckpointStore.write` lets a writer fill `root/.writing-...`, syncs it, then renames it. An interrupted
write leaves only a hidden folder, which is never read and is removed by the next write. A run that was resumed from
an older checkpoint moves those after it to `root/aside-step-...`, where no run reads them, when it writes its first.
On several nodes `root` must be on a file system that all of them share.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from owlcap.config import LoraSection, Run
from owlcap.errors import CheckpointError
from owlcap.logging import get_logger
from owlcap.training.origin import Origin, origin_differences

logger = get_logger(__name__)

META = "meta.json"
FORMAT = 1
_STEP = re.compile(r"step-(\d{8})")
_HIDDEN = (".writing-", ".removing-")
_ASIDE = "aside-"
_SHOWN_DIFFERENCES = 8
_SETTINGS = {"world_size": "cluster.learner_ranks", "zero_stage": "deepspeed.zero_stage", "dtype": "model.dtype"}


@dataclass(frozen=True, slots=True)
class DataCursor:
    """Where in the data the next step starts."""

    epoch: int = 0
    batch: int = 0  # batches of this epoch already used


@dataclass(frozen=True, slots=True)
class Adapters:
    """LoRA as it was trained. Frozen weights are not in a checkpoint: it is of use with the same ones alone."""

    rank: int
    alpha: int
    layers: tuple[str, ...]  # sorted
    base: str  # owlcap.models.lora.base_fingerprint

    @classmethod
    def of(cls, lora: LoraSection, base: str) -> Adapters:
        """Of a run's settings and its frozen weights."""
        return cls(lora.rank, lora.alpha, tuple(sorted(lora.layers)), base)


@dataclass(frozen=True, slots=True)
class Layout:
    """What a checkpoint must share with the run that loads it."""

    world_size: int
    zero_stage: int
    dtype: str
    params: tuple[tuple[str, tuple[int, ...], bool], ...]  # name, shape, trained
    adapters: Adapters | None = None


@dataclass(frozen=True, slots=True)
class CheckpointMeta:
    """Everything about a checkpoint that is not a tensor."""

    step: int
    cursor: DataCursor
    layout: Layout
    policy_version: int = 0
    origin: Origin = ()  # empty: not known


class CheckpointStore:
    """The checkpoints of one run; the `keep` newest whole ones are kept. Used by the driver only."""

    def __init__(self, root: str | Path, keep: int) -> None:
        self.root = Path(root)
        self.keep = keep

    def write(self, meta: CheckpointMeta, writer: Callable[[Path], None]) -> Path:
        """Create the checkpoint of `meta.step`; `writer` fills the folder it is given.

        Raises:
            CheckpointError: disk full, read-only, or anything the writer raises it for. Earlier
                checkpoints are then untouched.
        """
        final = self.root / f"step-{meta.step:08d}"
        temporary = self.root / f".writing-{final.name}"
        with write_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            self._remove_hidden()
            self._check_room()
            temporary.mkdir()
            try:
                writer(temporary)
                described = {"format": FORMAT, "files": file_sizes(temporary), **asdict(meta)}
                (temporary / META).write_text(json.dumps(described), encoding="utf-8")
                sync_tree(temporary)
                self._set_aside_after(final)
                self._retire(final)
                temporary.rename(final)
                sync_folder(self.root)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        kept = self.complete()[-self.keep :]
        for path in self._folders():
            if len(kept) == self.keep and path < kept[0]:
                self._retire(path)
        return final

    def complete(self) -> list[Path]:
        """Whole checkpoints, oldest first."""
        return [path for path in self._folders() if find_damage(path) is None]

    def latest(self) -> Path | None:
        """The newest whole checkpoint, None where there is no checkpoint; damaged ones are passed over with a warning.

        Raises:
            CheckpointError: there are checkpoints and none is whole, with what is wrong with each.
        """
        damaged: list[str] = []
        for path in reversed(self._folders()):
            if (damage := find_damage(path)) is None:
                return path
            logger.warning("%s is passed over: %s", path, damage)
            damaged.append(f"{path.name}: {damage}")
        if not damaged:
            return None
        raise CheckpointError(
            "no checkpoint of the run is whole:\n    " + "\n    ".join(damaged),
            where=str(self.root),
            cure=f"copy one back whole; or start a new run with another name=..., or remove {self.root.parent} and "
            "start again without --resume",
        )

    def _folders(self) -> list[Path]:
        """Every checkpoint, damaged ones too, oldest first."""
        return sorted(p for p in self.root.iterdir() if _STEP.fullmatch(p.name)) if self.root.is_dir() else []

    def _check_room(self) -> None:
        """Find a full disk before any rank writes: ranks of which one fails leave the others waiting for it."""
        whole = self.complete()
        if not whole:
            return
        wanted, free = folder_size(whole[-1]), shutil.disk_usage(self.root).free
        if wanted > free:
            raise OSError(errno.ENOSPC, f"{wanted / 2**20:.0f} MiB are wanted, {free / 2**20:.0f} MiB are free")

    def _set_aside_after(self, final: Path) -> None:
        """Move checkpoints of later steps away, so that no run takes them for what follows `final`."""
        for path in self._folders():
            if path > final:
                aside = path.with_name(f"{_ASIDE}{path.name}")
                number = 1
                while aside.exists():
                    number += 1
                    aside = path.with_name(f"{_ASIDE}{path.name}.{number}")
                path.rename(aside)
                logger.warning("%s is of an earlier start of the run: kept as %s, not used", path, aside.name)

    def _retire(self, path: Path) -> None:
        """Remove a checkpoint such that a crash in between leaves no half of it under its name."""
        if path.exists():
            doomed = path.with_name(f".removing-{path.name}")
            path.rename(doomed)
            shutil.rmtree(doomed)

    def _remove_hidden(self) -> None:
        for path in self.root.iterdir():
            if path.name.startswith(_HIDDEN):
                shutil.rmtree(path)


def folder_size(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(file_sizes(folder).values())


def file_sizes(folder: Path) -> dict[str, int]:
    """Bytes of each file below a folder, by its path from there."""
    return {str(path.relative_to(folder)): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()}


def find_damage(checkpoint: Path) -> str | None:
    """Why a checkpoint cannot be whole (cut short when it was copied, say), or None: files are there in full size."""
    try:
        wanted: dict[str, int] = json.loads((checkpoint / META).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{META} cannot be read ({type(error).__name__}: {error})"
    found = file_sizes(checkpoint)
    for name, size in wanted.items():
        if found.get(name) != size:
            return f"{name} has {found[name]} of {size} bytes" if name in found else f"{name} is not there"
    return None


def load_meta(checkpoint: Path) -> CheckpointMeta:
    """Read a checkpoint's description.

    Raises:
        CheckpointError: not a complete checkpoint, or of another format.
    """
    try:
        raw = json.loads((checkpoint / META).read_text(encoding="utf-8"))
        if raw["format"] != FORMAT:
            raise CheckpointError(f"checkpoint has format {raw['format']}", where=str(checkpoint), allowed=str(FORMAT))
        layout = raw["layout"]
        params = tuple((name, tuple(shape), trained) for name, shape, trained in layout["params"])
        lora = layout.get("adapters")
        adapters = lora and Adapters(**(lora | {"layers": tuple(lora["layers"])}))
        return CheckpointMeta(
            step=raw["step"],
            cursor=DataCursor(**raw["cursor"]),
            layout=Layout(layout["world_size"], layout["zero_stage"], layout["dtype"], params, adapters),
            policy_version=raw["policy_version"],
            origin=tuple((name, value) for name, value in raw.get("origin", ())),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"checkpoint cannot be read ({type(error).__name__}: {error})",
            where=str(checkpoint / META),
            cure="remove that folder and resume from the one before it",
        ) from error


def check_run(checkpoint: Path, cfg: Run, origin: Origin, last_step: int) -> None:
    """Refuse, before anything starts, a checkpoint of another model, data or set-up than the run's, or from behind its
    last step.

    Args:
        origin: `origin_of` the run. A checkpoint written before that was recorded is taken, with a warning.

    Raises:
        CheckpointError: with the differences. Those of the model's parameters are found once it is loaded.
    """
    meta, lora = load_meta(checkpoint), cfg.model.lora
    saved = meta.layout
    wanted = replace(
        saved,
        world_size=cfg.cluster.learner_ranks,
        zero_stage=cfg.deepspeed.zero_stage,
        dtype=cfg.model.dtype,
        adapters=lora and Adapters.of(lora, saved.adapters.base if saved.adapters else ""),
    )
    if not meta.origin:
        logger.warning("%s does not say of which model and data it is: not checked that they are the same", checkpoint)
    differences = origin_differences(meta.origin, origin) if meta.origin else []
    _refuse(checkpoint, differences + _layout_differences(saved, wanted))
    if meta.step > last_step:
        raise CheckpointError(
            f"the run has {meta.step} steps behind it, and its settings end it after {last_step}",
            where=str(checkpoint),
            cure="resume with at least as many steps or epochs; a model of fewer steps: owlcap export "
            f"{checkpoint.parent}/step-N OUT",
        )


def check_layout(checkpoint: Path, saved: Layout, current: Layout) -> None:
    """Raise CheckpointError listing every difference between a checkpoint and the run that wants it."""
    _refuse(checkpoint, _layout_differences(saved, current))


def _layout_differences(saved: Layout, current: Layout) -> list[str]:
    differences = [
        f"{setting}: checkpoint {getattr(saved, name)}, run {getattr(current, name)}"
        for name, setting in _SETTINGS.items()
        if getattr(saved, name) != getattr(current, name)
    ]
    differences += _adapter_differences(saved.adapters, current.adapters)
    old = {name: (shape, trained) for name, shape, trained in saved.params}
    new = {name: (shape, trained) for name, shape, trained in current.params}
    differences += [f"{name}: only in the checkpoint" for name in old.keys() - new.keys()]
    differences += [f"{name}: only in the model" for name in new.keys() - old.keys()]
    for name in sorted(old.keys() & new.keys()):
        (old_shape, old_trained), (new_shape, new_trained) = old[name], new[name]
        if old_shape != new_shape:
            differences.append(f"{name}: shape {list(old_shape)} in the checkpoint, {list(new_shape)} in the model")
        elif old_trained != new_trained:
            differences.append(f"{name}: {'trained' if old_trained else 'frozen'} in the checkpoint, not so in the run")
    return differences


def _refuse(checkpoint: Path, differences: list[str]) -> None:
    if differences:
        shown = differences[:_SHOWN_DIFFERENCES]
        if len(differences) > len(shown):
            shown.append(f"and {len(differences) - len(shown)} more")
        raise CheckpointError(
            "checkpoint belongs to another model or set-up:\n    " + "\n    ".join(shown),
            where=str(checkpoint),
            cure="resume with the settings of the run that wrote it (its config.yaml) and the same files, or start a "
            "new run with another name=...",
        )


def _adapter_differences(saved: Adapters | None, current: Adapters | None) -> list[str]:
    if saved is None or current is None:
        ranks = ["none" if one is None else f"of rank {one.rank}" for one in (saved, current)]
        return [] if saved is current else [f"model.lora: checkpoint {ranks[0]}, run {ranks[1]}"]
    return [
        f"{'model.path (weights that LoRA does not train)' if name == 'base' else f'model.lora.{name}'}: "
        f"checkpoint {getattr(saved, name)}, run {getattr(current, name)}"
        for name in ("rank", "alpha", "layers", "base")
        if getattr(saved, name) != getattr(current, name)
    ]


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turn failures of writing below `path` into CheckpointError with the path and the space left."""
    try:
        yield
    except OSError as error:
        raise write_error(path, error) from error


def write_error(path: Path, error: Exception) -> CheckpointError:
    """The CheckpointError for a failed write below `path`."""
    existing = next(p for p in (path, *path.parents) if p.exists())
    free_gib = shutil.disk_usage(existing).free / 2**30
    return CheckpointError(
        f"checkpoint cannot be written ({type(error).__name__}: {error})",
        where=f"{path} ({free_gib:.2f} GiB free)",
        cure="free space or make the folder writable, then resume; earlier checkpoints are untouched",
    )


def sync_tree(folder: Path) -> None:
    """fsync every file and folder below `folder`, so that a rename after it cannot outlive its content."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        elif path.is_dir():
            sync_folder(path)
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """fsync a folder's own entries."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
