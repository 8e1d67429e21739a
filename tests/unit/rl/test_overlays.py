"""Motion actors before the engines: rows' own overlays pass by, others are made once, a step ahead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from owlcap.types import RolloutFailure, RolloutGroup, Sample, SamplingSettings
from rl.overlays import WithOverlays
from rollout.settings import GenerationRequest


def sample(name: str, *overlays: str) -> Sample:
    return Sample(name, f"{name}.mp4", "Describe.", "c", "c", overlays=overlays)


@dataclass
class Overlays:
    """Motion actors as the wrapper knows them: one picture for every clip but those named bad."""

    begun: list[str] = field(default_factory=list)

    def begin(self, samples: Sequence[Sample]) -> None:
        self.begun += [one.id for one in samples if not one.overlays]

    def take(self, one: Sample) -> Sample | RolloutFailure:
        if one.id.startswith("bad"):
            return RolloutFailure(one, "DataError", "nobody was found")
        return one if one.overlays else replace(one, overlays=(f"{one.id}.png",))


class Engines:
    """Gives every request back as a group."""

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[RolloutGroup | RolloutFailure]:
        for request in requests:
            yield RolloutGroup(request.sample, ())


def results(*samples: Sample) -> dict[str, RolloutGroup | RolloutFailure]:
    requests = [GenerationRequest(one, SamplingSettings()) for one in samples]
    source = WithOverlays(Engines(), Overlays())  # type: ignore[arg-type]
    return {result.sample.id: result for result in source.generate(requests)}


def test_engines_get_the_prompts_with_their_overlays() -> None:
    found = results(sample("a"), sample("b", "own.png"))
    assert found["a"].sample.overlays == ("a.png",)
    assert found["b"].sample.overlays == ("own.png",)


def test_a_clip_without_overlays_to_make_is_a_failure_and_the_others_go_on() -> None:
    found = results(sample("bad"), sample("a"))
    assert isinstance(found["bad"], RolloutFailure)
    assert found["bad"].reason == "nobody was found"
    assert isinstance(found["a"], RolloutGroup)
