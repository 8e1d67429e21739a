"""How a step's groups are cut: into mini-batches (optimizer updates), over ranks, into micro batches (forwards).

    groups ── plan_update ──> mini-batch 0 ──> rank 0: micro batch, micro batch, ...
                              mini-batch 1     rank 1: micro batch, micro batch, ...

Ranks of one mini-batch get the same number of micro batches, since every forward and backward is a
collective; one that has fewer is given repeats of its own work that count for nothing (`weight` 0).
The cut changes only the order of additions: each loss is a share of its mini-batch's global mean.
The whole plan follows from the sizes alone, so that a resumed run repeats it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from rl.losses import BatchSize


@dataclass(frozen=True, slots=True)
class GroupSize:
    """Tokens of one group."""

    num_prompt_tokens: int
    completion_lengths: tuple[int, ...]

    @property
    def num_packed_tokens(self) -> int:
        """Length of the group as one shared-prefix sequence."""
        return self.num_prompt_tokens + sum(self.completion_lengths)


@dataclass(frozen=True, slots=True)
class Piece:
    """A group, or some completions of a group that is too long for one micro batch."""

    group: int  # index among the step's groups
    completions: tuple[int, ...]  # indices within the group
    num_packed_tokens: int


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """What one forward and backward takes. Weight 0: only to keep ranks in step."""

    pieces: tuple[Piece, ...]
    weight: int = 1


@dataclass(frozen=True, slots=True)
class MiniBatch:
    """One optimizer update: micro batches of each rank, equally many, and the size its losses are means over."""

    size: BatchSize
    ranks: tuple[tuple[MicroBatch, ...], ...]


def plan_update(
    sizes: Sequence[GroupSize], *, num_ranks: int, num_minibatches: int, tokens_per_micro_batch: int
) -> tuple[MiniBatch, ...]:
    """Cut a step's groups.

    Mini-batches take groups in order, as equally many as can be; with fewer groups than mini-batches
    there are fewer mini-batches. Ranks are balanced by packed tokens.

    Args:
        sizes: of each group, in the order of the step's prompts; at least one group, none empty.
        tokens_per_micro_batch: tokens of one forward, in which each group is a packed row, padded to the
            longest. A group above it is cut by completions (its prompt then runs once a piece); one prompt
            with one completion is never cut.
    """
    num_minibatches = min(num_minibatches, len(sizes))
    bounds = [round(i * len(sizes) / num_minibatches) for i in range(num_minibatches + 1)]
    return tuple(
        _plan_minibatch(sizes, range(first, last), num_ranks, tokens_per_micro_batch)
        for first, last in itertools.pairwise(bounds)
    )


def _plan_minibatch(sizes: Sequence[GroupSize], groups: range, num_ranks: int, limit: int) -> MiniBatch:
    lengths = [length for g in groups for length in sizes[g].completion_lengths]
    by_rank = _partition([sizes[g].num_packed_tokens for g in groups], num_ranks)
    pieces = [[piece for i in rank for piece in _pieces(sizes, groups[i], limit)] for rank in by_rank]
    bins = [_fill(rank, limit) for rank in pieces]
    count = max(len(rank) for rank in bins)
    spare = min((piece for rank in pieces for piece in rank), key=lambda piece: piece.num_packed_tokens)
    ranks = []
    for rank, filled in zip(pieces, bins, strict=True):
        repeat = min(rank, key=lambda piece: piece.num_packed_tokens, default=spare)
        missing = count - len(filled)
        ranks.append(tuple(MicroBatch(b) for b in filled) + (MicroBatch((repeat,), weight=0),) * missing)
    return MiniBatch(BatchSize(len(lengths), sum(lengths)), tuple(ranks))


def _pieces(sizes: Sequence[GroupSize], group: int, limit: int) -> list[Piece]:
    """The group whole, or cut into as few balanced pieces as fit (each has at least one completion)."""
    size = sizes[group]
    lengths = size.completion_lengths
    room = max(1, limit - size.num_prompt_tokens)
    num_pieces = min(len(lengths), math.ceil(sum(lengths) / room))
    while True:
        parts = _partition(lengths, num_pieces)
        if num_pieces == len(lengths) or all(sum(lengths[i] for i in part) <= room for part in parts):
            break
        num_pieces += 1
    return [Piece(group, tuple(part), size.num_prompt_tokens + sum(lengths[i] for i in part)) for part in parts if part]


def _fill(pieces: Sequence[Piece], limit: int) -> list[tuple[Piece, ...]]:
    """Pieces of one rank in micro batches: longest first, each taking the next ones while its padded rows fit."""
    bins: list[tuple[Piece, ...]] = []
    for piece in sorted(pieces, key=lambda piece: (-piece.num_packed_tokens, piece.group, piece.completions)):
        if bins and (len(bins[-1]) + 1) * bins[-1][0].num_packed_tokens <= limit:
            bins[-1] += (piece,)
        else:
            bins.append((piece,))
    return bins


def _partition(weights: Sequence[int], num_parts: int) -> list[list[int]]:
    """Indices in `num_parts` parts of about equal weight (Karmarkar-Karp), equally many in each where that divides.

    Parts and their members are in order of index, so that equal inputs give equal cuts.
    """
    from verl.utils.seqlen_balancing import get_seqlen_balanced_partitions

    count = len(weights)
    if count <= num_parts:
        return [[i] for i in range(count)] + [[] for _ in range(num_parts - count)]
    parts: list[list[int]] = get_seqlen_balanced_partitions(list(weights), num_parts, equal_size=count % num_parts == 0)  # type: ignore[assignment]
    return sorted(parts)
