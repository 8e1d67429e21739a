"""Why clips failed: each reason once, with how many clips it holds for and a few of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from owlcap.errors import OwlcapError, one_line

EXAMPLES = 3  # clips that are named for a reason
MAX_REASONS = 10  # that are told; the records have all
_WITH_A_NUMBER = re.compile(r"\S*\d\S*")  # times, counts and names of requests, which differ from clip to clip


@dataclass(frozen=True, slots=True)
class Reason:
    """Clips that failed alike."""

    what: str  # of the first of them
    num_clips: int
    clips: tuple[str, ...]  # the first few

    def text(self) -> str:
        """E.g. "2 x the video file is empty (a, b)"."""
        more = ", ..." if self.num_clips > len(self.clips) else ""
        return f"{self.num_clips:,} x {self.what} ({', '.join(self.clips)}{more})"


def reason_of(error: OwlcapError, video: str) -> str:
    """Why a clip failed, in words that are the same for every clip: its path is left out."""
    return one_line(error).replace(f"; where: {video}", "").replace(video, "the video")


def group_reasons(failures: Iterable[tuple[str, str]]) -> tuple[Reason, ...]:
    """Clips and why they failed, by reason, the most frequent first; reasons that differ in numbers alone are one."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for failure in failures:
        groups.setdefault(_WITH_A_NUMBER.sub("#", failure[1]), []).append(failure)
    largest = sorted(groups.values(), key=len, reverse=True)[:MAX_REASONS]
    return tuple(Reason(one[0][1], len(one), tuple(clip for clip, _ in one[:EXAMPLES])) for one in largest)
