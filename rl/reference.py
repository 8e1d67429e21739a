"""What the KL term of a run compares the policy with: the one decision that the learner and the plan share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from owlcap.config import ModelSection, MotionSection


class Reference(StrEnum):
    """Where the reference's logprobs come from."""

    NONE = "no reference"
    POLICY = "reference: the policy without its adapters"
    LANGUAGE_MODEL = "frozen reference (its vision tower is the policy's)"
    COPY = "frozen reference"


def reference_of(model: ModelSection, motion: MotionSection, kl_beta: float, reference_model: str | None) -> Reference:
    """What a run with these settings takes as its reference.

    Args:
        reference_model: null: the policy's own checkpoint.
    """
    if not kl_beta:
        return Reference.NONE
    is_same = reference_model is None or Path(reference_model).absolute() == Path(model.path).absolute()
    trains_motion = motion.enabled and not model.freeze_motion_projector
    if not (is_same and model.freeze_vision and model.freeze_projector) or trains_motion:
        return Reference.COPY
    return Reference.LANGUAGE_MODEL if model.lora is None else Reference.POLICY
