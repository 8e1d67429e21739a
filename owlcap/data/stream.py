"""Samples one after another, without end: shuffled by a seed, shared out over ranks, continued from any place.

The order of an epoch follows from (seed, epoch) alone, so every rank knows it without talking to the others, and a
place is two numbers. A place counts samples of all ranks together: a stream saved on 8 ranks continues on 6, and no
sample of the epoch is seen twice or left out but the few at its end that do not fill a round of all ranks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from owlcap.errors import DataError
from owlcap.types import Sample


@dataclass(frozen=True, slots=True)
class StreamPlace:
    """How far a stream has come: what a checkpoint keeps of it."""

    epoch: int = 0
    taken: int = 0  # samples of this epoch, by all ranks


class SampleStream:
    """An iterator of (sample, place after it). Use one a rank; a place goes with any of them.

    Args:
        samples: a list, or a `RowFile` where memory must stay flat.
        seed: of the shuffle; None keeps the order of the file.
        place: where to begin.

    Raises:
        DataError: fewer samples than ranks.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        seed: int | None,
        rank: int = 0,
        num_ranks: int = 1,
        place: StreamPlace = StreamPlace(),
    ) -> None:
        if not 0 <= rank < num_ranks:
            raise ValueError(f"rank {rank} of {num_ranks}")
        if len(samples) < num_ranks:
            raise DataError(
                f"There are {len(samples)} samples for {num_ranks} ranks.", cure="use fewer ranks or more data"
            )
        self._samples, self._seed, self._rank, self._num_ranks = samples, seed, rank, num_ranks
        self.place = place

    def __iter__(self) -> Iterator[tuple[Sample, StreamPlace]]:
        while True:
            order = epoch_order(len(self._samples), self._seed, self.place.epoch)
            while self.place.taken + self._num_ranks <= len(order):
                row = int(order[self.place.taken + self._rank])
                self.place = StreamPlace(self.place.epoch, self.place.taken + self._num_ranks)
                yield self._samples[row], self.place
            self.place = StreamPlace(self.place.epoch + 1)


def epoch_order(num_rows: int, seed: int | None, epoch: int) -> np.ndarray:
    """Row numbers of an epoch in the order in which they are taken: 8 bytes a row."""
    if seed is None:
        return np.arange(num_rows)
    return np.random.default_rng((seed, epoch)).permutation(num_rows)
