"""A single clip's overlays, made in this process where the row brings none and the cache has none."""

from __future__ import annotations

from dataclasses import replace

from owlcap import errors
from owlcap.config import MotionSection
from owlcap.types import Sample


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
