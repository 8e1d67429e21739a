"""The benchmarks by name: how their annotations are read, how they judge, and how values become figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from owlcap.errors import ConfigError, DataError
from owlcap.evaluation.benchmarks import dream1k, hmi_captions, hmi_qa, vdc
from owlcap.evaluation.benchmarks.coco import check_installed
from owlcap.evaluation.benchmarks.statistics import mean
from owlcap.evaluation.benchmarks.text_metrics import text_figures
from owlcap.evaluation.benchmarks.values import Benchmark, Case, Columns, Compute, ItemScore

CAPTIONS = "captions"  # the metrics of `owlcap eval captions`, which asks no judge here


@dataclass(frozen=True, slots=True)
class Kind:
    """How values of one benchmark become figures. `official` equals `figures` where there is no published script.

    `official_counts` says by an item's values whether the published script takes it into its means.
    `splits` groups items in further ways; of those the figures of each group are shown, and none over all.
    """

    figures: Compute
    official: Compute
    official_counts: Callable[[Mapping[str, float]], bool] = lambda values: True
    splits: Callable[[Sequence[ItemScore]], list[list[ItemScore]]] = lambda scores: []


def caption_figures(table: Columns) -> dict[str, float | None]:
    """Caption metrics, or where the items have none the means of all values."""
    found = text_figures(table)
    return found or {name: mean(values) for part in table.values() for name, values in part.items()}


KINDS: dict[str, Kind] = {
    dream1k.NAME: Kind(dream1k.figures, dream1k.official_figures, splits=dream1k.splits),
    vdc.NAME: Kind(vdc.figures, vdc.official_figures, vdc.official_counts),
    hmi_captions.NAME: Kind(hmi_captions.figures, hmi_captions.figures),
    hmi_qa.NAME: Kind(hmi_qa.figures, hmi_qa.figures),
    CAPTIONS: Kind(caption_figures, caption_figures),
}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A benchmark with its cases, and notes on the annotations."""

    benchmark: Benchmark[Any]
    cases: Sequence[Case]
    notes: tuple[str, ...] = ()


def load_dream1k(annotations: Sequence[Path], prompts: str | None) -> Loaded:
    """DREAM-1K from its annotation file."""
    benchmark = dream1k.Dream1k(prompts)
    cases = dream1k.read_cases(_one(annotations))
    absent = [f"absent: the subset {name}" for name in dream1k.SUBSETS if name not in {case.group for case in cases}]
    return Loaded(benchmark, cases, tuple(absent))


def load_vdc(annotations: Sequence[Path], prompts: str | None) -> Loaded:
    """VDC from its five files, or some of them, or their folder."""
    cases, notes = vdc.read_cases(vdc.annotation_files(annotations))
    return Loaded(vdc.Vdc(prompts), cases, tuple(notes))


def load_hmi(annotations: Sequence[Path], prompts: str | None) -> Loaded:
    """HMI-Bench from its captions file or its questions file: what is in it says which."""
    path = _one(annotations)
    try:
        cases, notes = hmi_qa.read_cases(path)
        return Loaded(hmi_qa.HmiQa(prompts), cases, tuple(notes))
    except DataError as not_questions:
        if "no annotation of" not in not_questions.what:
            raise
    cases = hmi_captions.read_cases(path)
    check_installed()  # for the caption metrics, which come after all judging
    return Loaded(hmi_captions.HmiCaptions(prompts), cases)


LOADERS: dict[str, Callable[[Sequence[Path], str | None], Loaded]] = {
    "dream1k": load_dream1k,
    "vdc": load_vdc,
    "hmi-bench": load_hmi,
}


def _one(annotations: Sequence[Path]) -> Path:
    if len(annotations) != 1:
        raise ConfigError(f"{len(annotations)} annotation files are given", allowed="one")
    return annotations[0]
