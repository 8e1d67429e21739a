"""The run report as HTML: what is in it, that it is harmless, how large it gets. A browser looks at it elsewhere."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from PIL import Image

from owlcap.cli import main
from owlcap.evaluation.run_report import ReportOptions, parse_steps, write_run_report
from owlcap.runs import RunDir
from tests.report_run import HOSTILE, REPLY, make_run

NO_FRAMES = ReportOptions(frames=False)


@dataclass
class Read(HTMLParser):
    """Elements by name with their attributes, and the text of elements by class."""

    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def of_class(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for _, attributes in self.elements if name in (attributes.get("class") or "").split()]


def read(path: Path) -> Read:
    page = Read()
    page.feed(path.read_text())
    return page


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, toy_clips: tuple[Path, ...]) -> RunDir:
    return make_run(tmp_path_factory.mktemp("report"), toy_clips)


@pytest.fixture(scope="module")
def page(made: RunDir) -> Read:
    return read(write_run_report(made.path, made.path / "whole.html").path)


@pytest.fixture
def run(made: RunDir, tmp_path: Path) -> RunDir:
    """A copy to harm."""
    return RunDir(Path(shutil.copytree(made.path, tmp_path / "made")))


def test_every_chosen_group_has_its_captions_and_frames(page: Read) -> None:
    groups = page.of_class("group")
    assert [group["data-step"] for group in groups] == ["1"] * 4 + ["2"] * 4 + ["3"] * 4
    assert len(page.of_class("caption")) == 3 * 3 * 4
    pictures = [attributes["src"] or "" for tag, attributes in page.elements if tag == "img"]
    assert len(pictures) == 3 * 3 * 6
    assert all(source.startswith("data:image/jpeg;base64,") for source in pictures)


@pytest.mark.parametrize(("enabled", "shown"), [(True, ["overlay 1 of 2", "overlay 2 of 2"]), (False, [])])
def test_overlays_stand_beside_the_frames_where_the_policy_sees_them(
    run: RunDir, tmp_path: Path, enabled: bool, shown: list[str]
) -> None:
    Image.new("RGB", (56, 84)).save(tmp_path / "0.png")
    rows = [json.loads(line) for line in run.rollouts_file(1).read_text().splitlines()]
    rows[0]["overlays"] = [str(tmp_path / "0.png")] * 2
    rows[1]["overlays"] = ["/nowhere/0.png"]
    run.rollouts_file(1).write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = yaml.safe_load(run.config_file.read_text())
    settings["motion"]["enabled"] = enabled
    run.config_file.write_text(yaml.safe_dump(settings))
    page = read(write_run_report(run.path, options=ReportOptions(parse_steps("1"))).path)
    pictures = [attributes["alt"] or "" for tag, attributes in page.elements if tag == "img"]
    assert [alt for alt in pictures if alt.startswith("overlay")] == shown
    assert ("No overlays: the overlay cannot be read" in page.text) == enabled
    assert len(pictures) == 3 * 6 + len(shown)


def test_captions_are_ordered_by_reward_and_the_unscored_come_last(page: Read) -> None:
    rewards = [caption["data-reward"] for caption in page.of_class("caption")[:4]]
    assert [float(reward) for reward in rewards[:3] if reward] == sorted(
        map(float, filter(None, rewards)), reverse=True
    )
    assert rewards[3] == ""
    assert "unscored: cser: the judge did not answer" in page.text


def test_units_are_marked_by_verdict_and_by_tag(page: Read) -> None:
    marks = {attributes["class"] for tag, attributes in page.elements if tag == "mark" and "data-units" in attributes}
    assert {"supported motion", "supported detail", "contradicted detail"} <= marks
    assert {"not_mentioned motion", "not_mentioned detail"} & marks


def test_advantages_replies_failures_and_settings_are_told(page: Read) -> None:
    assert {"up", "down"} <= {name for one in page.of_class("advantage") for name in (one["class"] or "").split()}
    assert REPLY in page.text
    assert "chatcmpl-gone: not in this machine's cache" in page.text
    assert "VideoError: the file is empty" in page.text
    assert "num_steps: 3" in page.text


def test_curves_hold_the_logged_values(page: Read) -> None:
    (kl,) = [one for one in page.of_class("curve") if one.get("data-label") == "KL"]
    assert kl["data-points"] == "[[1,0.01],[2,0.02],[3,0.03]]"


def test_a_hostile_caption_is_text_and_nothing_else(page: Read) -> None:
    assert HOSTILE in page.text
    tags = [tag for tag, _ in page.elements]
    assert tags.count("script") == 1
    assert not [tag for tag, attributes in page.elements if attributes.get("src") == "x"]
    assert not [attributes for _, attributes in page.elements if any(name.startswith("on") for name in attributes)]


def test_nothing_is_loaded_from_anywhere(page: Read) -> None:
    for tag, attributes in page.elements:
        for name in ("src", "href", "action", "data", "poster"):
            value = attributes.get(name) or ""
            assert value.startswith(("data:", "#")) or not value, f"{tag} {name}={value[:80]}"
    assert "url(" not in page.text
    assert "@import" not in page.text


def test_a_run_without_captions_still_has_curves_and_says_what_is_missing(run: RunDir) -> None:
    shutil.rmtree(run.rollouts)
    written = write_run_report(run.path)
    assert written.problems == ("rollouts/ has no captions: only figures are shown",)
    page = read(written.path)
    assert page.of_class("curve")
    assert page.of_class("group") == []
    assert "rollouts/ has no captions" in page.text


def _nothing_but_captions(run: RunDir) -> None:
    for file in (run.config_file, run.metrics_file, run.versions_file):
        file.unlink()
    shutil.rmtree(run.evaluations)


def _every_file_cut_in_half(run: RunDir) -> None:
    for file in run.path.rglob("*.*"):
        if file.suffix in (".yaml", ".json", ".jsonl", ".sqlite"):
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _every_file_a_folder(run: RunDir) -> None:
    for file in [file for file in run.path.rglob("*") if file.is_file() and file.suffix != ".html"]:
        file.unlink()
        file.mkdir()


@pytest.mark.parametrize("harm", [_nothing_but_captions, _every_file_cut_in_half, _every_file_a_folder])
def test_a_harmed_run_gives_a_page_that_names_the_harm(run: RunDir, harm: Callable[[RunDir], None]) -> None:
    harm(run)
    written = write_run_report(run.path, options=NO_FRAMES)
    assert written.problems
    text = read(written.path).text
    assert all(problem in text for problem in written.problems)


def test_clips_that_are_gone_are_named_in_place_of_their_frames(run: RunDir) -> None:
    for file in run.rollouts.iterdir():
        file.write_text(re.sub(r"/[^\"]*clip-\d\.mp4", "/gone/clip.mp4", file.read_text()))
    page = read(write_run_report(run.path).path)
    assert "No frames: the video file cannot be opened: No such file or directory" in page.text
    assert not [tag for tag, _ in page.elements if tag == "img"]


def test_steps_can_be_chosen(made: RunDir, tmp_path: Path) -> None:
    options = ReportOptions(steps=parse_steps("2-3,9"), groups_a_step=1, frames=False)
    written = write_run_report(made.path, tmp_path / "page.html", options)
    assert [group["data-step"] for group in read(written.path).of_class("group")] == ["2", "3"]
    assert written.problems == ("rollouts/ has no captions of step 9",)


def test_a_long_run_gives_a_small_page_that_shows_the_first_and_the_last_step(tmp_path: Path) -> None:
    run = make_run(tmp_path, [Path("/gone.mp4")], num_steps=1000, num_groups=1)
    written = write_run_report(run.path, options=NO_FRAMES)
    assert written.path.stat().st_size < 2 * 2**20
    steps = [int(group["data-step"] or 0) for group in read(written.path).of_class("group")]
    assert (min(steps), max(steps), len(set(steps))) == (1, 1000, 12)


def test_groups_beyond_the_room_are_left_out_and_counted(made: RunDir, tmp_path: Path) -> None:
    options = ReportOptions(frames=False, max_mib=0.08)
    page = read(write_run_report(made.path, tmp_path / "page.html", options).path)
    shown = [group["data-step"] for group in page.of_class("group")]
    assert 0 < len(shown) < 12
    assert set(shown) == {"1", "2", "3"}  # room is shared out: no step starves
    assert f"{12 - len(shown)} more were left out for their size" in page.text


def test_a_page_in_which_no_group_fits_says_so(made: RunDir, tmp_path: Path) -> None:
    written = write_run_report(made.path, tmp_path / "page.html", ReportOptions(frames=False, max_mib=0.0001))
    assert written.problems == ("no group fits into 0.0001 MiB: give more with --max-mib",)


def test_an_endless_caption_is_cut_and_says_so(run: RunDir, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in run.rollouts_file(1).read_text().splitlines()]
    caption = rows[0]["completions"][0]
    caption["text"] = "word " * 10_000
    (judgement,) = caption["parts"]["cser"]["judgements"]
    judgement["predicted_units"] = [{"text": "a cat", "tag": "detail", "label": "supported"}] * 500
    run.rollouts_file(1).write_text(json.dumps(rows[0]) + "\n")
    page = read(write_run_report(run.path, tmp_path / "page.html", NO_FRAMES).path)
    assert "30,000 more characters" in page.text
    assert "300 more units" in page.text


def test_the_command_says_where_the_page_is_and_what_is_missing(
    run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    run.versions_file.unlink()
    with pytest.raises(SystemExit) as ended:
        main(["report", str(run.path), "--no-frames", "--steps", "1"])
    assert ended.value.code == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"report: {run.path}/report.html (")
    assert "note: versions.json cannot be read: No such file or directory" in err


def test_the_command_refuses_a_folder_that_is_no_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["report", str(tmp_path)])
    assert ended.value.code == 2
    assert "not a run's" in capsys.readouterr().err
