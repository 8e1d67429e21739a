"""Per-token evidence of Motion Synergetic Decoding: why this token, and what each branch wanted.

One `TokenEvidence` a token; as JSON lines for programs, as a table for people.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from owlcap.types import Sample

if TYPE_CHECKING:
    import torch

    from motion.decoding import Synergy

TOP = 5  # tokens of each branch that are kept
SHOWN = 3  # of them in the table
PRUNED_MARK = "-"
TERMS = ("L1", "L2", "L3", "L4", "L5")

Detokenize = Callable[[int], str]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A token that one of the branches finds probable."""

    token_id: int
    token: str
    probability: float  # in that branch
    score: float  # S
    kept: bool  # survives the pruning


@dataclass(frozen=True, slots=True)
class TokenEvidence:
    """What one token of a caption rests on."""

    clip: str  # the sample's id
    step: int
    token_id: int
    token: str
    visual_probability: float
    motion_probability: float
    terms: tuple[float, ...]  # L1..L5
    score: float  # S
    num_kept: int  # tokens that survive the pruning
    visual_top: tuple[Candidate, ...]  # most probable first
    motion_top: tuple[Candidate, ...]

    @property
    def pruned(self) -> tuple[Candidate, ...]:
        """What a branch found probable and the pruning removed, each token once."""
        found = {one.token_id: one for one in (*self.motion_top, *self.visual_top) if not one.kept}
        return tuple(found.values())


class EvidenceLog:
    """Collects evidence while pairs are decoded; hand `observe` to a SynergyProcessor.

    Args:
        samples: of the pairs, in their order.
        detokenize: the text of one token.
    """

    def __init__(self, samples: Sequence[Sample], detokenize: Detokenize) -> None:
        self._samples, self._detokenize = samples, detokenize
        self._steps: list[tuple[TokenEvidence, ...]] = []

    def observe(self, scored: Synergy, chosen: torch.Tensor) -> None:
        """Take in one step: the scored pairs, and the token that each took."""
        visual, motion = (one.topk(min(TOP, one.shape[-1]), dim=-1) for one in (scored.visual, scored.motion))
        rows: list[TokenEvidence] = []
        for pair, sample in enumerate(self._samples):
            token = int(chosen[pair])
            rows.append(
                TokenEvidence(
                    clip=sample.id,
                    step=len(self._steps),
                    token_id=token,
                    token=self._detokenize(token),
                    visual_probability=float(scored.visual[pair, token].exp()),
                    motion_probability=float(scored.motion[pair, token].exp()),
                    terms=tuple(float(term[pair, token]) for term in scored.terms),
                    score=float(scored.score[pair, token]),
                    num_kept=int(scored.kept[pair].sum()),
                    visual_top=self._candidates(scored, pair, visual.values[pair], visual.indices[pair]),
                    motion_top=self._candidates(scored, pair, motion.values[pair], motion.indices[pair]),
                )
            )
        self._steps.append(tuple(rows))

    def of_pair(self, pair: int, num_tokens: int) -> tuple[TokenEvidence, ...]:
        """Evidence of a pair's tokens; steps after its end are left out."""
        return tuple(rows[pair] for rows in self._steps[:num_tokens])

    def _candidates(
        self, scored: Synergy, pair: int, logprobs: torch.Tensor, ids: torch.Tensor
    ) -> tuple[Candidate, ...]:
        return tuple(
            Candidate(
                token, self._detokenize(token), p, float(scored.score[pair, token]), bool(scored.kept[pair, token])
            )
            for token, p in zip(ids.tolist(), logprobs.exp().tolist(), strict=True)
        )


def evidence_lines(evidence: Sequence[TokenEvidence]) -> str:
    """One JSON object a token: its terms by name, both branches' top tokens, and what was pruned of them."""
    lines = []
    for one in evidence:
        values = asdict(one)
        terms = dict(zip(TERMS, values.pop("terms"), strict=True))
        pruned = [candidate.token for candidate in one.pruned]
        lines.append(json.dumps({**values, **terms, "pruned": pruned}, ensure_ascii=False))
    return "".join(line + "\n" for line in lines)


def evidence_table(evidence: Sequence[TokenEvidence]) -> str:
    """Evidence as text columns; a pruned candidate has a - before it."""
    head = ("token", "pv", "pm", *TERMS, "S", "kept", "visual branch", "motion branch")
    rows = [head, *(_row(one) for one in evidence)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    text_columns = {0, len(head) - 2, len(head) - 1}
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in text_columns else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _row(one: TokenEvidence) -> tuple[str, ...]:
    numbers = (f"{value:.3f}" for value in (one.visual_probability, one.motion_probability, *one.terms, one.score))
    return (repr(one.token)[1:-1], *numbers, str(one.num_kept), _shown(one.visual_top), _shown(one.motion_top))


def _shown(candidates: Sequence[Candidate]) -> str:
    return " ".join(
        f"{'' if one.kept else PRUNED_MARK}{repr(one.token)[1:-1].strip()}:{one.probability:.2f}"
        for one in candidates[:SHOWN]
    )
