"""The driver's loop with scripted actors: order, limits, checkpoints. The real actors are in tests/integration."""

from __future__ import annotations

import errno
import json
import signal
from pathlib import Path

import pytest

from owlcap.errors import CheckpointError, DataError, DiskError, RolloutError, TrainingError
from owlcap.metrics import read_metrics
from owlcap.runs import RunDir, disk_errors
from owlcap.training.checkpoint import load_meta
from owlcap.training.group import LearnerLostError
from rl.state import load_state
from tests.unit.rl.scripted import NUM_ROWS, PER_STEP, Script, checkpoint, config, train


def test_the_learner_gets_groups_in_the_order_of_the_prompts(tmp_path: Path) -> None:
    script = Script()
    train(config(tmp_path), script)
    assert script.learned == script.asked
    assert len(script.asked) == 6
    assert script.version == 6
    assert script.exported


def test_an_epoch_ends_after_every_row_was_asked_for(tmp_path: Path) -> None:
    script = Script()
    train(config(tmp_path), script)
    assert sorted(id_ for step in script.asked[:4] for id_ in step) == sorted(f"clip-{i}" for i in range(NUM_ROWS))


def test_metrics_have_a_row_a_step_and_captions_a_file(tmp_path: Path) -> None:
    cfg = config(tmp_path)
    train(cfg, Script())
    run = RunDir(tmp_path / "toy")
    rows = read_metrics(run)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[0]["reward/mean"] == 0.5
    assert {"seconds/generate", "seconds/judge", "seconds/update", "seconds/sync", "seconds/step"} <= rows[0].keys()
    lines = run.rollouts_file(3).read_text().splitlines()
    assert len(lines) == PER_STEP
    assert json.loads(lines[0])["completions"][1]["reward"] == 1.0


def test_each_step_tells_what_its_judges_cost_and_the_end_the_total(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="rl.trainer"):
        train(config(tmp_path), Script())
    rows = read_metrics(RunDir(tmp_path / "toy"))
    assert [(row["judge/requests"], row["judge/usd"]) for row in rows] == [(10, 0.5)] * 6
    assert "judges since this start: 60 requests" in caplog.text
    assert "3.00 USD" in caplog.text


