"""`owlcap eval captions`: figures of a model, or of captions in a file, on a data set."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from owlcap.config import ClusterSection, RewardsSection, RlRun
from owlcap.errors import ConfigError, DataError
from owlcap.evaluation.benchmarks.files import json_lines
from owlcap.evaluation.report import CaptionReport, load_report, save_report
from owlcap.evaluation.saved import Contents, text_id
from owlcap.evaluation.served import ServedPolicy, is_address
from owlcap.types import Sample, SamplingSettings

if TYPE_CHECKING:
    from rewards.suite import RewardSuite
    from rollout.settings import RolloutEngineSettings

CAPTION_ROWS = '{"id": "clip-1", "caption": "..."} on each line'
NUM_SEQUENCES = 64  # generated at a time by the one engine of an evaluation without a config


def run_eval_captions(
    source: str | Path,
    data: str | Path,
    *,
    num_clips: int | None = None,
    sampled: bool = False,
    num_completions: int = 1,
    msd: Literal["transformers", "vllm"] | None = None,
    served_model: str | None = None,
    config: RlRun | None = None,
    out: Path | None = None,
    against: Path | None = None,
    show: Callable[[str], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CaptionReport:
    """Caption the clips of `data` with a model, or take captions from a file, and score them.

    Args:
        source: a Hugging Face model folder, a JSONL file of {"id": ..., "caption": ...} rows, or a server's address.
        data: JSONL in the messages + videos form; of its clips only the first `num_clips`.
        sampled: draw at temperature 1 instead of greedily; `num_completions` a clip are averaged.
        msd: what decodes by Motion Synergetic Decoding, with the options of motion.decoding; None: plain decoding.
        served_model: the model's name at the server; None takes the only one.
        config: takes its sections cluster, rollout, motion, rewards, video, data.prompt and data.reference; without
            one: this machine's CPUs, the video settings kept beside the model, the lexical judge.
        out: the report is also written here as JSON.
        against: an earlier report (JSON), shown beside this one with the paired difference.
        show: takes the finished table as text.
        progress: called with (clips captioned, clips in all) as a model works.

    Raises:
        ConfigError: settings that contradict each other, or no such source.
        DataError: data or captions that cannot be used, or do not belong together.
        ModelError, PlacementError, RolloutError, RewardError: the model, its engines or the rewards failed.
        JudgeError: a judge's server is not there, before any caption is made.
    """
    from owlcap.evaluation.table import render_table

    _check(num_clips, sampled, num_completions)
    if msd and not Path(source).is_dir():
        raise ConfigError("only a model folder is decoded here", where=str(source), cure="leave out --msd")
    _check_source(source)
    before = load_report(against) if against else None
    samples, sampling = _read_samples(data, config), _sampling(sampled, num_completions, config)
    if is_address(source):
        report = _evaluate_server(str(source), served_model, samples[:num_clips], sampling, config, progress)
    elif Path(source).is_file():
        report = _evaluate_file(Path(source), samples, num_clips, config)
    else:
        evaluate = partial(_evaluate_pairs, decoder=msd) if msd else _evaluate_model
        report = evaluate(Path(source), samples[:num_clips], sampling, config, progress)
    if out:
        save_report(report, out)
    if show:
        show(render_table(before, report) if before else render_table(report))
    return report


def plan_eval_captions(
    source: str | Path,
    data: str | Path,
    num_clips: int | None = None,
    sampled: bool = False,
    num_completions: int = 1,
    *,
    config: RlRun | None = None,
) -> str:
    """What `run_eval_captions` would ask of judges at most, in words; a model's captions are taken to be as long as
    the references. No model and no judge is asked.

    Raises:
        ConfigError, DataError: as `run_eval_captions`.
    """
    from owlcap.evaluation.captions import check_known_ids
    from owlcap.evaluation.rescoring import plan_line
    from rewards.catalogue import judge_calls

    _check(num_clips, sampled, num_completions)
    _check_source(source)
    samples = _read_samples(data, config)
    chosen = samples[:num_clips]
    if Path(source).is_file():
        captions = read_captions(source)
        check_known_ids(captions, samples)
        chosen, num_completions = [sample for sample in chosen if sample.id in captions], 1
        lengths = [len(captions[sample.id]) + len(sample.reference) for sample in chosen]
    else:
        lengths = [2 * len(sample.reference) for sample in chosen] * num_completions
    contents = Contents(len(chosen), len(lengths), sum(lengths), ())
    rewards = config.rewards if config else RewardsSection()
    return plan_line(contents, judge_calls(rewards, len(lengths), len(chosen)))


def _check_source(source: str | Path) -> None:
    """A file, a model folder or an address, before anything else is read."""
    if Path(source).is_dir():
        from owlcap.models.load import check_folder

        check_folder(Path(source))
    elif not (Path(source).is_file() or is_address(source)):
        raise ConfigError(
            "there is no such file or folder",
            where=str(source),
            allowed="a Hugging Face model folder, a .jsonl file of {id, caption} rows, a server's address (http...)",
            cure="correct the path",
        )


def _check(num_clips: int | None, sampled: bool, num_completions: int) -> None:
    """Counts that make sense, before anything is read or started."""
    if num_clips is not None and num_clips < 1:
        raise ConfigError(f"the number of clips is {num_clips}", allowed="1 or more")
    if num_completions < 1:
        raise ConfigError(f"the number of captions a clip is {num_completions}", allowed="1 or more")
    if num_completions > 1 and not sampled:
        raise ConfigError(
            f"{num_completions} greedy captions of a clip would all be the same", cure="add --sampled, or ask for one"
        )


def _sampling(sampled: bool, num_completions: int, config: RlRun | None) -> SamplingSettings:
    """Greedy, or at temperature 1 from the run's seed. The engine's settings limit the length."""
    if not sampled:
        return SamplingSettings(temperature=0.0)
    return SamplingSettings(num_completions=num_completions, seed=config.seed if config else 0)


def _read_samples(data: str | Path, config: RlRun | None) -> list[Sample]:
    """All clips of the data, under the config's prompt and reference where there is a config."""
    from owlcap.data.rows import read_rows

    section = config.data.model_copy(update={"train": str(data)}) if config else None
    samples = read_rows(data, section)
    if not samples:
        raise DataError("the data holds no clip", where=str(data))
    return samples


