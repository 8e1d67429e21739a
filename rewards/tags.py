"""A guess at a unit's tag where a judge gave none: motion if it names a movement, else detail."""

from __future__ import annotations

from owlcap.types import Tag
from rewards.text import words

# Verbs of bodily movement and of handling things. "left" is missing: it is more often a side than a verb.
_VERBS = """
    bend bounce bow brush carry catch chase chew chop clap climb close crawl cross crouch cut dance dig dip dive drag
    drink drive drop duck eat enter exit fall flip fly fold gesture grab hang hit hold hop hug jog jump juggle kick
    kneel knock lean leap leave lift lunge march move nod open paddle paint pass pedal pick play point pour press pull
    punch push put raise reach ride roll rotate row run rush shake shove sit skate ski skip slide slip smile speak spin
    squat stand step stir stretch stroke swim swing talk tap tear throw tilt toss touch turn twist walk wash wave wipe
    write zoom
"""
MOVEMENT_VERBS = tuple(_VERBS.split())
_IRREGULAR = """
    bent caught dug drank drove ate fell flew hung held hid knelt leapt ran rode sat shook shut slid spoke spun stood
    swam swung tore threw wrote
"""
_VOWELS = "aeiou"


def _forms(verb: str) -> set[str]:
    """The verb with its regular endings, e.g. clap, claps, clapped, clapping."""
    if verb.endswith("y") and verb[-2] not in _VOWELS:
        return {verb, verb[:-1] + "ies", verb[:-1] + "ied", verb + "ing"}
    stem = verb[:-1] if verb.endswith("e") else verb
    if len(verb) >= 3 and verb[-1] not in _VOWELS + "wxy" and verb[-2] in _VOWELS and verb[-3] not in _VOWELS:
        stem = verb + verb[-1]
    third_person = verb + ("es" if verb.endswith(("s", "sh", "ch", "x", "z", "o")) else "s")
    return {verb, third_person, stem + "ed", stem + "ing", verb + "ed", verb + "ing"}


_MOVEMENTS = frozenset(_IRREGULAR.split()).union(*(_forms(verb) for verb in MOVEMENT_VERBS))


def guess_tag(unit: str) -> Tag:
    """Tag of a unit's text. Coarse on purpose: a judge that tags its units is better."""
    return "motion" if any(word in _MOVEMENTS for word in words(unit)) else "detail"
