"""Labels of one caption's units against the whole other caption.

A unit is supported where its words are found together, and contradicted in two cases only:
- two values exclude each other (red and blue, left and right, two and three, open and close, before and after);
- something was put in another's place: the same action with another object, the same object with another action,
  and neither caption mentions what the other one has there.
Everything else is not mentioned.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from owlcap.types import Label
from rewards.english import tables
from rewards.english.clauses import Caption, Clause, Phrase
from rewards.english.units import Statement, times
from rewards.english.words import concept, concepts_of, covering, excludes, may_be_person, modifiers

_GENERAL = concepts_of("man woman boy girl child person")  # who may be anyone's trade


def widened(words: Iterable[str]) -> set[str]:
    """The concepts and all wider ones: whoever says "girl" has said "child"."""
    return {wider for word in words for wider in covering(word)}


class Content:
    """What a caption holds, ready to be asked. Built once a caption."""

    def __init__(self, caption: Caption) -> None:
        self.caption = caption
        self.sentences = [widened(words) for words in caption.sentences]
        self.words = set().union(*self.sentences) if self.sentences else set()
        self.by_verb: dict[str, list[Clause]] = defaultdict(list)
        self.by_noun: dict[str, list[Phrase]] = defaultdict(list)
        self.by_object: dict[str, list[Clause]] = defaultdict(list)
        for clause in caption.clauses:
            for verb in covering(clause.verb):
                self.by_verb[verb].append(clause)
            for phrase in clause.objects:
                self.by_object[phrase.noun].append(clause)
        for phrase in caption.phrases:
            for noun in covering(phrase.noun):
                self.by_noun[noun].append(phrase)
        self.actors: dict[str, set[str]] = defaultdict(set)  # noun -> its verbs
        for clause in caption.clauses:
            if clause.actor:
                self.actors[clause.actor].add(clause.verb)
        self.times: dict[str, list[int]] = defaultdict(list)
        for clause, time in times(caption):
            for event in {clause.verb, clause.event}:
                self.times[event].append(time)

    def near(self, sentence: int) -> set[str]:
        """Words of a sentence and the two beside it."""
        return set().union(*self.sentences[max(0, sentence - 1) : sentence + 2])


class Matcher:
    """Labels the units of `own` against `other`."""

    def __init__(self, own: Content, other: Content) -> None:
        self._own, self._other = own, other

    def label(self, unit: Statement) -> Label:
        """Whether the other caption supports a unit, contradicts it, or does not mention it."""
        match unit.kind:
            case "actor":
                return self._actor(*unit.parts)
            case "attr":
                return self._attribute(*unit.parts)
            case "thing":
                return self._thing(*unit.parts)
            case "action" if len(unit.parts) == 1:
                return self._bare_action(*unit.parts)
            case "action":
                return self._action(*unit.parts)
            case "place":
                return self._place(*unit.parts)
            case "way":
                return self._way(*unit.parts)
            case "order":
                return self._order(*unit.parts)

    def _new(self, concepts: Iterable[str], instead_of: str) -> bool:
        """Whether one of the concepts stands in the place of ours: neither caption has the other's."""
        wider = covering(instead_of)
        return any(
            one not in self._own.words and one not in wider and instead_of not in covering(one) for one in concepts
        )

    def _excluded(self, one: str, among: Iterable[str]) -> bool:
        return any(excludes(one, there) for there in among)

    def _thing(self, noun: str) -> Label:
        if noun in self._other.words:
            return "supported"
        replaced = self._excluded(noun, (there for there in self._other.words if there not in self._own.words))
        return "contradicted" if replaced else "not_mentioned"

    def _actor(self, noun: str) -> Label:
        label = self._thing(noun)
        if label != "not_mentioned":
            return label
        doing = self._own.actors[noun] - concepts_of(tables.LIGHT_VERBS) - {concept("is")}
        others = [clause.actor for verb in doing for clause in self._other.by_verb.get(verb, ()) if clause.actor]
        if may_be_person(noun) and any(may_be_person(other) for other in others):
            trade = any(may_be_person(other) and other not in _GENERAL for other in others)
            return "supported" if noun in _GENERAL and trade else "not_mentioned"  # "the man" is the window cleaner
        return "contradicted" if self._new(others, noun) else "not_mentioned"

    def _attribute(self, modifier: str, noun: str) -> Label:
        phrases = self._other.by_noun.get(noun, [])
        values = {meaning for phrase in phrases for meaning, _ in phrase.modifiers}
        if modifier in widened(values):
            return "supported"
        if self._excluded(modifier, values):
            return "contradicted"
        if not phrases:
            return self._thing(modifier) if modifier in concepts_of(tables.SETTING) else "not_mentioned"
        around = set().union(*(self._other.sentences[phrase.sentence] for phrase in phrases))
        if modifier in around:
            return "supported"
        new = (there for there in around if there not in self._own.words)
        if self._excluded(modifier, new):
            return "contradicted"
        nouns = (value for value in values if value not in modifiers() and not value.isdigit())
        kind = modifier not in modifiers() and not modifier.isdigit()  # "tomato sauce", not "nice sauce"
        return "contradicted" if kind and self._new(nouns, modifier) else "not_mentioned"

    def _bare_action(self, verb: str) -> Label:
        if verb in self._other.words:
            return "supported"
        actors = {clause.actor for clause in self._own.by_verb.get(verb, ())}
        known = any(not actor or actor in self._other.words for actor in actors)
        return self._thing(verb) if known else "not_mentioned"

    def _action(self, verb: str, noun: str) -> Label:
        same = self._other.by_verb.get(verb, [])
        if not same:
            return self._other_action(verb, noun)
        if any(noun in self._other.near(clause.sentence) for clause in same):
            return "supported"
        if noun in self._other.words:
            return "supported" if any(not clause.objects for clause in same) else "not_mentioned"
        objects = (phrase.noun for clause in same for phrase in clause.objects)
        return "contradicted" if self._new(objects, noun) else "not_mentioned"

    def _other_action(self, verb: str, noun: str) -> Label:
        """A verb that the other caption does not use as one."""
        done = self._other.by_object.get(noun, [])
        if verb in self._other.words and noun in self._other.words:
            return "supported"
        if any(excludes(verb, clause.verb) and clause.verb not in self._own.words for clause in done):
            return "contradicted"
        telling = concepts_of(tables.LIGHT_VERBS) | concepts_of(tables.STATIVE_VERBS)
        verbs = (clause.verb for clause in done if clause.verb not in telling)
        if verb not in self._other.words and verb not in telling and self._new(verbs, verb):
            return "contradicted"
        return "not_mentioned"

    def _place(self, verb: str, preposition: str, noun: str) -> Label:
        if noun in self._other.words:
            return "supported"
        same = self._other.by_verb.get(verb, [])
        places = {phrase.noun for clause in same for there, phrase in clause.places if there == preposition}
        if preposition == "by":  # "watched by a cat"
            places |= {clause.actor for clause in same if clause.actor}
        if self._new(places, noun):
            return "contradicted"
        return self._thing(noun)

    def _way(self, verb: str, direction: str) -> Label:
        same = self._other.by_verb.get(verb, [])
        ways = {way for clause in same for way in clause.directions}
        if direction in ways:
            return "supported"
        if self._excluded(direction, ways):
            return "contradicted"
        around = set().union(*(self._other.near(clause.sentence) for clause in same)) if same else self._other.words
        if direction in around:
            return "supported"
        new = (there for there in around if there not in self._own.words)
        return "contradicted" if self._excluded(direction, new) else "not_mentioned"

    def _order(self, first: str, second: str) -> Label:
        early, late = self._other.times.get(first, []), self._other.times.get(second, [])
        if not early or not late:
            return "not_mentioned"
        if min(early) < max(late):
            return "supported"
        return "contradicted" if min(early) > max(late) else "not_mentioned"
