"""One picture of what the motion pathway makes of a clip: key frames, key points, overlays."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
from PIL import Image, ImageDraw

from motion.cache import POSES, MotionRecord, picture_paths, read_record
from motion.extract import MotionExtractor, MotionFailure
from motion.pose.types import NAMES, Layout
from owlcap.config_motion import MotionSection
from owlcap.errors import ConfigError, DataError
from owlcap.types import Sample

BONES = (
    ("left_shoulder", "right_shoulder"),
    ("left_hip", "right_hip"),
    *(
        (f"{side}_{first}", f"{side}_{second}")
        for side in ("left", "right")
        for first, second in (
            ("shoulder", "elbow"),
            ("elbow", "wrist"),
            ("shoulder", "hip"),
            ("hip", "knee"),
            ("knee", "ankle"),
        )
    ),
)
SIDES = {"left": (255, 90, 60), "right": (60, 200, 255)}  # the person's own
MIDDLE, BOX, INK, PAPER = (255, 230, 80), (255, 255, 255), (20, 20, 20), (245, 245, 245)
WIDEST, TEXT = 240, 16  # pixels: of one picture, and of one line of text
ROWS = ("key frames", "key points", "overlays")


def contact_sheet(folder: Path, min_confidence: float) -> Image.Image:
    """Draw an entry of the cache: three rows of pictures, a column a key frame, and what was found under each."""
    record = read_record(folder)
    assert record is not None, f"{folder} is not an entry of the cache"
    scale = min(1.0, WIDEST / record.width) if record.width > WIDEST else max(1, WIDEST // record.width)
    size = (round(record.width * scale), round(record.height * scale))
    frames = [Image.open(path).resize(size) for path in picture_paths(folder, record, "frame")]
    overlays = [Image.open(path).resize(size) for path in picture_paths(folder, record)]
    points = [frame.copy() for frame in frames]
    with np.load(folder / POSES) as poses:
        layout = cast("Layout", record.layout)
        for picture, number in zip(points, poses["chosen"], strict=True):
            _draw_pose(picture, layout, poses["keypoints"][number], poses["boxes"][number], scale, min_confidence)
    columns = len(frames)
    row_height = size[1] + TEXT
    sheet = Image.new("RGB", (max(columns * (size[0] + 4), 420), 3 * row_height + 4 * TEXT), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((4, 2), _headline(record), INK)
    for row, (title, pictures) in enumerate(zip(ROWS, (frames, points, overlays), strict=True)):
        top = TEXT + 4 + row * row_height
        pen.text((4, top), title, INK)
        for column, picture in enumerate(pictures):
            sheet.paste(picture, (column * (size[0] + 4), top + TEXT))
    for column in range(columns):
        for line, text in enumerate(_notes(record, column)):
            pen.text((column * (size[0] + 4) + 2, TEXT + 6 + 3 * row_height + line * (TEXT - 4)), text, INK)
    return sheet


def _headline(record: MotionRecord) -> str:
    people = f"{_people(record.most_people)} at most"
    return (
        f"{Path(record.video).name}: {record.num_frames} frames looked at, poses from {record.source}, {people}, "
        f"main person in {record.present_share:.0%}"
    )


def _notes(record: MotionRecord, column: int) -> tuple[str, str]:
    index, error = record.frame_indices[column], record.error_px[column]
    found = "no body" if not record.drawn[column] else "source's body" if error is None else f"{error:.1f} px off"
    return f"frame {index} ({index / record.fps:.2f} s)", f"{_people(record.num_people[column])}, {found}"


def _people(count: int) -> str:
    return f"{count} {'person' if count == 1 else 'people'}"


def _draw_pose(
    picture: Image.Image, layout: Layout, keypoints: np.ndarray, box: np.ndarray, scale: float, min_confidence: float
) -> None:
    pen = ImageDraw.Draw(picture)
    if box.any():
        pen.rectangle([float(side) * scale for side in box], outline=BOX)
    places = {
        name: (float(x) * scale, float(y) * scale)
        for name, (x, y, confidence) in zip(NAMES[layout], keypoints, strict=False)
        if confidence >= min_confidence and confidence > 0
    }
    for first, second in BONES:
        if first in places and second in places:
            same = first.split("_")[0] == second.split("_")[0]
            pen.line([places[first], places[second]], SIDES[first.split("_")[0]] if same else MIDDLE, 3)
    for name, (x, y) in places.items():
        pen.ellipse((x - 2, y - 2, x + 2, y + 2), fill=SIDES.get(name.split("_")[0], MIDDLE))


def show_video(video: Path, motion: MotionSection, out: Path) -> str:
    """Extract one video, write its contact sheet, and say what was found.

    Raises:
        OwlcapError: what is wrong with the video, the settings or a model file.
        ConfigError: the picture cannot be written.
    """
    sample = Sample(video.stem, str(video), "", "", "")
    with MotionExtractor(motion) as extractor:
        result = extractor.extract([sample])[0]
        if isinstance(result, MotionFailure):
            raise DataError(result.reason)
        sheet = contact_sheet(extractor.cache.folder(sample), motion.pose.min_confidence)
    try:
        sheet.save(out)
    except (OSError, ValueError) as error:
        raise ConfigError(f"the picture cannot be written: {error}", where=str(out), cure="name a .png file") from error
    return _headline(result.record)
