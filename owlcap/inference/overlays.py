"""A single clip's overlays: pictures of a folder, or made in this process; and the motion settings for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from owlcap import errors
from owlcap.config import MotionSection
from owlcap.config_io import load_motion
from owlcap.errors import DataError
from owlcap.inference.settings import PolicySettings, find_settings
from owlcap.types import Sample

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def policy_motion(model: str | Path, config: str | None, overrides: Sequence[str]) -> MotionSection:
    """The policy's own motion settings, over them a file's, over them `key=value`.

    The pathway is on where the policy was trained with it or anything is said of it, unless `enabled=false`.

    Raises:
        ConfigError: as owlcap.config_io.load_motion.
        ModelError: there is no such folder, or name on the Hub.
    """
    from owlcap.models.load import model_folder

    own = (find_settings(model_folder(model)) or PolicySettings()).motion
    asked = config is not None or bool(overrides)
    return load_motion(config, overrides, own.model_copy(update={"enabled": own.enabled or asked}))


def with_overlays(sample: Sample, motion: MotionSection) -> Sample:
    """The sample with overlays, as a policy with these settings was trained; as it is where the pathway is off.

    Raises:
        DataError: nobody is in the clip (unless `motion.missing` is visual), or it cannot be read.
        ConfigError, ModelError: of the pose source, and of its model files.
    """
    if not motion.enabled or sample.overlays:
        return sample
    from motion.extract import Extracted, MotionExtractor

    with MotionExtractor(motion) as extractor:
        (result,) = extractor.extract([sample])
    if isinstance(result, Extracted):
        return replace(sample, overlays=tuple(map(str, result.overlays)))
    if motion.missing == "visual":
        return sample
    raise getattr(errors, result.error)(result.reason)


def pictures(folder: Path) -> tuple[str, ...]:
    """The picture files of a folder, by name.

    Raises:
        DataError: it cannot be read, or holds none.
    """
    try:
        found = sorted(str(path) for path in folder.iterdir() if path.suffix.lower() in PICTURES)
    except OSError as error:
        raise DataError(f"the overlays cannot be read: {error.strerror}", where=str(folder)) from error
    if not found:
        raise DataError(
            "the folder holds no overlays",
            where=str(folder),
            allowed=f"pictures ({', '.join(PICTURES)}): key frames with the body mesh drawn in",
            cure="make them with owlcap motion extract, or leave out --overlays",
        )
    return tuple(found)
