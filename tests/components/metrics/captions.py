"""Captions with everything that makes tokenization hard, drawn at random."""

from __future__ import annotations

import random

_TEXT = (
    "a man woman dog cat riding on the street bike surfboard red blue, two and 3 large with (near) of wave's field. "
    "\"sign\" it's U.S. don't St. 50% $5 1/2 10:30 e.g. cannot & # @home café well-known ... -- ; : !"
)
_WORDS = _TEXT.split()


def caption(rng: random.Random) -> str:
    """Zero to fourteen words, frequent ones first in the list; the first letter is a capital."""
    weights = [1 / (1 + position) for position in range(len(_WORDS))]
    words = rng.choices(_WORDS, weights=weights, k=rng.randint(0, 14))
    return "A " + " ".join(words) if words else ""


def corpus(seed: int, size: int) -> tuple[list[str], list[list[str]]]:
    """(predictions, references): one to six references each; a third of the predictions copies one of them."""
    rng = random.Random(seed)
    references = [[caption(rng) for _ in range(rng.randint(1, 6))] for _ in range(size)]
    return [rng.choice(texts) if rng.random() < 0.3 else caption(rng) for texts in references], references


_SUBJECTS = (
    "man|woman|little girl|group of people|black-and-white cat|St. Bernard|Dr. Smith|police officer|U.S. soldier|4-year-old|"
    "tennis player|baby elephant|mother-in-law|pair of giraffes|double-decker bus|jack-o'-lantern|O'Neil|children's toy|"
    "boys' team|1950s car|No. 9 train|T.V. set|e-mail sign|señorita|Ph.D. student|rock 'n' roll band"
)
_VERBS = (
    "rides|is standing next to|isn't looking at|sits on|can't reach|holding|gonna eat|wanna catch|gimme|lemme see|cannot find|"
    "they're watching|he's near|we'll pass|I'd like|y'all see|'tis|'twas|d'ye see|more'n|should've seen|who's behind|"
    "DON'T TOUCH|aint on|won't leave|o'clock by|looks at the|wearing a t-shirt and"
)
_OBJECTS = (
    'bike|pizza|sign that says "STOP"|“Main St.”|‘open’ door|$5.00 menu|US$20 bill|£3 and €4|50% off rack|1/2 pie|3 1/2 cakes|'
    "10:30 a.m. clock|5pm show|Jan. 1st parade|1,000 birds|3.14|.5 mile|-7 degrees|+1|9/11/2001|555-1234|(555) 123-4567|"
    "www.flickr.com|http://cocodataset.org/#home|https://a.b/c?d=e&f=g|user@example.com|@home|#sunset|C++|AT&T|R&B|"
    "&amp; sign|&lt;b&gt;|<b>bold</b>|<3|:)|:-(|;-)|¯\\_(ツ)_/¯|café|crème brûlée|naïve|日本語|北京 street|Привет|🐶|👨‍👩‍👧|"
    "½ cup|2nd|3rd base|#1|No. 1|vs. Kansas|Inc. logo|Co. truck|Mt. Fuji|a.k.a. Bob|etc.|i.e. food|e.g. fruit|Mr. and Mrs. Fox|"
    "well-known|so--so|wait -- what|left—right|2010–2012|x-ray|A/C unit|and/or|he/she|w/ cheese|b/w photo|ellipsis...|"
    "ellipsis…|. . .|wow!!!|what?!|[red]|{both}|(small)|(left|right)|`tick`|``quoted''|''odd|don``t|5'10\"|6 ft.|20 lbs.|"
    "30°C|90 °F|100km/h|m²|H2O|A1|iPhone 4S|Wi-Fi|MP3|R2-D2|*star*|_under_|~tilde~|^caret|back\\slash|pipe|equals=sign|%|$|&|/"
)
_PLACES = (
    "in the street|on a beach.|near Washington D.C.|in the U.S.|at 5 p.m.|by the lake's edge|under an umbrella ,|,|; then|"
    ": see|at St. John's|on Elm St.|in L.A.|with J. R. R.|at night !|in winter ?|- a view|on the 'left'|in Calif.|"
    "of Acme Corp.|at Jr. High|in Feb.|on Sat.|in fig. 3|at no.|and co.|\u00a0beside it|by\tthe tab|  two  spaces|all day long"
)
_LETTERS = "abcdeEISTns  ..,,''\"\"--()/&$%#@!?:;0159éßñ“”‘’…—–`*_+=<>[]{}|\\~^½²°€£¥日🐶\u00a0\u00ad\u200b\u0301"


def hard_caption(rng: random.Random) -> str:
    """A caption of what tokenizers disagree about: contractions, abbreviations, quotes, numbers, addresses, other scripts.

    One in eight is letters and marks in no order.
    """
    if rng.random() < 0.125:
        return "".join(rng.choices(_LETTERS, k=rng.randint(1, 40)))
    parts = [*_some(rng, "A|The|Two|a|an|\"|(|'"), *_some(rng, _SUBJECTS), *_some(rng, _VERBS)]
    parts += [*_some(rng, _OBJECTS, rng.randint(1, 4)), *_some(rng, _PLACES)]
    if rng.random() < 0.3:
        rng.shuffle(parts)
    glue = " " if rng.random() < 0.9 else rng.choice(("", ",", "-", "/", ". ", "'"))
    text = glue.join(parts) + rng.choice(("", "", ".", " .", "!", "?", '"', ")", "...", "'"))
    return text.upper() if rng.random() < 0.05 else text


def _some(rng: random.Random, choices: str, count: int = 1) -> list[str]:
    return rng.choices(choices.split("|"), k=count)
