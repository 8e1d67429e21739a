"""A benchmark's captions (or answers) from a model: a folder, through vLLM workers on Ray, or a served endpoint.

    cases -> those without a row in texts.jsonl -> pool or server -> a row each, as they come

Drawn greedily, so that a stopped run goes on where it was. What made the rows is kept beside them: other weights,
another video sampling or another length are refused instead of mixed in.
"""

from __future__ import annotations

import asyncio
import base64
import json
import mimetypes
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from owlcap.config import RlRun
from owlcap.errors import ConfigError, DataError, RolloutError
from owlcap.evaluation.benchmarks.files import json_lines
from owlcap.evaluation.benchmarks.values import Case
from owlcap.evaluation.report import ClipProblem
from owlcap.evaluation.saved import json_text
from owlcap.types import RolloutFailure, Sample, SamplingSettings

TEXTS_FILE, MADE_BY_FILE = "texts.jsonl", "made_by.json"
VIDEO_ENDINGS = (".mp4", ".MP4", ".mkv", ".webm", ".mov", ".avi")
SERVER_CONCURRENCY = 8  # requests in flight; each carries a video
SERVER_DEADLINE_S = 600.0  # of one request
KEY_VARIABLE = "OWLCAP_SERVER_API_KEY"
ALLOWED = "rows that an earlier run wrote"

Keep = Callable[[str, str], None]


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

    @property
    def is_server(self) -> bool:
        """Whether it is an address."""
        return self.model.startswith(("http://", "https://"))


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
    with path.open("a", encoding="utf-8") as file:
        prompts = {case.id: case.prompt for case in cases}

        def keep(id_: str, text: str) -> None:
            texts[id_] = text
            file.write(json_text({"id": id_, "caption": text, "prompt": prompts[id_]}) + "\n")
            file.flush()
            if progress:
                progress(len(texts), len(cases))

        if samples:
            problems += (_ask_server if source.is_server else _ask_pool)(source, samples, keep)
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
        before = json.loads(path.read_text(encoding="utf-8"))
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
    if source.is_server:
        return made_by | {"served_model": source.served_model}
    folder = Path(source.model)
    files = sorted(path for path in folder.glob("*") if path.suffix in (".safetensors", ".json"))
    made_by["model"] = str(folder.absolute())
    made_by["files"] = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]
    made_by["video"] = source.run.video.model_dump(mode="json") if source.run else None
    return made_by


def _ask_pool(source: TextSource, samples: Sequence[Sample], keep: Keep) -> list[ClipProblem]:
    from owlcap.evaluation.captions import generation_requests
    from owlcap.evaluation.run import engine_and_cluster
    from owlcap.training.cluster import start_ray
    from rollout.pool import RolloutPool

    engine, cluster = engine_and_cluster(Path(source.model).absolute(), source.run)
    length = min(source.max_new_tokens or engine.rollout.max_new_tokens, engine.rollout.max_new_tokens)
    sampling = SamplingSettings(temperature=0.0, max_new_tokens=length)
    problems: list[ClipProblem] = []
    with start_ray(cluster), RolloutPool(engine, cluster) as pool:
        for result in pool.generate(generation_requests(samples, sampling)):
            if isinstance(result, RolloutFailure):
                problems.append(ClipProblem(result.sample.id, f"{result.error}: {result.reason}"))
            else:
                keep(result.sample.id, result.completions[0].text.strip())
    return problems


def _ask_server(source: TextSource, samples: Sequence[Sample], keep: Keep) -> list[ClipProblem]:
    return asyncio.run(_ask_all(source, samples, keep))


async def _ask_all(source: TextSource, samples: Sequence[Sample], keep: Keep) -> list[ClipProblem]:
    import openai

    client = openai.AsyncOpenAI(
        base_url=source.model, api_key=os.environ.get(KEY_VARIABLE) or "none", timeout=SERVER_DEADLINE_S, max_retries=3
    )
    slots = asyncio.Semaphore(SERVER_CONCURRENCY)
    problems: list[ClipProblem] = []

    async def one(sample: Sample) -> None:
        async with slots:
            try:
                keep(sample.id, await _ask_one(client, source, name, sample))
            except (openai.OpenAIError, OSError) as error:
                problems.append(ClipProblem(sample.id, f"{type(error).__name__}: {str(error)[:200]}"))

    with _server_errors(source):
        name = source.served_model or await _only_model(client, source)
    async with client:
        await asyncio.gather(*(one(sample) for sample in samples))
    return problems


async def _ask_one(client: Any, source: TextSource, name: str, sample: Sample) -> str:
    from owlcap.export.serve import chat_request
    from owlcap.inference.settings import PolicySettings

    kind = mimetypes.guess_type(sample.video)[0] or "video/mp4"
    content = await asyncio.to_thread(Path(sample.video).read_bytes)
    url = f"data:{kind};base64,{base64.b64encode(content).decode()}"
    settings = PolicySettings(prompt=sample.prompt)
    if source.max_new_tokens:
        settings = replace(settings, max_new_tokens=source.max_new_tokens)
    completion = await client.chat.completions.create(**chat_request(settings, name, url))
    return (completion.choices[0].message.content or "").strip()


async def _only_model(client: Any, source: TextSource) -> str:
    models = [model.id for model in (await client.models.list()).data]
    if len(models) != 1:
        raise ConfigError(
            f"the server has {len(models)} models",
            where=source.model,
            allowed=", ".join(models),
            cure="add --served-model",
        )
    return models[0]


@contextmanager
def _server_errors(source: TextSource) -> Iterator[None]:
    import openai

    try:
        yield
    except openai.OpenAIError as error:
        raise RolloutError(f"the server does not answer: {error}", where=source.model) from error
