"""What an examination kept and dropped, in numbers, and the card of the data set that it made."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from owlcap.config_data import DataPipelineRun
from owlcap.data.pipeline.output import histogram, spent_text, write_report
from owlcap.data.pipeline.reasons import Reason, group_reasons
from owlcap.data.pipeline.run import StepRun
from rewards.chat import Usage
from rewards.text import words

ACCURACY_EDGES = (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)
WORD_EDGES = (0, 25, 50, 100, 150, 200, 250, 300, 400, 1000)
MADE_BY = {"motion captions": "motion_model", "fused captions": "general_model", "verdicts": "examiner"}
PUBLISHED_WORDS = "216 to 244"  # of HMD-270K's captions


@dataclass(frozen=True, slots=True)
class ExaminationReport:
    """Figures of one examination."""

    num_clips: int
    num_kept: int
    num_dropped: int
    num_failed: int
    num_resumed: int
    dropped: Mapping[str, int]  # by reason
    failures: tuple[Reason, ...]  # the most frequent
    accuracy: Mapping[str, int]  # histogram over captions
    mean_accuracy: float
    caption_words: Mapping[str, int]  # histogram over kept captions
    mean_words: float
    motion_share: float  # of the kept captions' units
    labels: Mapping[str, int]  # of all units
    made_by: Mapping[str, str]  # models, by what they made; as the records name them
    prompts: Mapping[str, str]  # hashes, by name; as the records name them
    spent: Usage
    spent_in_all: Usage

    @classmethod
    def of(cls, done: StepRun, run: DataPipelineRun) -> ExaminationReport:
        """Count the records; one is in memory at a time."""
        dropped: Counter[str] = Counter()
        labels: Counter[str] = Counter()
        tags: Counter[str] = Counter()
        made_by: dict[str, set[str]] = {made: set() for made in MADE_BY}
        prompts: defaultdict[str, set[str]] = defaultdict(set)
        accuracies: list[float] = []
        lengths: list[int] = []
        for record in done.journal.records(done.ids):
            accuracies.append(record["accuracy"])
            labels.update(unit["label"] for unit in record["units"])
            for made, model in MADE_BY.items():
                made_by[made].add(record[model])
            for name, value in record["prompts"].items():
                prompts[name].add(value)
            if record["kept"]:
                lengths.append(len(words(record["fused_caption"])))
                tags.update(unit["tag"] for unit in record["units"])
            else:
                dropped[record["reason"]] += 1
        return cls(
            num_clips=len(done.ids),
            num_kept=len(lengths),
            num_dropped=sum(dropped.values()),
            num_failed=len(done.failures),
            num_resumed=done.num_resumed,
            dropped=dict(dropped),
            failures=group_reasons(done.failures.items()),
            accuracy=histogram(accuracies, ACCURACY_EDGES),
            mean_accuracy=_mean(accuracies),
            caption_words=histogram(lengths, WORD_EDGES),
            mean_words=_mean(lengths),
            motion_share=tags["motion"] / max(1, tags.total()),
            labels=dict(labels),
            made_by={made: ", ".join(sorted(models)) for made, models in made_by.items()},
            prompts={name: ", ".join(sorted(values)) for name, values in prompts.items()},
            spent=done.spent,
            spent_in_all=done.spent_in_all,
        )

    def write(self, path: Path) -> None:
        """As JSON."""
        write_report(path, asdict(self))

    def text(self) -> str:
        """For the terminal."""
        why = ", ".join(f"{reason} {count:,}" for reason, count in self.dropped.items())
        lines = [
            f"clips       {self.num_clips:,} ({self.num_resumed:,} of them from an earlier run)",
            f"kept        {self.num_kept:,}",
            f"dropped     {self.num_dropped:,}{f' ({why})' if why else ''}",
            f"failed      {self.num_failed:,}",
            *(f"            {reason.text()}" for reason in self.failures),
            f"accuracy    mean {self.mean_accuracy:.3f} over captions",
            *_bars(self.accuracy),
            f"words       mean {self.mean_words:.1f} a kept caption (HMD-270K: {PUBLISHED_WORDS})",
            *_bars(self.caption_words),
            f"units       {self.motion_share:.0%} motion, {1 - self.motion_share:.0%} detail in kept captions",
            f"asked       {spent_text(self.spent, self.spent_in_all)}",
        ]
        return "\n".join(lines)


def write_card(path: Path, report: ExaminationReport, run: DataPipelineRun, fused: Path) -> None:
    """The data card: what the data is, how it was made, by which models and prompts, and what it lacks."""
    lines = [
        "# Video captions by Motion-Detail Fusion and Fine-Grained Examination",
        "",
        f"{report.num_kept:,} captions of {report.num_clips:,} clips, of {report.mean_words:.0f} words on average; "
        f"{report.motion_share:.0%} of their units tell motion.",
        "",
        "## How it was made",
        "A motion captioner described each clip; a general model, given that caption and the clip, completed it with "
        "details; the examiner split the result into units and checked each against the clip. Captions of which at "
        f"least {run.hmd.min_accuracy:.0%} of the units are supported were kept (OwlCap, arXiv 2508.18634).",
        "",
        "| made | by |",
        "|---|---|",
        *(f"| {made} | {models} |" for made, models in report.made_by.items()),
        "",
        "| prompt | hash |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in report.prompts.items()),
        "",
        "## Files",
        f"`train.jsonl`: kept rows; `examined.{run.output}`: all clips with captions, units and verdicts, from "
        f"`{fused.name}`; `report.json`: figures.",
        "",
        "## Figures",
        "```",
        report.text(),
        "```",
        "",
        "## Limits",
        "Captions and verdicts are written by models and share their faults; an examiner that is also the captioner "
        "agrees with itself too often. The videos have licences of their own, which this folder does not change.",
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _bars(counts: Mapping[str, int]) -> list[str]:
    most = max(counts.values(), default=0)
    return [
        f"  {name:>12} {count:>8,} {'#' * round(40 * count / most)}".rstrip() for name, count in counts.items() if count
    ]


def _mean(values: list[float] | list[int]) -> float:
    return sum(values) / len(values) if values else 0.0
