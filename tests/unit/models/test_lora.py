"""Adapters: what is trained, what leaves the learner, and the model without them."""

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from owlcap.config import LoraSection, ModelSection
from owlcap.errors import ModelError
from owlcap.models.load import load_policy, load_processor, save_policy
from owlcap.models.logprobs import completion_logprobs
from owlcap.models.lora import base_fingerprint, stored_weights, without_lora
from owlcap.models.packing import pack_groups
from tests.unit.models.test_logprobs import make_groups


def load(folder: Path, lora: LoraSection | None, **changes: object):
    settings = {"dtype": "fp32", "gradient_checkpointing": False, "freeze_projector": True, **changes}
    return load_policy(ModelSection(path=str(folder), lora=lora, **settings))


@pytest.fixture
def adapted(tiny_policy: Path):
    """With adapters that have learned something."""
    policy = load(tiny_policy, LoraSection(rank=4, alpha=8))
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    return policy


def logprobs(policy) -> torch.Tensor:
    with torch.no_grad():
        return completion_logprobs(policy, pack_groups(make_groups(policy.config), policy.config))


def test_only_adapters_of_the_language_model_are_trained(adapted) -> None:
    trained = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert trained
    assert all(".language_model." in name and ".lora_" in name for name in trained)
    layers = adapted.config.get_text_config().num_hidden_layers
    assert len(trained) == layers * 7 * 2


def test_a_projector_that_is_not_frozen_is_trained_beside_them(tiny_policy: Path) -> None:
    policy = load(tiny_policy, LoraSection(), freeze_projector=False)
    trained = {name for name, parameter in policy.named_parameters() if parameter.requires_grad}
    assert any(".merger." in name for name in trained)


def test_merged_weights_are_the_plain_models_and_give_the_adapted_logprobs(adapted, tiny_policy: Path) -> None:
    plain = load(tiny_policy, None)
    before = logprobs(plain)
    weights = {one.name: one.value() for one in stored_weights(adapted)}
    assert weights.keys() == plain.state_dict().keys()
    plain.load_state_dict(weights)
    expected = logprobs(adapted)
    assert float((expected - before).abs().max()) > 0.01  # they have learned something
    torch.testing.assert_close(logprobs(plain), expected, atol=1e-5, rtol=0)


def test_an_exported_folder_is_a_plain_model(adapted, tiny_policy: Path, tmp_path: Path) -> None:
    merged = {one.name: one.value().clone() for one in stored_weights(adapted)}
    save_policy(adapted, load_processor(tiny_policy), tmp_path / "out", state_dict=merged)
    torch.testing.assert_close(logprobs(load(tmp_path / "out", None)), logprobs(adapted), atol=1e-5, rtol=0)


def test_without_them_it_is_the_model_it_was_and_afterwards_they_are_back(adapted, tiny_policy: Path) -> None:
    with_adapters = logprobs(adapted)
    with without_lora(adapted):
        torch.testing.assert_close(logprobs(adapted), logprobs(load(tiny_policy, None)), atol=1e-6, rtol=0)
    assert torch.equal(logprobs(adapted), with_adapters)
    assert any(parameter.requires_grad for parameter in adapted.parameters())


def test_the_base_is_named_by_all_that_the_adapters_are_added_to(adapted, tiny_policy: Path) -> None:
    fresh = load(tiny_policy, LoraSection(rank=8, alpha=1))
    assert base_fingerprint(fresh) == base_fingerprint(adapted)  # whatever the adapters have learned
    for name in ("model.language_model.layers.0.mlp.up_proj.base_layer.weight", "model.visual.merger.mlp.0.weight"):
        with torch.no_grad():
            fresh.get_parameter(name)[0, 0] += 1e-4
        assert base_fingerprint(fresh) != base_fingerprint(adapted)


@pytest.mark.parametrize(
    ("layers", "wrong"),
    [
        (("qkv_proj",), "qkv_proj"),
        (("q_proj", "vproj", "oproj"), "vproj, oproj"),
        (("q_proj", "embed_tokens"), "embed_tokens"),  # of the language model, and no linear layer
        (("q_proj", "qkv"), "qkv"),  # a layer of the vision tower
        (("q_.*",), "q_.*"),  # a name, no pattern
    ],
)
def test_every_name_of_a_layer_that_is_not_there_is_told(
    tiny_policy: Path, layers: tuple[str, ...], wrong: str
) -> None:
    with pytest.raises(ModelError) as told:
        load(tiny_policy, LoraSection(layers=layers))
    assert told.value.what == f"no linear layer of the language model is called {wrong}"
    assert told.value.allowed == "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"


def test_a_name_may_say_the_layers_parent(tiny_policy: Path) -> None:
    policy = load(tiny_policy, LoraSection(layers=("self_attn.q_proj",)))
    trained = [name for name, parameter in policy.named_parameters() if parameter.requires_grad]
    assert trained
    assert all(".self_attn.q_proj.lora_" in name for name in trained)


@pytest.mark.parametrize("wrong", [{"layers": ()}, {"rank": 513}, {"rank": 0}])
def test_no_layers_and_ranks_above_the_layers_own_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        LoraSection.model_validate(wrong)
