"""From a sample's overlay files to the pictures the policy sees: the one place where overlays are read and sized.

An overlay is a key frame of the clip with a body mesh drawn over the person. `owlcap motion extract` makes them; any
picture files that a row names under `overlays` will do. Sides become multiples of 28 pixels within the bounds of
the `motion` settings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from owlcap.config import DataSection, MotionSection
from owlcap.data.sizing import picture_size
from owlcap.errors import DataError
from owlcap.types import Sample

if TYPE_CHECKING:
    import numpy as np


def load_overlays(sample: Sample, motion: MotionSection) -> tuple[np.ndarray, ...]:
    """The sample's overlays as uint8 [H, W, 3], RGB; none where the motion pathway is off.

    Raises:
        DataError: the sample has no overlays (unless `motion.missing` is visual), has too many, or a file that is no
            picture.
    """
    if not motion.enabled:
        return ()
    if not sample.overlays and motion.missing == "error":
        raise DataError(
            "the row has no overlays, and motion.enabled is true",
            where=sample.id,
            allowed='overlays: ["0.png", ...], key frames with the body mesh drawn in',
            cure="make them (owlcap motion extract), or set motion.missing=visual to show such clips as video alone",
        )
    if len(sample.overlays) > motion.max_overlays:
        raise DataError(
            f"the row has {len(sample.overlays)} overlays",
            where=sample.id,
            allowed=f"at most motion.max_overlays ({motion.max_overlays})",
            cure="raise motion.max_overlays, or name fewer key frames",
        )
    return tuple(_read(path, sample, motion) for path in sample.overlays)


def check_overlays(samples: Sequence[Sample], motion: MotionSection, data: DataSection) -> None:
    """Raise DataError before anything starts where more rows lack overlays than `data.max_bad_rows_share` allows."""
    if not motion.enabled or motion.missing == "visual":
        return
    without = [sample.id for sample in samples if not sample.overlays]
    if len(without) > data.max_bad_rows_share * len(samples):
        raise DataError(
            f"{len(without)} of {len(samples)} rows have no overlays, first {without[0]}, and motion.enabled is true",
            where=data.train,
            allowed=f"a share of data.max_bad_rows_share ({data.max_bad_rows_share:g})",
            cure=f"owlcap motion extract {data.train}, and set data.train to the file it writes; in RL "
            "cluster.motion_actors=1 makes them while training; motion.missing=visual shows clips as video alone",
        )


def _read(path: str, sample: Sample, motion: MotionSection) -> np.ndarray:
    import numpy as np
    from PIL import Image

    try:
        with Image.open(path) as picture:
            height, width = picture_size(picture.height, picture.width, motion.min_pixels, motion.max_pixels)
            rgb = picture.convert("RGB")
    except (
        OSError,
        SyntaxError,
        ValueError,
        Image.DecompressionBombError,
    ) as error:  # what Pillow raises for bad files
        raise DataError(
            f"the overlay cannot be read: {error}",
            where=f"{sample.id} -> {path}",
            cure="make the overlays again (owlcap motion extract), or leave this one out",
        ) from error
    if rgb.size != (width, height):
        rgb = rgb.resize((width, height), Image.Resampling.BICUBIC)
    return np.array(rgb)  # a copy: torch wants memory that can be written
