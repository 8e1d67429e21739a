"""A run's folder as `owlcap rl` leaves it, made in milliseconds: real rows, scores and judgements, no training."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from owlcap.config import AlgorithmSection, CacheSection, CserSection, RlRun
from owlcap.config_io import load_run
from owlcap.evaluation.report import ClipRow, make_report, save_report
from owlcap.runs import RunDir
from owlcap.types import (
    Completion,
    Judgement,
    RewardBreakdown,
    RolloutFailure,
    RolloutGroup,
    Sample,
    Score,
    ScoredGroup,
    ScoredRollout,
    Unscored,
)
from rewards.cache import Reply, ReplyCache
from rewards.cser import score_judgements
from rewards.lexical import LexicalJudge
from rl.figures import timeline
from rl.step import assemble, write_rows

REFERENCE = "A man in a red coat opens the door and waves. A dog sleeps on the mat."
HOSTILE = "A man </script><img src=x onerror=\"document.title='taken'\"><b>waves</b> & {{ 7 * 7 }} -->"
CAPTIONS = ("A man in a red coat opens the door.", "A man in a blue coat waves. A bird sings.", HOSTILE)
REPLY_ID, REPLY = "chatcmpl-1", '{"1": "supported"} </script><i>the judge says</i>'


def make_run(folder: Path, videos: Sequence[Path], num_steps: int = 3, num_groups: int = 3) -> RunDir:
    """A complete run: in each step `num_groups` groups of four captions, one of them unscored, and a failed prompt."""
    cfg = _config(folder, num_steps)
    run = RunDir.create(cfg)
    run.record(cfg)
    replies = ReplyCache(CacheSection(path=str(run.path / "judge.sqlite")))
    replies.put("key", Reply(REPLY, REPLY_ID), model="m", kind="units")
    replies.close()
    rows = []
    for step in range(1, num_steps + 1):
        results = [_group(f"clip-{place}", videos[place % len(videos)], step, place) for place in range(num_groups)]
        failed = RolloutFailure(_sample("broken", Path("/nowhere/broken.mp4")), "VideoError", "the file is empty")
        batch = assemble([*results, failed], AlgorithmSection(), step, policy_version=step - 1)
        write_rows(batch.rows, run.rollouts_file(step))
        seconds = {"generate": 2.0, "judge": 0.5, "update": 1.0, "sync": 0.25, "step": 4.0}
        values = {**batch.values, **{f"seconds/{name}": value for name, value in seconds.items()}}
        rows.append({"step": step, "time": 1.7e9 + step, **values, **timeline(values), "train/kl": 0.01 * step})
    for step in (0, num_steps):
        clips = [ClipRow(f"clip-{i}", ("A man.",), REFERENCE, {"cser": 0.5 + step + i}) for i in range(2)]
        save_report(make_report(f"eval step {step}", clips), run.evaluation_file(step))
        rows.append({"step": step, "time": 1.7e9 + step, "eval/cser": 1.0 + step})
    run.metrics_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run.model.mkdir()
    return run


def _config(folder: Path, num_steps: int) -> RlRun:
    replies = folder / "made" / "judge.sqlite"
    settings = ["name=made", f"run_dir={folder}", f"num_steps={num_steps}", f"rewards.cache.path={replies}"]
    cfg = load_run("toy_grpo", settings)
    assert isinstance(cfg, RlRun)
    return cfg


def _sample(id: str, video: Path) -> Sample:
    return Sample(id, str(video), "Describe.", REFERENCE, REFERENCE)


def _group(id: str, video: Path, step: int, place: int) -> ScoredGroup:
    """Captions with the offline judge's units; the first caption's reward grows with its place and step."""
    judged = [_score(text) for text in CAPTIONS]
    scores: list[ScoredRollout] = [replace(one, total=one.total + 0.1 * (step + place)) for one in judged]
    scores.append(Unscored("cser", "the judge did not answer"))
    completions = tuple(Completion((1, 2, 3), (-0.5,) * 3, text, "stop", step - 1) for text in (*CAPTIONS, "A cat."))
    return ScoredGroup(RolloutGroup(_sample(id, video), completions, num_prompt_tokens=10), tuple(scores))


@cache
def _score(caption: str) -> RewardBreakdown:
    judgement: Judgement = asyncio.run(LexicalJudge().judge(caption, REFERENCE))
    score = score_judgements([replace(judgement, reply_ids=(REPLY_ID, "chatcmpl-gone"))], CserSection())
    assert isinstance(score, Score)
    return RewardBreakdown(score.value, {"cser": score, "length": Score(0.2)}, score.metrics)
