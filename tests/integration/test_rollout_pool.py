"""The pool on a real Ray: how prompts are shared out, and what happens when workers fail.

Failures are played by scripted actors that stand in for engines; the last tests run real vLLM engines.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ray

from owlcap.config import ClusterSection, ModelSection, RolloutSection, VideoSection
from owlcap.errors import ModelError, PlacementError, RolloutError
from owlcap.models.load import load_policy, policy_state_dict
from owlcap.training.buckets import WeightBucket, WeightDigest, make_bucket
from owlcap.training.group import LearnerLostError
from owlcap.types import Prompt, RolloutGroup, Sample, SamplingSettings, VisionInputs
from rollout.pool import RolloutPool
from rollout.settings import GenerationRequest, RolloutEngineSettings
from rollout.transfer import EngineActors
from rollout.worker import WorkerPlace, WorkerResult

pytestmark = pytest.mark.slow

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import a test module

CLUSTER = ClusterSection(rollout_workers=2, cpus_per_rollout=0.5, placement_deadline_s=120, start_deadline_s=120)
VISION = VisionInputs(np.zeros((1, 4), np.float32), (1, 1, 1), 1.0)
MakePool = Callable[..., RolloutPool]


class ScriptedWorker:
    """A rollout worker without an engine.

    A file named EVENT-INDEX in the folder that `settings.model` names makes it fail once, there: it removes the
    file and dies, hangs, breaks or refuses. Every call is noted in the folder's log.
    """

    def __init__(self, settings: RolloutEngineSettings, index: int) -> None:
        self.folder, self.index, self.held = Path(settings.model), index, 0

    def place(self) -> WorkerPlace:
        self._play("place")
        return WorkerPlace(ray.get_runtime_context().get_node_id(), os.getpid())

    def start(self) -> int:
        self._play("start")
        return 0

    def load_weights(self, refs: Sequence[ray.ObjectRef], version: int) -> int:
        self._play("load")
        self._play(f"load{version}")
        assert ray.get(list(refs)) == [f"bucket of {version}"]
        self.held = version
        self._note(f"load {version}")
        return version

    def start_weight_update(self) -> None:
        self._play("begin")

    def commit_weights(self, checksum: int, version: int) -> int:
        self._play("commit")
        self.held = version
        self._note(f"commit {checksum} {version}")
        return version

    def version(self) -> int:
        return self.held

    def generate(self, requests: Sequence[GenerationRequest], version: int) -> Iterator[object]:
        assert version == self.held
        self._note("generate " + " ".join(request.sample.id for request in requests))
        for position, request in enumerate(requests):
            if position == 1:
                self._play("second")
            group = RolloutGroup(request.sample, (), decode_s=self.index, generate_s=version)
            yield Prompt((position,), VISION)
            if position == 1:
                self._play("between")
            yield WorkerResult(position, group)

    def close(self) -> None: ...

    def _note(self, line: str) -> None:
        with (self.folder / "log").open("a") as log:
            log.write(f"{self.index} {line}\n")

    def _play(self, moment: str) -> None:
        for event in self.folder.glob(f"{moment}-*-{self.index}"):
            action = event.name.split("-")[1]
            if action != "always":
                event.unlink()
            if action in ("dies", "always"):
                os._exit(1)
            elif action == "hangs":
                threading.Event().wait()
            elif action == "breaks":
                raise ValueError("CUDA error: an illegal memory access was encountered")
            elif action == "exhausts":
                raise MemoryError("Unable to allocate 1.00 TiB")
            elif action == "refuses":
                raise ModelError("the policy's folder has no config.json")


class Squatter:
    """An actor of another job, which takes what a worker leaves."""


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """A Ray of this module's own."""
    ray.init(address="local", num_cpus=4, include_dashboard=False, configure_logging=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def steady_pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RolloutPool]:
    """Scripted workers that do not fail."""
    with RolloutPool(RolloutEngineSettings(str(tmp_path_factory.mktemp("steady"))), CLUSTER, ScriptedWorker) as pool:
        yield pool


@pytest.fixture
def make_pool(tmp_path: Path) -> Iterator[MakePool]:
    """Pools of scripted workers whose script is `tmp_path`, closed after the test."""
    pools: list[RolloutPool] = []

    def make(*events: str, cluster: ClusterSection = CLUSTER, **rollout: float) -> RolloutPool:
        for event in events:
            (tmp_path / event).touch()
        rollout = {"group_deadline_s": 60.0, "max_restarts": 2} | rollout
        section = RolloutSection.model_validate(rollout)
        pools.append(RolloutPool(RolloutEngineSettings(str(tmp_path), rollout=section), cluster, ScriptedWorker))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


def requests(count: int) -> list[GenerationRequest]:
    samples = (Sample(f"clip-{i}", "a.mp4", "", "", "") for i in range(count))
    return [GenerationRequest(sample, SamplingSettings()) for sample in samples]


