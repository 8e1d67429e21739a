"""The error tree. Every message says what is wrong, where, what is allowed and what to do.

OwlcapError
├── ConfigError          a setting: file, key, allowed values, nearest key
├── DataError            a row or a file of a data set
│   ├── VideoError       a clip that cannot be read (missing, empty, truncated, not a video)
│   │   └── VideoTimeout a decoder that did not answer within its deadline
│   └── PromptError      a prompt that the policy cannot take (no video tokens, too long)
├── ModelError           a checkpoint that cannot be used as a policy
├── RewardError          a reward function or judge that breaks its contract
│   └── JudgeError       a judge that cannot be reached or read
├── RolloutError         generation that failed, or ran past its deadline
├── PlacementError       resources that the cluster does not have
├── CheckpointError      a checkpoint that cannot be written, or must not be loaded
├── DiskError            a file of a run that the disk does not take (full, over quota, read-only)
├── TrainingError        an update that must not be applied (non-finite loss, too few scored rollouts)
└── ExportError          an exported folder that does not reproduce the policy
"""

from __future__ import annotations


class OwlcapError(Exception):
    """Base of all errors meant for users.

    Args:
        what: what is wrong, one sentence.
        where: file, line, key or object it was found at.
        allowed: what would have been accepted.
        cure: the next command or edit that mends it.
    """

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        allowed: str | None = None,
        cure: str | None = None,
    ) -> None:
        self.what, self.where, self.allowed, self.cure = what, where, allowed, cure
        super().__init__(what)

    def __str__(self) -> str:
        lines = [self.what]
        for label, text in (("where", self.where), ("allowed", self.allowed), ("cure", self.cure)):
            if text:
                lines.append(f"  {label}: {text}")
        return "\n".join(lines)

    def __reduce__(self):  # Ray pickles errors across processes; keyword arguments must survive.
        return (_rebuild, (type(self), self.what, self.where, self.allowed, self.cure))


def first_line(problem: Exception | str) -> str:
    """What went wrong without where and how to mend it; an error without a message as Python writes it."""
    return str(problem).strip().partition("\n")[0] or repr(problem)


def one_line(error: OwlcapError) -> str:
    """An error as one line, for logs and counts by reason."""
    return "; ".join(line.strip() for line in str(error).splitlines() if line.strip())


def _rebuild(
    cls: type[OwlcapError], what: str, where: str | None, allowed: str | None, cure: str | None
) -> OwlcapError:
    return cls(what, where=where, allowed=allowed, cure=cure)


class ConfigError(OwlcapError):
    """A setting is unknown, ill-typed, or contradicts another."""


class DataError(OwlcapError):
    """A row or a file of a data set cannot be used."""


class VideoError(DataError):
    """A clip cannot be read."""


class VideoTimeout(VideoError):
    """A decoder did not answer within its deadline and was killed."""


class PromptError(DataError):
    """A prompt cannot be given to the policy."""


class ModelError(OwlcapError):
    """A checkpoint cannot be used as a policy."""


class RewardError(OwlcapError):
    """A reward function breaks its contract."""


class JudgeError(RewardError):
    """A judge cannot be reached, or its reply cannot be read."""


class RolloutError(OwlcapError):
    """Generation failed or ran past its deadline."""


class PlacementError(OwlcapError):
    """The cluster does not have the resources a plan asks for."""


class CheckpointError(OwlcapError):
    """A checkpoint cannot be written, or must not be loaded."""


class DiskError(OwlcapError):
    """The disk does not take a file of a run."""


class TrainingError(OwlcapError):
    """A run cannot go on: its update would be wrong."""


class ExportError(OwlcapError):
    """An exported folder does not reproduce the policy."""
