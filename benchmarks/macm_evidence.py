"""The motion pathway on toy videos: what each of its parts adds, and what it does when poses are bad.

    python benchmarks/macm_evidence.py ROOT [--pretrain 4000] [--train 1000] [--test 200] [--seeds 3] [--frames 12]

Makes toy clips, a tiny base model and overlays in ROOT (kept, and found again). The base model is trained on captions
of --pretrain clips first, as Qwen2.5-VL knows videos before it sees an overlay. Then trains from it, for every seed,
on --train other clips

- visual: the base model on videos alone (`owlcap sft toy_sft`);
- motion: with overlays of pose-aware key frames (`owlcap sft toy_macm_sft`), every second clip without them, so that
  the model also knows the visual branch that MSD decodes with;
- uniform: the same with key frames at equal distances.

All train the same steps on the same clips. Held-out clips are captioned greedily, and by MSD, from overlays of exact
joints, with limbs hidden (--hidden of them), and with left and right exchanged (in --wrong of the frames). A clip's
figures come from its facts: recall and precision of actions and their order (1 - precision is hallucinated), and of the
stated actions whose side can be checked, the share on the wrong side. Means are over clips, with standard errors over
clips of their means over seeds. Prints a table and, as the last line, one JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from owlcap.types import Sample

SETTINGS = ("motion.extract.cache={root}/cache", "motion.mesh.num_steps={fit_steps}")
OVERLAYS = {  # of the held-out clips: name -> motion settings
    "pose": (),
    "uniform": ("motion.key_frames.method=uniform",),
    "hidden": ("motion.pose.hide_limbs={hidden}",),
    "wrong": ("motion.pose.wrong_poses={wrong}",),
}
ROWS = (  # what the table shows: title, model, overlays of the held-out clips, decoding
    ("visual only", "visual", None, "greedy"),
    ("+ motion pathway", "motion", "pose", "greedy"),
    ("+ MSD", "motion", "pose", "msd"),
    ("the motion model without overlays", "motion", None, "greedy"),
    ("uniform key frames", "uniform", "uniform", "greedy"),
    ("uniform key frames, MSD", "uniform", "uniform", "msd"),
    ("limbs hidden", "motion", "hidden", "greedy"),
    ("limbs hidden, MSD", "motion", "hidden", "msd"),
    ("left and right exchanged", "motion", "wrong", "greedy"),
    ("left and right exchanged, MSD", "motion", "wrong", "msd"),
)
SAMPLINGS = [("+ motion pathway", "uniform key frames"), ("+ MSD", "uniform key frames, MSD")]
FIGURES = ("recall", "precision", "wrong side")
MAX_NEW_TOKENS = 96
BATCH = 25  # clips captioned at a time


@dataclass(frozen=True, slots=True)
class Place:
    """Where everything is, and how much of it there is."""

    root: Path
    num_pretrain: int
    num_train: int
    num_test: int
    pretrain_epochs: int
    num_epochs: int
    learning_rate: float
    num_frames: int
    hidden: float
    wrong: float
    fit_steps: int


def main() -> None:
    """Make what is missing, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--pretrain", type=int, default=4000)
    parser.add_argument("--train", type=int, default=1000)
    parser.add_argument("--test", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pretrain-epochs", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--frames", type=int, default=12, help="of a video that are shown; overlays come from all 12")
    parser.add_argument("--hidden", type=float, default=0.5)
    parser.add_argument("--wrong", type=float, default=0.5)
    parser.add_argument("--fit-steps", type=int, default=30, help="of the body's fit; fewer are faster and worse")
    given = parser.parse_args()
    place = Place(
        given.root.absolute(),
        given.pretrain,
        given.train,
        given.test,
        given.pretrain_epochs,
        given.epochs,
        given.lr,
        given.frames,
        given.hidden,
        given.wrong,
        given.fit_steps,
    )
    started = time.perf_counter()
    make_data(place)
    clips: dict[str, list[list[dict[str, float]]]] = {title: [] for title, *_ in ROWS}
    for seed in range(given.seeds):
        for arm in ("visual", "motion", "uniform"):
            train(place, arm, seed)
        for title, arm, overlays, decoding in ROWS:
            clips[title].append(measure(place, arm, seed, overlays, decoding))
    print_table(place, clips, given.seeds, time.perf_counter() - started)


