"""Sentences of tagged words as noun phrases and clauses: one verb each, with its subject, places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rewards.english import tables
from rewards.english.tagging import Token
from rewards.english.words import concept, concepts_of

MAX_MODIFIERS = 4  # of one noun


@dataclass(slots=True)
class Phrase:
    """A noun and what stands before it or is said of it. Sides ("left") are modifiers too."""

    noun: str
    text: str
    modifiers: list[tuple[str, str]] = field(default_factory=list)  # (concept, word)
    sentence: int = 0


@dataclass(slots=True)
class Clause:
    """One verb and what goes with it."""

    verb: str
    text: str
    sentence: int
    subject: Phrase | None = None
    actor: str = ""  # the subject's noun, or that of the clause before where a pronoun or nothing stands for it
    objects: list[Phrase] = field(default_factory=list)
    places: list[tuple[str, Phrase]] = field(default_factory=list)  # (preposition, noun)
    directions: list[str] = field(default_factory=list)
    marker: str = ""  # how it is joined to what came before: then, before, after, while or nothing

    @property
    def event(self) -> str:
        """What happens: the verb, or the object of a verb that says little ("makes a mark")."""
        light = self.verb in concepts_of(tables.LIGHT_VERBS)
        return self.objects[0].noun if light and self.objects else self.verb

    @property
    def words(self) -> set[str]:
        """Concepts of everything in it."""
        nouns = [self.subject, *self.objects, *(phrase for _, phrase in self.places)]
        return {self.verb, *self.directions, *(phrase.noun for phrase in nouns if phrase is not None)}


@dataclass(slots=True)
class Caption:
    """A caption as it was read."""

    clauses: list[Clause] = field(default_factory=list)
    phrases: list[Phrase] = field(default_factory=list)
    sentences: list[set[str]] = field(default_factory=list)  # concepts of each sentence
    unread: list[str] = field(default_factory=list)


def add_sentence(tokens: Sequence[Token], caption: Caption) -> None:
    """Add the clauses and noun phrases of one sentence to a caption."""
    content = ("noun", "mod", "verb", "num", "adv", "prep")
    caption.sentences.append({token.concept for token in tokens if token.tag in content})
    _Sentence(caption, len(caption.sentences) - 1).read(tokens)


class _Sentence:
    """Reads one sentence from left to right."""

    def __init__(self, caption: Caption, number: int) -> None:
        self._caption, self._number = caption, number
        self._clause: Clause | None = None  # the latest of the sentence
        self._open = False  # no conjunction or comma has come since its verb
        self._noun_phrase: list[Token] = []
        self._preposition = ""
        self._pending: list[tuple[str, Phrase]] = []  # phrases that wait for their verb
        self._directions: list[str] = []  # likewise
        self._head: Phrase | None = None  # the latest phrase
        self._marker = ""

    def read(self, tokens: Sequence[Token]) -> None:
        """Read all words."""
        for place, token in enumerate(tokens):
            if token.tag in ("det", "num", "mod", "noun"):
                if token.tag != "noun" and any(one.tag == "noun" for one in self._noun_phrase):
                    self._end_phrase()
                self._noun_phrase.append(token)
                if token.word.endswith("'s"):
                    self._end_owner()
                continue
            self._end_phrase()
            following = tokens[place + 1] if place + 1 < len(tokens) else None
            match token.tag:
                case "verb":
                    self._start_clause(token.concept, token.word)
                case "aux" if token.word in tables.COPULAS and not _verb_follows(tokens[place + 1 :]):
                    self._start_clause(concept("is"), token.word)
                case "prep":
                    self._add_preposition(token)
                case "adv":
                    self._add_adverb(token)
                case "conj" | "comma":
                    self._end_part(token, following)
                case _:
                    pass
        self._end_phrase()
        self._give_pending()

    def _end_owner(self) -> None:
        """ "the tall man's left foot": "tall" is said of the man, and the man is said of the foot."""
        *others, owner = (token for token in self._noun_phrase if token.tag != "det")
        said = [(token.concept, token.word) for token in others[-MAX_MODIFIERS:]]
        self._caption.phrases.append(Phrase(owner.concept, owner.word, said, self._number))
        self._noun_phrase = [owner._replace(tag="mod")]

    def _end_phrase(self) -> None:
        """Make a phrase of the words gathered, and give it to the clause it belongs to."""
        words = [token for token in self._noun_phrase if token.tag != "det"]
        self._noun_phrase = []
        nouns = [token for token in words if token.tag == "noun"]
        if not words or not (nouns or words[-1].tag == "mod"):
            return
        head = nouns[-1] if nouns else words[-1]
        if head.concept in tables.SIDES or head.concept == concept("time"):
            self._add_direction(head.concept if head.concept in tables.SIDES else words[0].concept)
            self._preposition = ""
            return
        if not nouns and self._clause and self._open and self._clause.verb == concept("is") and not self._preposition:
            said = self._clause.subject or self._head
            if said is not None:
                said.modifiers.extend((token.concept, token.word) for token in words)
            return
        others = [token for token in words if token is not head][-MAX_MODIFIERS:]
        phrase = Phrase(head.concept, head.word, [(token.concept, token.word) for token in others], self._number)
        self._caption.phrases.append(phrase)
        preposition, self._preposition = self._preposition, ""
        if preposition == "of" and self._head is not None:
            self._head.modifiers.append((phrase.noun, phrase.text))
            return
        self._head = phrase
        if self._clause is None or not self._open:
            subject_came = any(not before for before, _ in self._pending)
            if not (preposition and subject_came):  # "a dog with a red collar runs": said of the dog, not of running
                self._pending.append((preposition, phrase))
        elif preposition:
            self._clause.places.append((preposition, phrase))
        else:
            self._clause.objects.append(phrase)

    def _start_clause(self, verb: str, text: str) -> None:
        subjects = [phrase for preposition, phrase in self._pending if not preposition]
        subject = subjects[-1] if subjects else None
        places = [(preposition, phrase) for preposition, phrase in self._pending if preposition]
        directions, self._directions, self._pending = self._directions, [], []
        if subject is None and self._clause is not None and self._open:
            subject = self._head  # "a man reading": the verb is about what was named last
        self._clause = Clause(verb, text, self._number, subject, "", [], places, [], self._marker)
        before = self._caption.clauses[-1].actor if self._caption.clauses else ""
        self._clause.actor = subject.noun if subject else before
        self._caption.clauses.append(self._clause)
        self._open, self._marker, self._preposition = True, "", ""
        for direction in directions:
            self._add_direction(direction)

    def _add_preposition(self, token: Token) -> None:
        if token.word == "of" and self._preposition == "out":
            return
        self._preposition = token.word
        if token.word in ("into", "out"):
            self._add_direction(token.concept)

    def _add_adverb(self, token: Token) -> None:
        if token.word in tables.THEN:
            self._end_part(token, None)
        elif token.concept in tables.DIRECTIONS or token.concept.isdigit():
            self._add_direction(token.concept)

    def _add_direction(self, direction: str) -> None:
        if self._clause is None or not self._open:
            self._directions.append(direction)
            return
        verb = self._clause.verb
        if direction in ("up", "down") and verb not in concepts_of(tables.MOTION_VERBS):
            return  # "picks up"
        if direction in ("in", "out") and verb not in concepts_of(tables.IN_OUT_VERBS):
            return  # "rolls the dough out"
        self._clause.directions.append(direction)

    def _end_part(self, token: Token, following: Token | None) -> None:
        """A conjunction, a comma or "then": what follows may be a clause of its own."""
        self._preposition = ""
        if self._clause is not None:
            self._give_pending()
            self._open = False
        if token.word in tables.THEN or (token.word == "after" and following and following.word in ("that", "this")):
            self._marker = "then"
        elif token.word in ("before", "after"):
            self._marker = token.word
        elif token.word in ("while", "as", "when"):
            self._marker = "while"
        elif self._marker == "after" and token.tag == "comma":
            self._marker = "then"  # "after the race, ..."

    def _give_pending(self) -> None:
        """Phrases after a conjunction that got no verb of their own belong to the clause before it."""
        if self._clause is None:
            return
        for preposition, phrase in self._pending:
            if preposition:
                self._clause.places.append((preposition, phrase))
            else:
                self._clause.objects.append(phrase)
        self._clause.directions.extend(self._directions)
        self._pending, self._directions = [], []


def _verb_follows(tokens: Sequence[Token]) -> bool:
    return next((token.tag == "verb" for token in tokens if token.tag not in ("adv", "pron")), False)