def _evaluate_file(source: Path, samples: list[Sample], num_clips: int | None, config: RlRun | None) -> CaptionReport:
    """Score the captions of a file for the first `num_clips` clips; every id must be one of the data's."""
    from owlcap.evaluation.captions import check_known_ids, evaluate_captions
    from rewards.suite import make_suite

    captions = read_captions(source)
    check_known_ids(captions, samples)
    chosen = samples[:num_clips]
    wanted = {sample.id for sample in chosen}
    given = {id_: caption for id_, caption in captions.items() if id_ in wanted}
    suite = make_suite(config.rewards if config else RewardsSection())
    return evaluate_captions(given, chosen, suite, name=source.stem)


def _evaluate_model(
    folder: Path,
    samples: list[Sample],
    sampling: SamplingSettings,
    config: RlRun | None,
    progress: Callable[[int, int], None] | None,
) -> CaptionReport:
    """Caption the clips with rollout workers on Ray, scored by reward workers as they finish."""
    from owlcap.evaluation.captions import evaluate_with_pool
    from owlcap.training.cluster import start_ray
    from rewards.service import RewardPool
    from rollout.pool import RolloutPool

    engine, cluster = engine_and_cluster(folder.absolute(), config)
    sampling = replace(sampling, max_new_tokens=engine.rollout.max_new_tokens)
    name = f"{folder.name} {'greedy' if sampling.temperature == 0 else 'sampled'}"
    with start_ray(cluster):
        rewards = RewardPool(config.rewards if config else RewardsSection(), cluster)
        try:
            rewards.check()
            with RolloutPool(engine, cluster) as pool:
                return evaluate_with_pool(pool, rewards, samples, sampling, name=name, progress=progress)
        finally:
            rewards.close()


