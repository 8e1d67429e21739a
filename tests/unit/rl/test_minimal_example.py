"""examples/minimal_grpo.py computes what rl.advantages and rl.losses compute."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

from owlcap.config import AlgorithmSection
from owlcap.types import Completion, RewardBreakdown, RolloutGroup, Sample
from rl.advantages import group_advantages
from rl.losses import BatchSize, policy_loss

FILE = Path(__file__).parents[3] / "examples" / "minimal_grpo.py"
LENGTHS = (3, 1, 4)


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("minimal_grpo", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_is_short_enough_to_read() -> None:
    assert len(FILE.read_text().splitlines()) <= 300


def test_advantages_are_those_of_the_full_trainer(example: ModuleType) -> None:
    rewards = [0.4, 1.7, 1.1]
    ours = example.advantages([RewardBreakdown(reward, {}) for reward in rewards])
    assert ours.tolist() == pytest.approx(group_advantages(rewards, AlgorithmSection()), abs=1e-5)


def test_the_loss_and_its_gradient_are_those_of_the_full_trainer(
    example: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    num_tokens = sum(LENGTHS)
    policy_N = (-torch.arange(1.0, num_tokens + 1) / 4).requires_grad_()
    reference_N = policy_N.detach() + torch.linspace(-0.3, 0.4, num_tokens)
    advantages_G = torch.tensor([1.0, -0.25, -0.75])
    monkeypatch.setattr(
        example, "completion_logprobs", lambda model, batch: policy_N if model == "policy" else reference_N
    )
    batch = SimpleNamespace(lengths=LENGTHS, split=lambda values: values.split(LENGTHS))
    completions = tuple(Completion((0,) * n, (-0.25,) * n, "", "stop", 0) for n in LENGTHS)
    group = RolloutGroup(Sample("a", "a.mp4", "-", "-", "-"), completions)
    loss, mismatch = example.grpo_loss("policy", "reference", group, batch, advantages_G, 0.04)
    (gradient_N,) = torch.autograd.grad(loss, policy_N)

    def rows(values: torch.Tensor) -> torch.Tensor:
        return pad_sequence(list(values.split(LENGTHS)), batch_first=True)

    full = policy_loss(
        rows(policy_N),
        rows(policy_N).detach(),
        rows(reference_N),
        advantages_G,
        rows(torch.ones(num_tokens)),
        cfg=AlgorithmSection(kl_beta=0.04),
        size=BatchSize(3, num_tokens),
        max_new_tokens=4,
    )
    (expected_N,) = torch.autograd.grad(full.loss, policy_N)
    assert loss.item() == pytest.approx(full.loss.item(), abs=1e-6)
    torch.testing.assert_close(gradient_N, expected_N, atol=1e-7, rtol=1e-5)
    assert mismatch == pytest.approx(num_tokens / 4 - 0.25)
