"""Groups of words, as data: one group a line.

FORMS: a word and its irregular forms. SYNONYMS: the first word names the group. EXCLUSIVE: values that cannot both
hold, between bars. HYPERNYMS: a word and the wider ones that it is a case of.
"""

from __future__ import annotations

FORMS = """
man men
woman women
child children
person people
foot feet
tooth teeth
goose geese
mouse mice
knife knives
shelf shelves
leaf leaves
wolf wolves
calf calves
half halves
loaf loaves
life lives
be is are was were been being am
have has had having
do does did done
go went gone goes
come came
run ran
sit sat seated
stand stood
lie lay lain lies lying
hold held
throw threw thrown
catch caught
take took taken
give gave given
get got gotten
put puts putting laid lays laying
make made
cut cuts cutting
hit hits hitting
let lets letting
shut shuts shutting
set sets setting
fall fell fallen
fly flew flown
ride rode ridden
drive drove driven
write wrote written
draw drew drawn
eat ate eaten
drink drank drunk
swim swam swum
spin spun
swing swung
hang hung
bend bent
bind bound
bite bit bitten
blow blew blown
break broke broken
bring brought
build built
buy bought
dig dug
feed fed
fight fought
find found
hide hid hidden
kneel knelt
lead led
leap leapt
light lit
lose lost
meet met
pay paid
read reads
ring rang rung
rise rose risen
say said
see saw seen
sell sold
send sent
shake shook shaken
shine shone
shoot shot
sing sang sung
sink sank sunk
sleep slept asleep
slide slid
speak spoke spoken
spread spreads
spring sprang
steal stole stolen
stick stuck
strike struck
sweep swept
teach taught
tear tore torn
tell told
think thought
wake woke woken
wear wore worn
use uses used using
tie tied tying
small smaller smallest
large larger largest
big bigger biggest
tall taller tallest
short shorter shortest
old older oldest
young younger youngest
long longer longest
wide wider widest
high higher highest
thick thicker
thin thinner
wind wound
"""

SYNONYMS = """
man guy gentleman male bloke fellow dad father
woman lady female mother mum mom
boy lad
child kid toddler youngster
baby infant
person somebody someone individual human adult
grandmother grandma granny
grandfather grandpa
friend buddy mate
chef cook
cyclist biker
musician busker
policeman cop
goalkeeper keeper goalie
walk stroll stride pace wander amble march stalk
run jog sprint race dash rush hurry
jump leap hop spring bound
throw toss hurl fling lob chuck
catch grab grip seize snatch clutch
hit strike punch smack slap
bump knock crash collide
fall tumble topple collapse
lift raise hoist elevate
pick collect gather
put place set position
push shove press
pull drag tug haul
close shut
cut slice chop dice halve carve trim sawing
stir mix whisk
fry saute
pour tip
begin start commence
stop halt brake
finish end complete
look glance gaze peer stare
watch observe
see notice
speak talk chat
shout yell scream cry roar
laugh giggle chuckle
smile grin beam
frown scowl
spin twirl rotate whirl
turn rotate
crouch squat
lie rest recline
sleep nap doze asleep
wake awake
ride pedal
drive steer
pass overtake
leave exit depart
arrive approach
hold carry
show display present
wear dressed clad
wash clean rinse
wipe scrub
eat chew munch
drink sip
chase follow pursue
hug embrace cuddle
clap applaud
point gesture
climb ascend scale
crawl creep
dive plunge
float drift
kick boot
play perform
write scribble
build construct
fix repair mend
give offer
steal snatch
drop release
pat stroke pet
scatter strew
spray squirt
small little tiny
large big huge giant enormous
old elderly aged
young youthful
tall high
short low
wide broad
narrow thin
fast quick
quickly fast rapidly swiftly
slowly gradually
grey gray silver
purple violet
red scarlet crimson
blue navy azure
green emerald
yellow golden
brown tan
beige cream
wooden wood timber
metal steel iron metallic
stone rock brick
concrete cement
sofa couch settee
chair seat armchair
pram stroller buggy pushchair
car automobile vehicle
truck lorry
bicycle bike
motorcycle motorbike
motorcyclist biker
taxi cab
pavement sidewalk
road street lane
building house
shop store
sea ocean
beach shore
lawn grass meadow
forest woodland
hill slope
top peak
ground floor
picture image photo photograph painting
phone mobile smartphone cellphone
television tv
coat jacket raincoat
shirt tshirt t-shirt blouse
sweater jumper pullover hoodie
trousers pants jeans
shoe sneaker trainer boot
hat cap
dog puppy
cat kitten
rabbit bunny
horse pony
cup mug
dish plate
pan skillet
stairs staircase stairway
doorway door
luggage suitcase
rubbish garbage trash
bin trashcan
edge rim
rear back
centre center middle
night nighttime midnight
day noon midday daytime daylight afternoon
sunset dusk evening
dawn sunrise morning
rain rainy raining drizzle
snow snowy snowing snowfall
sun sunny sunshine sunlight
fog foggy mist misty
wind windy breeze
cloud cloudy overcast
indoors indoor inside
outdoors outdoor outside
left leftwards
right rightwards
forward forwards ahead
backward backwards
in into inside
out outside
crowded busy packed full
dark dim
quiet silent calm
loud noisy
opponent rival
"""

EXCLUSIVE = """
red|blue|green|yellow|orange|purple|pink|brown|black|white|grey|beige
left|right
up|down
in|out
forward|backward
slowly|quickly
together|apart
clockwise|anticlockwise
wooden|metal|plastic|glass|leather|stone|concrete|paper|cardboard
man|woman|boy|girl
night|day|sunset|dawn
rain|snow|sun|fog
indoors|outdoors
open|close
sit|stand|lie|kneel
enter|leave
push|pull
lift|lower
pick|drop
smile|frown|cry
laugh|cry
hit|miss
rise|sink
wake|sleep
climb|descend
load|unload
fold|unfold
win|lose
small|large
tall|short
long|short
wide|narrow
thick|narrow
old|young
hot|cold
wet|dry
full|empty
crowded|empty
dark|bright
quiet|loud
fast|slow
smooth|rough
clean|dirty
heavy|light
round|square|oval|triangular
striped|checked|spotted|plain
curly|straight
open|closed
front|rear
top|bottom
above|below
raw|boiled|fried
throw|kick|catch
walk|run
standing|sitting
"""

HYPERNYMS = """
man person
woman person
boy child person
girl child person
child person
baby child person
grandmother woman person
grandfather man person
chef person
goalkeeper player person
violin instrument
piano instrument
guitar instrument
car vehicle
truck vehicle
bus vehicle
dog animal
cat animal
horse animal
walk go
run go
ride go
drive go
climb go
slice cut
"""
