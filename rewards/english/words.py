"""The word tables of the plain-English judge: what words are the same, and which exclude one another.

Words are compared as concepts: `concept("strolled") == concept("walks")`. A concept is the stem of the first word
of a group of synonyms, or a word's own stem where it is in no group.
"""

from __future__ import annotations

from functools import cache, lru_cache

from rewards.english.groups import EXCLUSIVE, FORMS, HYPERNYMS, SYNONYMS
from rewards.english.tables import INSTRUCTION, MODIFIERS, NOUN_WORDS, NUMBERS, SAYS_NOTHING, VERB_WORDS
from rewards.tags import MOVEMENT_VERBS

VOWELS = frozenset("aeiouy")
_remembered = lru_cache(maxsize=1 << 16)  # words are without end, so what is remembered of them is not


@cache
def _irregular() -> dict[str, str]:
    return {form: forms.split()[0] for forms in FORMS.strip().splitlines() for form in forms.split()[1:]}


def is_irregular(word: str) -> bool:
    """Whether a word is an irregular form: "ran", "men"."""
    return word in _irregular()


@_remembered
def stem(word: str) -> str:
    """A word without its plural, third person, -ing or -ed ending. Not a dictionary form: "making" -> "mak"."""
    word = word.removesuffix("'s").rstrip("'")
    word = _irregular().get(word, word)
    if word.endswith("ies") and len(word) > 4:
        word = word[:-3] + "y"
    elif word.endswith(("ches", "shes", "sses", "xes", "zes", "oes")) and len(word) > 4:
        word = word[:-2]
    elif word.endswith("s") and len(word) > 3 and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for ending in ("ing", "ed"):
        rest = word.removesuffix(ending)
        if rest != word and len(rest) > 2 and VOWELS & set(rest) and not word.endswith("eed"):
            word = rest
            break
    if len(word) > 3 and word[-1] == word[-2]:
        word = word[:-1]
    if len(word) > 3 and word.endswith("e"):
        word = word[:-1]
    if len(word) > 3 and word.endswith("i"):
        word = word[:-1] + "y"
    return word


def _lines(table: str) -> list[list[str]]:
    return [line.split() for line in table.strip().splitlines()]


@cache
def _groups() -> dict[str, str]:
    return {stem(word): stem(line[0]) for line in _lines(SYNONYMS) for word in line}


@_remembered
def concept(word: str) -> str:
    """What a word means, as one string for all of its forms and synonyms."""
    if word in NUMBERS:
        return NUMBERS[word]
    root = stem(word)
    return _groups().get(root, root)


@cache
def _exclusive() -> dict[str, list[dict[str, int]]]:
    """Concept -> the sets it is in; of each set, the place of every concept (equal places do not exclude)."""
    found: dict[str, list[dict[str, int]]] = {}
    for line in EXCLUSIVE.strip().splitlines():
        places = {concept(word): place for place, words in enumerate(line.split("|")) for word in words.split()}
        for one in places:
            found.setdefault(one, []).append(places)
    return found


@_remembered
def excludes(one: str, other: str) -> bool:
    """Whether two concepts cannot both be true of a thing: two colours, two numbers, left and right, ..."""
    if one == other:
        return False
    if one.isdigit() or other.isdigit():
        return one.isdigit() and other.isdigit()
    return any(places.get(other, places[one]) != places[one] for places in _exclusive().get(one, ()))


@_remembered
def covering(one: str) -> frozenset[str]:
    """The concept and the wider ones that it is a case of: girl -> girl, child, person."""
    return frozenset({one}) | _wider().get(one, set())


@cache
def _wider() -> dict[str, set[str]]:
    return {concept(line[0]): {concept(word) for word in line[1:]} for line in _lines(HYPERNYMS)}


@cache
def verbs() -> frozenset[str]:
    """Stems that may be verbs."""
    return frozenset(stem(word) for word in (*MOVEMENT_VERBS, *VERB_WORDS.split()))


@cache
def nouns() -> frozenset[str]:
    """Stems of common nouns."""
    return frozenset(stem(word) for word in NOUN_WORDS.split())


@cache
def modifiers() -> frozenset[str]:
    """Stems of adjectives that stand before nouns."""
    return frozenset(stem(word) for word in MODIFIERS.split())


@cache
def known_words() -> frozenset[str]:
    """Stems of every content word in any table: the share of them tells English from gibberish."""
    tables = (SYNONYMS, EXCLUSIVE.replace("|", " "), HYPERNYMS, NOUN_WORDS, FORMS)
    return frozenset(stem(word) for table in tables for word in table.split()) | verbs() | modifiers()


@cache
def concepts_of(table: str) -> frozenset[str]:
    """Concepts of the words of a table."""
    return frozenset(concept(word) for word in table.split())


def says_nothing(one: str) -> bool:
    """Whether a concept is about the film as a film: video, clip, shows, camera."""
    return one in concepts_of(SAYS_NOTHING)


def may_be_person(one: str) -> bool:
    """Whether a noun is a person, or ends as the names of trades do: cleaner, actor, cyclist."""
    return concept("person") in covering(one) or one.endswith(("er", "or", "ist", "ian", "man"))


def instructs(one: str) -> bool:
    """Whether a concept is one that speaks to a judge: score, label, grader."""
    return one in concepts_of(INSTRUCTION)
