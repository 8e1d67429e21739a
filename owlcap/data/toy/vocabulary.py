"""The words of the toy world: what the caption writer writes and the parser reads, in one place.

Phrases are lower case. In templates, {s} stands for a verb as in "she kicks", {ing} as in "kicking",
{side} for left or right, and the other braces are filled by the caption writer. Words in templates that carry no
fact of their own become the parser's glue; whole filler phrases are accepted only whole.
"""

from __future__ import annotations

COLORS: dict[str, tuple[str, ...]] = {  # the first word is used most
    "red": ("red", "crimson", "scarlet"),
    "blue": ("blue", "azure", "cobalt"),
    "green": ("green", "emerald", "jade"),
    "yellow": ("yellow", "golden", "lemon"),
    "purple": ("purple", "violet", "lilac"),
    "white": ("white", "ivory"),
    "black": ("black", "ebony"),
}
SHIRT_NOUNS: tuple[str, ...] = ("shirt", "top", "sweater", "jersey", "t-shirt", "jacket", "blouse", "hoodie")
TROUSERS_NOUNS: tuple[str, ...] = ("trousers", "pants", "leggings", "slacks", "sweatpants")
OBJECT_NOUNS: dict[str, tuple[str, ...]] = {
    "ball": ("ball", "sphere", "globe"),
    "box": ("box", "crate", "cube", "carton"),
    "cone": ("cone", "pylon"),
    "hoop": ("hoop", "ring", "circle"),
}

VERBS: dict[str, tuple[str, str]] = {  # base: (she ..., ...ing)
    "raise": ("raises", "raising"),
    "lift": ("lifts", "lifting"),
    "hoist": ("hoists", "hoisting"),
    "throw": ("throws", "throwing"),
    "kick": ("kicks", "kicking"),
    "swing": ("swings", "swinging"),
    "fling": ("flings", "flinging"),
    "walk": ("walks", "walking"),
    "step": ("steps", "stepping"),
    "move": ("moves", "moving"),
    "stroll": ("strolls", "strolling"),
    "stride": ("strides", "striding"),
    "jump": ("jumps", "jumping"),
    "leap": ("leaps", "leaping"),
    "hop": ("hops", "hopping"),
    "spring": ("springs", "springing"),
    "squat": ("squats", "squatting"),
    "crouch": ("crouches", "crouching"),
    "duck": ("ducks", "ducking"),
    "drop": ("drops", "dropping"),
    "bow": ("bows", "bowing"),
    "bend": ("bends", "bending"),
    "take": ("takes", "taking"),
    "spread": ("spreads", "spreading"),
    "open": ("opens", "opening"),
    "stretch": ("stretches", "stretching"),
    "extend": ("extends", "extending"),
}

# Each form: the verbs it takes, and what follows them. `|` divides alternatives, the first is used most.
SIDED_ACTIONS: dict[str, tuple[tuple[str, str], ...]] = {
    "raise_{side}_arm": (
        ("raise|lift|hoist", "the {side} arm|the {side} hand|the {side} arm high|the {side} arm overhead"),
        ("throw", "the {side} arm up|the {side} hand up"),
    ),
    "kick_{side}_leg": (
        ("kick", "with the {side} leg|out with the {side} leg|with the {side} foot"),
        ("swing|fling", "the {side} leg out|the {side} leg sideways"),
    ),
    "walk_{side}": (
        ("walk|step|move", "to the {side}|toward the {side}|{side}"),
        ("stroll|stride", "to the {side}|{side}"),
    ),
}
PLAIN_ACTIONS: dict[str, tuple[tuple[str, str], ...]] = {
    "jump": (("jump|leap|hop", "|up|into the air"), ("spring", "up|into the air")),
    "squat": (("squat|crouch|duck", "|down"), ("drop", "into a squat|into a crouch"), ("bend", "both knees")),
    "bow": (("bow", "|forward"), ("bend", "forward|at the waist"), ("take", "a bow")),
    "spread_arms": (
        ("spread|stretch|extend", "both arms|both arms wide|both arms sideways"),
        ("open", "both arms|both arms wide"),
    ),
}

