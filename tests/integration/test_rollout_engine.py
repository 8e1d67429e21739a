"""A real vLLM engine on the tiny policy: what a group holds, what is counted, and what new weights change."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoProcessor

from owlcap.config import ModelSection, RolloutSection, VideoSection
from owlcap.data.prompts import encode_prompt, vision_token_ids
from owlcap.data.video import decode
from owlcap.errors import RolloutError
from owlcap.models.load import load_policy, policy_state_dict
from owlcap.types import RolloutFailure, RolloutGroup, Sample, SamplingSettings
from rollout.settings import GenerationRequest, RolloutEngineSettings

pytestmark = pytest.mark.slow

VIDEO = VideoSection(fps=6, min_frames=4, max_frames=12, min_pixels=784, max_pixels=3136)
ROLLOUT = RolloutSection(max_model_len=256, max_num_seqs=16, kv_cache_gib=0.0625, max_new_tokens=24)
GREEDY = SamplingSettings(temperature=0.0, max_new_tokens=24)
SAMPLED = SamplingSettings(num_completions=4, max_new_tokens=24, seed=1)
Weights = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def engine(tiny_policy: Path):
    """One engine for this module. A test that changes its weights puts them back (`original`)."""
    from rollout.engine import VllmEngine

    engine = VllmEngine(
        RolloutEngineSettings(str(tiny_policy), VIDEO, rollout=ROLLOUT, dtype="fp32", max_prompt_tokens=128)
    )
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def weights(tiny_policy: Path) -> Weights:
    """The policy's weights as the learner would send them. Copy before changing."""
    policy = load_policy(ModelSection(path=str(tiny_policy), dtype="fp32", gradient_checkpointing=False))
    return {name: tensor.detach().numpy() for name, tensor in policy_state_dict(policy)}


@pytest.fixture
def original(engine, weights: Weights) -> Iterator[Weights]:
    """The weights, put back into the engine after the test."""
    yield weights
    engine.load_weights([list(weights.items())], 0)


@pytest.fixture
def ask(toy_clips: tuple[Path, ...]):
    """A request about toy clip `i`."""

    def request(i: int = 0, sampling: SamplingSettings = SAMPLED, **changes: bool) -> GenerationRequest:
        sample = Sample(f"clip-{i}", str(toy_clips[i]), "Describe the video.", "A caption.", "A caption.")
        return replace(GenerationRequest(sample, sampling), **changes)

    return request


def generate(engine, *requests: GenerationRequest) -> list[RolloutGroup]:
    groups = engine.generate(requests)
    assert all(isinstance(group, RolloutGroup) for group in groups), groups
    return groups


def token_ids(groups: list[RolloutGroup]) -> list[list[tuple[int, ...]]]:
    return [[completion.token_ids for completion in group.completions] for group in groups]


def test_a_group_holds_distinct_completions_with_a_logprob_for_every_token(engine, ask):
    (group,) = generate(engine, ask())
    assert len({completion.token_ids for completion in group.completions}) == 4
    for completion in group.completions:
        assert len(completion.logprobs) == len(completion.token_ids)
        assert all(logprob < 0 for logprob in completion.logprobs)
        assert completion.policy_version == 0


def test_a_completion_ends_with_an_end_token_or_at_the_length_limit(engine, ask, tiny_policy):
    processor = AutoProcessor.from_pretrained(tiny_policy)
    ends = {processor.tokenizer.eos_token_id, processor.tokenizer.pad_token_id}
    # The random policy stops about once in 250 tokens, so 256 sequences of 24 tokens hold both kinds.
    (group,) = generate(engine, ask(sampling=replace(SAMPLED, num_completions=256)))
    assert {completion.finish_reason for completion in group.completions} == {"stop", "length"}
    for completion in group.completions:
        stopped = completion.finish_reason == "stop"
        assert (completion.token_ids[-1] in ends) == stopped
        assert not ends & set(completion.token_ids[:-1])
        assert stopped or len(completion.token_ids) == 24
        assert completion.text == processor.tokenizer.decode(completion.token_ids, skip_special_tokens=True)


