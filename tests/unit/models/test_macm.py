"""The motion-augmented model: a Qwen2.5-VL whose image items go through a merger of their own."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText

from owlcap.cli import main
from owlcap.config import LoraSection, ModelSection, MotionSection
from owlcap.errors import ModelError
from owlcap.models.load import check_motion, load_policy, load_processor, save_policy
from owlcap.models.logprobs import completion_logprobs
from owlcap.models.lora import stored_weights
from owlcap.models.macm import MotionQwen2_5_VLForConditionalGeneration, add_motion, motion_features
from owlcap.models.packing import pack_groups, pad_groups
from owlcap.models.tiny import make_tiny_model
from owlcap.types import OverlayInputs, Prompt, VisionInputs
from tests.conftest import TEXTS

GRIDS = torch.tensor([[1, 4, 4], [1, 6, 4], [1, 2, 10]])  # of three pictures, one wider than a window


def load(folder, **changes):
    return load_policy(ModelSection(path=str(folder), dtype="fp32", gradient_checkpointing=False, **changes))


@pytest.fixture(scope="module")
def converted(tiny_policy, tmp_path_factory):
    return add_motion(tiny_policy, tmp_path_factory.mktemp("converted") / "model")


@pytest.fixture
def patches():
    return torch.randn(int(GRIDS.prod(1).sum()), 1176, generator=torch.Generator().manual_seed(0))


# Converting.


def test_a_converted_checkpoint_sees_overlays_as_the_plain_one_saw_frames(tiny_policy, converted, patches):
    plain, motion = load(tiny_policy).model.visual, load(converted).model.visual
    torch.testing.assert_close(motion_features(motion, patches, GRIDS), plain(patches, grid_thw=GRIDS).pooler_output)


def test_a_converted_checkpoint_is_a_qwen2_5_vl_folder_of_its_own_architecture(tiny_policy, converted):
    config = json.loads((converted / "config.json").read_text())
    assert config["model_type"] == "qwen2_5_vl"
    assert config["architectures"] == ["MotionQwen2_5_VLForConditionalGeneration"]
    weights = load(tiny_policy).state_dict()
    others = {name: w for name, w in load(converted).state_dict().items() if ".motion_merger." not in name}
    assert others.keys() == weights.keys()
    assert all(torch.equal(others[name], weights[name]) for name in weights)


def test_the_auto_class_finds_either_kind_by_its_architecture(tiny_policy, converted):
    kinds = [type(AutoModelForImageTextToText.from_pretrained(path)).__name__ for path in (tiny_policy, converted)]
    assert kinds == ["Qwen2_5_VLForConditionalGeneration", "MotionQwen2_5_VLForConditionalGeneration"]


def test_the_command_says_where_the_model_is_and_errors_end_it(tiny_policy, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["model", "add-motion", str(tiny_policy), str(tmp_path / "out")])
    assert not ended.value.code
    assert str(tmp_path / "out") in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main(["model", "add-motion", str(tmp_path / "nothing"), str(tmp_path / "other")])
    assert ended.value.code == 2
    assert "no such model folder" in capsys.readouterr().err


def test_a_checkpoint_is_converted_once(converted, tmp_path):
    with pytest.raises(ModelError, match="has a motion merger already"):
        add_motion(converted, tmp_path / "again")


def test_converting_never_writes_over_a_folder(tiny_policy, tmp_path):
    (tmp_path / "kept").mkdir()
    with pytest.raises(ModelError, match="exists already"):
        add_motion(tiny_policy, tmp_path / "kept")


def test_what_is_beside_the_checkpoint_comes_along(tiny_policy, tmp_path):
    model = load(tiny_policy)
    save_policy(model, load_processor(tiny_policy), tmp_path / "exported")
    (tmp_path / "exported" / "owlcap.json").write_text("{}")
    assert (add_motion(tmp_path / "exported", tmp_path / "motion") / "owlcap.json").read_text() == "{}"


# The two mergers.


def test_a_picture_goes_through_the_motion_merger_and_a_video_does_not(converted, patches):
    model = load(converted).model
    before = model.get_image_features(patches, GRIDS).pooler_output, model.visual(patches, grid_thw=GRIDS).pooler_output
    with torch.no_grad():
        model.visual.motion_merger.mlp[2].bias += 1.0
    after = model.get_image_features(patches, GRIDS).pooler_output, model.visual(patches, grid_thw=GRIDS).pooler_output
    assert [len(picture) for picture in after[0]] == [4, 6, 5]
    torch.testing.assert_close(torch.cat(after[0]), torch.cat(before[0]) + 1.0)
    assert torch.equal(after[1], before[1])


def test_features_of_pictures_together_are_those_of_each(converted, patches):
    visual = load(converted).model.visual
    sizes = GRIDS.prod(1).tolist()
    alone = [motion_features(visual, part, grid[None]) for part, grid in zip(patches.split(sizes), GRIDS, strict=True)]
    torch.testing.assert_close(motion_features(visual, patches, GRIDS), torch.cat(alone))


@pytest.mark.parametrize("frozen", [True, False])
def test_the_motion_merger_has_a_switch_of_its_own(converted, frozen):
    model = load(converted, freeze_vision=True, freeze_projector=not frozen, freeze_motion_projector=frozen)
    trained = {name.split(".")[2] for name, p in model.named_parameters() if ".visual." in name and p.requires_grad}
    assert trained == ({"merger"} if frozen else {"motion_merger"})


def test_saving_keeps_the_motion_merger(converted, tmp_path, patches):
    model = load(converted)
    with torch.no_grad():
        model.model.visual.motion_merger.mlp[0].weight.mul_(0.5)
    save_policy(model, load_processor(converted), tmp_path / "saved")
    again = load(tmp_path / "saved")
    assert isinstance(again, MotionQwen2_5_VLForConditionalGeneration)
    features = [motion_features(m.model.visual, patches, GRIDS) for m in (model, again)]
    assert torch.equal(*features)


def test_the_tiny_model_comes_with_a_motion_merger_of_its_own(tmp_path):
    visual = load(make_tiny_model(tmp_path / "tiny", TEXTS, seed=0, motion=True)).model.visual
    assert not torch.equal(visual.motion_merger.mlp[0].weight, visual.merger.mlp[0].weight)


# The pathway and the checkpoint.


def test_the_motion_pathway_on_a_plain_checkpoint_names_the_command_that_mends_it(tiny_policy):
    with pytest.raises(ModelError, match="no motion merger") as caught:
        check_motion(tiny_policy, MotionSection(enabled=True))
    assert f"owlcap model add-motion {tiny_policy} OUT" in str(caught.value)


def test_either_checkpoint_works_with_the_pathway_off(tiny_policy, converted):
    check_motion(tiny_policy, MotionSection())
    check_motion(converted, MotionSection())
    check_motion(converted, MotionSection(enabled=True))


# Packing and gradients.


def prompt_of(policy, num_overlays: int) -> Prompt:
    """A video of 2 x 2 x 2 cells with one-cell overlays before it, and two tokens of text around them."""
    rng = np.random.default_rng(num_overlays)
    image, video = policy.config.image_token_id, policy.config.video_token_id
    ids = (1, *[image] * num_overlays, *[video] * 8, 2)
    pixels = rng.standard_normal((4 * num_overlays + 32, 1176)).astype(np.float32)
    overlays = OverlayInputs(pixels[32:], ((1, 2, 2),) * num_overlays) if num_overlays else None
    return Prompt(ids, VisionInputs(pixels[:32], (2, 4, 4), 0.5, overlays))


def test_the_models_own_forward_pass_computes_what_the_learner_computes(converted):
    policy = load(converted)
    with torch.no_grad():
        policy.model.visual.motion_merger.mlp[2].weight.mul_(-1.0)  # no longer a copy
    prompt, completion = prompt_of(policy, 3), (5, 6, 7, 8)
    batch, vision = pack_groups([(prompt, [completion])], policy.config), prompt.vision
    with torch.no_grad():
        logits = policy(
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            pixel_values=torch.from_numpy(vision.overlays.pixel_values),
            image_grid_thw=torch.tensor(vision.overlays.grids_thw),
            pixel_values_videos=torch.from_numpy(vision.pixel_values_videos),
            video_grid_thw=torch.tensor([vision.video_grid_thw]),
        ).logits[0, -5:-1]
        theirs = logits.log_softmax(-1).gather(1, torch.tensor(completion)[:, None])[:, 0]
        torch.testing.assert_close(completion_logprobs(policy, batch), theirs, atol=1e-5, rtol=0)


def gradients(policy, batch) -> dict[str, torch.Tensor]:
    policy.zero_grad()
    completion_logprobs(policy, batch).sum().backward()
    return {name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None}


def test_shared_prefix_rows_with_overlays_have_the_padded_rows_logprobs_and_gradients(converted):
    policy = load(converted)
    groups = [(prompt_of(policy, n), [(5, 6, 7), (8, 9), (10, 11, 12, 13)]) for n in (3, 0, 1)]
    packed, padded = pack_groups(groups, policy.config), pad_groups(groups, policy.config)
    with torch.no_grad():
        torch.testing.assert_close(completion_logprobs(policy, packed), completion_logprobs(policy, padded))
    ours, theirs = gradients(policy, packed), gradients(policy, padded)
    assert ours["model.visual.motion_merger.mlp.0.weight"].abs().max() > 1e-4
    assert ours.keys() == theirs.keys()
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], atol=5e-5, rtol=1e-3, msg=name)


def test_a_batch_without_overlays_gives_the_motion_merger_a_gradient_of_zero(converted):
    policy = load(converted)
    found = gradients(policy, pack_groups([(prompt_of(policy, 0), [(5, 6)])], policy.config))
    merger = {name: gradient for name, gradient in found.items() if ".motion_merger." in name}
    assert len(merger) == 5
    assert all(not gradient.any() for gradient in merger.values())
    assert found["model.visual.merger.mlp.0.weight"].any()


def test_a_prompt_without_overlays_is_what_the_plain_checkpoint_computes(tiny_policy, converted):
    policies = [load(folder) for folder in (tiny_policy, converted)]
    batches = [pack_groups([(prompt_of(policy, 0), [(5, 6, 7)])], policy.config) for policy in policies]
    with torch.no_grad():
        plain, motion = (completion_logprobs(p, batch) for p, batch in zip(policies, batches, strict=True))
    assert torch.equal(plain, motion)


def test_lora_leaves_the_motion_merger_as_it_is_and_beside_it_trained(converted):
    policy = load(converted, lora=LoraSection(rank=2))
    trained = {name for name, p in policy.named_parameters() if p.requires_grad}
    assert {name.split(".")[2] for name in trained if ".visual." in name} == {"merger", "motion_merger"}
    assert all("lora_" in name for name in trained if ".visual." not in name)
    names = {one.name for one in stored_weights(policy)}
    assert names == set(load(converted).state_dict())