def owlcap(*arguments: object) -> None:
    """One command of the project, its output in the way only when it fails."""
    command = [sys.executable, "-m", "owlcap", *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}")


def once(path: Path, make: Callable[[], None]) -> Path:
    """Make what is not there yet."""
    if not path.exists():
        print(f"  making {path}", file=sys.stderr, flush=True)
        make()
    return path


def make_data(place: Place) -> None:
    """Clips, base models, overlays of all clips, and the training rows of every arm."""
    root, data = place.root, place.root / "data"
    num_clips = place.num_train + place.num_pretrain
    counts = ("--num-train", num_clips, "--num-validation", 32, "--num-test", place.num_test)
    once(root / "base", lambda: owlcap("data", "toy", data, *counts, "--base", root / "base"))
    once(rows_of(place, "arms"), lambda: split_rows(place))
    once(pretrained(place), lambda: pretrain(place))
    once(root / "base_macm", lambda: owlcap("model", "add-motion", pretrained(place), root / "base_macm"))
    for name in ("pose", "uniform"):
        whole = overlays_of(place, "train", name)
        once(root / f"train.{name}.half.jsonl", lambda whole=whole, name=name: halve(whole, root, name))
    for name in OVERLAYS:
        overlays_of(place, "test", name)


def rows_of(place: Place, part: str) -> Path:
    """Training rows of every arm ("arms"), or of the base model ("base"); beside the videos that they name."""
    return place.root / "data" / f"{part}.jsonl"


