"""`owlcap motion extract` on real actors: a data set with good and bad clips, run twice, and a plug-in's source."""

import json
import logging

import pytest
import ray

from motion.dataset import extract_data
from motion.pose.toy import ToyPoses
from owlcap.cli.app import main
from owlcap.config_motion import ExtractSection, MotionSection, PoseSection
from owlcap.data.rows import read_rows
from owlcap.data.toy import make_toy_world
from owlcap.errors import ModelError, PlacementError
from owlcap.registry import register

pytestmark = pytest.mark.slow


@register("pose_source", "registered-here")
class Registered(ToyPoses):
    """A source that actors know from the main script alone."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Four toy clips, a row that asks another question of the first, a broken clip and one that is not there."""
    root = tmp_path_factory.mktemp("motion")
    world = make_toy_world(root / "toy", num_train=4, num_validation=0, num_test=0, seed=0)
    rows = [json.loads(line) for line in world.train.read_text().splitlines()]
    (world.videos / "broken.mp4").write_bytes(b"no video")
    rows.append({**rows[0], "id": "another-question"})
    rows += [{**rows[0], "id": name, "videos": [f"videos/{name}.mp4"]} for name in ("broken", "absent")]
    path = world.root / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module", autouse=True)
def cluster():
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield
    ray.shutdown()


def command(data, out, *more):
    """Exit code of `owlcap motion extract`."""
    given = (
        "pose.source=toy",
        "key_frames.num_frames=2",
        "extract.clips_at_once=2",
        f"extract.cache={out.parent}/cache",
    )
    with pytest.raises(SystemExit) as end:
        main(["motion", "extract", str(data), *given, *more, "--out", str(out)])
    return end.value.code


@pytest.fixture(scope="module")
def first_run(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "data.motion.jsonl"
    return command(data, out, "extract.num_actors=2"), out


def test_failures_are_counted_listed_and_change_the_exit_code(first_run):
    code, out = first_run
    assert code == 1
    failures = [json.loads(line) for line in out.with_suffix(".failures.jsonl").read_text().splitlines()]
    assert sorted(failure["id"] for failure in failures) == ["absent", "broken"]
    assert {failure["error"] for failure in failures} == {"VideoError"}


def test_the_data_file_names_the_overlays_of_every_good_row(first_run, data):
    samples = {sample.id: sample for sample in read_rows(first_run[1])}
    assert len(samples) == len(read_rows(data))
    assert [len(samples[name].overlays) for name in ("train-000000", "train-000003", "broken")] == [2, 2, 0]
    assert samples["another-question"].overlays == samples["train-000000"].overlays
    assert all(path.endswith(f"overlay-{i}.png") for i, path in enumerate(samples["train-000001"].overlays))
    assert {name: sample.caption for name, sample in samples.items()} == {s.id: s.caption for s in read_rows(data)}


def test_a_second_run_finds_what_the_first_made(first_run, data, capsys):
    code, out = first_run
    assert command(data, out) == code == 1
    said = capsys.readouterr().out
    assert "4 of 6 clips have overlays (4 had them before)" in said
    assert "2 failed\n" in said
    assert "  1 x the video file cannot be opened: No such file" in said


def test_errors_of_settings_come_from_the_actor_as_they_are(data, tmp_path):
    pose = PoseSection(source="nlf", model=str(tmp_path / "nlf.torchscript"))
    with pytest.raises(ModelError, match="no such model file"):
        extract_data(read_rows(data)[:1], MotionSection(pose=pose, extract=ExtractSection(cache=str(tmp_path))))


def test_more_actors_than_the_cluster_holds_are_refused(data, tmp_path):
    extract = ExtractSection(cache=str(tmp_path), num_actors=64)
    with pytest.raises(PlacementError, match="64 motion actors need 64 CPU"):
        extract_data(read_rows(data)[:1], MotionSection(pose=PoseSection(source="toy"), extract=extract))
