"""Runs from YAML and overrides: what wins, what is refused, and how a refusal is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from owlcap.config import RlRun, SftRun
from owlcap.config_io import dump, find_config, load_run
from owlcap.errors import ConfigError

MINIMAL = """\
kind: sft
name: tiny
model: {path: base}
data: {train: train.jsonl}
optimizer: {lr: 1e-3}
"""


def write(folder: Path, text: str, name: str = "run.yaml") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def refusal(path: Path | str, *overrides: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_run(path, overrides)
    return caught.value


def test_a_minimal_file_becomes_a_run_with_defaults(tmp_path: Path) -> None:
    run = load_run(write(tmp_path, MINIMAL))
    assert isinstance(run, SftRun)
    assert (run.name, run.seed, run.optimizer.lr, run.sft.batch_size) == ("tiny", 0, 1e-3, 64)


def test_an_extending_file_wins_key_by_key(tmp_path: Path) -> None:
    write(tmp_path, MINIMAL + "seed: 1\nvideo: {fps: 4, max_frames: 32}\n", "base/low.yaml")
    write(tmp_path, "extends: base/low.yaml\nvideo: {max_frames: 64}\n", "middle.yaml")
    run = load_run(write(tmp_path, "extends: middle.yaml\nname: top\n"))
    assert (run.name, run.seed, run.video.fps, run.video.max_frames) == ("top", 1, 4.0, 64)


def test_a_list_replaces_the_whole_list(tmp_path: Path) -> None:
    run = load_run(
        write(tmp_path, MINIMAL + "tracking: {backends: [wandb, mlflow]}\n"), ["tracking.backends=[trackio]"]
    )
    assert run.tracking.backends == ("trackio",)


def test_overrides_win_in_their_order_and_reach_into_lists() -> None:
    run = load_run("toy_grpo", ["seed=1", "seed=2", "rewards.terms[0].weight=3"])
    assert isinstance(run, RlRun)
    assert (run.seed, run.rewards.terms[0].weight, run.rewards.terms[0].name) == (2, 3.0, "cser")


def test_interpolation_follows_an_override(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL.replace("train.jsonl", "'${run_dir}/train.jsonl'") + "run_dir: here\n")
    assert load_run(path).data.train == "here/train.jsonl"
    assert load_run(path, ["run_dir=there"]).data.train == "there/train.jsonl"


def test_a_name_is_found_among_the_configs_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_config("toy_grpo").name == "toy_grpo.yaml"
    error = refusal("toy_grpp")
    assert "toy_grpp" in error.what
    assert "toy_sft" in str(error.allowed)
    assert error.cure == "did you mean toy_grpo?"


@settings(deadline=None, max_examples=30)
@example(seed=0, lr=1.0, prompt="0e0", betas=(0.0, 0.0))  # a number to OmegaConf, text to PyYAML
@given(
    seed=st.integers(0, 2**31),
    lr=st.floats(1e-9, 10, allow_nan=False),
    prompt=st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=20),
    betas=st.tuples(st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True)),
)
def test_a_dumped_run_loads_as_an_equal_run(
    tmp_path_factory: pytest.TempPathFactory, seed: int, lr: float, prompt: str, betas: tuple[float, float]
) -> None:
    base = load_run("toy_grpo")
    optimizer = base.optimizer.model_copy(update={"lr": lr, "betas": betas})
    data = base.data.model_copy(update={"prompt": prompt.replace("$", "")})
    run = base.model_copy(update={"seed": seed, "optimizer": optimizer, "data": data})
    path = write(tmp_path_factory.mktemp("dump"), dump(run))
    assert load_run(path) == run


class TestUnknownKeys:
    def test_names_file_line_section_and_nearest_key(self, tmp_path: Path) -> None:
        path = write(tmp_path, MINIMAL + "sft:\n  num_epochs: 2\n  batchsize: 8\n")
        error = refusal(path)
        assert error.what == "unknown key sft.batchsize (value 8)"
        assert error.where == f"{path}:8"
        assert "num_epochs, batch_size" in str(error.allowed)
        assert error.cure == "did you mean batch_size?"

    def test_the_file_that_gave_the_key_is_named_not_the_one_extending_it(self, tmp_path: Path) -> None:
        base = write(tmp_path, MINIMAL + "sede: 3\n", "base.yaml")
        error = refusal(write(tmp_path, "extends: base.yaml\nname: top\n"))
        assert error.where == f"{base}:6"
        assert error.cure == "did you mean seed?"

    def test_an_override_is_named_as_it_was_typed(self) -> None:
        error = refusal("toy_grpo", "rollout.group_sise=4")
        assert error.where == "override rollout.group_sise=4"
        assert error.cure == "did you mean group_size?"

    @pytest.mark.parametrize(
        "override", ["kind=x", "run_dir=${nowhere}", "rewards.terms=[{weight: 1}]", "video.min_frames=900"]
    )
    def test_an_override_is_named_whatever_is_wrong_with_it(self, override: str) -> None:
        assert refusal("toy_grpo", override).where == f"override {override}"

    def test_overrides_that_do_not_fit_the_rest_of_the_run_are_named_beside_the_file(self) -> None:
        error = refusal("toy_grpo", "rollout.prompts_per_step=7", "seed=3")
        assert "prompts_per_step is 7" in error.what
        assert error.where == f"{find_config('toy_grpo')} with rollout.prompts_per_step=7 seed=3"

    def test_inside_a_list(self) -> None:
        error = refusal("toy_grpo", "rewards.terms[0].wight=2")
        assert error.what == "unknown key rewards.terms[0].wight (value 2)"
        assert error.allowed == "keys of rewards.terms[0]: name, weight, options"


@pytest.mark.parametrize(
    ("override", "allowed"),
    [
        ("seed=eight", "a whole number"),
        ("seed='8'", "a whole number"),
        ("seed=true", "a whole number"),
        ("name=7", "text"),
        ("model.gradient_checkpointing=1", "true or false"),
        ("model.dtype=fp16", "'fp32' or 'bf16'"),
        ("optimizer.lr=0", "more than 0.0"),
        ("optimizer.warmup_ratio=1", "less than 1.0"),
        ("rollout=3", "a section of keys"),
        ("rewards.terms=cser", "a list"),
        ("num_steps=1.5", "a whole number"),
    ],
)
def test_an_ill_typed_value_is_told_with_what_is_allowed(override: str, allowed: str) -> None:
    key, _, value = override.partition("=")
    error = refusal("toy_grpo", override)
    assert error.what.startswith(f"{key} is ")
    assert value.strip("'").lower() in error.what.lower()
    assert error.where == f"override {override}"
    assert error.allowed == allowed


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    path = write(tmp_path, "kind: sft\nname: x\nmodel: {path: 3}\ndata: {trian: a}\n")
    told = str(refusal(path))
    assert told.startswith(f"4 settings of {path} cannot be used")
    for part in (
        "model.path is 3",
        f"{path}:3",
        "unknown key data.trian",
        "data.train has no value",
        "optimizer has no",
    ):
        assert part in told


def test_rules_between_settings_are_told_with_their_cure() -> None:
    assert "group_size is 1" in refusal("toy_grpo", "rollout.group_size=1").what
    error = refusal("toy_grpo", "rollout.prompts_per_step=15")
    assert error.what.startswith("rollout.prompts_per_step is 15; it must be a multiple of 2")
    assert error.what.endswith("use 16")


@pytest.mark.parametrize("override", ["seed", "=3", "a..b=1", ".a=1"])
def test_an_override_that_is_not_key_value_is_refused(override: str) -> None:
    assert repr(override) in refusal("toy_grpo", override).what


@pytest.mark.parametrize("override", ["name=[1", "name={a", "name=a: b"])
def test_an_override_whose_value_is_not_yaml_is_refused(override: str) -> None:
    assert repr(override) in refusal("toy_grpo", override).what


def test_a_list_index_that_does_not_exist_is_refused() -> None:
    assert "rewards.terms[7].weight=1" in refusal("toy_grpo", "rewards.terms[7].weight=1").what


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("kind: sft\nmodel: [1\n", 3, "expected ',' or ']'"),
        ("kind: sft\nkind: rl\n", 2, "duplicate key kind"),
        ("kind: sft\n\tname: x\n", 2, "cannot start any token"),
    ],
)
def test_broken_yaml_is_told_with_its_line(tmp_path: Path, text: str, line: int, problem: str) -> None:
    path = write(tmp_path, text)
    error = refusal(path)
    assert problem in error.what
    assert str(error.where).startswith(f"{path}:{line}:")


@pytest.mark.parametrize("text", ["word\n", "- a\n- b\n", "3\n"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, text)
    assert refusal(path).where == str(path)


@pytest.mark.parametrize("text", ["", "name: x\n", "kind: dpo\n"])
def test_a_run_without_a_known_kind_is_refused(tmp_path: Path, text: str) -> None:
    assert refusal(write(tmp_path, text)).allowed == "sft, rl"


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(b"kind: sft\nname: \xff\n")
    assert str(refusal(path).where).endswith("byte 16")


def test_extends_must_name_a_file_that_exists(tmp_path: Path) -> None:
    path = write(tmp_path, "kind: sft\nextends: gone.yaml\n")
    error = refusal(path)
    assert "gone.yaml" in error.what
    assert error.where == f"{path}:2"


def test_a_cycle_of_extends_is_told_with_its_way(tmp_path: Path) -> None:
    write(tmp_path, "extends: run.yaml\n", "other.yaml")
    where = str(refusal(write(tmp_path, "extends: other.yaml\n")).where)
    assert [Path(part).name for part in where.split(" -> ")] == ["run.yaml", "other.yaml", "run.yaml"]


def test_an_interpolation_of_nothing_is_told_with_its_key(tmp_path: Path) -> None:
    error = refusal(write(tmp_path, MINIMAL + "run_dir: ${nowhere}\n"))
    assert "nowhere" in error.what
    assert "key run_dir" in str(error.where)


def test_a_mandatory_value_must_be_given(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL + "run_dir: ???\n")
    assert "run_dir" in refusal(path).what
    assert load_run(path, ["run_dir=out"]).run_dir == "out"