def answered(results: Sequence[object]) -> dict[str, RolloutGroup]:
    """Groups by sample, after a check that none came twice."""
    groups = [result for result in results if isinstance(result, RolloutGroup)]
    assert set(Counter(group.sample.id for group in groups).values()) <= {1}
    return {group.sample.id: group for group in groups}


def process_of(pool: RolloutPool, worker: int) -> int:
    """Process id of an idle worker."""
    return ray.get(pool._slots[worker].actor.place.remote(), timeout=60).pid


def log(folder: Path, worker: int) -> list[str]:
    lines = (folder / "log").read_text().splitlines()
    return [line.removeprefix(f"{worker} ") for line in lines if line.startswith(f"{worker} ")]


def test_prompt_i_goes_to_worker_i_mod_n_and_every_prompt_is_answered(steady_pool):
    groups = answered(list(steady_pool.generate(requests(7))))
    assert {id: group.decode_s for id, group in groups.items()} == {f"clip-{i}": i % 2 for i in range(7)}


def test_fewer_prompts_than_workers_and_none_at_all(steady_pool):
    assert list(answered(list(steady_pool.generate(requests(1))))) == ["clip-0"]
    assert list(steady_pool.generate([])) == []


def test_a_prompt_that_is_not_wanted_is_not_given(steady_pool):
    (wanted,) = requests(1)
    (group,) = steady_pool.generate([replace(wanted, return_prompt=False)])
    assert group.prompt is None


def test_a_sync_reaches_every_worker(steady_pool):
    assert (steady_pool.version, steady_pool.versions()) == (0, (0, 0))
    steady_pool.sync([ray.put("bucket of 4")], 4)
    assert (steady_pool.version, steady_pool.versions()) == (4, (4, 4))


@pytest.mark.parametrize("event", ["second-dies-1", "second-breaks-1", "second-exhausts-1", "between-dies-1"])
def test_a_lost_workers_unanswered_prompts_are_issued_once_more_with_the_synced_weights(make_pool, tmp_path, event):
    pool = make_pool(event)
    pool.sync([ray.put("bucket of 3")], 3)
    groups = answered(list(pool.generate(requests(8))))
    assert len(groups) == 8
    assert {group.generate_s for group in groups.values()} == {3}
    assert pool.num_restarts == 1
    *calls, reissued = log(tmp_path, 1)
    assert calls == ["load 3", "generate clip-1 clip-3 clip-5 clip-7", "load 3"]
    # What was yielded in a process's last moment may not have left it.
    assert reissued in ("generate clip-3 clip-5 clip-7", "generate clip-1 clip-3 clip-5 clip-7")
    assert log(tmp_path, 0) == ["load 3", "generate clip-0 clip-2 clip-4 clip-6"]


def test_a_worker_that_gives_no_group_within_the_deadline_is_replaced(make_pool, tmp_path):
    pool = make_pool("second-hangs-0", group_deadline_s=6.0)
    assert len(answered(list(pool.generate(requests(6))))) == 6
    assert pool.num_restarts == 1
    assert log(tmp_path, 0)[-1] == "generate clip-2 clip-4"


def test_a_worker_that_died_between_two_calls_is_replaced_and_its_prompts_live_on(make_pool):
    pool = make_pool()
    before = answered(list(pool.generate(requests(2))))
    os.kill(process_of(pool, 0), signal.SIGKILL)
    assert len(answered(list(pool.generate(requests(4))))) == 4
    assert pool.num_restarts == 1
    assert ray.get(before["clip-0"].prompt).token_ids == (0,)


def test_a_replacement_that_is_lost_on_its_way_costs_no_second_restart(make_pool, tmp_path):
    pool = make_pool("second-dies-1", max_restarts=1)
    (tmp_path / "place-dies-1").touch()  # as if sent to a node that is gone
    assert len(answered(list(pool.generate(requests(8))))) == 8
    assert pool.num_restarts == 1


def test_replacements_that_never_answer_end_the_run(make_pool, tmp_path):
    pool = make_pool("second-dies-1", max_restarts=1)
    (tmp_path / "place-always-1").touch()
    with pytest.raises(RolloutError, match="worker 1 failed again after 1 restarts"):
        list(pool.generate(requests(8)))


def test_a_worker_that_keeps_failing_ends_the_run(make_pool):
    pool = make_pool("second-always-1")
    with pytest.raises(RolloutError, match="worker 1 failed again after 2 restarts"):
        list(pool.generate(requests(8)))


def test_what_an_engine_refuses_is_not_tried_again(make_pool):
    pool = make_pool("second-refuses-1")
    with pytest.raises(ModelError, match=r"no config\.json"):
        list(pool.generate(requests(8)))
    assert pool.num_restarts == 0


