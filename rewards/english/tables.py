"""Lists of words, as data: the small words of English, and common verbs, nouns and adjectives of captions."""

from __future__ import annotations


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


DETERMINERS = _set(
    "a an the this that these those some any every each another no its his her their my our your whose all"
)
PREPOSITIONS = _set("""
    in on at of with without by from to into onto over under underneath below above beside behind near across through
    along around round towards toward against between among inside outside past off out for within beyond about like
    upon next during beneath atop alongside amid before after until since
    """)
PRONOUNS = _set("""
    he she it they him them himself herself itself themselves i we us me one ones other others who which that what
    how why someone somebody something everyone everything nothing nobody both there here you
    """)
AUXILIARIES = _set("""
    is are was were be been being am do does did has have had can could will would shall should may might must
    doesn't don't didn't isn't aren't wasn't can't won't seems appears becomes
    """)
COPULAS = _set("is are was were be been being am seems appears becomes isn't aren't wasn't")
CONJUNCTIONS = _set("and or but then while as when where if because so before after until once finally")
ADVERBS = _set("""
    again away back down up forward forwards backward backwards together apart quickly slowly very too also just not
    still now there here soon once twice thrice only even off immediately suddenly gently carefully hard sharply
    quietly loudly briefly eventually afterwards later next first finally meanwhile almost around left right straight
    """)
GERUND_PREPOSITIONS = _set("by before after while when without for of from since until")
THEN = _set("then afterwards later next finally eventually subsequently")  # continue from what was said
LIGHT_VERBS = (
    "wear make take give have do use get be put go come keep let start begin continue try finish set stay happen"
)
STATIVE_VERBS = "wear have be hold sit stand lie wait watch seem hang contain lean face belong rest play sleep use"
MOTION_VERBS = "walk run go climb look ride drive roll slide jump move crawl fall throw swing turn point step head fly"
IN_OUT_VERBS = "walk run go climb jump crawl step fly drive ride come dive swim"
SIDES = frozenset({"left", "right"})
DIRECTIONS = _set("left right up down forward backward in out slowly quickly together apart clockwise")

NUMBERS = {
    word: str(number)
    for number, words in enumerate(
        (
            "zero",
            "one single",
            "two twice pair couple double",
            "three thrice triple",
            "four",
            "five",
            "six",
            "seven",
            "eight",
            "nine",
            "ten",
            "eleven",
            "twelve dozen",
        )
    )
    for word in words.split()
}

MODIFIERS = """
red blue green yellow orange purple pink brown black white grey gray beige golden silver scarlet crimson navy violet
small little tiny large big huge giant tall short long wide narrow thin thick old elderly young new wooden plastic
metal steel leather glass stone concrete brick cardboard paper hot cold warm wet dry empty full crowded dark bright
quiet loud noisy fast slow round square oval flat steep deep shallow heavy light striped checked spotted plain curly
straight smooth rough clean dirty raw indoor outdoor upper lower front rear high low bare blond blonde bald busy sharp
soft hard sunny cloudy rainy snowy foggy wooded grassy sandy muddy beautiful pretty colourful colorful modern
traditional professional female male smaller bigger taller shorter larger older younger left right
"""

VERB_WORDS = """
accelerate add adjust aim applaud approach argue arrange arrive ask assemble attach balance bake bark bat bathe beat
beckon begin bite block blow board boil bowl brake break breathe bring build bump burn bury buy call carve cast
celebrate chat check cheer chew clean clear clutch collapse collect comb come complete construct continue cook cool
count cover crack crash cry dice direct discuss dodge drain draw dress dribble drip drum dry dust embrace empty erase
examine exchange exercise explain explode extend face fan feed fetch fight fill film finish fire fish fix flap flash
flee float flow follow fry gallop gather get give glance glide glue go grate graze greet grill grin grip guide halve
hammer hand handle happen have head heat help hide hop hug hurl inspect iron juggle keep knead knit knot land laugh
lay lead leap let lick light line listen load lock look lose lower make mark massage measure meet mend mix mop mount
mow munch nail nap nod observe offer order overtake pack pat pause pay peel perform pet plant plate plough pluck pose
position practise prepare present pretend print prod pump punch queue rake read receive recline record release remove
repair reverse rinse rise roar roast rub sail salute sawing say scan scatter scold scoop score scrape scratch scream
scribble scrub search see sell send serve set sew share shave shine shoot shout show shut shower shrug shuffle sign
signal sing sink sip skid slap sleep slice smell sneeze sniff snow soap sort splash spray spread spring sprinkle
squeeze stack stare start stay steal steam steer stop strike strum study surf sway sweep swallow swerve swing swipe
take taste teach tell tend test thank think tidy tie tip topple touch trim trip try tug tumble twirl unfold unload
unlock unpack unroll unwrap use wag wait wake watch water wear weave weigh whip whirl whisk whisper whistle win wind
wink work wrap wrestle yawn yell zip ring rip rest race ramp bounce peep polish pinch plug poke pop pound preen
protest prune puff rattle reel refill remain rescue rewind ripple roam scrunch scurry settle shade shiver sigh skim
skewer slam slash slurp smash smear smoke snap snip soak spill spit split squat stab stagger stamp staple startle
steady stoop straighten strain strap strip struggle stuff stumble surface surround suspend swat switch tackle tame
tangle taxi tease thread thrust tickle tighten ting toast tow trace trade train trample trap tread treat tremble
twitch unbutton uncover unscrew untie unwind unzip vault wade wander warm waddle trot sneak squirt swap trail trickle
drizzle grind peek lean kiss whack purr peck gnaw nibble hover perch swoop flutter paddle row skate ski sled jog march
parade tune
"""

NOUN_WORDS = """
arm leg hand foot head face hair eye ear nose mouth neck shoulder back knee elbow finger palm belly beard body table
desk chair bench bed door window wall floor roof stairs step kitchen room garden park field street road city town
bridge river lake pool sea beach hill mountain tree branch leaf flower grass sand water ice sky light lamp bag box
basket bottle cup glass bowl plate pan pot knife fork spoon bread egg milk cheese rice meat soup sauce fruit apple
banana lemon onion tomato potato salt pepper oil sugar ball racket net goal board bar rope ladder hammer nail brush
bucket hose phone camera computer book paper pen pencil picture music guitar piano violin drum car bus truck train
boat plane bicycle motorcycle helmet hat shirt dress suit coat shoe boot glove dog cat horse cow sheep pig bird fish
duck chicken rabbit crowd group team player referee coach teacher student doctor nurse worker police officer driver
customer waiter farmer soldier baker dancer singer actor family couple stage court track ring gym shop market station
airport office school church hospital restaurant front side corner middle top bottom edge end time moment way thing
piece part pair row circle line game match race scene background
"""

SETTING = "rain snow sun fog night day sunset dawn indoors outdoors"

SAYS_NOTHING = """
video clip footage film camera scene shot image screen recording viewer caption content description sequence frame
show see watch appear happen contain depict feature record capture describe begin start end come go finish note clear
clearly visible everything all thing way one short entire whole here overall worth interesting
"""

INSTRUCTION = """
judge grader grade evaluator evaluation instruction prompt system assistant user label score scoring rating rate mark
supported contradicted mentioned unit reference caption prediction reply answer response yes ignore json previous
correct perfect fact facts covered match exactly model treat highest full expert question statement must please you
your helpful criterion task output
"""