# Places: the adverbial that the writer writes, and the key word or words by which the parser knows it.
PLACES: dict[str, tuple[tuple[str, str], ...]] = {
    "grass": (
        ("on the grass", "grass"),
        ("in a meadow", "meadow"),
        ("on a lawn", "lawn"),
        ("in a grassy park", "grassy park"),
        ("on a grassy field", "grassy field"),
    ),
    "beach": (
        ("on the beach", "beach"),
        ("on a sandy shore", "sandy shore"),
        ("at the seaside", "seaside"),
        ("by the sea", "sea"),
    ),
    "snow": (
        ("in the snow", "snow"),
        ("on a snowy field", "snowy field"),
        ("in a winter landscape", "winter landscape"),
        ("on snowy ground", "snowy ground"),
    ),
    "street": (
        ("on the street", "street"),
        ("in front of a brick wall", "brick wall"),
        ("on a city road", "city road"),
        ("in an alley", "alley"),
    ),
    "room": (
        ("in a room", "room"),
        ("indoors", "indoors"),
        ("inside a house", "house"),
        ("on a wooden floor", "wooden floor"),
    ),
    "night": (
        ("at night", "night"),
        ("under the stars", "stars"),
        ("in the moonlight", "moonlight"),
        ("under a dark sky", "dark sky"),
    ),
}

# People: the statement, and the key phrase. {place} may follow each.
PEOPLE_PHRASES: dict[str, tuple[tuple[str, str], ...]] = {
    "1": (
        ("nobody else is around", "nobody else"),
        ("no one else is in view", "no one else"),
        ("only one person is there", "only one person"),
        ("a single person is in view", "single person"),
        ("there is no company", "no company"),
    ),
    "2": (
        ("two people are in view", "two people"),
        ("one bystander stands still", "one bystander"),
        ("another person watches", "another person"),
        ("a second person stands behind", "second person"),
        ("one onlooker waits nearby", "one onlooker"),
    ),
    "3": (
        ("three people are in view", "three people"),
        ("two bystanders stand still", "two bystanders"),
        ("two others watch", "two others"),
        ("two more people stand behind", "two more people"),
        ("two onlookers wait nearby", "two onlookers"),
    ),
}

SIDE_PHRASES = (  # where the object is
    "on the {side}",
    "at the {side}",
    "on the {side} side",
    "at the {side} edge",
    "in the {side} corner",
)

SUBJECTS: tuple[str, ...] = (
    "a person",
    "someone",
    "a figure",
    "a performer",
    "a dancer",
    "an athlete",
    "an actor",
    "a gymnast",
)
SAME_SUBJECT = "the same person"  # after a sentence that has introduced somebody
CLOTHES_TEMPLATES = ("in {clothes}", "wearing {clothes}", "dressed in {clothes}", "with {clothes} on")
CLOTHES_SENTENCES = ("the outfit is {clothes}", "{subject} wears {clothes}", "the clothing is {clothes}")
OBJECT_TEMPLATES = (
    "{thing} lies {where}",
    "{thing} sits {where}",
    "{where} there is {thing}",
    "there is {thing} {where}",
    "{thing} can be seen {where}",
    "{where} lies {thing}",
    "{thing} rests {where}",
    "{where} we see {thing}",
)
PLACE_SENTENCES = (
    "it happens {place}",
    "the scene is {place}",
    "all of this takes place {place}",
    "everything plays out {place}",
    "the setting is {place}",
)

