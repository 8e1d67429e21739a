"""The layout of packed rows, worked out by hand on a prompt of five tokens."""

import numpy as np
import pytest
import torch
from transformers import AutoConfig

from owlcap.errors import PromptError
from owlcap.models.packing import pack_group, pack_groups, pad_group, pad_groups
from owlcap.types import Prompt, VisionInputs

COMPLETIONS = [(21, 22), (31,), (41, 42, 43)]


@pytest.fixture(scope="module")
def config(tiny_policy):
    return AutoConfig.from_pretrained(tiny_policy)


def make_prompt(config, first: int = 11) -> Prompt:
    """Text, two vision tokens (1 x 2 x 4 patches), text, text: positions 0, 1, 1-2 in width, 3, 4."""
    vision = VisionInputs(np.zeros((8, 1176), np.float32), (1, 2, 4), 1.0)
    return Prompt((first, config.video_token_id, config.video_token_id, first + 1, first + 2), vision)


def test_a_group_is_one_row_of_the_prompt_and_then_each_completion(config):
    batch = pack_group(make_prompt(config), COMPLETIONS, config)
    video = config.video_token_id
    assert batch.input_ids.tolist() == [[11, video, video, 12, 13, 21, 22, 31, 41, 42, 43]]
    assert batch.segments.tolist() == [[0, 0, 0, 0, 0, 1, 1, 2, 3, 3, 3]]
    assert batch.lengths == (2, 1, 3)


def test_positions_of_each_completion_restart_where_the_prompt_ends(config):
    batch = pack_group(make_prompt(config), COMPLETIONS, config)
    time, _, width = batch.position_ids[:, 0].tolist()
    assert time == [0, 1, 1, 3, 4, 5, 6, 5, 5, 6, 7]
    assert width == [0, 1, 2, 3, 4, 5, 6, 5, 5, 6, 7]


def test_first_tokens_are_predicted_from_the_prompts_last_state(config):
    batch = pack_group(make_prompt(config), COMPLETIONS, config)
    assert batch.predict_index.tolist() == [4, 5, 4, 4, 8, 9]
    assert batch.targets.tolist() == [21, 22, 31, 41, 42, 43]


def test_a_completion_sees_the_prompt_and_itself_only(config):
    mask = pack_group(make_prompt(config), COMPLETIONS, config).attention_mask()[0, 0].int().tolist()
    prompt = [1, 1, 1, 1, 1]
    assert mask[2] == [1, 1, 1] + [0] * 8
    assert mask[6] == [*prompt, 1, 1, 0, 0, 0, 0]
    assert mask[7] == [*prompt, 0, 0, 1, 0, 0, 0]
    assert mask[9] == [*prompt, 0, 0, 0, 1, 1, 0]


def test_groups_are_rows_padded_on_the_right_with_their_own_features(config):
    groups = [(make_prompt(config), [(21,)]), (make_prompt(config, 51), COMPLETIONS)]
    batch = pack_groups(groups, config)
    assert batch.segments.tolist() == [[0] * 5 + [1] + [-1] * 5, [0, 0, 0, 0, 0, 1, 1, 2, 3, 3, 3]]
    assert batch.feature_index.tolist() == [1, 2, 12, 13]
    assert batch.feature_source.tolist() == [0, 1, 2, 3]
    assert batch.predict_index.tolist() == [4, 15, 16, 15, 15, 19, 20]
    assert [values.tolist() for values in batch.split(batch.targets)] == [[21], [21, 22], [31], [41, 42, 43]]


def test_padded_rows_repeat_the_prompt_and_its_features(config):
    batch = pad_group(make_prompt(config), COMPLETIONS, config)
    video = config.video_token_id
    assert batch.input_ids.tolist()[1] == [11, video, video, 12, 13, 31, 0, 0]
    assert batch.feature_source.tolist() == [0, 1] * 3
    assert batch.targets.tolist() == pack_group(make_prompt(config), COMPLETIONS, config).targets.tolist()


def test_real_tokens_never_see_padding(config):
    batch = pad_groups([(make_prompt(config), COMPLETIONS), (make_prompt(config), [(1,) * 9])], config)
    mask, real = batch.attention_mask()[:, 0], batch.segments >= 0
    assert not (mask & real[:, :, None] & ~real[:, None, :]).any()
    assert mask.any(-1).all()  # a row of nothing but false would make NaN


def test_a_vision_token_inside_a_completion_takes_no_feature(config):
    batch = pack_group(make_prompt(config), [(config.video_token_id,)], config)
    assert batch.feature_index.tolist() == [1, 2]


def test_a_prompt_whose_tokens_do_not_fit_its_grid_is_an_error(config):
    prompt = make_prompt(config)
    with pytest.raises(PromptError, match="vision tokens"):
        pack_group(Prompt(prompt.token_ids[2:], prompt.vision), COMPLETIONS, config)


def test_a_batch_moves_as_a_whole(config):
    batch = pack_group(make_prompt(config), COMPLETIONS, config).to("meta")
    assert {t.device.type for t in (batch.input_ids, batch.segments, batch.targets, batch.feature_source)} == {"meta"}
    assert isinstance(batch.input_ids, torch.Tensor)
    assert batch.num_tokens == 11
