"""The loss against hand-worked numbers, and value and gradient against the released loss written a second time."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from owlcap.config import AlgorithmSection
from owlcap.errors import ConfigError
from rl.losses import REFUSED, BatchSize, PolicyLoss, policy_loss

B, T = 4, 6
LENGTHS = torch.tensor([6, 3, 1, 4])
MASK = (torch.arange(T)[None, :] < LENGTHS[:, None]).float()
WHOLE = BatchSize(num_sequences=B, num_tokens=int(LENGTHS.sum()))
MODES = ("token-mean", "seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm")
ADVANTAGES = torch.tensor([1.5, -0.5, 0.25, -1.25])


def logprobs(seed: int) -> torch.Tensor:
    return -torch.rand(B, T, generator=torch.Generator().manual_seed(seed)) * 3


def ours(
    current: torch.Tensor,
    cfg: AlgorithmSection,
    *,
    old: torch.Tensor | None = None,
    reference: torch.Tensor | None = None,
    rows: slice = slice(None),
    size: BatchSize = WHOLE,
) -> PolicyLoss:
    return policy_loss(
        current[rows],
        (current.detach() if old is None else old)[rows],
        None if reference is None else reference[rows],
        ADVANTAGES[rows],
        MASK[rows],
        cfg=cfg,
        size=size,
        max_new_tokens=8,
    )


def released(current: torch.Tensor, reference: torch.Tensor, beta: float) -> torch.Tensor:
    """TRL 0.17's loss as OwlCap's repository has it: no clipping, log ratio of k3 clamped to +-10."""
    log_ratio = (reference - current).clamp(-10, 10)
    k3 = log_ratio.exp() - log_ratio - 1
    per_token = -(torch.exp(current - current.detach()) * ADVANTAGES[:, None] - beta * k3)
    return ((per_token * MASK).sum(1) / MASK.sum(1)).mean()


def test_value_and_gradient_equal_the_released_loss() -> None:
    a, b = logprobs(0).requires_grad_(), logprobs(0).requires_grad_()
    reference = logprobs(1)
    mine = ours(a, AlgorithmSection(kl_beta=0.04), reference=reference).loss
    theirs = released(b, reference, beta=0.04)
    mine.backward()
    theirs.backward()
    assert mine.item() == pytest.approx(theirs.item(), abs=1e-6)
    torch.testing.assert_close(a.grad, b.grad, atol=1e-7, rtol=1e-6)


def test_one_sequence_by_hand() -> None:
    # Two tokens, A = 2, ratio 1: policy part -2. Reference log ratios 0 and ln 2: k3 = 0 and 2 - ln 2 - 1.
    current = torch.tensor([[-1.0, -1.0]])
    reference = torch.tensor([[-1.0, -1.0 + math.log(2)]])
    loss = policy_loss(
        current,
        current,
        reference,
        torch.tensor([2.0]),
        torch.ones(1, 2),
        cfg=AlgorithmSection(kl_beta=0.5),
        size=BatchSize(1, 2),
        max_new_tokens=2,
    )
    kl = (1 - math.log(2)) / 2
    assert loss.policy == pytest.approx(-2.0)
    assert loss.kl == pytest.approx(kl)
    assert float(loss.loss) == pytest.approx(-2.0 + 0.5 * kl)


def test_the_ratio_is_clipped_by_hand() -> None:
    # One token each. Ratio 1.5: with A = 1 clipped to 1.2; with A = -1 the worse of -1.5 and -1.2 counts.
    current = torch.full((2, 1), math.log(1.5))
    loss = policy_loss(
        current,
        torch.zeros(2, 1),
        None,
        torch.tensor([1.0, -1.0]),
        torch.ones(2, 1),
        cfg=AlgorithmSection(kl_beta=0.0, clip_ratio=0.2),
        size=BatchSize(2, 2),
        max_new_tokens=1,
    )
    assert float(loss.loss) == pytest.approx((-1.2 + 1.5) / 2)
    assert loss.clip_fraction == pytest.approx(0.5)


def test_the_upper_clip_can_be_wider() -> None:
    cfg = AlgorithmSection(kl_beta=0.0, clip_ratio=0.2, clip_ratio_high=0.4)
    loss = policy_loss(
        torch.full((1, 1), math.log(1.5)),
        torch.zeros(1, 1),
        None,
        torch.ones(1),
        torch.ones(1, 1),
        cfg=cfg,
        size=BatchSize(1, 1),
        max_new_tokens=1,
    )
    assert float(loss.loss) == pytest.approx(-1.4)


def aggregated(cells: torch.Tensor, mode: str) -> torch.Tensor:
    sums = (cells * MASK).sum(1)
    if mode == "token-mean":
        return sums.sum() / MASK.sum()
    if mode == "seq-mean-token-mean":
        return (sums / MASK.sum(1)).mean()
    return sums.mean() / (8 if mode.endswith("norm") else 1)


@pytest.mark.parametrize("mode", MODES)
def test_each_aggregation_by_a_second_implementation(mode: str) -> None:
    current, reference = logprobs(2), logprobs(3)
    cfg = AlgorithmSection(kl_beta=0.1, kl_estimator="k2", loss_aggregation=mode)  # type: ignore[arg-type]
    cells = -ADVANTAGES[:, None] + 0.1 * 0.5 * (current - reference) ** 2
    assert float(ours(current, cfg, reference=reference).loss) == pytest.approx(
        float(aggregated(cells, mode)), rel=1e-5
    )


ANY_MODE = ("vanilla", "gspo", "cispo", "gpg", "dppo_tv", "dppo_kl", "dro")
CUTS = [(name, mode) for name in ANY_MODE for mode in MODES]
CUTS += [("sapo", "seq-mean-token-mean"), ("geo_mean", "seq-mean-token-mean")]


@pytest.mark.parametrize(("name", "mode"), CUTS)
@pytest.mark.parametrize("cut", [(1, 2, 1), (2, 2), (1, 1, 1, 1), (3, 1)])
def test_shares_of_any_cut_into_micro_batches_add_up(name: str, mode: str, cut: tuple[int, ...]) -> None:
    settings: dict[str, Any] = {"policy_loss": name, "loss_aggregation": mode}
    cfg = AlgorithmSection(kl_beta=0.1, dro_beta=0.5 if name == "dro" else None, **settings)
    old, reference = logprobs(5), logprobs(6)
    whole, parts = logprobs(4).requires_grad_(), logprobs(4).requires_grad_()
    expected = ours(whole, cfg, old=old, reference=reference).loss
    expected.backward()
    total, first = 0.0, 0
    for count in cut:
        share = ours(parts, cfg, old=old, reference=reference, rows=slice(first, first + count)).loss
        share.backward()
        total, first = total + share.item(), first + count
    assert total == pytest.approx(expected.item(), rel=1e-5, abs=1e-6)
    torch.testing.assert_close(whole.grad, parts.grad, atol=1e-7, rtol=1e-5)


def test_every_loss_of_the_registry_is_tested_or_refused() -> None:
    from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY

    assert {name for name, _ in CUTS} | set(REFUSED) == set(POLICY_LOSS_REGISTRY)


def test_a_sequence_masked_out_adds_nothing() -> None:
    current = torch.cat([logprobs(7), logprobs(8)[:1]]).requires_grad_()
    loss = policy_loss(
        current,
        current.detach(),
        current.detach() - 0.5,
        torch.cat([ADVANTAGES, torch.ones(1)]),
        torch.cat([MASK, torch.zeros(1, T)]),
        cfg=AlgorithmSection(),
        size=WHOLE,
        max_new_tokens=8,
    )
    alone = logprobs(7)
    expected = ours(alone, AlgorithmSection(), reference=alone - 0.5)
    assert float(loss.loss.detach()) == pytest.approx(float(expected.loss), abs=1e-7)
    loss.loss.backward()
    assert current.grad is not None
    assert float(current.grad[B].abs().max()) == 0.0


def test_an_unknown_loss_is_named_with_those_allowed() -> None:
    with pytest.raises(ConfigError, match="'vanila' is unknown") as caught:
        ours(logprobs(0), AlgorithmSection(policy_loss="vanila", kl_beta=0.0))
    assert "vanilla" in str(caught.value)


@pytest.mark.parametrize("name", ["clip_cov", "kl_cov", "bypass_mode"])
def test_losses_that_depend_on_the_cut_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be used"):
        ours(logprobs(0), AlgorithmSection(policy_loss=name, kl_beta=0.0))
