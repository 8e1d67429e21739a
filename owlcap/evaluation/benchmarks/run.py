"""`owlcap eval dream1k | vdc | hmi-bench`: texts from a file or a model, judged, as figures, JSON and one HTML page.

annotations -> cases --+-> texts of a file, or made now (generating) -> judge -> figures with standard errors
                       +-> without a text: named, counted, and the result is labelled incomplete
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from owlcap.config import RewardsSection, RlRun
from owlcap.errors import ConfigError
from owlcap.evaluation.benchmarks.catalogue import CAPTIONS, KINDS, LOADERS, Kind, Loaded
from owlcap.evaluation.benchmarks.generating import TextSource, make_texts
from owlcap.evaluation.benchmarks.judging import check_judge, cost_line, judge_texts, missing_ids, total_cost
from owlcap.evaluation.benchmarks.saving import RESULT_FILE, save_result
from owlcap.evaluation.benchmarks.statistics import NUM_RESAMPLES, with_errors
from owlcap.evaluation.benchmarks.text_metrics import add_text_values
from owlcap.evaluation.benchmarks.texts import read_texts
from owlcap.evaluation.benchmarks.values import BenchmarkResult, Case, Compute, Interval, ItemScore
from owlcap.evaluation.report import CaptionReport, ClipProblem
from owlcap.evaluation.served import is_address
from owlcap.models.load import check_folder
from rewards.chat import Usage

PAGE_FILE = "index.html"
DREAM_MAX_NEW_TOKENS = 512  # of the published inference setting

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class EvaluationPlan:
    """One evaluation.

    Attributes:
        benchmark: dream1k, vdc or hmi-bench.
        source: a .jsonl of texts, a model folder, or the address of a server.
        rewards: the judge, its limits and its cache are those of rewards.
        official: the headline figures are those of the published script.
        num_cases: only so many, taken evenly; the result is then labelled incomplete.
        out: the folder for texts, result and page; None writes nothing, and is not allowed for a model.
    """

    benchmark: str
    source: str
    annotations: tuple[Path, ...]
    rewards: RewardsSection
    run: RlRun | None = None
    videos: Path | None = None
    official: bool = False
    num_cases: int | None = None
    max_new_tokens: int | None = None
    served_model: str | None = None
    out: Path | None = None
    num_resamples: int = NUM_RESAMPLES

    @property
    def has_texts(self) -> bool:
        """Whether the source is a file of texts."""
        return Path(self.source).is_file()


def run_benchmark(
    plan: EvaluationPlan,
    *,
    dry_run: bool = False,
    say: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> BenchmarkResult | None:
    """Evaluate; None after a dry run, which stops before any model or judge is asked.

    Args:
        say: gets the cost, before anything is judged.
        progress: called with (done, all), first of the texts that a model makes, then of those judged.

    Raises:
        ConfigError, DataError: settings or files that cannot be used.
        JudgeError: the judge's server is not there.
        ModelError, PlacementError, RolloutError: the model that makes the texts failed.
    """
    tell = say or (lambda _: None)
    whole = LOADERS[plan.benchmark](plan.annotations, plan.rewards.prompts)
    loaded = _chosen(whole, plan.num_cases)
    if plan.has_texts:
        texts, unmade = read_texts(Path(plan.source), whole.cases), []
    else:
        texts, unmade = _made_texts(plan, loaded.cases, dry_run, tell, progress)
    if texts is None:
        return None
    missing = missing_ids(loaded.cases, texts)
    cost = total_cost(loaded.benchmark, loaded.cases, texts)
    tell(cost_line(cost, len(loaded.cases) - len(missing), plan.rewards.judge))
    if dry_run:
        return None
    scores, failed, usage = judge_texts(loaded.benchmark, loaded.cases, texts, plan.rewards, progress)
    finished, notes = loaded.benchmark.finish(scores)
    told = tuple(f"no text for {problem.id}: {problem.reason}" for problem in unmade[:3])
    result = make_result(
        loaded.benchmark.name,
        Path(plan.source).stem if plan.has_texts else plan.source.rstrip("/").rpartition("/")[2],
        finished,
        headline="official" if plan.official else "ours",
        judge=plan.rewards.judge.model,
        num_cases=len(loaded.cases),
        missing=missing,
        failed=failed,
        notes=(*loaded.notes, *notes, *told),
        usage=usage,
        num_resamples=plan.num_resamples,
    )
    if plan.out:
        write_result(result, plan.out)
    return result


def make_result(
    benchmark: str,
    name: str,
    scores: Sequence[ItemScore],
    *,
    headline: str = "ours",
    judge: str = "",
    num_cases: int | None = None,
    missing: Sequence[str] = (),
    failed: Sequence[ClipProblem] = (),
    notes: Sequence[str] = (),
    usage: Usage | None = None,
    num_resamples: int = NUM_RESAMPLES,
) -> BenchmarkResult:
    """A result from scored items: both kinds of figures, with standard errors."""
    kind = KINDS[benchmark]
    figures = _all_figures(scores, kind, kind.figures, num_resamples)
    return BenchmarkResult(
        benchmark=benchmark,
        name=name,
        headline=headline,
        judge=judge,
        num_cases=len(scores) if num_cases is None else num_cases,
        figures=figures,
        official=figures
        if kind.official is kind.figures
        else _all_figures(scores, kind, kind.official, num_resamples, kind.official_counts),
        scores=tuple(scores),
        missing=tuple(missing),
        failed=tuple(failed),
        notes=tuple(notes),
        usage=usage or Usage(),
    )


def _all_figures(
    scores: Sequence[ItemScore],
    kind: Kind,
    compute: Compute,
    num_resamples: int,
    counts: Callable[[Mapping[str, float]], bool] = lambda values: True,
) -> dict[str, Interval]:
    """Over all items and by their groups, then by the groups of each split."""
    found = with_errors(scores, compute, num_resamples, counts)
    for split in kind.splits(scores):
        of_groups = with_errors(split, compute, num_resamples, counts)
        found |= {name: figure for name, figure in of_groups.items() if "/" in name}
    return found


def text_metrics_of(report: CaptionReport, num_resamples: int = NUM_RESAMPLES) -> BenchmarkResult:
    """Caption metrics of the first caption of every clip of a report.

    Raises:
        ConfigError: the extra `eval` is not installed.
        DataError: one of its programs failed.
    """
    plain = [ItemScore(row.id, CAPTIONS, {}, row.caption, row.reference) for row in report.rows]
    scores, notes = add_text_values(plain)
    missing = [problem.id for problem in report.failed]
    return make_result(
        CAPTIONS,
        report.name,
        scores,
        num_cases=report.num_clips,
        missing=missing,
        failed=report.unscored,
        notes=notes,
        num_resamples=num_resamples,
    )


def write_result(result: BenchmarkResult, folder: Path) -> None:
    """Write the result as JSON and as one HTML page."""
    from owlcap.evaluation.benchmarks.page import result_page
    from owlcap.evaluation.pages import write_page

    save_result(result, folder / RESULT_FILE)
    write_page(result_page(result), folder / PAGE_FILE)


def _chosen(loaded: Loaded, num_cases: int | None) -> Loaded:
    """So many cases, taken evenly over the annotations."""
    count = len(loaded.cases)
    if num_cases is None or num_cases >= count:
        return loaded
    if num_cases < 1:
        raise ConfigError(f"the number of items is {num_cases}", allowed="1 or more")
    cases = [loaded.cases[place * count // num_cases] for place in range(num_cases)]
    return replace(
        loaded, cases=cases, notes=(*loaded.notes, f"absent: {count - num_cases} items that were not asked for")
    )


def _made_texts(
    plan: EvaluationPlan, cases: Sequence[Case], dry_run: bool, tell: Callable[[str], None], progress: Progress | None
) -> tuple[Mapping[str, str] | None, list[ClipProblem]]:
    """Texts that a model makes, by case, None in a dry run; and the cases that gave none."""
    if not is_address(plan.source) and not Path(plan.source).is_dir():
        raise ConfigError(
            "there is no such file or folder",
            where=plan.source,
            allowed="a .jsonl file of texts, a model folder, or the address of a server (http...)",
            cure="correct the path",
        )
    if Path(plan.source).is_dir():
        check_folder(Path(plan.source))
    if plan.videos is None:
        raise ConfigError("a model needs the benchmark's videos", where=plan.source, cure="add --videos FOLDER")
    if not plan.videos.is_dir():
        raise ConfigError("there is no such folder of videos", where=str(plan.videos), cure="correct --videos")
    if plan.out is None:
        raise ConfigError("a model's texts need a folder that keeps them", cure="add --out FOLDER")
    length = plan.max_new_tokens or (DREAM_MAX_NEW_TOKENS if plan.benchmark == "dream1k" else None)
    source = TextSource(plan.source, plan.videos, plan.run, plan.served_model, length)
    if dry_run:
        tell(f"{len(cases)} texts would be made by {plan.source}, then judged")
        return None, []
    check_judge(plan.rewards)  # before a model works for hours
    return make_texts(source, cases, plan.out, progress)
