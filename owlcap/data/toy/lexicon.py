"""Reads captions of the toy world back into facts: the inverse of the caption writer, with the same vocabulary.

`parse` takes any text, also a broken one, and never raises. What it can read becomes units in the form of the
facts ("shirt=red", "action=jump", "order=jump>bow"); what it cannot becomes `unread`, so that gibberish can be
made to cost something. `agreement` says whether a unit holds in another caption.

Order is stated by then, next, finally, before, after and the like; actions joined by "and" or a comma alone have
no stated order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from owlcap.data.toy.phrases import color_words
from owlcap.data.toy.reading import Item, Reading, Token, read, repeated_spans, runs, temporal_pairs, tokenize
from owlcap.types import Label, Tag

Slot = Literal["shirt", "trousers", "object", "background", "people", "action", "order"]
DETAIL_SLOTS: tuple[Slot, ...] = ("shirt", "trousers", "object", "background", "people")


@dataclass(frozen=True, slots=True)
class ParsedUnit:
    """One statement of a caption. An object's value may be partial: "ball left", "yellow ball"."""

    slot: Slot
    value: str
    text: str  # the words it was read from

    @property
    def tag(self) -> Tag:
        """Whether it is about motion or about a detail."""
        return "detail" if self.slot in DETAIL_SLOTS else "motion"

    @property
    def fact(self) -> str:
        """In the form of Fact.text, e.g. "shirt=red"."""
        return f"{self.slot}={self.value}"


@dataclass(frozen=True, slots=True)
class ParsedCaption:
    """Units in the order of the text, each once, and the fragments that say nothing that could be read."""

    units: tuple[ParsedUnit, ...]
    unread: tuple[str, ...]

    @property
    def facts(self) -> frozenset[str]:
        """All units in the form of Fact.text."""
        return frozenset(unit.fact for unit in self.units)

    def values(self, slot: Slot) -> tuple[str, ...]:
        """What the caption states of a slot; more than one value when it contradicts itself."""
        return tuple(unit.value for unit in self.units if unit.slot == slot)


def parse(text: str) -> ParsedCaption:
    """Read a caption into units and unread fragments. Takes any text; about 0.1 ms for 40 words.

    Repeated mentions of a unit become one, contradictory ones all stay. Unread are: runs of words that belong to no
    phrase (also a colour without its thing, a side without its object, an action without its side), sentences that
    state nothing, and fragments repeated word for word.
    """
    tokens = tokenize(text)
    reading = read(tokens)
    unknown = list(reading.unknown)
    units: dict[str, ParsedUnit] = {}

    def add(slot: Slot, value: str, first: int, last: int) -> None:
        unit = ParsedUnit(slot, value, _span(text, reading.tokens, first, last))
        units.setdefault(unit.fact, unit)

    for item in reading.items:
        match item.kind:
            case "shirt" | "trousers" | "background" | "people" | "action":
                add(item.kind, item.value, item.first, item.last)
    sides = _sides_of_objects(reading, unknown)
    objects = [item for item in reading.items if item.kind == "object"]
    for item in objects:
        side = sides.get(item)
        value = f"{item.value} {side.value}" if side else item.value
        ends = (item, side) if side else (item,)
        add("object", value, min(end.first for end in ends), max(end.last for end in ends))
    for earlier, later in temporal_pairs(reading):
        span = min(earlier.first, later.first), max(earlier.last, later.last)
        add("order", f"{earlier.value}>{later.value}", *span)
    _drop_vaguer_objects(units)
    return ParsedCaption(tuple(units.values()), tuple(_unread(text, tokens, reading, unknown)))