# Actions in order. {a_s}: third person, {a_ing}: gerund.
ORDER_TEMPLATES_2 = (
    "{subject} {a_s} and then {b_s}",
    "{subject} {a_s}, then {b_s}",
    "{subject} first {a_s}, then {b_s}",
    "{subject} {a_s} before {b_ing}",
    "after {a_ing}, {subject} {b_s}",
    "{subject} starts by {a_ing} and ends by {b_ing}",
    "{subject} {a_s} and afterwards {b_s}",
    "{subject} {a_s} and finally {b_s}",
)
ORDER_TEMPLATES_3 = (
    "{subject} {a_s}, then {b_s} and finally {c_s}",
    "{subject} first {a_s}, then {b_s} and then {c_s}",
    "{subject} {a_s}, then {b_s} before {c_ing}",
    "after {a_ing}, {subject} {b_s} and then {c_s}",
    "{subject} starts by {a_ing}, continues by {b_ing} and ends by {c_ing}",
    "{subject} {a_s}, next {b_s} and afterwards {c_s}",
    "first {subject} {a_s}, next {b_s}, finally {c_s}",
)
LOOSE_TEMPLATES_1 = ("{subject} {a_s}", "{subject} is {a_ing}", "{subject} {a_s} here")
LOOSE_TEMPLATES_2 = ("{subject} {a_s} and {b_s}", "{subject} is {a_ing} and {b_ing}", "{subject} who {a_s} and {b_s}")
LOOSE_TEMPLATES_3 = (
    "{subject} {a_s}, {b_s} and {c_s}",
    "{subject} is {a_ing}, {b_ing} and {c_ing}",
    "{subject} who {a_s}, {b_s} and {c_s}",
)
# Markers of order. FORWARD: the next action comes later; "before" and "after" relate two actions.
FORWARD_MARKERS = (
    "then", "next", "finally", "lastly", "afterwards", "later", "subsequently", "ends", "ending", "finishes",
    "finishing", "continues", "continuing", "followed by", "after that", "goes on",
)  # fmt: skip

LEADS = (  # opens a caption; each ends in something that a clause can follow
    "in this clip,",
    "in the video,",
    "here,",
    "in this short recording,",
    "the footage shows how",
    "this is a scene in which",
    "as the clip begins,",
    "we are looking at a moment where",
    "shown on screen:",
    "on camera,",
)
FILLERS_BEFORE = (
    "new upload from our channel:",
    "stock footage, high quality:",
    "funny moments of the week:",
    "free download:",
    "watch until the end:",
    "my favourite video today:",
    "daily fitness inspiration:",
    "trending now:",
    "home movie, part four:",
    "best of last summer:",
    "amazing skills:",
    "royalty free material:",
    "archive material from our library:",
    "a quick test of my new camera:",
    "viral video of this month:",
    "exclusive preview, season seven:",
    "weekend workout with coach robin:",
    "learn something useful every morning:",
    "throwback to an old rehearsal:",
    "behind closed doors at our studio:",
    "animated sample number twelve:",
    "random internet find:",
    "breaking news from nowhere special:",
    "beginner tutorial, lesson three:",
    "holiday memories, unedited version:",
)
FILLERS_AFTER = (
    "please like and subscribe",
    "enjoy and share it with your friends",
    "you have to see this",
    "what do you think about that",
    "tell us in the comments below",
    "thanks for watching everybody",
    "perfect for your next project",
    "filmed with a cheap phone",
    "such a lovely mood",
    "this made my day",
    "more videos are coming soon",
    "recorded by an amateur",
    "ideal for websites, music or adverts",
    "who else could do that so well",
    "wait a moment, it gets better",
    "no idea why, but it works",
    "practice makes perfect as always",
    "follow us for daily content",
    "click the link for full length",
    "original sound has been removed",
    "suitable for all ages",
    "sponsored by nobody in particular",
    "guess how long that took",
    "honestly the best thing online",
    "my grandmother laughed so hard",
    "can anyone name this song",
    "not bad after only six lessons",
    "ask your doctor before trying",
    "prints and posters sold separately",
    "credit goes to whoever made it",
    "turn your volume down first",
    "quite relaxing once you get used to it",
    "license available upon request",
)
