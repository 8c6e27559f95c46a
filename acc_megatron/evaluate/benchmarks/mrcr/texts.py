"""Templates that replace the written texts of MRCR: similar for one request, but distinct."""

import random


def _words(text: str, separator: str | None = None) -> tuple[str, ...]:
    return tuple(text.split(separator))


FORMATS = (
    "poem",
    "short essay",
    "email",
    "social media post",
    "blog post",
    "article",
    "song",
    "riddle",
    "news report",
    "short scene in a play",
)
TOPICS = _words(
    """
    airports anchors apples archives balloons bamboo bees bicycles books bottles bread bridges buttons cameras candles
    canyons castles cats chairs cheese chess clocks clouds coffee comets compasses copper corals cotton cranes deserts
    dolphins doors drums eagles echoes editors elevators engines falcons farms ferries flutes fog forests fountains
    foxes gardens geysers glaciers glass gloves guitars hammers harbors hats hills honey horses ice islands ivy jazz
    keys kites knots ladders lakes lanterns leather lemons libraries lighthouses maps marbles markets mirrors moths
    museums needles oaks oceans orchards otters owls paint paper pearls penguins pianos planets ponds quilts rain
    records rivers roads robots roofs ropes salt sand seeds shells ships silk snow spices stairs stars stations stones
    storms sugar tea tents theaters tides towers trains tunnels umbrellas valleys villages violins volcanoes walls
    waves whales wheels windmills windows wolves wool zebras
    """
)
_ADJECTIVES = _words("quiet bright ancient humble restless patient golden hidden steady gentle curious distant")
_NOUNS = _words("charm history rhythm promise lesson memory purpose mystery strength story value beauty")
_VERBS = _words("shapes follows surprises outlives rewards unsettles comforts teaches divides connects")
_PEOPLE = _words(
    "every traveler|a careful reader|the whole town|our neighbors|any child|the oldest sailor|those who wait|"
    "my teacher|the night shift|a passing stranger",
    "|",
)
_TIMES = _words(
    "in early spring|after midnight|without warning|year after year|on slow mornings|when least expected", "|"
)
_SENTENCES = (
    "The {adjective} {noun} of {topic} {verb} {person} {time}.",
    "Think of {topic}, and a {adjective} {noun} {verb} {person}.",
    "What {verb} {person} {time} is the {noun} of {topic}, {adjective} as ever.",
    "Between {topic} and {person} lies a {adjective} {noun} that {verb} us {time}.",
)


def write_text(rng: random.Random, form: str, topic: str, num_sentences: int) -> str:
    """A title and `num_sentences` sentences drawn from the templates; poems, songs and riddles break the lines."""
    sentences = [
        rng.choice(_SENTENCES).format(
            topic=topic,
            adjective=rng.choice(_ADJECTIVES),
            noun=rng.choice(_NOUNS),
            verb=rng.choice(_VERBS),
            person=rng.choice(_PEOPLE),
            time=rng.choice(_TIMES),
        )
        for _ in range(num_sentences)
    ]
    body = ("\n" if form in ("poem", "song", "riddle") else " ").join(sentences)
    return f"{topic.capitalize()}: a {form}\n\n{body}"
