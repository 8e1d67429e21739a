"""A second model is held only where the policy cannot give the reference's logprobs itself."""

from __future__ import annotations

import pytest

from owlcap.config import ModelSection, MotionSection
from rl.reference import Reference, reference_of

FROZEN = {"path": "runs/model", "freeze_vision": True, "freeze_projector": True}
ADAPTED = FROZEN | {"lora": {}}


def reference(
    settings: dict[str, object],
    *,
    kl_beta: float = 0.1,
    motion: MotionSection | None = None,
    reference_model: str | None = None,
) -> Reference:
    return reference_of(ModelSection.model_validate(settings), motion or MotionSection(), kl_beta, reference_model)


def test_without_a_kl_term_there_is_none() -> None:
    assert reference(ADAPTED, kl_beta=0) is Reference.NONE
    assert reference(FROZEN, kl_beta=0) is Reference.NONE


def test_where_adapters_alone_are_trained_it_is_the_policy_without_them() -> None:
    assert reference(ADAPTED) is Reference.POLICY
    assert reference(ADAPTED, reference_model="./runs/model") is Reference.POLICY


def test_under_a_frozen_tower_the_language_model_alone_is_copied() -> None:
    assert reference(FROZEN) is Reference.LANGUAGE_MODEL


@pytest.mark.parametrize("trained", ["freeze_vision", "freeze_projector"])
def test_where_the_tower_is_trained_the_whole_model_is_copied(trained: str) -> None:
    assert reference(ADAPTED | {trained: False}) is Reference.COPY
    assert reference(FROZEN | {trained: False}) is Reference.COPY


def test_the_motion_merger_counts_where_the_motion_pathway_is_on() -> None:
    on = MotionSection(enabled=True)
    assert reference(ADAPTED, motion=on) is Reference.COPY
    assert reference(ADAPTED | {"freeze_motion_projector": True}, motion=on) is Reference.POLICY


def test_another_checkpoint_is_copied_whole() -> None:
    assert reference(ADAPTED, reference_model="runs/other") is Reference.COPY
