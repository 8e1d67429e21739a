"""Packed, padded and plain computations of the same logprobs agree, with their gradients."""

import numpy as np
import pytest
import torch

from owlcap.config import ModelSection
from owlcap.models import logprobs as module
from owlcap.models.load import load_policy
from owlcap.models.logprobs import completion_logprobs, vision_features
from owlcap.models.packing import pack_groups, pad_groups
from owlcap.types import Prompt, VisionInputs


def make_policy(folder, **changes):
    section = {"dtype": "fp32", "freeze_vision": False, "gradient_checkpointing": False, **changes}
    return load_policy(ModelSection(path=str(folder), **section))


@pytest.fixture(scope="module")
def policy(tiny_policy):
    return make_policy(tiny_policy)


def make_groups(config, sizes=((3, 2, 2), (2, 4, 6)), lengths=((5, 1, 9), (4, 7))):
    """Prompts with random videos of `sizes` merged cells, and random completions of `lengths`."""
    rng = np.random.default_rng(0)
    groups = []
    for cells, counts in zip(sizes, lengths, strict=True):
        t, h, w = cells[0], 2 * cells[1], 2 * cells[2]
        pixels = rng.standard_normal((t * h * w, 1176)).astype(np.float32)
        video = [config.video_token_id] * (t * h * w // 4)
        text = rng.integers(0, 256, 12).tolist()
        prompt = Prompt((*text[:6], *video, *text[6:]), VisionInputs(pixels, (t, h, w), float(np.float32(1 / 3))))
        groups.append((prompt, [tuple(rng.integers(0, 256, n).tolist()) for n in counts]))
    return groups


def gradients(model, batch, **options) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Logprobs, and the gradient of a weighted sum of them by parameter name."""
    model.zero_grad()
    logprobs = completion_logprobs(model, batch, **options)
    weights = torch.linspace(-1, 1, len(logprobs))
    (logprobs * weights).sum().backward()
    return logprobs.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def assert_same(first, second, tolerance: float = 1e-5) -> None:
    assert torch.allclose(first[0], second[0], rtol=0, atol=tolerance)
    assert first[1].keys() == second[1].keys()
    for name, gradient in first[1].items():
        scale = gradient.abs().max().clamp(min=1.0)
        assert torch.allclose(gradient / scale, second[1][name] / scale, rtol=0, atol=tolerance), name


def test_packed_rows_equal_padded_rows_with_gradients_of_every_weight(policy):
    groups = make_groups(policy.config)
    packed = gradients(policy, pack_groups(groups, policy.config))
    padded = gradients(policy, pad_groups(groups, policy.config))
    assert_same(packed, padded)
    assert packed[1].keys() == {name for name, _ in policy.named_parameters()}


def test_packed_rows_under_the_whole_mask_give_the_same(policy, monkeypatch):
    batch = pack_groups(make_groups(policy.config), policy.config)
    in_parts = gradients(policy, batch)
    monkeypatch.setattr(policy.model.language_model.config, "_attn_implementation", "sdpa")
    assert_same(in_parts, gradients(policy, batch))


def test_padded_rows_equal_the_model_called_by_itself(policy):
    ((prompt, (completion,)),) = make_groups(policy.config, sizes=((3, 2, 2),), lengths=((8,),))
    batch = pad_groups([(prompt, [completion])], policy.config)
    with torch.no_grad():
        logits = policy(
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            pixel_values_videos=torch.from_numpy(prompt.vision.pixel_values_videos),
            video_grid_thw=torch.tensor([prompt.vision.video_grid_thw]),
        ).logits[0]
        start = len(prompt.token_ids)
        expected = logits[start - 1 : -1].log_softmax(-1)[torch.arange(8), torch.tensor(completion)]
        assert torch.allclose(completion_logprobs(policy, batch), expected, rtol=0, atol=1e-5)


def test_groups_together_equal_groups_alone(policy):
    groups = make_groups(policy.config)
    with torch.no_grad():
        together = completion_logprobs(policy, pack_groups(groups, policy.config))
        alone = [completion_logprobs(policy, pack_groups([group], policy.config)) for group in groups]
    assert torch.allclose(together, torch.cat(alone), rtol=0, atol=1e-5)


def test_chunks_change_nothing(policy, monkeypatch):
    batch = pack_groups(make_groups(policy.config), policy.config)
    whole = gradients(policy, batch)
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", 4 * policy.config.text_config.vocab_size)
    assert_same(whole, gradients(policy, batch), 1e-6)


@pytest.mark.parametrize(("chunks", "held"), [("one", True), ("many", False)])
def test_no_logits_wait_for_the_backward_pass_when_there_are_several_chunks(policy, monkeypatch, chunks, held):
    batch = pack_groups(make_groups(policy.config), policy.config)
    vocabulary = policy.config.text_config.vocab_size
    if chunks == "many":
        monkeypatch.setattr(module, "CHUNK_ELEMENTS", 4 * vocabulary)
    found: list[bool] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        found.append(tensor.dim() == 2 and tensor.shape[1] == vocabulary)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        completion_logprobs(policy, batch)
    assert any(found) == held


def test_gradient_checkpointing_changes_nothing(policy, tiny_policy):
    batch = pack_groups(make_groups(policy.config), policy.config)
    checkpointed = make_policy(tiny_policy, gradient_checkpointing=True).train()
    assert_same(gradients(policy, batch), gradients(checkpointed, batch), 1e-6)


def test_one_call_with_the_whole_mask_gives_the_same(policy, tiny_policy):
    batch = pack_groups(make_groups(policy.config), policy.config)
    whole = make_policy(tiny_policy)
    whole.model.language_model.config._attn_implementation = "sdpa"
    assert_same(gradients(policy, batch), gradients(whole, batch))


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_gives_the_same(policy, tiny_policy, monkeypatch):
    batch = pack_groups(make_groups(policy.config), policy.config)
    flex = make_policy(tiny_policy, attention="flex")
    with torch.no_grad():
        torch.testing.assert_close(
            completion_logprobs(flex, batch), completion_logprobs(policy, batch), atol=1e-5, rtol=0
        )
    with pytest.raises(NotImplementedError, match="backward on CPU"):
        gradients(flex, batch)
    # torch refuses since its CPU kernel has no backward pass; the uncompiled one, which runs here, has.
    monkeypatch.setattr("torch.nn.attention.flex_attention._validate_device", lambda *tensors: None)
    assert_same(gradients(policy, batch), gradients(flex, batch))


def test_given_features_equal_computed_ones(policy):
    batch = pack_groups(make_groups(policy.config), policy.config)
    with torch.no_grad():
        features = vision_features(policy, batch.visions)
        given = completion_logprobs(policy, batch, features=features)
        assert [tuple(f.shape) for f in features] == [(12, 128), (48, 128)]
        assert torch.equal(given, completion_logprobs(policy, batch))


def test_features_really_enter(policy):
    batch = pack_groups(make_groups(policy.config), policy.config)
    with torch.no_grad():
        zeros = [torch.zeros_like(f) for f in vision_features(policy, batch.visions)]
        assert not torch.allclose(
            completion_logprobs(policy, batch, features=zeros), completion_logprobs(policy, batch), atol=1e-2
        )


def test_a_frozen_tower_gets_no_gradient_and_the_projector_does(tiny_policy):
    frozen = make_policy(tiny_policy, freeze_vision=True)
    names = gradients(frozen, pack_groups(make_groups(frozen.config), frozen.config))[1]
    assert any(".merger." in name for name in names)
    assert not any(".visual.blocks." in name for name in names)


def test_temperature_and_entropy_against_the_whole_distribution(policy):
    groups = make_groups(policy.config)
    batch = pack_groups(groups, policy.config)
    with torch.no_grad():
        logprobs, entropy = completion_logprobs(policy, batch, temperature=0.7, with_entropy=True)
        states = module._completion_states(policy, batch, None)
        distribution = torch.distributions.Categorical(logits=policy.lm_head(states) / 0.7)
    assert torch.allclose(logprobs, distribution.log_prob(batch.targets), atol=1e-5)
    assert torch.allclose(entropy, distribution.entropy(), atol=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
def test_gradients_of_logits_are_those_of_the_plain_formula(dtype, tolerance, temperature):
    draw = torch.Generator().manual_seed(0)
    states = (3 * torch.randn(5, 40, generator=draw)).to(dtype).requires_grad_()
    targets, weights = torch.randint(40, (5,), generator=draw), torch.randn(5, generator=draw)
    logprobs, entropy = module._chunk(torch.nn.Identity(), states, targets, temperature, with_entropy=True)
    assert not entropy.requires_grad
    (ours,) = torch.autograd.grad((logprobs * weights).sum(), states)
    plain = (states.float() / temperature).log_softmax(-1)
    (expected,) = torch.autograd.grad((plain[torch.arange(5), targets] * weights).sum(), states)
    assert torch.allclose(ours, expected, rtol=0, atol=tolerance)


def test_bf16_weights_give_fp32_logprobs(tiny_policy):
    model = make_policy(tiny_policy, dtype="bf16")
    with torch.no_grad():
        logprobs = completion_logprobs(model, pack_groups(make_groups(model.config), model.config))
    assert logprobs.dtype == torch.float32
    assert torch.isfinite(logprobs).all()
