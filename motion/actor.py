"""Motion extraction as a Ray actor: one process with the pose models, the body and a decoder."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from motion.extract import MotionExtractor, MotionResult
from owlcap.config_motion import MotionSection
from owlcap.errors import OwlcapError
from owlcap.logging import setup_actor_logging
from owlcap.registry import register, registered
from owlcap.types import Sample


def plug_ins(motion: MotionSection) -> dict[str, object]:
    """Pose sources that the main script registered, which an actor cannot import by itself."""
    return registered("pose_source", [motion.pose.source])


class MotionActor:
    """Turns clips into entries of the cache.

    Made with `ray.remote(MotionActor)` and asked by `extract`, or given to Ray Data, which calls it with batches.

    Args:
        motion: settings.
        sources: pose sources of the main script, from `plug_ins`.
    """

    def __init__(self, motion: MotionSection, sources: Mapping[str, Any] | None = None) -> None:
        setup_actor_logging("motion")
        for name, source in (sources or {}).items():
            register("pose_source", name)(source)
        torch.set_num_threads(max(1, int(motion.extract.cpus_per_actor)))
        self._extractor: MotionExtractor | OwlcapError
        try:
            self._extractor = MotionExtractor(motion)
        except OwlcapError as error:  # told to the first who asks: Ray would bury it under its own report of a death
            self._extractor = error

    def extract(self, samples: Sequence[Sample]) -> list[MotionResult]:
        """One result a clip, in order; a clip that cannot be used is a MotionFailure.

        Raises:
            ConfigError, ModelError: of the settings, and of model files.
        """
        if isinstance(self._extractor, OwlcapError):
            raise self._extractor
        return self._extractor.extract(samples)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        """A batch of Ray Data: pickled samples in, pickled results out; or the error of `extract` once."""
        samples = [pickle.loads(row) for row in batch["sample"]]
        try:
            return {"result": [pickle.dumps(result) for result in self.extract(samples)]}
        except OwlcapError as error:
            return {"result": [pickle.dumps(error)]}
