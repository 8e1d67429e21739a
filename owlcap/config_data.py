"""The schema of the data pipelines, `owlcap data fuse`, `examine` and `hmi`: one YAML for all of them.

What the papers leave open is marked INTERPRETATION: our reading, to be changed here and nowhere else.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from owlcap.config import CacheSection, ClusterSection, JudgeSection, MotionSection, Section, VideoSection

PERSON_WORDS = (
    *(
        "person",
        "people",
        "man",
        "woman",
        "boy",
        "girl",
        "child",
        "kid",
        "he",
        "she",
        "someone",
        "figure",
        "lady",
        "guy",
    ),
    *("player", "dancer", "athlete", "chef", "worker"),
)


class AskedModelSection(JudgeSection):
    """A model that is asked: behind OpenAI-compatible servers, or served here by vLLM while the pipeline runs."""

    kind: Literal["lexical", "openai"] = "openai"
    temperature: float | None = Field(default=0.0, ge=0)
    max_tokens: int | None = Field(default=2048, gt=0)
    serve: str | None = None  # a model folder: vLLM serves it on this machine, and base_urls is not used
    serve_arguments: tuple[str, ...] = ()  # of that vLLM server, e.g. --tensor-parallel-size=4
    serve_deadline_s: float = Field(default=900.0, gt=0)  # for it to load the model

    @model_validator(mode="after")
    def _is_model(self) -> AskedModelSection:
        if self.kind != "openai":
            raise ValueError("a data pipeline asks models that see videos: kind must be openai")
        return self


class ShownSection(Section):
    """How a clip is shown to a multimodal model."""

    form: Literal["frames", "video"] = "frames"  # pictures, for any server; video: the file, for vLLM
    video: VideoSection = VideoSection(fps=1.0, min_frames=4, max_frames=32, max_pixels=512 * 28 * 28)
    quality: int = Field(default=85, ge=1, le=100)  # of JPEG pictures


class HmdSection(Section):
    """Motion-Detail Fusion and Fine-Grained Examination (OwlCap)."""

    min_accuracy: float = Field(default=0.9, ge=0, le=1)  # share of a caption's units that the video supports
    min_units: int = Field(default=1, gt=0)  # a caption with fewer is dropped
    prompt: str = "Describe the video in detail."  # asked in the rows that are written


class ScenesSection(Section):
    """Where a source video is cut: PySceneDetect's content detector."""

    threshold: float = Field(default=27.0, gt=0)
    min_scene_s: float = Field(default=0.6, gt=0)
    frame_skip: int = Field(default=0, ge=0)  # frames passed over between two that are looked at


class PersonSection(Section):
    """Which segments show one person who moves (M-ACM, HMI)."""

    min_single_share: float = Field(default=0.9, ge=0, lt=1)  # exactly one person in more than this share of frames
    min_s: float = Field(default=2.0, gt=0)
    max_s: float = Field(default=10.0, gt=0)
    min_box_share: float = Field(default=1 / 50, ge=0, lt=1)  # of the picture; the person's box is larger
    min_keypoints: int = Field(default=12, gt=0)  # of COCO's 17, with confidence above min_confidence
    min_face_points: int = Field(default=2, ge=0)  # of nose, eyes, ears
    min_confidence: float = Field(default=0.5, ge=0, lt=1)
    min_displacement: float = Field(default=0.05, ge=0)  # INTERPRETATION: mean path a second, in box diagonals
    judge_by: Literal["mean", "every"] = (
        "mean"  # INTERPRETATION: box, key points and face: on average, or in each frame
    )


class HmiSection(Section):
    """Human Motion and Interaction data (M-ACM)."""

    scenes: ScenesSection = ScenesSection()
    person: PersonSection = PersonSection()
    scan_fps: float = Field(
        default=1.0, gt=0
    )  # frames a second of a scene that are searched for stretches of one person
    pose_fps: float = Field(default=4.0, gt=0)  # frames a second of a segment on which it is judged
    caption_words: tuple[str, ...] = PERSON_WORDS  # INTERPRETATION: captions with none of these are passed over
    fine_max_s: float = Field(default=5.0, gt=0)  # segments up to this are fine-grained, longer ones contextual
    whole_video: bool = True  # also caption each source video as a whole
    questions_a_clip: int = Field(default=9, gt=0)  # the published 1,031K over 115K clips
    open_share: float = Field(default=0.77, ge=0, le=1)  # of questions; the others are true or false
    true_share: float = Field(default=0.68, ge=0, le=1)  # of true-or-false questions whose answer is true
    qa_share: float = Field(default=0.2, ge=0, le=1)  # of questions that go into the training mix
    seed: int = Field(default=0, ge=0)
    prompt: str = "Describe the person's movements in detail."


class DataPipelineRun(Section):
    """Settings of `owlcap data fuse`, `examine` and `hmi`."""

    kind: Literal["data"] = "data"
    motion_model: AskedModelSection = AskedModelSection(model="omni-research/Tarsier2-Recap-7b")  # INFERRED
    general_model: AskedModelSection = AskedModelSection(model="Qwen/Qwen2.5-VL-72B-Instruct")  # INFERRED
    examiner: AskedModelSection = AskedModelSection(model="Qwen/Qwen2.5-VL-72B-Instruct")  # splits and verifies
    writer: AskedModelSection = AskedModelSection(model="Qwen/Qwen3-32B")  # of questions; sees text alone
    shown: ShownSection = ShownSection()
    hmd: HmdSection = HmdSection()
    hmi: HmiSection = HmiSection()
    motion: MotionSection = MotionSection()  # the pose source and the key frames of hmi
    prompts: str | None = None  # a folder whose files replace those of the same name in owlcap/data/pipeline/prompts
    cache: CacheSection = CacheSection()
    cluster: ClusterSection = ClusterSection()
    num_actors: int = Field(default=1, gt=0)  # processes that decode and ask
    cpus_per_actor: float = Field(default=1.0, gt=0)
    gpus_per_actor: float = Field(default=0.0, ge=0)  # for pose models
    clips_at_once: int = Field(default=32, gt=0)  # of one actor
    max_failed_share: float = Field(default=0.2, ge=0, le=1)  # of clips without an answer; more ends the command
    output: Literal["jsonl", "parquet"] = "jsonl"  # of the file with every intermediate