def test_a_monitor_warns_once_and_not_again_after_a_resume(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rewards = {"monitors": {"repetition": 0.3}}
    with caplog.at_level("WARNING", logger="rl.trainer"):
        train(config(tmp_path, num_steps=3, rewards=rewards), Script(repetition=0.5))
        train(config(tmp_path, num_steps=6, rewards=rewards), Script(repetition=0.5), resume=True)
    told = [record.message for record in caplog.records if "monitor/" in record.message]
    assert len(told) == 1
    assert told[0].startswith("step 1: monitor/repetition is 0.5, beyond rewards.monitors.repetition=0.3")
    assert [row["monitor/repetition"] for row in read_metrics(RunDir(tmp_path / "toy"))] == [0.5] * 6


def test_a_bad_clip_is_counted_and_the_run_goes_on(tmp_path: Path) -> None:
    cfg = config(tmp_path, data={"train": "train.jsonl", "max_prompt_tokens": 100, "max_bad_rows_share": 0.1})
    script = Script(bad_clips=frozenset({"clip-7"}))
    train(cfg, script)
    assert sum(len(groups) for groups in script.learned) == 60 - sum("clip-7" in step for step in script.asked)
    assert sum(row["rollout/failed"] or 0 for row in read_metrics(RunDir(tmp_path / "toy"))) >= 1


def test_too_many_bad_clips_stop_the_run_with_a_checkpoint(tmp_path: Path) -> None:
    cfg = config(tmp_path)
    script = Script(bad_clips=frozenset(f"clip-{i}" for i in range(0, NUM_ROWS, 2)))
    with pytest.raises(DataError, match=r"2\d of 50 prompts gave no captions") as caught:
        train(cfg, script)
    assert str(caught.value).count("where:") == 1
    assert len(script.asked) == 5  # not before 50 prompts were asked for
    assert load_meta(checkpoint(cfg)).step == 4
    assert not script.exported


def test_too_many_unscored_rollouts_stop_the_run_with_a_checkpoint(tmp_path: Path) -> None:
    cfg = config(tmp_path)
    script = Script(unscored_from_version=3)
    with pytest.raises(TrainingError, match="100% of the rollouts could not be scored") as caught:
        train(cfg, script)
    assert "the judge is away" in str(caught.value)
    assert len(script.learned) == 3
    state = load_state(checkpoint(cfg))
    assert (state.step, state.policy_version, state.num_prompts) == (3, 3, 30)


def test_a_checkpoint_that_cannot_be_written_ends_the_run_and_is_not_tried_again(tmp_path: Path) -> None:
    """One rank's failure leaves the others waiting in DeepSpeed: a second try would wait for them."""
    script = Script(disk_is_full=True)
    with pytest.raises(CheckpointError, match="no space"):
        train(config(tmp_path, checkpoint={"every_steps": 2}), script)
    assert script.saves == 1


@pytest.mark.parametrize(("file", "step"), [("rollouts/step_000003.jsonl", 2), ("metrics.jsonl", 1)])
def test_a_full_disk_ends_the_run_with_the_file_named_and_a_checkpoint(tmp_path: Path, file: str, step: int) -> None:
    cfg, script = config(tmp_path, num_steps=3), Script(links={file: "/dev/full"})
    with pytest.raises(DiskError, match="No space left on device") as caught:
        train(cfg, script)
    assert caught.value.where == str(tmp_path / "toy" / file)
    assert load_meta(checkpoint(cfg)).step == step


def test_a_full_disk_that_names_no_file_is_of_the_runs_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As TensorBoard's thread tells it, one step later."""

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    cfg = config(tmp_path)
    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter.add_scalar", fail)
    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter.close", fail)
    with pytest.raises(DiskError) as caught, disk_errors(tmp_path / "toy"):
        train(cfg, Script())
    assert caught.value.where == str(tmp_path / "toy")
    assert load_meta(checkpoint(cfg)).step == 1


def test_a_signal_during_an_update_waits_for_it_and_the_run_can_go_on(tmp_path: Path) -> None:
    cfg = config(tmp_path)
    script = Script(signal_at_update=3)
    with pytest.raises(SystemExit) as caught:
        train(cfg, script)
    assert caught.value.code == 128 + signal.SIGTERM
    assert len(script.learned) == 3
    assert load_meta(checkpoint(cfg)).step == 3
    again = Script()
    _, learner = train(cfg, again, resume=True)
    straight = Script()
    train(config(tmp_path / "straight"), straight)
    assert script.asked + again.asked == straight.asked
    assert learner.updates == 6
    assert [row["step"] for row in read_metrics(RunDir(tmp_path / "toy"))] == [1, 2, 3, 4, 5, 6]


def test_a_finished_run_that_trains_on_keeps_its_model_under_a_number(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "toy")
    train(config(tmp_path, num_steps=2), Script())
    with pytest.raises(SystemExit):
        train(config(tmp_path, num_steps=9), Script(signal_at_update=3), resume=True)
    assert not run.model.exists()
    assert (run.path / "model.1" / "updates").read_text() == "2"
    train(config(tmp_path, num_steps=9), Script(), resume=True)
    train(config(tmp_path, num_steps=9), Script(), resume=True)  # nothing is left to train
    assert (run.model / "updates").read_text() == "9"
    assert not (run.path / "model.2").exists()


def test_resuming_at_the_end_of_an_epoch_starts_the_next(tmp_path: Path) -> None:
    first = config(tmp_path, num_steps=4)
    script = Script()
    train(first, script)
    again = Script()
    train(config(tmp_path, num_steps=6), again, resume=True)
    straight = Script()
    train(config(tmp_path / "straight"), straight)
    assert len(again.asked) == 2
    assert script.asked + again.asked == straight.asked


def test_an_engine_lost_in_a_sync_leaves_a_checkpoint_of_the_update(tmp_path: Path) -> None:
    cfg = config(tmp_path)
    script = Script(sync_fails_at=2)
    with pytest.raises(RolloutError, match="an engine is gone"):
        train(cfg, script)
    assert load_state(checkpoint(cfg)).policy_version == 2
    assert (checkpoint(cfg) / "updates").read_text() == "2"
    assert [row["step"] for row in read_metrics(RunDir(tmp_path / "toy"))] == [1, 2]


def test_a_step_without_any_group_changes_no_weights(tmp_path: Path) -> None:
    cfg = config(tmp_path, num_steps=1)
    script = Script(bad_clips=frozenset(f"clip-{i}" for i in range(NUM_ROWS)))
    _, learner = train(cfg, script)
    assert learner.updates == 0
    assert script.version == 0
    assert load_state(checkpoint(cfg)).policy_version == 0


def test_a_lost_learner_goes_on_from_the_last_checkpoint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cfg = config(tmp_path, checkpoint={"every_steps": 2})
    script = Script(ranks_lost_at=(4,))
    with caplog.at_level("WARNING", logger="rl.trainer"):
        _, learner = train(cfg, script)
    straight = Script()
    train(config(tmp_path / "straight"), straight)
    assert (learner.updates, learner.restarts) == (6, 1)
    assert script.learned[:3] + script.learned[4:] == [*straight.learned[:3], *straight.learned[3:]]
    assert script.learned[3] == script.learned[2]  # step 3 once more, from the checkpoint of step 2
    assert script.version == 6
    assert [row["step"] for row in read_metrics(RunDir(tmp_path / "toy"))] == [1, 2, 3, 4, 5, 6]
    assert load_state(checkpoint(cfg)).num_prompts == 60
    assert "the learner starts again (1 of 3): learner rank 1 died" in caplog.text


def test_a_learner_lost_before_the_first_checkpoint_starts_anew(tmp_path: Path) -> None:
    script = Script(ranks_lost_at=(3,))
    _, learner = train(config(tmp_path), script)
    assert learner.updates == 6
    assert [row["step"] for row in read_metrics(RunDir(tmp_path / "toy"))] == [1, 2, 3, 4, 5, 6]


def test_a_learner_that_is_lost_too_often_ends_the_run(tmp_path: Path) -> None:
    cfg = config(tmp_path, cluster={"max_learner_restarts": 1}, checkpoint={"every_steps": 1})
    with pytest.raises(LearnerLostError):
        train(cfg, Script(ranks_lost_at=(2, 3)))
    assert load_meta(checkpoint(cfg)).step == 1


def test_async_trains_captions_of_the_policy_before_and_says_so(tmp_path: Path) -> None:
    cfg = config(tmp_path, pipeline={"mode": "async", "ahead": 1})
    script = Script()
    train(cfg, script)
    straight = Script()
    train(config(tmp_path / "straight"), straight)
    assert script.learned == straight.learned
    rows = read_metrics(RunDir(tmp_path / "toy"))
    assert [row["staleness/max"] for row in rows] == [0, 1, 1, 1, 1, 1]
    assert [row["staleness/mean"] for row in rows] == [0, 1, 1, 1, 1, 1]


def test_groups_that_are_too_stale_are_left_out_and_counted(tmp_path: Path) -> None:
    cfg = config(tmp_path, pipeline={"mode": "async", "ahead": 3, "max_staleness": 1}, num_steps=4)
    script = Script(samples_from=0)
    train(cfg, script)
    rows = read_metrics(RunDir(tmp_path / "toy"))
    assert [row["rollout/stale_groups"] for row in rows] == [0, 0, 10, 10]
    assert [len(groups) for groups in script.learned] == [10, 10]


def test_an_async_run_that_was_interrupted_asks_for_the_same_prompts_again(tmp_path: Path) -> None:
    cfg = config(tmp_path, pipeline={"mode": "async", "ahead": 1})
    script = Script(signal_at_update=3)
    with pytest.raises(SystemExit):
        train(cfg, script)
    again = Script()
    train(cfg, again, resume=True)
    straight = Script()
    train(config(tmp_path / "straight"), straight)
    assert script.learned + again.learned == straight.learned


def test_dynamic_sampling_goes_on_until_enough_groups_have_different_rewards(tmp_path: Path) -> None:
    cfg = config(tmp_path, algorithm={"dynamic_sampling": True}, num_steps=2)
    equal = frozenset(f"clip-{i}" for i in range(0, NUM_ROWS, 4))
    script = Script(equal_rewards=equal)
    train(cfg, script)
    asked = [id_ for round_ in script.asked for id_ in round_]
    assert sorted(asked) == sorted({*asked})  # no prompt twice before the epoch ends
    assert all(len(groups) == PER_STEP and not equal & set(groups) for groups in script.learned)
    rows = read_metrics(RunDir(tmp_path / "toy"))
    assert sum(row["rollout/rounds"] or 0 for row in rows) == len(script.asked)
    state = load_state(checkpoint(cfg))
    assert state.num_prompts == len(asked)
    assert (state.cursor.epoch, state.cursor.batch) == divmod(len(script.asked), NUM_ROWS // PER_STEP)


def test_dynamic_sampling_has_an_end(tmp_path: Path) -> None:
    cfg = config(tmp_path, algorithm={"dynamic_sampling": True, "max_sampling_rounds": 3}, num_steps=1)
    script = Script(equal_rewards=frozenset(f"clip-{i}" for i in range(1, NUM_ROWS)))
    train(cfg, script)
    assert len(script.asked) == 3
    assert script.learned in ([["clip-0"]], [])


def test_an_interrupted_run_with_dynamic_sampling_goes_on_with_the_same_prompts(tmp_path: Path) -> None:
    changes = {"algorithm": {"dynamic_sampling": True}, "num_steps": 4}
    equal = frozenset(f"clip-{i}" for i in range(0, NUM_ROWS, 3))
    first, again, straight = (Script(equal_rewards=equal) for _ in range(3))
    first.signal_at_update = 2
    with pytest.raises(SystemExit):
        train(config(tmp_path, **changes), first)
    train(config(tmp_path, **changes), again, resume=True)
    train(config(tmp_path / "straight", **changes), straight)
    assert first.asked + again.asked == straight.asked
    assert first.learned + again.learned == straight.learned


def test_dynamic_sampling_and_async_are_refused_together(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"pipeline\.mode=overlap or algorithm\.dynamic_sampling=false"):
        config(tmp_path, algorithm={"dynamic_sampling": True}, pipeline={"mode": "async"})


def test_lora_with_dropout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model\.lora\.dropout must be 0"):
        config(tmp_path, model={"path": "model", "lora": {"dropout": 0.1}})