def test_a_worker_lost_in_a_sync_is_replaced_and_synced(make_pool, tmp_path):
    pool = make_pool("load-dies-1")
    pool.sync([ray.put("bucket of 4")], 4)
    assert pool.versions() == (4, 4)
    assert (pool.num_restarts, log(tmp_path, 1)) == (1, ["load 4"])


def test_a_worker_that_hangs_in_a_sync_is_replaced_at_its_deadline(make_pool, tmp_path):
    pool = make_pool("load-hangs-1", cluster=CLUSTER.model_copy(update={"sync_deadline_s": 3.0}))
    pool.sync([ray.put("bucket of 4")], 4)
    assert (pool.versions(), pool.num_restarts) == ((4, 4), 1)


def test_a_worker_that_breaks_half_way_is_replaced_and_synced(make_pool):
    pool = make_pool("load-breaks-0")
    pool.sync([ray.put("bucket of 4")], 4)
    assert (pool.versions(), pool.num_restarts) == ((4, 4), 1)


def test_a_refused_sync_leaves_the_version_as_it_was_and_can_be_repeated(make_pool):
    pool = make_pool("load5-refuses-1")
    pool.sync([ray.put("bucket of 4")], 4)
    with pytest.raises(ModelError):
        pool.sync([ray.put("bucket of 5")], 5)
    assert pool.version == 4
    pool.sync([ray.put("bucket of 5")], 5)
    assert (pool.version, pool.versions(), pool.num_restarts) == (5, (5, 5), 0)


def sending(engines: EngineActors) -> WeightDigest:
    """What the learner does to all workers, if they answer."""
    ray.get([actor.start_weight_update.remote() for actor in engines.actors])
    return WeightDigest(checksum=99)


def bucket_of(version: int) -> Callable[[], Sequence[ray.ObjectRef]]:
    return lambda: [ray.put(f"bucket of {version}")]


def test_sent_weights_are_committed_by_every_worker_after_the_last_has_them(make_pool, tmp_path):
    pool = make_pool()
    assert pool.receive(sending, bucket_of(4), 4).checksum == 99
    assert (pool.version, pool.versions()) == (4, (4, 4))
    assert log(tmp_path, 0) == log(tmp_path, 1) == ["commit 99 4"]


def test_a_worker_that_is_gone_is_replaced_before_weights_are_sent(make_pool):
    pool = make_pool()
    os.kill(process_of(pool, 1), signal.SIGKILL)
    pool.receive(sending, bucket_of(4), 4)
    assert (pool.versions(), pool.num_restarts) == ((4, 4), 1)


def test_a_worker_lost_after_weights_were_sent_gets_them_in_another_way(make_pool, tmp_path):
    pool = make_pool("commit-dies-1")
    pool.receive(sending, bucket_of(4), 4)
    assert (pool.versions(), log(tmp_path, 1)) == ((4, 4), ["load 4"])


def test_a_transfer_that_breaks_off_replaces_every_worker_and_can_be_repeated(make_pool, tmp_path):
    pool = make_pool("begin-hangs-1")

    def lost(engines: EngineActors) -> WeightDigest:
        engines.actors[1].start_weight_update.remote()  # and waits for the learner for ever
        raise LearnerLostError("learner rank 0 died while sending the weights")

    with pytest.raises(LearnerLostError):
        pool.receive(lost, bucket_of(4), 4)
    assert pool.version == 0
    pool.receive(sending, bucket_of(4), 4)
    assert (pool.versions(), pool.num_restarts) == ((4, 4), 2)


def test_weights_do_not_change_while_groups_are_taken(make_pool):
    pool = make_pool()
    results = pool.generate(requests(4))
    next(results)
    with pytest.raises(RolloutError, match="while groups are being generated"):
        pool.sync([ray.put("bucket of 4")], 4)
    assert len(list(results)) == 3
    pool.sync([ray.put("bucket of 4")], 4)
    assert pool.version == 4


def test_what_a_replacement_says_about_its_start_reaches_the_user(make_pool, tmp_path):
    pool = make_pool("second-dies-1")
    (tmp_path / "start-refuses-1").touch()
    with pytest.raises(ModelError, match=r"no config\.json"):
        list(pool.generate(requests(4)))


def test_workers_without_a_place_are_a_placement_error(make_pool):
    cluster = CLUSTER.model_copy(update={"cpus_per_rollout": 1000.0, "placement_deadline_s": 2.0})
    with pytest.raises(PlacementError, match="2 of 2 rollout workers found no place") as error:
        make_pool(cluster=cluster)
    assert "each with 1000 CPU" in str(error.value)
    assert "1 node has " in str(error.value)


