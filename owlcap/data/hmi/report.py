"""What became of the source videos, in numbers, and the card of the data set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

from owlcap.config_data import DataPipelineRun
from owlcap.data.hmi.questions import PUBLISHED_SHARES
from owlcap.data.pipeline.output import spent_text, write_report
from owlcap.data.pipeline.reasons import Reason, group_reasons
from owlcap.data.pipeline.run import StepRun
from rewards.chat import Usage
from rewards.text import words


@dataclass(frozen=True, slots=True)
class HmiReport:
    """Figures of one run."""

    num_videos: int
    num_videos_failed: int
    num_resumed: int  # videos that were cut in an earlier run
    videos_passed_over: Mapping[str, int]  # without a segment, by reason
    num_scenes: int
    num_segments: int
    num_kept: int
    dropped: Mapping[str, int]  # segments, by the first rule that they break
    kept_s: float  # of all kept segments together
    num_captions: int  # clips with caption and questions; those of whole videos too
    num_failed: int  # clips without
    failures: tuple[Reason, ...]  # of videos and clips, the most frequent
    levels: Mapping[str, int]
    mean_words: float
    num_questions: int
    categories: Mapping[str, int]
    num_open: int
    num_true: int
    num_false: int
    spent: Usage
    spent_in_all: Usage

    @classmethod
    def of(cls, cut: StepRun, told: StepRun, done: StepRun) -> HmiReport:
        """Count the records; one is in memory at a time."""
        passed: Counter[str] = Counter()
        dropped: Counter[str] = Counter()
        levels: Counter[str] = Counter()
        categories: Counter[str] = Counter()
        kinds: Counter[str] = Counter()
        num_scenes, num_segments, kept_s, num_words = 0, 0, 0.0, 0
        for record in cut.journal.records(cut.ids):
            passed.update([record["reason"]] if record["reason"] else [])
            num_scenes += len(record["scenes"])
            num_segments += len(record["segments"])
            dropped.update(segment["reason"] for segment in record["segments"] if not segment["kept"])
            kept_s += sum(segment["duration_s"] for segment in record["segments"] if segment["kept"])
        for record in done.journal.records(done.ids):
            levels[record["level"]] += 1
            num_words += len(words(record["caption"]))
            categories.update(pair["category"] for pair in record["questions"])
            kinds.update("open" if pair["kind"] == "open" else pair["answer"] for pair in record["questions"])
        failures = chain.from_iterable(step.failures.items() for step in (cut, told, done))
        return cls(
            num_videos=len(cut.ids),
            num_videos_failed=len(cut.failures),
            num_resumed=cut.num_resumed,
            videos_passed_over=dict(passed),
            num_scenes=num_scenes,
            num_segments=num_segments,
            num_kept=num_segments - dropped.total(),
            dropped=dict(dropped),
            kept_s=kept_s,
            num_captions=levels.total(),
            num_failed=len(told.failures) + len(done.failures),
            failures=group_reasons(failures),
            levels=dict(levels),
            mean_words=num_words / max(1, levels.total()),
            num_questions=kinds.total(),
            categories=dict(categories),
            num_open=kinds["open"],
            num_true=kinds["True"],
            num_false=kinds["False"],
            spent=told.spent + done.spent,
            spent_in_all=told.spent_in_all + done.spent_in_all,
        )

    def write(self, path: Path) -> None:
        """As JSON."""
        write_report(path, asdict(self))

    @property
    def balance_note(self) -> str:
        """Why accuracy on true-or-false questions needs balancing, with this data's own figure."""
        statements = self.num_true + self.num_false
        if not statements:
            return "no true-or-false questions"
        most = max(self.num_true, self.num_false) / statements
        said = "true" if self.num_true >= self.num_false else "false"
        return (
            f"always answering {said} would be right in {most:.0%} of the true-or-false questions: report balanced "
            "accuracy (the mean over both answers), where that is worth 50%"
        )

    def text(self) -> str:
        """For the terminal."""
        statements = self.num_true + self.num_false
        lines = [
            f"videos      {self.num_videos:,} ({self.num_resumed:,} from an earlier run), "
            f"{self.num_videos_failed:,} failed",
            *_list(self.videos_passed_over, "passed over"),
            f"segments    {self.num_segments:,} in {self.num_scenes:,} scenes, {self.num_kept:,} kept "
            f"({self.kept_s:,.0f} s)",
            *_list(self.dropped, "dropped"),
            f"captions    {self.num_captions:,}, mean {self.mean_words:.1f} words; " + _counts(self.levels),
            f"failed      {self.num_failed:,}",
            *(f"            {reason.text()}" for reason in self.failures),
            f"questions   {self.num_questions:,}: {self.num_open:,} open, {statements:,} true or false "
            f"({self.num_true:,} true)",
            *(
                f"            {name:<12} {count / max(1, self.num_questions):.1%} (published "
                f"{PUBLISHED_SHARES[name]:.1%})"
                for name, count in sorted(self.categories.items())
            ),
            f"            {self.balance_note}",
            f"asked       {spent_text(self.spent, self.spent_in_all)}",
        ]
        return "\n".join(lines)


def write_card(path: Path, report: HmiReport, run: DataPipelineRun, prompts: Mapping[str, str]) -> None:
    """The data card."""
    rules = run.hmi.person
    lines = [
        "# Human motion and interaction: captions and questions",
        "",
        f"{report.num_captions:,} captions and {report.num_questions:,} questions of {report.num_videos:,} videos.",
        "",
        "## How it was made",
        f"Scenes were cut (content threshold {run.hmi.scenes.threshold:g}), stretches of one person found, and cut "
        f"into segments of {rules.min_s:g} to {rules.max_s:g} s. A segment was kept with exactly one person in more "
        f"than {rules.min_single_share:.0%} of its frames, a box above {rules.min_box_share:.3f} of the picture, at "
        f"least {rules.min_keypoints} of 17 key points above confidence {rules.min_confidence:g}, "
        f"{rules.min_face_points} of them on the face, and key points that move "
        f"{rules.min_displacement:g} box diagonals a second or more "
        f"(poses: {run.motion.pose.source}). Captions: a summary, then {run.general_model.model} with the key frames. "
        f"Questions: {run.writer.model}, from the captions alone (M-ACM, arXiv 2510.24767).",
        "",
        "| prompt | hash |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in prompts.items()),
        "",
        "## Figures",
        "```",
        report.text(),
        "```",
        "",
        f"`train.jsonl` holds all captions and {run.hmi.qa_share:.0%} of the questions.",
        "",
        "## Limits",
        f"True-or-false questions: {report.balance_note}.",
        "Captions and questions are written by models; questions are written from captions and share their faults. The "
        "videos have licences of their own, which this folder does not change.",
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _list(counts: Mapping[str, int], what: str) -> list[str]:
    return [f"            {count:,} {what}: {name}" for name, count in sorted(counts.items(), key=lambda one: -one[1])]


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items()) or "none"
