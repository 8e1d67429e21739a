"""A benchmark's captions (or answers) from a model: a folder, through vLLM workers on Ray, or a served endpoint.

    cases -> those without a row in texts.jsonl -> pool or server -> a row each, as they come

Drawn greedily, so that a stopped run goes on where it was. What made the rows is kept beside them: other weights,
another video sampling or another length are refused instead of mixed in.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from owlcap.config import RlRun
from owlcap.data.text_file import parse_json
from owlcap.errors import ConfigError, DataError
from owlcap.evaluation.benchmarks.files import json_lines
from owlcap.evaluation.benchmarks.values import Case
from owlcap.evaluation.captions import GroupSource, generation_requests
from owlcap.evaluation.report import ClipProblem
from owlcap.evaluation.saved import json_text
from owlcap.evaluation.served import ServedPolicy, is_address
from owlcap.inference.settings import DEFAULT_MAX_NEW_TOKENS
from owlcap.types import RolloutFailure, Sample, SamplingSettings

TEXTS_FILE, MADE_BY_FILE = "texts.jsonl", "made_by.json"
VIDEO_ENDINGS = (".mp4", ".MP4", ".mkv", ".webm", ".mov", ".avi")
ALLOWED = "rows that an earlier run wrote"


@dataclass(frozen=True, slots=True)
class TextSource:
    """What makes the texts.

    Attributes:
        model: a Hugging Face folder, or the address of an OpenAI-compatible server (http...).
        served_model: the model's name at the server; None takes the only one it lists.
        run: for its sections rollout, video and cluster; without one a single engine on this machine.
        max_new_tokens: the longest text; None takes the policy's own.
    """

    model: str
    videos: Path
    run: RlRun | None = None
    served_model: str | None = None
    max_new_tokens: int | None = None


def make_texts(
    source: TextSource, cases: Sequence[Case], folder: Path, progress: Callable[[int, int], None] | None = None
) -> tuple[dict[str, str], list[ClipProblem]]:
    """Texts by case id, and the cases that gave none; rows of an earlier run in `folder` are kept.

    Raises:
        ConfigError: the folder holds texts of something else, or there is no such model.
        ModelError, PlacementError, RolloutError: the model, its engines or its server failed.
    """
    _check_made_by(source, folder)
    path = folder / TEXTS_FILE
    texts = _kept(path, cases)
    problems: list[ClipProblem] = []
    samples: list[Sample] = []
    for case in (case for case in cases if case.id not in texts):
        video = find_video(source.videos, case.video)
        if video is None:
            problems.append(ClipProblem(case.id, f"no video {case.video} in {source.videos}"))
        else:
            samples.append(Sample(case.id, str(video), case.prompt, "", case.reference))
    if not samples:
        return texts, problems
    prompts = {case.id: case.prompt for case in cases}
    with path.open("a", encoding="utf-8") as file, _generator(source) as (generator, longest):
        sampling = SamplingSettings(temperature=0.0, max_new_tokens=longest)
        for result in generator.generate(generation_requests(samples, sampling)):
            id_ = result.sample.id
            if isinstance(result, RolloutFailure):
                problems.append(ClipProblem(id_, f"{result.error}: {result.reason}"))
                continue
            texts[id_] = result.completions[0].text.strip()
            file.write(json_text({"id": id_, "caption": texts[id_], "prompt": prompts[id_]}) + "\n")
            file.flush()
            if progress:
                progress(len(texts), len(cases))
    return texts, problems


def find_video(folder: Path, name: str) -> Path | None:
    """The file of this name, with or without one of the usual endings."""
    return next((path for ending in ("", *VIDEO_ENDINGS) if (path := folder / f"{name}{ending}").is_file()), None)


def _kept(path: Path, cases: Sequence[Case]) -> dict[str, str]:
    """Texts of an earlier run to the same questions; a line that was cut off at the end is removed."""
    if not path.exists() or not path.stat().st_size:
        return {}
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)
    prompts = {case.id: case.prompt for case in cases}
    rows = [row for _, row in json_lines(path, ALLOWED)] if whole else []
    try:
        return {row["id"]: row["caption"] for row in rows if prompts.get(row["id"]) == row["prompt"]}
    except (KeyError, TypeError) as error:
        raise DataError("the file holds other rows", where=str(path), allowed=ALLOWED) from error


def _check_made_by(source: TextSource, folder: Path) -> None:
    """Write what makes the texts, or compare it with what made those that are there."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / MADE_BY_FILE
    made_by = _made_by(source)
    if not path.exists():
        path.write_text(json.dumps(made_by, indent=1) + "\n", encoding="utf-8")
        return
    try:
        before = parse_json(path.read_text(encoding="utf-8"))
    except ValueError:
        before = {}
    odd = [name for name in made_by if before.get(name) != made_by[name]]
    if odd:
        raise ConfigError(
            f"the folder holds texts that were made otherwise: {', '.join(odd)} changed",
            where=str(path),
            cure="name another --out, or delete this folder",
        )


def _made_by(source: TextSource) -> dict[str, Any]:
    made_by: dict[str, Any] = {"model": source.model, "max_new_tokens": source.max_new_tokens}
    if is_address(source.model):
        return made_by | {"served_model": source.served_model}
    folder = Path(source.model)
    files = sorted(path for path in folder.glob("*") if path.suffix in (".safetensors", ".json"))
    made_by["model"] = str(folder.absolute())
    made_by["files"] = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]
    made_by["video"] = source.run.video.model_dump(mode="json") if source.run else None
    return made_by


@contextmanager
def _generator(source: TextSource) -> Iterator[tuple[GroupSource, int]]:
    """What captions, and the longest text that it makes."""
    if is_address(source.model):
        yield ServedPolicy(source.model, source.served_model), source.max_new_tokens or DEFAULT_MAX_NEW_TOKENS
        return
    from owlcap.evaluation.run import engine_and_cluster
    from owlcap.training.cluster import start_ray
    from rollout.pool import RolloutPool

    engine, cluster = engine_and_cluster(Path(source.model).absolute(), source.run)
    longest = engine.rollout.max_new_tokens
    with start_ray(cluster), RolloutPool(engine, cluster) as pool:
        yield pool, min(source.max_new_tokens or longest, longest)