def test_a_clip_is_decoded_and_processed_once_a_group(engine, ask):
    before = engine.counters
    generate(engine, ask(0), ask(1), ask(2, replace(SAMPLED, num_completions=8)))
    after = engine.counters
    assert after.num_decoded - before.num_decoded == 3
    assert after.num_processed - before.num_processed == 3
    assert after.num_groups - before.num_groups == 3


def test_the_learners_prompt_is_the_processors(engine, ask, tiny_policy, toy_clips):
    (group,) = generate(engine, ask())
    expected = encode_prompt(AutoProcessor.from_pretrained(tiny_policy), decode(toy_clips[0], VIDEO), group.sample, 128)
    assert group.prompt.token_ids == expected.token_ids
    assert group.num_prompt_tokens == len(expected.token_ids)
    assert group.prompt.vision.video_grid_thw == expected.vision.video_grid_thw
    assert group.prompt.vision.second_per_grid_ts == expected.vision.second_per_grid_ts
    assert np.array_equal(group.prompt.vision.pixel_values_videos, expected.vision.pixel_values_videos)


def test_a_prompt_that_is_not_wanted_is_not_returned(engine, ask):
    (group,) = generate(engine, ask(return_prompt=False))
    assert group.prompt is None


def test_a_seed_fixes_the_completions(engine, ask):
    requests = [ask(i, replace(SAMPLED, seed=100 * i)) for i in range(4)]
    first, second = generate(engine, *requests), generate(engine, *requests)
    assert [group.completions for group in first] == [group.completions for group in second]
    (other,) = generate(engine, ask(0, replace(SAMPLED, seed=7)))
    assert token_ids([other]) != token_ids(first[:1])


def test_greedy_completions_do_not_depend_on_the_seed(engine, ask):
    first, second = generate(engine, ask(sampling=GREEDY), ask(sampling=replace(GREEDY, seed=9)))
    assert first.completions == second.completions


def test_several_greedy_completions_are_refused(engine, ask):
    with pytest.raises(RolloutError, match="greedy"):
        engine.generate([ask(sampling=replace(GREEDY, num_completions=4))])


def test_a_bad_clip_is_a_failure_beside_the_others_groups(engine, ask, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"not a video")
    bad = replace(ask(), sample=replace(ask().sample, id="bad", video=str(broken)))
    before = engine.counters.num_failures
    first, failure, last = engine.generate([ask(0), bad, ask(1)])
    assert isinstance(failure, RolloutFailure)
    assert (failure.sample.id, failure.error) == ("bad", "VideoError")
    assert str(broken) in failure.reason
    assert [first.sample.id, last.sample.id] == ["clip-0", "clip-1"]
    assert engine.counters.num_failures == before + 1


def test_groups_come_out_as_they_finish_and_requests_wait_their_turn(engine, ask):
    # 16 sequences fit: the last request is admitted when others are done, and a short one overtakes a long one.
    requests = [ask(0), *(ask(i % 4, replace(SAMPLED, num_completions=12, max_new_tokens=4)) for i in range(4))]
    order = [position for position, _ in engine.stream(requests)]
    assert sorted(order) == [0, 1, 2, 3, 4]
    assert order[0] != 0


def test_a_caller_that_stops_early_leaves_the_engine_clean(engine, ask):
    results = engine.stream([ask(0, replace(SAMPLED, max_new_tokens=2)), ask(1), ask(2)])
    next(results)
    results.close()
    assert len(engine.generate([ask(3)])) == 1


def test_one_call_is_read_at_a_time(engine, ask):
    results = engine.stream([ask(0, replace(SAMPLED, max_new_tokens=2)), ask(1)])
    next(results)
    with pytest.raises(RolloutError, match="another call"):
        engine.generate([ask(2)])
    results.close()


