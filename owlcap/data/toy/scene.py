"""What happens in a toy clip: drawn at random from a seed, and known exactly.

Sides are as the viewer sees them: the "left arm" is the arm on the left of the picture.

Held-out combinations. A clip shows one combination (shirt, object, action pair) for every two actions that
follow each other, where "object" is colour and kind together. Number the shirts, the objects and the ordered
action pairs; a combination is held out when the sum of its three numbers is divisible by HELD_OUT_EVERY (5).
Training and validation clips show no held-out combination, test clips show nothing else. So every shirt, object
and ordered pair of actions is seen in training, each pair of them too, but none of the tested triples is.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from typing import Literal

from owlcap.types import Fact

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

ACTIONS = (
    "raise_left_arm",
    "raise_right_arm",
    "kick_left_leg",
    "kick_right_leg",
    "walk_left",
    "walk_right",
    "jump",
    "squat",
    "bow",
    "spread_arms",
)
SHIRTS = ("red", "blue", "green", "yellow", "purple", "white")
TROUSERS = ("black", "blue", "red", "white", "yellow")
OBJECT_COLORS = ("red", "blue", "green", "yellow")
OBJECT_KINDS = ("ball", "box", "cone", "hoop")
SIDES = ("left", "right")
BACKGROUNDS = ("grass", "beach", "snow", "street", "room", "night")
PEOPLE = (1, 2, 3)

HELD_OUT_EVERY = 5


@dataclass(frozen=True, slots=True)
class TimedAction:
    """One action and when it happens, as shares of the clip's length (0 = start, 1 = end)."""

    name: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Look:
    """What varies between clips without being a fact: lengths in shares of the picture, angles in radians."""

    center: float  # where the person stands, from the middle
    size: float  # of the person, 1 = usual
    light: float  # brightness, 1 = usual
    skin: int  # which of the renderer's skin tones
    hair: int
    scenery: int  # seed of the background's small things
    crowd: tuple[int, ...]  # where the others stand: places of the renderer, one a person


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything there is to know about a toy clip."""

    shirt: str
    trousers: str
    object_color: str
    object_kind: str
    object_side: str
    background: str
    num_people: int  # the one who acts, and others who stand still
    actions: tuple[TimedAction, ...]  # 2 or 3, in order, all different
    look: Look

    @property
    def facts(self) -> tuple[Fact, ...]:
        """Details, then actions in order, then the order of each two actions that follow each other."""
        names = [action.name for action in self.actions]
        details = (
            f"shirt={self.shirt}",
            f"trousers={self.trousers}",
            f"object={self.object_color} {self.object_kind} {self.object_side}",
            f"background={self.background}",
            f"people={self.num_people}",
        )
        orders = [f"order={first}>{second}" for first, second in itertools.pairwise(names)]
        return (
            *(Fact(text, "detail") for text in details),
            *(Fact(f"action={name}", "motion") for name in names),
            *(Fact(text, "motion") for text in orders),
        )


def combinations(scene: Scene) -> tuple[tuple[str, str, str], ...]:
    """The (shirt, object, action pair) combinations that a clip shows, e.g. ("red", "blue ball", "jump>bow")."""
    names = [action.name for action in scene.actions]
    thing = f"{scene.object_color} {scene.object_kind}"
    return tuple((scene.shirt, thing, f"{first}>{second}") for first, second in itertools.pairwise(names))


def is_held_out(combination: tuple[str, str, str]) -> bool:
    """Whether a combination is kept for the test split (the rule at the top of this file)."""
    shirt, thing, pair = combination
    color, kind = thing.split()
    first, second = pair.split(">")
    number = (
        SHIRTS.index(shirt)
        + OBJECT_COLORS.index(color) * len(OBJECT_KINDS)
        + OBJECT_KINDS.index(kind)
        + ACTIONS.index(first) * len(ACTIONS)
        + 2 * ACTIONS.index(second)
    )
    return number % HELD_OUT_EVERY == 0


def make_scene(split: Split, seed: int, index: int) -> Scene:
    """Draw the clip `index` of a split; the same arguments always give the same scene."""
    rng = random.Random(f"scene/{seed}/{split}/{index}")
    num_actions = rng.choice((2, 3))
    while True:
        scene = _draw(rng, num_actions)
        held_out = [is_held_out(combination) for combination in combinations(scene)]
        if all(held_out) if split == "test" else not any(held_out):
            return scene


def _draw(rng: random.Random, num_actions: int) -> Scene:
    shirt = rng.choice(SHIRTS)
    num_people = rng.choice(PEOPLE)
    return Scene(
        shirt=shirt,
        trousers=rng.choice([color for color in TROUSERS if color != shirt]),
        object_color=rng.choice(OBJECT_COLORS),
        object_kind=rng.choice(OBJECT_KINDS),
        object_side=rng.choice(SIDES),
        background=rng.choice(BACKGROUNDS),
        num_people=num_people,
        actions=_timed(rng.sample(ACTIONS, num_actions), rng),
        look=Look(
            center=rng.uniform(-0.03, 0.03),
            size=rng.uniform(0.94, 1.04),
            light=rng.uniform(0.92, 1.05),
            skin=rng.randrange(4),
            hair=rng.randrange(4),
            scenery=rng.randrange(2**31),
            crowd=tuple(rng.sample(range(4), num_people - 1)),
        ),
    )


def _timed(names: list[str], rng: random.Random) -> tuple[TimedAction, ...]:
    """Three actions share the clip evenly; of two, either may take half or two thirds of it."""
    cuts = (1 / 3, 2 / 3) if len(names) == 3 else (rng.choice((1 / 3, 1 / 2, 2 / 3)),)
    edges = (0.0, *cuts, 1.0)
    return tuple(TimedAction(name, start, end) for name, start, end in zip(names, edges, edges[1:], strict=False))
