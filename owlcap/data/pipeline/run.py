"""Runs one step over many clips on Ray Data, from where an earlier run was ended."""

from __future__ import annotations

import json
import logging
import math
import os
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import ray

from owlcap.config_data import AskedModelSection, DataPipelineRun
from owlcap.data.pipeline.journal import Entry, Journal, JournalWriter, key_of
from owlcap.data.pipeline.reasons import group_reasons, reason_of
from owlcap.data.pipeline.serving import served
from owlcap.data.pipeline.step import Step, Tools
from owlcap.errors import DataError, JudgeError, OwlcapError
from owlcap.logging import actor_environment
from owlcap.training.cluster import start_ray
from rewards.chat import Usage
from rewards.limits import LocalLimiter
from rewards.service import SharedLimiter

Progress = Callable[[int, int], None]
Say = Callable[[str], None]
BuildStep = Callable[[Tools], Step]

ENOUGH_TO_JUDGE = 20  # clips, before too many failures end a run
CLIPS_A_BLOCK = 4  # times clips_at_once: few blocks, so that an actor seldom waits for the last clip of one


@dataclass(frozen=True, slots=True)
class StepRun:
    """What came of a step."""

    journal: Journal
    ids: tuple[str, ...]  # of all clips, in order
    num_resumed: int  # had a record from an earlier run
    spent: Usage  # by this run
    spent_in_all: Usage  # by every run that wrote into the folder

    @property
    def num_done(self) -> int:
        """Clips with a record."""
        return sum(name in self.journal for name in self.ids)

    @property
    def failures(self) -> dict[str, str]:
        """Reasons by clip."""
        return {name: self.journal.failures.get(name, "not tried") for name in self.ids if name not in self.journal}


