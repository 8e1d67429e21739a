"""Clips that cannot be used: counted and logged, and too many of them stop the run."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from owlcap.errors import DataError, first_line
from owlcap.logging import get_logger

MIN_ALLOWED = 1  # clip, unless none may be bad: a small data set is not given up for a single one

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class BadClip:
    """A sample that could not be used, and why; it is left out and counted."""

    id: str
    reason: str


class BadClips:
    """All bad clips of a run so far.

    Args:
        num_rows: rows of the run's data.
        max_share: of the rows that may be bad (data.max_bad_rows_share).
        where: the data, for the message.
    """

    def __init__(self, num_rows: int, max_share: float, where: str) -> None:
        self._num_rows, self._max_share, self._where = num_rows, max_share, where
        self._reasons: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._reasons)

    def add(self, clips: Iterable[BadClip]) -> None:
        """Count and log clips; one that is met again in a later epoch counts once.

        Raises:
            DataError: more of them than are allowed.
        """
        for clip in clips:
            if clip.id not in self._reasons:
                self._reasons[clip.id] = clip.reason
                logger.warning("left out %s: %s", clip.id, clip.reason)
        allowed = max(math.floor(self._max_share * self._num_rows), MIN_ALLOWED) if self._max_share else 0
        if len(self) > allowed:
            first, told = next(iter(self._reasons.items()))
            reason = first_line(told)  # the rest says where, and so does this error
            raise DataError(
                f"{len(self)} of {self._num_rows} clips cannot be used, first {first}: {reason}",
                where=self._where,
                allowed=f"data.max_bad_rows_share={self._max_share:g}: {allowed} clips",
                cure="mend or remove those rows (the run's log names each), or raise data.max_bad_rows_share",
            )
