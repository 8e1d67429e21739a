"""The setting of attention: what it means on a device, and where it is refused before anything starts."""

from __future__ import annotations

import pytest

from owlcap.config import RlRun
from owlcap.config_io import load_run
from owlcap.errors import ConfigError
from owlcap.models.attention import chosen_attention
from rl.placement import plan


@pytest.mark.parametrize(("on_gpu", "expected"), [(True, "flex"), (False, "sdpa")])
def test_auto_is_flex_on_a_gpu_and_sdpa_on_a_cpu(on_gpu: bool, expected: str) -> None:
    assert chosen_attention("auto", on_gpu) == expected


@pytest.mark.parametrize("setting", ["flex", "flash_attention_2"])
def test_what_needs_a_gpu_is_refused_for_learners_on_cpus(setting: str) -> None:
    with pytest.raises(ConfigError, match=f"{setting}, which needs a GPU") as caught:
        load_run("toy_grpo", [f"model.attention={setting}"])
    assert "model.attention=sdpa or auto" in str(caught.value)


def test_the_plan_says_which_will_be_used() -> None:
    for name, told in (
        ("toy_grpo", "SDPA attention, prompts apart from captions"),
        ("qwen2_5_vl_7b_grpo", "FlexAttention with a block mask"),
    ):
        run = load_run(name)
        assert isinstance(run, RlRun)
        assert told in plan(run).actors[0].does