def agreement(unit: ParsedUnit, caption: ParsedCaption) -> Label:
    """Whether a caption supports a unit, contradicts it, or does not mention it.

    A slot with one truth (shirt, trousers, background, people) is contradicted by another value alone. An object is
    supported by one that has all its words, and contradicted by objects that all differ from it in a word. An action
    is contradicted when only its mirror image is there, an order when only the reverse follows from the caption.
    """
    match unit.slot:
        case "action":
            stated = caption.values("action")
            if unit.value in stated:
                return "supported"
            return "contradicted" if _mirrored(unit.value) in stated else "not_mentioned"
        case "order":
            first, second = unit.value.split(">")
            orders = [value.split(">") for value in caption.values("order")]
            if _follows(first, second, orders):
                return "supported"
            return "contradicted" if _follows(second, first, orders) else "not_mentioned"
        case "object":
            labels = [_object_agreement(unit.value, value) for value in caption.values("object")]
            if "supported" in labels:
                return "supported"
            return "contradicted" if labels and "not_mentioned" not in labels else "not_mentioned"
    stated = caption.values(unit.slot)
    return "supported" if unit.value in stated else "contradicted" if stated else "not_mentioned"


def _object_parts(value: str) -> dict[str, str]:
    """ "yellow ball left" -> {"color": "yellow", "kind": "ball", "side": "left"}, without what is missing."""
    colors = set(color_words().values())
    parts = {}
    for word in value.split():
        parts["color" if word in colors else "side" if word in ("left", "right") else "kind"] = word
    return parts


def _object_agreement(value: str, stated: str) -> Label:
    wanted, there = _object_parts(value), _object_parts(stated)
    if any(there.get(part, word) != word for part, word in wanted.items()):
        return "contradicted"
    return "supported" if wanted.keys() <= there.keys() else "not_mentioned"


def _mirrored(action: str) -> str:
    parts = action.split("_")
    return "_".join({"left": "right", "right": "left"}.get(part, part) for part in parts) if len(parts) > 1 else ""


def _follows(first: str, second: str, orders: list[list[str]]) -> bool:
    """Whether `second` comes later than `first` by the stated orders, also by way of other actions."""
    reached, frontier = set(), [first]
    while frontier:
        here = frontier.pop()
        for earlier, later in orders:
            if earlier == here and later not in reached:
                reached.add(later)
                frontier.append(later)
    return second in reached


def _sides_of_objects(reading: Reading, unknown: list[int]) -> dict[Item, Item]:
    """Give each object the side said of it in its sentence; sides that no object takes become unknown words."""
    sides: dict[Item, Item] = {}
    by_sentence: dict[int, list[Item]] = {}
    for item in reading.items:
        if item.kind in ("side", "object"):
            by_sentence.setdefault(reading.tokens[item.first].sentence, []).append(item)
    for items in by_sentence.values():
        # "a ball on the left": read backwards, a side comes before its object there too.
        ordered = items[::-1] if items[0].kind == "object" else items
        waiting: Item | None = None
        for item in ordered:
            if item.kind == "side":
                if waiting is not None:
                    unknown.extend(range(waiting.first, waiting.last))
                waiting = item
            elif waiting is not None:
                sides[item] = waiting
                waiting = None
        if waiting is not None:
            unknown.extend(range(waiting.first, waiting.last))
    return sides


def _drop_vaguer_objects(units: dict[str, ParsedUnit]) -> None:
    objects = [unit for unit in units.values() if unit.slot == "object"]
    for unit in objects:
        if any(set(unit.value.split()) < set(other.value.split()) for other in objects):
            del units[unit.fact]


def _unread(text: str, tokens: list[Token], reading: Reading, unknown: list[int]) -> Iterator[str]:
    for first, last in runs(sorted(unknown)):
        yield _span(text, reading.tokens, first, last)
    for first, last in repeated_spans(tokens):
        yield text[tokens[first].start : tokens[last - 1].end]
    stating = {reading.tokens[item.first].sentence for item in reading.items if item.kind not in ("marker", "side")}
    stating |= {reading.tokens[place].sentence for place in unknown}  # counted above
    empty: dict[int, list[Token]] = {}
    for token in tokens:
        if token.sentence not in stating:
            empty.setdefault(token.sentence, []).append(token)
    for silent in empty.values():
        yield text[silent[0].start : silent[-1].end]


def _span(text: str, tokens: tuple[Token, ...], first: int, last: int) -> str:
    return text[tokens[first].start : tokens[last - 1].end]
