"""verl's RLHFDataset as parquet: `prompt` with <video> marks, `videos`, `reward_model.ground_truth`, `extra_info`.

Source: verl 0.9, verl/utils/dataset/rl_dataset.py. `extra_info` has what rewards.adapters.verl hands to rewards.
"""

from __future__ import annotations

import os
from typing import Any

import pyarrow as pa

from owlcap.types import Sample

DATA_SOURCE = "owlcap"
_QUESTION = pa.struct({"question": pa.string(), "options": pa.list_(pa.string()), "answer": pa.string()})
SCHEMA = pa.schema(
    {
        "data_source": pa.string(),
        "prompt": pa.list_(pa.struct({"role": pa.string(), "content": pa.string()})),
        "videos": pa.list_(pa.struct({"video": pa.string(), "video_start": pa.float64(), "video_end": pa.float64()})),
        "ability": pa.string(),
        "reward_model": pa.struct({"style": pa.string(), "ground_truth": pa.string()}),
        "extra_info": pa.struct(
            {
                "index": pa.string(),
                "caption": pa.string(),
                "questions": pa.list_(_QUESTION),
                "keypoints": pa.list_(pa.string()),
            }
        ),
    }
)


def row(sample: Sample, prompt: str) -> dict[str, Any]:
    """One sample; `prompt` marks the place of the video."""
    questions = [{"question": q.question, "options": list(q.options), "answer": q.answer} for q in sample.questions]
    video = {"video": os.path.abspath(sample.video), "video_start": sample.start_s, "video_end": sample.end_s}
    return {
        "data_source": DATA_SOURCE,
        "prompt": [{"role": "user", "content": prompt}],
        "videos": [video],
        "ability": "video captioning",
        "reward_model": {"style": "rule", "ground_truth": sample.reference},
        "extra_info": {
            "index": sample.id,
            "caption": sample.caption,
            "questions": questions,
            "keypoints": list(sample.keypoints),
        },
    }