def _evaluate_server(
    address: str,
    served_model: str | None,
    samples: list[Sample],
    sampling: SamplingSettings,
    config: RlRun | None,
    progress: Callable[[int, int], None] | None,
) -> CaptionReport:
    """Caption the clips by a served policy, scored in this process as they finish."""
    from owlcap.evaluation.captions import evaluate_with_pool

    if config:
        sampling = replace(sampling, max_new_tokens=config.rollout.max_new_tokens)
    policy = ServedPolicy(address, served_model)
    suite = _checked_suite(config)
    return evaluate_with_pool(policy, suite, samples, sampling, name=policy.model, progress=progress)


def _evaluate_pairs(
    folder: Path,
    samples: list[Sample],
    sampling: SamplingSettings,
    config: RlRun | None,
    progress: Callable[[int, int], None] | None,
    *,
    decoder: Literal["transformers", "vllm"],
) -> CaptionReport:
    """Caption the clips with MSD on this machine, scored in this process as they finish."""
    from owlcap.evaluation.captions import evaluate_with_pool
    from owlcap.inference.caption_pairs import PairSource
    from owlcap.inference.synergy import check_pair_sampling, check_synergy

    check_synergy(folder)
    check_pair_sampling(sampling)
    engine, _ = engine_and_cluster(folder.absolute(), config)
    engine = replace(engine, motion=engine.motion.model_copy(update={"enabled": True}))
    sampling = replace(sampling, max_new_tokens=engine.rollout.max_new_tokens)
    suite = _checked_suite(config)
    return evaluate_with_pool(
        PairSource(engine, decoder), suite, samples, sampling, name=f"{folder.name} msd", progress=progress
    )


def _checked_suite(config: RlRun | None) -> RewardSuite:
    """The rewards; their judges' servers are there. Raises JudgeError."""
    from rewards.suite import make_suite

    suite = make_suite(config.rewards if config else RewardsSection())

    async def check() -> None:
        try:
            await suite.check()
        finally:
            await suite.close()  # scoring opens it again, in another event loop

    asyncio.run(check())
    return suite


def engine_and_cluster(folder: Path, config: RlRun | None) -> tuple[RolloutEngineSettings, ClusterSection]:
    """The config's engines and cluster around the model folder; without one, a single engine on this machine."""
    from owlcap.inference.engine import engine_settings
    from owlcap.inference.settings import PolicySettings, find_settings
    from rollout.settings import RolloutEngineSettings

    if config:
        return replace(RolloutEngineSettings.from_run(config), model=str(folder)), config.cluster
    settings = engine_settings(folder, find_settings(folder) or PolicySettings(), num_sequences=NUM_SEQUENCES)
    return settings, ClusterSection(gpus_per_rollout=0 if settings.device == "cpu" else 1)


def read_captions(path: str | Path) -> Mapping[str, str]:
    """Captions by id from a JSONL file of {"id": ..., "caption": ...} rows; an id that is a number is taken as text.

    Raises DataError naming file and line for a broken row and for an id that occurs twice.
    """
    captions: dict[str, str] = {}
    for where, row in json_lines(Path(path), CAPTION_ROWS):
        id_, caption = text_id(row.get("id")), row.get("caption")
        if id_ is None or not isinstance(caption, str):
            raise DataError("a row needs an id and a caption", where=where, allowed=CAPTION_ROWS)
        if id_ in captions:
            raise DataError(f"the id {id_!r} occurs twice", where=where, cure="keep one caption a clip")
        captions[id_] = caption
    return captions