def test_a_replacement_without_a_place_is_a_placement_error(make_pool, cluster):
    half = CLUSTER.model_copy(update={"cpus_per_rollout": 1.5, "placement_deadline_s": 4.0})
    pool = make_pool("second-hangs-1", cluster=half, group_deadline_s=5.0)
    results = pool.generate(requests(4))
    next(results)
    squatter = ray.remote(Squatter).options(num_cpus=1.5).remote()  # queued for the CPUs of the worker that hangs
    with pytest.raises(PlacementError, match="1 of 1 rollout workers found no place within 4 s"):
        list(results)
    ray.kill(squatter)


@pytest.mark.parametrize(
    ("event", "error", "message"),
    [
        ("start-refuses-1", ModelError, r"no config\.json"),
        ("start-dies-1", RolloutError, "died"),
        ("start-hangs-1", RolloutError, "did not answer within"),
    ],
)
def test_an_engine_that_does_not_start_is_an_error_that_says_why(make_pool, event, error, message):
    with pytest.raises(error, match=message):
        make_pool(event, cluster=CLUSTER.model_copy(update={"start_deadline_s": 5.0}))


VIDEO = VideoSection(fps=6, min_frames=4, max_frames=12, min_pixels=784, max_pixels=3136)
ROLLOUT = RolloutSection(max_model_len=256, max_num_seqs=32, kv_cache_gib=0.0625, max_new_tokens=24)
Weights = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def engines(tiny_policy: Path) -> Iterator[RolloutPool]:
    """Two real vLLM engines on the tiny policy."""
    settings = RolloutEngineSettings(str(tiny_policy), VIDEO, rollout=ROLLOUT, dtype="fp32", max_prompt_tokens=128)
    with RolloutPool(settings, CLUSTER) as pool:
        yield pool


@pytest.fixture(scope="module")
def weights(tiny_policy: Path) -> Weights:
    policy = load_policy(ModelSection(path=str(tiny_policy), dtype="fp32", gradient_checkpointing=False))
    return {name: tensor.detach().numpy() for name, tensor in policy_state_dict(policy)}


def clip_requests(clips: Sequence[Path], count: int) -> list[GenerationRequest]:
    """Requests 2i and 2i + 1 are the same question with the same seed: one for each of two workers."""
    sampling = SamplingSettings(num_completions=4, max_new_tokens=24)
    pairs = [
        (Sample(f"{i}", str(clips[i // 2 % len(clips)]), "Describe the video.", "", ""), 100 * (i // 2))
        for i in range(count)
    ]
    return [GenerationRequest(sample, replace(sampling, seed=seed)) for sample, seed in pairs]


def test_engines_answer_alike_and_hand_their_prompts_over(engines, toy_clips):
    before = sum(counters.num_decoded for counters in engines.counters())
    groups = answered(list(engines.generate(clip_requests(toy_clips, 8))))
    assert sum(counters.num_decoded for counters in engines.counters()) - before == 8
    for i in range(0, 8, 2):
        assert groups[f"{i}"].completions == groups[f"{i + 1}"].completions
    prompt = ray.get(groups["3"].prompt)
    assert len(prompt.token_ids) == groups["3"].num_prompt_tokens
    assert prompt.vision.video_grid_thw == (6, 4, 4)


def test_after_a_kill_in_a_run_all_prompts_are_answered_by_the_synced_policy(engines, toy_clips, weights):
    # Vision weights change under clips that both engines have seen: the replaced engine never saw the old ones, so
    # the other one agrees with it only if it forgot what it had computed with them.
    old = answered(list(engines.generate(clip_requests(toy_clips, 8))))
    moved = {n: array * np.float32(1.5) if n.startswith("model.visual.") else array for n, array in weights.items()}
    items = list(moved.items())
    damaged = WeightBucket(items[20:], checksum=make_bucket(items[20:]).checksum + 1)
    with pytest.raises(RolloutError, match="weights changed on their way"):
        engines.sync([ray.put(make_bucket(items[:20])), ray.put(damaged)], 1)
    assert (engines.version, engines.versions()) == (0, (0, 0))
    engines.sync([ray.put(make_bucket(items[:20])), ray.put(make_bucket(items[20:]))], 1)
    assert engines.versions() == (1, 1)
    process = process_of(engines, 1)
    os.kill(process, signal.SIGSTOP)  # so that it still has its prompts when the other's first group is done
    results = engines.generate(clip_requests(toy_clips, 16))
    first = next(results)
    os.kill(process, signal.SIGKILL)
    groups = answered([first, *results])
    assert sorted(groups) == sorted(f"{i}" for i in range(16))
    assert {c.policy_version for group in groups.values() for c in group.completions} == {1}
    assert engines.num_restarts == 1
    again = answered(list(engines.generate(clip_requests(toy_clips, 8))))
    for i in range(0, 8, 2):
        assert again[f"{i}"].completions == again[f"{i + 1}"].completions
        assert again[f"{i}"].completions[0].logprobs != old[f"{i}"].completions[0].logprobs
