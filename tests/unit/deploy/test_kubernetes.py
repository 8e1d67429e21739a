"""deploy/*.yaml: the job that they start is a run that loads, fits into its pods and finds its judge."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from owlcap.config import RlRun
from owlcap.config_io import load_run

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
KINDS = {
    "rayjob.yaml": [("ray.io/v1", "RayJob")],
    "judge.yaml": [("apps/v1", "Deployment"), ("v1", "Service")],
    "podmonitor.yaml": [("monitoring.coreos.com/v1", "PodMonitor")],
}


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


@pytest.fixture(scope="module")
def job() -> dict[str, Any]:
    return documents("rayjob.yaml")[0]["spec"]


@pytest.fixture(scope="module")
def run(job: dict[str, Any]) -> RlRun:
    command, kind, config, *overrides = shlex.split(job["entrypoint"])
    assert (command, kind) == ("owlcap", "rl")
    loaded = load_run(config, overrides)
    assert isinstance(loaded, RlRun)
    return loaded


def groups(job: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = job["rayClusterSpec"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def container(group: dict[str, Any]) -> dict[str, Any]:
    (found,) = group["template"]["spec"]["containers"]
    return found


def gpus(group: dict[str, Any]) -> int:
    return int(container(group)["resources"]["limits"].get("nvidia.com/gpu", 0)) * group.get("replicas", 1)


@pytest.mark.parametrize("name", KINDS)
def test_a_file_holds_the_kinds_it_is_for(name: str) -> None:
    assert [(document["apiVersion"], document["kind"]) for document in documents(name)] == KINDS[name]


def test_ray_is_of_the_version_that_is_pinned(job: dict[str, Any]) -> None:
    assert f"ray=={job['rayClusterSpec']['rayVersion']}\n" in (ROOT / "requirements" / "gpu.txt").read_text()


def test_the_cluster_asks_for_a_token(job: dict[str, Any]) -> None:
    assert job["rayClusterSpec"]["authOptions"] == {"mode": "token"}


def test_the_run_joins_the_cluster_of_its_job(run: RlRun) -> None:
    assert run.cluster.ray_address == "auto"


def test_the_actors_fit_into_the_pods(job: dict[str, Any], run: RlRun) -> None:
    cluster = run.cluster
    learner, rollout = (
        cluster.learner_ranks * cluster.gpus_per_learner,
        cluster.rollout_workers * cluster.gpus_per_rollout,
    )
    assert sorted(gpus(group) for group in groups(job)) == sorted([0, learner, rollout])
    assert len(job["rayClusterSpec"]["workerGroupSpecs"]) == cluster.num_nodes
    cpus = {
        group.get("groupName", "head"): int(container(group)["resources"]["limits"]["cpu"]) for group in groups(job)
    }
    assert cpus["learner"] >= cluster.learner_ranks * cluster.cpus_per_learner
    assert cpus["rollout"] >= cluster.rollout_workers * cluster.cpus_per_rollout
    assert cpus["head"] >= job["entrypointNumCpus"] + cluster.reward_workers * cluster.cpus_per_reward


def test_every_pod_sees_what_the_run_reads_and_writes(job: dict[str, Any], run: RlRun) -> None:
    paths = [run.run_dir, run.model.path, run.data.train, run.data.validation, run.evaluation.data]
    for group in groups(job):
        mounts = {mount["name"]: mount["mountPath"] for mount in container(group)["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in group["template"]["spec"]["volumes"]}
        assert mounts.keys() == volumes.keys()
        assert volumes["shared"]["persistentVolumeClaim"] == {"claimName": "owlcap-shared"}
        assert all(str(path).startswith(f"{mounts['shared']}/") for path in paths)


def test_the_run_asks_the_judge_that_is_served(run: RlRun) -> None:
    deployment, service = documents("judge.yaml")
    (server,) = deployment["spec"]["template"]["spec"]["containers"]
    arguments = server["args"]
    (port,) = service["spec"]["ports"]
    assert run.rewards.judge.base_urls == (f"http://{service['metadata']['name']}:{port['port']}/v1",)
    assert arguments[arguments.index("--port") + 1] == str(port["port"])
    assert arguments[arguments.index("--served-model-name") + 1] == run.rewards.judge.model
    assert int(arguments[arguments.index("--tensor-parallel-size") + 1]) == int(
        server["resources"]["limits"]["nvidia.com/gpu"]
    )
    assert service["spec"]["selector"] == deployment["spec"]["template"]["metadata"]["labels"]


def test_all_pods_are_of_one_image_that_the_dockerfile_names(job: dict[str, Any]) -> None:
    judge = documents("judge.yaml")[0]["spec"]["template"]["spec"]["containers"][0]["image"]
    images = {container(group)["image"] for group in groups(job)} | {judge}
    assert images == set(re.findall(r"-t (\S+)", (DEPLOY / "Dockerfile").read_text()))


def test_prometheus_reads_the_list_that_ray_writes() -> None:
    from ray._private.ray_constants import PROMETHEUS_SERVICE_DISCOVERY_FILE

    (scrape,) = yaml.safe_load((DEPLOY / "prometheus.yaml").read_text())["scrape_configs"]
    assert scrape["file_sd_configs"] == [{"files": [f"/tmp/ray/{PROMETHEUS_SERVICE_DISCOVERY_FILE}"]}]
