"""How a failure is worded in an Unscored."""

from __future__ import annotations

from owlcap.errors import OwlcapError


def one_line(error: OwlcapError) -> str:
    """An error as one line, for logs and counts by reason."""
    return "; ".join(line.strip() for line in str(error).splitlines() if line.strip())
