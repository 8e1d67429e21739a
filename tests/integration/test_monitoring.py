"""What a running job shows: a scrape of Ray's metrics over HTTP, the actors' logs, TensorBoard, W&B."""

from __future__ import annotations

import json
import re
import threading
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import ray
import wandb
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from owlcap.config import ClusterSection, RewardsSection, RlRun
from owlcap.metrics import read_metrics
from owlcap.ray_metrics import HEADLINE
from owlcap.runs import RunDir
from owlcap.types import Completion, RolloutGroup, Sample
from rewards.service import RewardPool
from rl.trainer import run_rl

pytestmark = pytest.mark.slow

NUM_STEPS = 3
SAMPLE = re.compile(r"^ray_(owlcap_\w+)\{(.*)\} (\S+)$", re.MULTILINE)
OPTIONAL = {"judge/usd"}  # where it is 0 a step still says so; listed for what a run may leave out


class Scrape(threading.Thread):
    """Asks the node's metrics port again and again, as Prometheus does, and keeps the last value of every series."""

    def __init__(self) -> None:
        super().__init__()
        node = ray.nodes()[0]
        self.url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        self.values: dict[tuple[str, str, str], list[float]] = {}  # by name, run and worker
        self.phases: set[str] = set()
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.5):
            with urllib.request.urlopen(self.url, timeout=30) as reply:
                for name, labels, value in SAMPLE.findall(reply.read().decode()):
                    tags = dict(re.findall(r'(\w+)="([^"]*)"', labels))
                    self.values.setdefault((name, tags["run"], tags["worker"]), []).append(float(value))
                    self.phases |= {tags["phase"]} if "phase" in tags else set()

    def names(self, worker: str) -> set[str]:
        return {name for name, run, label in self.values if run == "watched" and label == worker}

    def highest(self, name: str, worker: str) -> float:
        return max(self.values[name, "watched", worker])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from owlcap.data.rows import read_rows
    from owlcap.data.toy.world import make_toy_world
    from owlcap.models.tiny import make_tiny_model

    root = tmp_path_factory.mktemp("world")
    toy = make_toy_world(root / "data", num_train=4, num_validation=1, num_test=2, seed=1, workers=1, progress=None)
    rows = read_rows(toy.train)
    make_tiny_model(root / "model", [text for row in rows for text in (row.caption, row.reference)], seed=0)
    return root


def config(world: Path, folder: Path) -> RlRun:
    settings: dict[str, Any] = {
        "name": "watched",
        "run_dir": str(folder),
        "num_steps": NUM_STEPS,
        "model": {
            "path": str(world / "model"),
            "dtype": "fp32",
            "freeze_projector": True,
            "gradient_checkpointing": False,
        },
        "video": {"fps": 4, "max_frames": 4, "min_frames": 4, "min_pixels": 3136, "max_pixels": 3136},
        "data": {"train": str(world / "data" / "train.jsonl"), "max_prompt_tokens": 100},
        "optimizer": {"lr": 1e-3, "schedule": "constant"},
        "cluster": {"learner_ranks": 1, "cpus_per_learner": 0.5, "rollout_workers": 2, "cpus_per_rollout": 0.4},
        "rollout": {
            "group_size": 2,
            "prompts_per_step": 2,
            "max_new_tokens": 8,
            "max_model_len": 128,
            "max_num_seqs": 16,
            "kv_cache_gib": 0.1,
        },
        "algorithm": {},
        "evaluation": {"data": str(world / "data" / "test.jsonl"), "every_steps": NUM_STEPS, "num_clips": 2},
        "tracking": {"backends": ["wandb"], "images_every_steps": 2},
    }
    return RlRun.model_validate(settings)


