"""Overlays: read from a row's files, sized for the vision tower, and missing ones told."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from owlcap.config import DataSection, MotionSection
from owlcap.data.overlays import check_overlays, load_overlays
from owlcap.errors import DataError
from owlcap.types import Sample

MOTION = MotionSection(enabled=True, max_overlays=3, min_pixels=2 * 28 * 28, max_pixels=16 * 28 * 28)


@pytest.fixture
def sample(tmp_path) -> Sample:
    """Two pictures: 56 x 56 in one colour each."""
    for name, colour in (("a", (200, 10, 20)), ("b", (0, 90, 240))):
        Image.new("RGB", (56, 56), colour).save(tmp_path / f"{name}.png")
    files = tuple(str(tmp_path / f"{name}.png") for name in "ab")
    return Sample("clip-3", "clip.mp4", "Describe.", "c", "c", overlays=files)


def picture(sample: Sample, width: int, height: int, mode: str = "RGB") -> Sample:
    path = sample.overlays[0].replace("a.png", "c.png")
    Image.new(mode, (width, height)).save(path)
    return replace(sample, overlays=(path,))


def test_pictures_come_in_the_rows_order_as_they_are(sample):
    first, second = load_overlays(sample, MOTION)
    assert first.shape == second.shape == (56, 56, 3)
    assert first.dtype == np.uint8
    assert (first == (200, 10, 20)).all()
    assert (second == (0, 90, 240)).all()


@pytest.mark.parametrize(
    ("width", "height", "shape"),
    [
        (60, 50, (56, 56, 3)),  # to the nearest multiple of 28
        (10, 10, (56, 56, 3)),  # up to min_pixels
        (1280, 720, (84, 140, 3)),  # down to max_pixels, wide
        (720, 1280, (140, 84, 3)),  # and portrait
    ],
)
def test_sizes_are_multiples_of_28_within_the_bounds(sample, width, height, shape):
    assert [one.shape for one in load_overlays(picture(sample, width, height), MOTION)] == [shape]


def test_a_picture_with_transparency_or_in_grey_becomes_rgb(sample):
    for mode in ("RGBA", "L"):
        assert load_overlays(picture(sample, 56, 56, mode), MOTION)[0].shape == (56, 56, 3)


def test_with_the_pathway_off_nothing_is_read(sample):
    assert load_overlays(replace(sample, overlays=("nothing.png",)), MotionSection()) == ()


def test_a_row_without_overlays_is_an_error_that_names_the_cures(sample):
    with pytest.raises(DataError, match="no overlays") as caught:
        load_overlays(replace(sample, overlays=()), MOTION)
    assert caught.value.where == "clip-3"
    assert "owlcap motion extract" in str(caught.value)
    assert "motion.missing=visual" in str(caught.value)


def test_a_run_ends_before_it_starts_where_too_many_rows_have_none(sample):
    rows = [sample, replace(sample, id="bare", overlays=())]
    data = DataSection(train="data/train.jsonl", max_bad_rows_share=0.4)
    with pytest.raises(DataError, match="1 of 2 rows have no overlays, first bare") as caught:
        check_overlays(rows, MOTION, data)
    assert "owlcap motion extract data/train.jsonl" in str(caught.value)
    check_overlays(rows, MOTION, data.model_copy(update={"max_bad_rows_share": 0.5}))
    check_overlays(rows, MOTION.model_copy(update={"missing": "visual"}), data)
    check_overlays(rows, MotionSection(), data)


def test_a_row_without_overlays_may_be_shown_as_its_video_alone(sample):
    visual = MOTION.model_copy(update={"missing": "visual"})
    assert load_overlays(replace(sample, overlays=()), visual) == ()
    assert len(load_overlays(sample, visual)) == 2


def test_more_overlays_than_the_policy_takes_are_an_error(sample):
    with pytest.raises(DataError, match="4 overlays"):
        load_overlays(replace(sample, overlays=sample.overlays * 2), MOTION)


@pytest.mark.parametrize("content", [None, b"", b"not a picture", "half"], ids=["missing", "empty", "text", "cut"])
def test_a_file_that_is_no_picture_is_named(sample, content):
    path = sample.overlays[1]
    whole = Path(path).read_bytes()
    if content is None:
        sample = replace(sample, overlays=(path + ".gone",))
    else:
        Path(path).write_bytes(whole[: len(whole) // 2] if content == "half" else content)
    with pytest.raises(DataError, match="overlay cannot be read") as caught:
        load_overlays(sample, MOTION)
    assert str(caught.value.where).startswith(f"clip-3 -> {sample.overlays[-1]}")
