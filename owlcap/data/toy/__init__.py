"""The toy world: short real videos of people who act in simple scenes, with known facts and captions."""

from owlcap.data.toy.world import TOY_PROMPTS, ToyVideo, ToyWorld, make_toy_world

__all__ = ["TOY_PROMPTS", "ToyVideo", "ToyWorld", "make_toy_world"]
