"""Motion Synergetic Decoding (MSD): one next-token score from two views of the same model. Pure torch, fp32.

The motion branch sees overlays, video and text, the visual branch video and text. With probabilities pv (visual) and pm
(motion) of a token, d = |pv - pm| and weights a1..a6:

    L1 = +a1 * (expm1(pv) + expm1(pm)) / 2     exponential amplification of confidence
    L2 = +a2 * (pv + pm) / 2                   arithmetic mean
    L3 = -a3 * log1p(d)                        soft penalty of disagreement
    L4 = +a4 * (pv * pm) ^ a5                  power of agreement
    L5 = -a6 * d^2                             penalty of large disagreement
    S  = L1 + L2 + L3 + L4 + L5                with the paper's weights from -1.75 to 1.86

Source: M-ACM section 3.4 for the types of terms, the weights and beta; the formula as written here and the prunings are
our reading (owlcap.config_motion.DecodingSection). Letters of shapes: B pairs, V tokens of the vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from owlcap.config_motion import DecodingSection


@dataclass(frozen=True, slots=True)
class Synergy:
    """What MSD makes of one step's distributions, for every token."""

    visual: torch.Tensor  # float32 [B, V]: logprobs of the visual branch
    motion: torch.Tensor  # float32 [B, V]: logprobs of the motion branch
    terms: tuple[torch.Tensor, ...]  # L1..L5, float32 [B, V] each
    score: torch.Tensor  # S, float32 [B, V]
    kept: torch.Tensor  # bool [B, V]: survives the pruning

    @property
    def survivors(self) -> torch.Tensor:
        """S of the tokens that survive, -inf of the others: greedy decoding takes the largest."""
        return self.score.masked_fill(~self.kept, float("-inf"))


def synergy(visual_logits: torch.Tensor, motion_logits: torch.Tensor, settings: DecodingSection) -> Synergy:
    """Score every token by both branches.

    Args:
        visual_logits: [B, V], any float type; -inf for tokens that must not be drawn, which are always pruned.
        motion_logits: the same of the motion branch.
    """
    visual = torch.log_softmax(visual_logits.float(), dim=-1)
    motion = torch.log_softmax(motion_logits.float(), dim=-1)
    terms = synergy_terms(visual, motion, settings)
    score = terms[0] + terms[1] + terms[2] + terms[3] + terms[4]
    return Synergy(visual, motion, terms, score, survives(visual.exp(), motion.exp(), score, settings))


def synergy_terms(visual: torch.Tensor, motion: torch.Tensor, settings: DecodingSection) -> tuple[torch.Tensor, ...]:
    """L1..L5 of logprobs [B, V]."""
    a1, a2, a3, a4, a5, a6 = settings.alpha
    pv, pm = visual.exp(), motion.exp()
    apart = (pv - pm).abs()
    return (
        a1 * (torch.expm1(pv) + torch.expm1(pm)) / 2,
        a2 * (pv + pm) / 2,
        -a3 * torch.log1p(apart),
        a4 * torch.exp(a5 * (visual + motion)),
        -a6 * apart.square(),
    )


def survives(pv: torch.Tensor, pm: torch.Tensor, score: torch.Tensor, settings: DecodingSection) -> torch.Tensor:
    """Which tokens the pruning keeps, bool [B, V]; at least one of each row.

    relative: pv >= beta * (1 + largest S) * largest pv; the most probable token of the visual branch always survives.
    literal: pv >= beta * (1 + S), as published; that token is kept whatever its S.
    union: relative, with the larger of pv and pm in the place of pv.
    """
    if settings.prune == "literal":
        best = torch.zeros_like(pv, dtype=torch.bool).scatter(-1, pv.argmax(-1, keepdim=True), True)
        return ((pv >= settings.beta * (1 + score)) & (pv > 0)) | best
    probability = torch.maximum(pv, pm) if settings.prune == "union" else pv
    largest = score.amax(-1, keepdim=True)  # of all weights allowed, some could push beta * (1 + S) out of 0..1
    share = (settings.beta * (1 + largest)).clamp(0, 1)
    return (probability >= share * probability.amax(-1, keepdim=True)) & (probability > 0)


def sampling_logits(scored: Synergy, settings: DecodingSection, temperature: float) -> torch.Tensor:
    """Logits [B, V] that tokens are drawn from, -inf for pruned ones.

    `synergy` draws from softmax(S), which is nearly uniform over the survivors, since S spans 3.6 nats at most;
    `calibrated` from log((pv + pm) / 2) + S / tau.

    Args:
        temperature: above 0; the logits are divided by it.
    """
    if settings.sampling == "synergy":
        return scored.survivors / temperature
    mean = torch.logaddexp(scored.visual, scored.motion) - torch.log(torch.tensor(2.0, device=scored.score.device))
    return ((mean + scored.score / settings.tau) / temperature).masked_fill(~scored.kept, float("-inf"))


def gumbel(num_tokens: int, seed: int, step: int) -> torch.Tensor:
    """Gumbel noise [V] of one step of one pair: the largest of logits plus noise is a draw from their softmax.

    Both rows of a pair share it, so they draw the same token; it depends on seed and step alone, so that neither the
    batch nor the engine changes what is drawn.
    """
    generator = torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**63)
    return -torch.empty(num_tokens).exponential_(generator=generator).clamp_min(torch.finfo(torch.float32).tiny).log()


def pair_scores(
    visual_logits: torch.Tensor,
    motion_logits: torch.Tensor,
    settings: DecodingSection,
    *,
    temperature: float = 0.0,
    seeds: tuple[int, ...] = (),
    steps: tuple[int, ...] = (),
) -> tuple[Synergy, torch.Tensor]:
    """The scoring, and scores [B, V] whose largest entry is the next token of both rows of each pair.

    Args:
        temperature: 0 is greedy; otherwise one draw a pair, from its seed.
        seeds: of the pairs; needed to draw.
        steps: how many tokens each pair has; needed to draw.
    """
    scored = synergy(visual_logits, motion_logits, settings)
    if temperature == 0:
        return scored, scored.survivors
    noise = torch.stack([gumbel(scored.score.shape[-1], *one) for one in zip(seeds, steps, strict=True)])
    return scored, sampling_logits(scored, settings, temperature) + noise.to(scored.score.device)
