"""The role of each word in a sentence: noun, verb, modifier, ... by tables, endings and the words beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from rewards.english import tables
from rewards.english.words import concept, is_irregular, modifiers, nouns, stem, verbs

Tag = Literal["det", "prep", "pron", "aux", "conj", "adv", "mod", "num", "noun", "verb", "comma"]

_CLOSED: tuple[tuple[frozenset[str], Tag], ...] = (
    (tables.CONJUNCTIONS, "conj"),
    (tables.PRONOUNS, "pron"),
    (tables.AUXILIARIES, "aux"),
    (tables.DETERMINERS, "det"),
    (tables.PREPOSITIONS, "prep"),
    (tables.ADVERBS, "adv"),
)
_FUNCTION = frozenset().union(*(members for members, role in _CLOSED if role != "adv"))
_PLURALS = frozenset({"men", "women", "people", "children", "police", "sheep", "feet", "fish", "cattle", "deer"})
_AS_VERB = {"hand": "give", "head": "walk"}  # stems that mean another thing as a verb
_PLACES = frozenset({"front", "back", "rear", "top", "middle", "left", "right", "first", "second", "last"})
_RELATIVE = frozenset({"who", "which", "that"})


class Token(NamedTuple):
    """A word with its role; `word` is lower case."""

    word: str
    concept: str
    tag: Tag


def is_function(word: str) -> bool:
    """Whether a word holds sentences together: determiners, prepositions, pronouns, auxiliaries, conjunctions."""
    return word in _FUNCTION


def tag(words: Sequence[str]) -> list[Token]:
    """Give each word of a sentence its role, from left to right."""
    tokens: list[Token] = []
    due = 1  # finite verbs that may still come before the next conjunction or comma
    bare = False  # the last verb had no ending: "both stand and bow"
    many = False  # a plural noun came, whose verb may be due
    for place, word in enumerate(words):
        following = words[place + 1] if place + 1 < len(words) else ""
        role = _role(word, tokens[-1] if tokens else None, following, due, bare, many)
        if role == "verb":
            word = "leaves" if word == "left" else word
            due -= not word.endswith("ing")
            bare = bare_form(word)
        elif role in ("conj", "comma"):
            due, many = 1, False
        elif word in _RELATIVE:
            due += 1
        many = many or (role == "noun" and _is_plural(word))
        meaning = concept(_AS_VERB.get(stem(word), word) if role == "verb" else word)
        tokens.append(Token(word, meaning, role))
    return tokens


def _role(word: str, previous: Token | None, following: str, due: int, bare: bool, many: bool) -> Tag:
    before = previous.tag if previous else "conj"
    if word == ",":
        return "comma"
    if word == "left" and before in ("noun", "pron") and following in tables.DETERMINERS:
        return "verb"
    if word in ("has", "have", "had", "having") and not following.endswith(("ed", "ing")) and following != "been":
        return "verb"
    if word in tables.SIDES and _starts_noun(following):
        return "mod"
    if word == "round" and before in ("det", "mod", "num"):
        return "mod"
    if word == "one" and _starts_noun(following) and previous and previous.word == "only":
        return "num"
    for members, role in _CLOSED:
        if word in members:
            return role
    if word.isdigit() or word in tables.NUMBERS:
        return "num"
    if word in ("shorts", "glasses"):
        return "noun"
    if _is_verb(word, previous, following, due, bare, many):
        return "verb"
    participle = word.endswith(("ing", "ed")) and stem(word) in verbs() and _starts_noun(following)
    if stem(word) in modifiers() or participle:
        return "mod"
    return "adv" if word.endswith("ly") and len(word) > 4 else "noun"


def _is_plural(noun: str) -> bool:
    return noun in _PLURALS or (noun.endswith("s") and not noun.endswith(("ss", "'s")))


def bare_form(verb: str) -> bool:
    """Whether a verb stands without any ending."""
    return not (verb.endswith(("s", "ing", "ed")) or is_irregular(verb))


def _starts_noun(word: str) -> bool:
    return word[:1].isalnum() and not is_function(word) and word not in tables.ADVERBS


def _is_verb(word: str, previous: Token | None, following: str, due: int, bare: bool, many: bool) -> bool:
    before, last = (previous.tag, previous.word) if previous else ("conj", "")
    gerund, third = word.endswith("ing"), word.endswith("s") and not word.endswith("ss")
    plural = _is_plural(last)
    if stem(word) not in verbs():
        if before == "aux" and word.endswith(("ing", "ed")):
            return True
        # "the baker glazes the rolls": an unknown word where a verb is due
        agreeing = third != plural and not last.endswith("'s")
        return before == "noun" and agreeing and due > 0 and is_function(following) and stem(word) not in nouns()
    if before == "num":
        return last != "one" and bare_form(word) and is_function(following)  # "two of them jump": "two jump over"
    if before == "det" or last.endswith("'s"):
        return False
    if before == "mod":
        if third and last in _PLACES:  # "the man at the front checks his watch"
            return due > 0 and is_function(following)
        return gerund and not _starts_noun(following)
    if before == "prep" or last in ("before", "after"):
        if gerund:
            return last in tables.GERUND_PREPOSITIONS or not _starts_noun(following)
        if before == "prep":
            return last == "to" and not third
    if gerund:
        return before != "verb" or not _starts_noun(following)
    if before == "aux":
        return stem(word) not in modifiers()
    if before == "verb":
        return False
    if before == "pron":
        return True
    if third or word.endswith("ed") or is_irregular(word):
        participle = (
            not third and before == "noun" and following in ("of", "in", "by", "with")
        )  # "a rail made of metal"
        return due > 0 or participle
    if before == "noun":
        return due > 0 and (plural or (many and is_function(following)))
    return bare and before in ("conj", "comma", "adv")