def test_completions_depend_on_the_requests_and_not_on_what_was_asked_before(engine, ask):
    requests = [ask(i, replace(SAMPLED, seed=10 * i)) for i in range(3)]
    first = generate(engine, *requests)
    generate(engine, ask(1), ask(3))
    assert [group.completions for group in generate(engine, *requests)] == [group.completions for group in first]


def test_vision_tokens_are_never_drawn_even_where_the_policy_wants_them(engine, ask, original, tiny_policy):
    banned = list(vision_token_ids(AutoProcessor.from_pretrained(tiny_policy)))
    (before,) = generate(engine, ask(sampling=GREEDY))
    favourite = before.completions[0].token_ids[0]
    head = original["lm_head.weight"].copy()
    head[banned] = 3 * head[favourite]  # where the favourite's logit is positive theirs are three times as large
    engine.load_weights([list((original | {"lm_head.weight": head}).items())], 1)
    groups = generate(engine, *(ask(i) for i in range(4)))
    drawn = [token for group in token_ids(groups) for ids in group for token in ids]
    assert not set(banned) & set(drawn)
    # The raw logprobs show that the bait was there: much of the mass lay on tokens that were not drawn.
    assert min(logprob for group in groups for c in group.completions for logprob in c.logprobs) < np.log(1e-3)
    (greedy,) = generate(engine, ask(sampling=GREEDY))
    assert greedy.completions[0].logprobs[0] < before.completions[0].logprobs[0] - 1


def test_new_weights_change_the_completions_and_their_version(engine, ask, original):
    (before,) = generate(engine, ask())
    changed = [(name, array * np.float32(1.05)) for name, array in original.items()]
    engine.load_weights([changed[:10], changed[10:]], 5)
    (after,) = generate(engine, ask())
    assert engine.version == 5
    assert {completion.policy_version for completion in after.completions} == {5}
    assert token_ids([after]) != token_ids([before])
    engine.load_weights([list(original.items())], 6)
    (again,) = generate(engine, ask())
    assert [c.logprobs for c in again.completions] == [c.logprobs for c in before.completions]


def test_generation_for_another_version_is_refused(engine, ask):
    with pytest.raises(RolloutError, match="policy version 0, not 3"):
        engine.generate([ask()], version=3)


def test_an_engine_with_half_its_weights_refuses_to_generate(engine, ask, original):
    with pytest.raises(RolloutError, match="did not reach every layer"):
        engine.load_weights([list(original.items())[:-2]], 1)
    with pytest.raises(RolloutError, match="half-loaded"):
        engine.generate([ask()])


def test_an_engine_that_sleeps_is_woken_by_new_weights_in_vllms_order(engine, ask, original, monkeypatch):
    before = token_ids(generate(engine, ask()))
    calls = []

    def note(name: str) -> None:
        real = getattr(engine._llm, name)

        def noted(*args: object, **kwargs: object):
            calls.append((name, *kwargs.values()))
            return real(*args, **kwargs)

        monkeypatch.setattr(engine._llm, name, noted)

    for name in ("sleep", "wake_up", "collective_rpc"):  # a CPU engine takes the first two and does nothing
        note(name)
    engine.sleep()
    with pytest.raises(RolloutError, match="the engine sleeps"):
        generate(engine, ask())
    engine.load_weights([list(original.items())], 3)
    assert calls == [("sleep", 2), ("wake_up", ["weights"]), ("collective_rpc",), ("wake_up", ["kv_cache"])]
    assert token_ids(generate(engine, ask())) == before
    assert engine.version == 3


def test_weights_do_not_change_under_running_groups(engine, ask, original):
    results = engine.stream([ask(0, replace(SAMPLED, max_new_tokens=2)), ask(1)])
    next(results)
    with pytest.raises(RolloutError, match="while groups are being generated"):
        engine.load_weights([list(original.items())], 1)
    results.close()
