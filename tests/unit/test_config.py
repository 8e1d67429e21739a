"""Numbers that no run could use are refused where they are read."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ValidationError

from owlcap.config import AlgorithmSection, ClusterSection, OptimizerSection, RolloutSection, VideoSection


@pytest.mark.parametrize(
    ("section", "settings"),
    [
        (OptimizerSection, {"lr": 1e-3, "betas": (0.9, 1.0)}),
        (OptimizerSection, {"lr": 1e-3, "eps": 0.0}),
        (AlgorithmSection, {"clip_ratio_low": 0.0}),
        (AlgorithmSection, {"clip_ratio_high": -1.0}),
        (RolloutSection, {"kv_cache_gib": 0.0}),
        (ClusterSection, {"gpus_per_learner": 2}),
        (VideoSection, {"total_pixels": 0}),
    ],
)
def test_a_number_out_of_bounds_is_refused(section: type[BaseModel], settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=list(settings)[-1]):
        section(**settings)


@pytest.mark.parametrize(("low", "high"), [("min_frames", "max_frames"), ("min_pixels", "max_pixels")])
def test_a_lower_bound_above_the_upper_one_is_refused(low: str, high: str) -> None:
    VideoSection.model_validate({low: 6272, high: 6272})
    with pytest.raises(ValidationError, match=f"{low} is 6272 and {high} is 3136"):
        VideoSection.model_validate({low: 6272, high: 3136})