def split_rows(place: Place) -> None:
    """Write both."""
    lines = (place.root / "data" / "train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    rows_of(place, "base").write_text("".join(lines[place.num_train :]), encoding="utf-8")
    rows_of(place, "arms").write_text("".join(lines[: place.num_train]), encoding="utf-8")


def overlays_of(place: Place, split: str, name: str) -> Path:
    """The split's rows with overlays."""
    out = place.root / f"{split}.{name}.jsonl"
    values = {"root": place.root, "hidden": place.hidden, "wrong": place.wrong, "fit_steps": place.fit_steps}
    settings = [one.format(**values) for one in (*SETTINGS, *OVERLAYS[name])]
    source = rows_of(place, "arms") if split == "train" else place.root / "data" / "test.jsonl"
    return once(out, lambda: owlcap("motion", "extract", source, *settings, "--config", "toy_macm_sft", "--out", out))


def halve(whole: Path, root: Path, name: str) -> None:
    """Training rows of which every second has no overlays."""
    rows = [json.loads(line) for line in whole.read_text(encoding="utf-8").splitlines()]
    for row in rows[1::2]:
        row.pop("overlays", None)
    (root / f"train.{name}.half.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def model_of(place: Place, arm: str, seed: int) -> Path:
    """Where a trained model is."""
    return place.root / "runs" / f"{arm}-{seed}" / "model"


def sft_settings(place: Place, name: str, seed: int) -> list[str]:
    """What all trainings share."""
    return [
        f"name={name}",
        f"run_dir={place.root}/runs",
        f"seed={seed}",
        *video_settings(place),
        "sft.validate_every_steps=100000",
        "sft.num_validation=32",
        "cluster.learner_ranks=1",
        "cluster.cpus_per_learner=1",
        "data.target=full",  # captions that leave nothing out
        f"data.validation={place.root}/data/validation.jsonl",
    ]


def video_settings(place: Place) -> list[str]:
    """How much of a video is shown, in training and in captioning."""
    return [f"video.min_frames={place.num_frames}", f"video.max_frames={place.num_frames}"]


def pretrained(place: Place) -> Path:
    """Where the base model is that knows videos."""
    return place.root / "runs" / "pretrained" / "model"


def pretrain(place: Place) -> None:
    """Train it."""
    settings = sft_settings(place, "pretrained", 0)
    settings += [f"model.path={place.root}/base", f"data.train={rows_of(place, 'base')}"]
    owlcap("sft", "toy_sft", *settings, f"sft.num_epochs={place.pretrain_epochs}")


def train(place: Place, arm: str, seed: int) -> None:
    """Train one model, unless it is there."""
    root = place.root
    settings = sft_settings(place, f"{arm}-{seed}", seed)
    settings += [f"optimizer.lr={place.learning_rate}", f"sft.num_epochs={place.num_epochs}"]
    if arm == "visual":
        settings += [f"model.path={pretrained(place)}", f"data.train={rows_of(place, 'arms')}"]
    else:
        name = "pose" if arm == "motion" else "uniform"
        settings += [
            f"model.path={root}/base_macm",
            f"data.train={root}/train.{name}.half.jsonl",
            "motion.missing=visual",
        ]
    config = "toy_sft" if arm == "visual" else "toy_macm_sft"
    once(model_of(place, arm, seed), lambda: owlcap("sft", config, *settings))


def measure(place: Place, arm: str, seed: int, overlays: str | None, decoding: str) -> list[dict[str, float]]:
    """Figures of every held-out clip; captions are kept in ROOT."""
    from owlcap.data.rows import read_rows

    folder, test = model_of(place, arm, seed), place.root / f"test.{overlays or 'pose'}.jsonl"
    samples = read_rows(test)[: place.num_test]
    kept = place.root / "captions" / f"{arm}-{seed}-{overlays or 'none'}-{decoding}.json"

    def make() -> None:
        kept.parent.mkdir(exist_ok=True)
        kept.write_text(json.dumps(captions(place, folder, samples, overlays is not None, decoding)), encoding="utf-8")

    texts = json.loads(once(kept, make).read_text(encoding="utf-8"))
    return [figures_of(sample, texts[sample.id]) for sample in samples]


def captions(
    place: Place, folder: Path, samples: Sequence[Sample], with_overlays: bool, decoding: str
) -> dict[str, str]:
    """Captions by id, with transformers; a batch of clips at a time."""
    from owlcap.config import ModelSection
    from owlcap.config_io import load_run
    from owlcap.config_motion import DecodingSection
    from owlcap.data.prompts import encode_prompt, vision_token_ids
    from owlcap.data.video import VideoLoader
    from owlcap.inference.paired import (
        BanTokens,
        PairPrompt,
        SynergyProcessor,
        decode,
        decode_pairs,
        end_token_ids,
    )
    from owlcap.models.load import load_policy, load_processor
    from owlcap.models.logprobs import vision_features

    run = load_run("toy_macm_sft", ["run_dir=unused", *video_settings(place)])
    model = load_policy(ModelSection(path=str(folder), dtype="fp32", gradient_checkpointing=False))
    processor, texts = load_processor(folder, run.video), {}
    banned = vision_token_ids(processor)
    with VideoLoader(run.video, run.motion) as loader:
        for start in range(0, len(samples), BATCH):
            batch = samples[start : start + BATCH]
            clips = [loader.load(sample) for sample in batch]
            bare = [replace(clip, overlays=()) for clip in clips]
            views = [
                [encode_prompt(processor, clip, sample, 512) for clip, sample in zip(view, batch, strict=True)]
                for view in (bare, clips)
            ]
            limits = [MAX_NEW_TOKENS] * len(batch)
            if decoding == "msd":
                pairs = [PairPrompt(*pair) for pair in zip(*views, strict=True)]
                rows = decode_pairs(model, pairs, SynergyProcessor(DecodingSection()), limits, banned_ids=banned)
            else:
                prompts = views[with_overlays]
                features = vision_features(model, [prompt.vision for prompt in prompts])
                rows = decode(model, prompts, features, [BanTokens(banned)], limits, end_token_ids(model))
            for sample, row in zip(batch, rows, strict=True):
                texts[sample.id] = processor.tokenizer.decode(row, skip_special_tokens=True)
    return texts


def figures_of(sample: Sample, caption: str) -> dict[str, float]:
    """Recall, precision and share of wrong sides of one caption; a figure without anything to count is left out."""
    from owlcap.data.toy.lexicon import parse

    true = {fact.text for fact in sample.facts if fact.tag == "motion"}
    said = {unit.fact for unit in parse(caption).units if unit.tag == "motion"}
    sided = [fact for fact in said if fact.startswith("action=") and fact != mirrored(fact)]
    checked = [fact for fact in sided if fact in true or mirrored(fact) in true]
    counts = {
        "recall": (len(said & true), len(true)),
        "precision": (len(said & true), len(said)),
        "wrong side": (sum(fact not in true for fact in checked), len(checked)),
    }
    return {name: part / whole for name, (part, whole) in counts.items() if whole}


def mirrored(fact: str) -> str:
    """The same action on the other side."""
    return fact.replace("left", "RIGHT").replace("right", "left").replace("RIGHT", "right")


Cell = dict[str, Any]  # a figure of a row, as JSON


def print_table(place: Place, clips: dict[str, list[list[dict[str, float]]]], num_seeds: int, seconds: float) -> None:
    """Means over clips of their means over seeds; differences of rows, paired by clip; all as JSON."""
    means = {title: {figure: by_clip(seeds, figure) for figure in FIGURES} for title, seeds in clips.items()}
    rows = {
        title: {
            figure: cell(list(of.values())) | {"by_seed": [mean_of(seed, figure) for seed in clips[title]]}
            for figure, of in figures.items()
        }
        for title, figures in means.items()
    }
    against = {
        f"{title}, against {other}": {
            figure: cell(
                [value - means[other][figure][clip] for clip, value in of.items() if clip in means[other][figure]]
            )
            for figure, of in means[title].items()
        }
        for title, other in [(title, ROWS[0][0]) for title, *_ in ROWS[1:]] + SAMPLINGS
    }
    print_rows("what", rows, "")
    print_rows("paired by clip", against, "+")
    settings = {
        "pretrain": place.num_pretrain,
        "train": place.num_train,
        "test": place.num_test,
        "epochs": place.num_epochs,
        "lr": place.learning_rate,
        "frames": place.num_frames,
        "hidden": place.hidden,
        "wrong": place.wrong,
    }
    told = {
        "benchmark": "macm_evidence",
        "seeds": num_seeds,
        **settings,
        "s": seconds,
        "rows": rows,
        "against": against,
    }
    print(json.dumps(told))


def by_clip(seeds: Sequence[Sequence[dict[str, float]]], figure: str) -> dict[int, float]:
    """A figure's mean over seeds, of every clip that has it."""
    values = ([one[figure] for one in clip if figure in one] for clip in zip(*seeds, strict=True))
    return {clip: fmean(some) for clip, some in enumerate(values) if some}


def mean_of(seed: Sequence[dict[str, float]], figure: str) -> float | None:
    """A figure's mean over the clips of a seed that have it."""
    values = [one[figure] for one in seed if figure in one]
    return fmean(values) if values else None


def cell(values: Sequence[float]) -> Cell:
    """Mean over clips with its standard error."""
    error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return {"mean": fmean(values) if values else None, "standard_error": error, "clips": len(values)}


def print_rows(head: str, rows: dict[str, dict[str, Cell]], sign: str) -> None:
    """As a table; a dash where no caption had anything to count."""
    print(f"| {head} | motion recall | motion precision | wrong side |")
    print("| --- | ---: | ---: | ---: |")
    for title, cells in rows.items():
        shown = (
            "-"
            if one["mean"] is None or one["standard_error"] is None
            else f"{one['mean']:{sign}.3f} ± {one['standard_error']:.3f}"
            for one in cells.values()
        )
        print(f"| {title} | {' | '.join(shown)} |")
    print()


if __name__ == "__main__":
    main()