@pytest.fixture(scope="module")
def watched(world: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDir, Scrape]:
    """A run that is scraped while it trains."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        patch.delenv("WANDB_DIR", raising=False)
        quick = {"metrics_report_interval_ms": 1000}  # actors live for seconds here; by default they tell every 10 s
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, _system_config=quick)
        scrape = Scrape()
        scrape.start()
        try:
            model = run_rl(config(world, tmp_path_factory.mktemp("runs")))
        finally:
            scrape.ended.set()
            scrape.join()
            ray.shutdown()
    return RunDir(model.parent), scrape


def test_a_scrape_has_every_kind_of_actor_under_the_runs_name(watched: tuple[RunDir, Scrape]) -> None:
    _, scrape = watched
    for worker in ("0", "1"):  # engines; reward actor and learner rank are number 0
        assert {
            "owlcap_rollout_tokens_total",
            "owlcap_rollout_prompts_total",
            "owlcap_rollout_decode_seconds_total",
            "owlcap_rollout_generate_seconds_total",
            "owlcap_rollout_queue",
            "owlcap_rollout_policy_version",
        } <= scrape.names(worker)
    assert {
        "owlcap_reward_scored_total",
        "owlcap_reward_queue",
        "owlcap_reward_group_seconds_bucket",
        "owlcap_reward_group_seconds_count",
        "owlcap_learner_tokens_total",
        "owlcap_learner_updates_total",
        "owlcap_learner_update_seconds_total",
        "owlcap_learner_peak_memory_bytes",
    } <= scrape.names("0")


def test_scraped_numbers_are_those_of_the_run(watched: tuple[RunDir, Scrape]) -> None:
    run, scrape = watched
    rows = [row for row in read_metrics(run) if "train/loss" in row]
    assert scrape.highest("owlcap_step", "driver") in {row["step"] for row in rows}
    means = {row["reward/mean"] for row in rows}
    assert set(scrape.values["owlcap_reward_mean", "watched", "driver"]) <= means
    assert scrape.highest("owlcap_rollout_policy_version", "1") >= 1
    assert scrape.highest("owlcap_learner_updates_total", "0") >= 1


def test_the_driver_tells_its_headline_and_how_a_step_divides(watched: tuple[RunDir, Scrape]) -> None:
    run, scrape = watched
    logged = {name for row in read_metrics(run) for name in row}
    assert HEADLINE.keys() - logged - OPTIONAL == set()  # every headline figure is one that runs log
    assert {"owlcap_step", "owlcap_kl", "owlcap_mismatch_kl", "owlcap_step_seconds"} <= scrape.names("driver")
    assert scrape.phases == {"generate", "judge", "update", "sync", "wait"}


def test_shares_of_every_step_sum_to_one(watched: tuple[RunDir, Scrape]) -> None:
    for row in read_metrics(watched[0]):
        shares = [value or 0.0 for name, value in row.items() if name.startswith("share/")]
        if "train/loss" in row:
            assert sum(shares) == pytest.approx(1.0)


def test_every_actor_has_a_log_in_the_runs_folder(watched: tuple[RunDir, Scrape]) -> None:
    logs = watched[0].logs
    text = {file.stem: file.read_text() for file in logs.glob("*.log")}
    assert text.keys() == {"driver", "rollout-0", "rollout-1", "reward-0", "learner-0"}
    for name in ("rollout-0", "rollout-1"):
        assert "policy version 1 loaded" in text[name]
        assert re.search(r"1 groups, 0 failures, \d+ tokens", text[name])
    assert "2 captions in" in text["reward-0"]
    assert "1 updates, 0 skipped" in text["learner-0"]


def test_tensorboard_has_the_shares_and_pictures_of_captions(watched: tuple[RunDir, Scrape]) -> None:
    events = EventAccumulator(str(watched[0].tensorboard), size_guidance={"images": 0})
    events.Reload()
    tags = events.Tags()
    assert {"share/generate", "share/wait", "reward/mean", "eval/cser"} <= set(tags["scalars"])
    assert set(tags["images"]) == {"captions/0", "captions/1"}
    assert [event.step for event in events.Images("captions/0")] == [2]


def test_the_runs_folder_says_what_it_was_and_did(watched: tuple[RunDir, Scrape]) -> None:
    run = watched[0]
    assert "name: watched" in run.config_file.read_text()
    versions = json.loads(run.versions_file.read_text())
    assert versions["packages"]["ray"] == ray.__version__
    assert versions["git_commit"]
    assert [run.rollouts_file(step).exists() for step in range(1, NUM_STEPS + 1)] == [True] * NUM_STEPS
    assert [folder.name for folder in run.checkpoints.iterdir()] == [f"step-{NUM_STEPS:08d}"]


def test_actors_work_where_ray_collects_nothing() -> None:
    ray.init(
        address="local",
        num_cpus=1,
        include_dashboard=False,
        log_to_driver=False,
        _system_config={"enable_metrics_collection": False},
    )
    pool = RewardPool(RewardsSection(), ClusterSection())
    try:
        completion = Completion((1,), (-0.5,), "A dog barks.", "stop", 0)
        group = RolloutGroup(Sample("a", "a.mp4", "-", "-", "A dog barks."), (completion,))
        scored = ray.get(pool.submit(group), timeout=60)
    finally:
        pool.close()
        ray.shutdown()
    assert scored.totals[0] > 0


def test_wandb_offline_keeps_its_files_in_the_runs_folder(watched: tuple[RunDir, Scrape]) -> None:
    (file,) = (watched[0].path / "wandb").glob("offline-run-*/run-*.wandb")
    assert file.stat().st_size > 0
    assert wandb.run is None  # finished