class StepActor:
    """The callable that Ray Data gives rows: `clips_at_once` of them at a time, in one event loop."""

    def __init__(
        self,
        build: BuildStep,
        run: DataPipelineRun,
        models: Mapping[str, AskedModelSection],
        limiter: Any,
        folder: str,
    ) -> None:
        self._tools = Tools(run, models, SharedLimiter(limiter) if limiter is not None else None)
        self._journal = JournalWriter(Path(folder))
        self._name = uuid4().hex
        self._step: Step | OwlcapError
        try:
            self._step = build(self._tools)
        except OwlcapError as error:  # told with the first row: an actor that cannot start would be a wall of text
            self._step = error

    async def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Do one clip, keep its record, and tell how it went."""
        item = json.loads(row["item"])
        told = {"id": item["id"], "failure": "", "actor": self._name, "fatal": b""}
        try:
            if isinstance(self._step, OwlcapError):
                raise self._step
            entry = Entry(item["id"], await self._step.do(item))
            self._journal.write(entry, row["key"])
        except (JudgeError, DataError) as error:
            told["failure"] = reason_of(error, str(item.get("video")))
            self._journal.write(Entry(item["id"], None, told["failure"]), row["key"])
        except OwlcapError as error:
            told["fatal"] = pickle.dumps(error)
        return {**told, "spent": json.dumps(asdict(self._tools.usage))}


def run_step(
    name: str,
    build: BuildStep,
    items: Sequence[Mapping[str, Any]],
    run: DataPipelineRun,
    model_names: Sequence[str],
    out: Path,
    key: str,
    progress: Progress | None = None,
) -> StepRun:
    """Do a step for every item that has no record in OUT/records/NAME made of the same item under the same `key`.

    Args:
        build: makes the step in each actor; must pickle.
        items: with an `id` each; JSON values.
        model_names: attributes of `run` that the step asks.
        progress: called with (clips done, clips in all).

    Raises:
        DataError: more than max_failed_share of the clips failed; what is done is kept.
        JudgeError: a model's server is not there.
        ModelError: a model that is to be served here cannot be.
    """
    folder = out / "records" / name
    ids = tuple(str(item["id"]) for item in items)
    keys = _keys(items, key)
    before = Journal(folder, keys)
    todo = [{"item": json.dumps(item), "key": keys[item["id"]]} for item in items if item["id"] not in before]
    num_resumed = len(items) - len(todo)
    latest: dict[str, Usage] = {}  # by actor
    if todo:
        models: dict[str, AskedModelSection] = {one: getattr(run, one) for one in model_names}
        with served(models, out / "logs") as ready, start_ray(run.cluster):
            _check_servers(run, ready)
            counts = (num_resumed, len(items))
            try:
                _consume(_results(build, todo, run, ready, folder), latest, run, folder, counts, progress)
            finally:
                spent_in_all = _add_up(folder, sum(latest.values(), Usage()))
    else:
        spent_in_all = _add_up(folder, Usage())
    return StepRun(Journal(folder, keys), ids, num_resumed, sum(latest.values(), Usage()), spent_in_all)


def recorded(name: str, items: Sequence[Mapping[str, Any]], out: Path, key: str) -> Journal:
    """What `run_step` would find done."""
    return Journal(out / "records" / name, _keys(items, key))


def pending(name: str, items: Sequence[Mapping[str, Any]], out: Path, key: str) -> list[Mapping[str, Any]]:
    """Items that `run_step` would do."""
    done = recorded(name, items, out, key)
    return [item for item in items if item["id"] not in done]


def _keys(items: Sequence[Mapping[str, Any]], key: str) -> dict[str, str]:
    return {str(item["id"]): key_of(key=key, item=item) for item in items}


def ray_for(run: DataPipelineRun) -> AbstractContextManager[None]:
    """Ray for several steps, so that it starts once."""
    return start_ray(run.cluster)


def _check_servers(run: DataPipelineRun, models: Mapping[str, AskedModelSection]) -> None:
    import asyncio

    async def check() -> None:
        tools = Tools(run, models)
        try:
            for name in models:
                await tools.model(name).check()
        finally:
            await tools.close()

    asyncio.run(check())


def _results(
    build: BuildStep,
    todo: Sequence[Mapping[str, str]],
    run: DataPipelineRun,
    models: Mapping[str, AskedModelSection],
    folder: Path,
) -> Iterator[dict[str, Any]]:
    """What the actors tell of each item, by Ray Data."""
    import ray.data

    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    share = {  # a model's concurrency is a limit for all actors together
        name: model.model_copy(update={"concurrency": max(1, model.concurrency // run.num_actors)})
        for name, model in models.items()
    }
    blocks = max(run.num_actors, math.ceil(len(todo) / (run.clips_at_once * CLIPS_A_BLOCK)))
    root = str(Path(__file__).resolve().parents[3])
    environment = {
        **actor_environment(),
        "RAY_DATA_DEFAULT_ASYNC_ROW_UDF_MAX_CONCURRENCY": str(run.clips_at_once),
        "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH")))),
    }
    rows = ray.data.from_items(list(todo), override_num_blocks=min(blocks, len(todo)))
    told = rows.map(
        StepActor,  # type: ignore[arg-type]
        fn_constructor_args=(build, run, share, _limiter(models), str(folder.absolute())),
        concurrency=run.num_actors,
        num_cpus=run.cpus_per_actor,
        num_gpus=run.gpus_per_actor,
        runtime_env={"env_vars": environment},
    )
    yield from told.iter_rows()


def _consume(
    results: Iterator[dict[str, Any]],
    latest: dict[str, Usage],
    run: DataPipelineRun,
    folder: Path,
    counts: tuple[int, int],
    progress: Progress | None,
) -> None:
    """Count results, and keep in `latest` what each actor spent.

    Args:
        counts: clips that were done before, and clips in all.
    """
    done, num_all = counts
    failures: list[tuple[str, str]] = []  # clip and reason
    for row in results:
        done += 1
        if row["fatal"]:
            raise pickle.loads(row["fatal"])
        spent = Usage(**json.loads(row["spent"]))
        if sum(asdict(spent).values()) >= sum(asdict(latest.get(row["actor"], Usage())).values()):
            latest[row["actor"]] = spent
        if row["failure"]:
            failures.append((row["id"], row["failure"]))
        if progress is not None:
            progress(done, num_all)
        _stop_if_hopeless(failures, done, num_all, run, folder)


def _stop_if_hopeless(
    failures: Sequence[tuple[str, str]], done: int, num_all: int, run: DataPipelineRun, folder: Path
) -> None:
    if done < min(ENOUGH_TO_JUDGE, num_all) or len(failures) <= run.max_failed_share * done:
        return
    most = group_reasons(failures)[0]
    raise DataError(
        f"{len(failures)} of {done} clips failed, most of them so: {most.text()}",
        where=str(folder),
        allowed=f"at most {run.max_failed_share:.0%} (max_failed_share)",
        cure="mend it and run the command again: clips that are done are not done again",
    )


def _limiter(models: Mapping[str, AskedModelSection]) -> Any | None:
    """The actor that holds the rates of all models; None where none has one."""
    if not any(model.requests_per_minute or model.tokens_per_minute for model in models.values()):
        return None
    return ray.remote(LocalLimiter).options(num_cpus=0, max_restarts=-1, max_task_retries=-1).remote(models)


def _add_up(folder: Path, spent: Usage) -> Usage:
    """What all runs spent; this one's is added to the file."""
    path = folder / "spent.json"
    before = Usage(**json.loads(path.read_text())) if path.is_file() else Usage()
    if spent != Usage():
        path.write_text(json.dumps(asdict(before + spent), indent=1))
    return before + spent
