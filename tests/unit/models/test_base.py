"""The base model: whole or absent, made once for the same inputs, a plain Hugging Face folder."""

import numpy as np
import pytest
import torch

from owlcap.config import ModelSection, VideoSection
from owlcap.errors import DataError, ModelError, VideoError
from owlcap.models.base import load_frames, make_base
from owlcap.models.load import load_policy, load_processor
from owlcap.types import Fact, Sample
from tests.conftest import moving_square, write_clip

VIDEO = VideoSection(fps=6, min_frames=12, max_frames=12, min_pixels=3136, max_pixels=3136, total_pixels=12 * 3136)
ACTIONS = ("jump", "bow", "squat")


@pytest.fixture(scope="module")
def samples(toy_clips):
    """Six rows about four real clips."""
    rows = []
    for i in range(6):
        facts = (Fact(f"shirt={('red', 'blue')[i % 2]}", "detail"), Fact(f"action={ACTIONS[i % 3]}", "motion"))
        caption = f"Someone in a {('red', 'blue')[i % 2]} shirt."
        rows.append(Sample(f"row-{i}", str(toy_clips[i % 4]), "Describe.", caption, caption, facts))
    return rows


def test_it_is_a_policy_folder_with_a_report(samples, tmp_path):
    seen = []
    report = make_base(
        tmp_path / "base", samples, VIDEO, seed=0, num_steps=2, progress=lambda done, of: seen.append((done, of))
    )
    assert seen == [(1, 2), (2, 2)]
    assert set(report.accuracies) == {"shirt", "action"}
    assert "ground-truth facts for 2 steps" in report.text()
    model = load_policy(ModelSection(path=str(tmp_path / "base"), dtype="fp32"))
    assert sum(p.numel() for p in model.parameters()) == report.num_parameters
    assert load_processor(tmp_path / "base").video_processor.fps == 6
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_the_same_inputs_return_the_folder_as_it_is(samples, tmp_path):
    first = make_base(tmp_path / "base", samples, VIDEO, seed=0, num_steps=1)
    written = (tmp_path / "base" / "model.safetensors").stat().st_mtime_ns
    assert make_base(tmp_path / "base", samples, VIDEO, seed=0, num_steps=1) == first
    assert (tmp_path / "base" / "model.safetensors").stat().st_mtime_ns == written


def test_other_inputs_are_refused_not_overwritten(samples, tmp_path):
    make_base(tmp_path / "base", samples, VIDEO, seed=0, num_steps=1)
    for changes in ({"seed": 1}, {"num_steps": 2}, {"samples": samples[:5]}):
        arguments = {"samples": samples, "seed": 0, "num_steps": 1, **changes}
        with pytest.raises(ModelError, match="other clips or settings") as caught:
            make_base(tmp_path / "base", video=VIDEO, **arguments)
        assert caught.value.cure


def test_a_folder_of_something_else_is_refused(samples, tmp_path):
    with pytest.raises(ModelError, match="not a tiny base model"):
        make_base(tmp_path, samples, VIDEO, seed=0, num_steps=1)


def test_the_same_seed_gives_the_same_weights(samples, tmp_path):
    models = []
    for name in ("a", "b"):
        make_base(tmp_path / name, samples, VIDEO, seed=3, num_steps=2)
        models.append(load_policy(ModelSection(path=str(tmp_path / name), dtype="fp32")))
    assert all(torch.equal(a, b) for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True))


def test_frames_are_in_the_rows_order(samples):
    frames = load_frames(samples, VIDEO).numpy()
    assert frames.shape == (6, 12, 56, 56, 3)
    assert np.array_equal(frames[0], frames[4])
    assert not np.array_equal(frames[0], frames[1])


def test_a_bad_clip_leaves_no_folder(samples, tmp_path):
    missing = Sample("gone", str(tmp_path / "gone.mp4"), "Describe.", "A", "A", samples[0].facts)
    with pytest.raises(VideoError):
        make_base(tmp_path / "base", [*samples, missing], VIDEO, seed=0, num_steps=1)
    assert list(tmp_path.iterdir()) == []


def test_clips_of_another_size_are_named(samples, tmp_path):
    wide = write_clip(tmp_path / "wide.mp4", moving_square(0, height=56, width=112))
    odd = Sample("odd", str(wide), "Describe.", "A", "A", samples[0].facts)
    video = VIDEO.model_copy(update={"max_pixels": 56 * 112, "total_pixels": 12 * 56 * 112})
    with pytest.raises(DataError, match="12 frames of 112x56") as caught:
        load_frames([*samples, odd], video)
    assert caught.value.where == "odd"
