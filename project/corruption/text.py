"""Damage of text. White space between words stays as it is, unless a word goes or two are joined."""

import re

import numpy as np

KEYBOARDS = (
    ("1234567890",),  # apart from the letters, so that a number stays one
    ("qwertyuiop", "asdfghjkl", "zxcvbnm"),
    ("йцукенгшщзхъ", "фывапролджэ", "ячсмитьбю"),
)
"""Rows of keys: digits, English letters, Russian letters."""

LOOK_ALIKES = {
    "rn": "m",
    "m": "rn",
    "cl": "d",
    "d": "cl",
    "vv": "w",
    "w": "vv",
    "ii": "u",
    "l": "1",
    "I": "l",
    "i": "l",
    "1": "l",
    "o": "0",
    "O": "0",
    "0": "O",
    "e": "c",
    "c": "e",
    "a": "o",
    "h": "b",
    "b": "h",
    "n": "u",
    "u": "n",
    "t": "f",
    "f": "t",
    "g": "9",
    "s": "5",
    "S": "5",
    "5": "S",
    "B": "8",
    "8": "B",
    "Z": "2",
    "2": "Z",
    "6": "b",
    "о": "0",
    "О": "0",
    "з": "3",
    "З": "3",
    "б": "6",
    "ш": "щ",
    "щ": "ш",
    "и": "н",
    "н": "и",
    "й": "и",
    "п": "л",
    "л": "п",
    "ь": "ъ",
    "е": "с",
    "с": "е",
    "в": "8",
    "В": "8",
    "г": "т",
    "т": "г",
    "ё": "е",
    "ц": "п",
}
"""What a scan reads as something else, of Latin and Cyrillic letters and digits."""


def word_dropout(text: str, level: float, rng: np.random.Generator) -> str:
    """Each word, by white space, is dropped with probability `level`; the text may end up empty."""
    words = text.split()
    kept = [word for word, draw in zip(words, rng.random(len(words)), strict=True) if draw >= level]
    return text if len(kept) == len(words) else " ".join(kept)


def typing_errors(text: str, level: float, rng: np.random.Generator) -> str:
    """Each word gets one typing error with probability `level`: a neighbouring key, two letters swapped, one left out
    or one doubled, equally often. These are the four kinds of single errors of Damerau 1964, "A technique for computer
    detection and correction of spelling errors". A word without a key of KEYBOARDS stays as it is.
    """
    draws = iter(rng.random((len(text.split()), 4)))

    def typed(match: re.Match) -> str:
        hit, *how = next(draws)
        return _mistyped(match[0], *how) if hit < level else match[0]

    return re.sub(r"\S+", typed, text)


def ocr_errors(text: str, level: float, rng: np.random.Generator) -> str:
    """Each word is misread by a scanner with probability `level`: three times in five a look-alike stands for a letter,
    else the word is split in two or joined with the next.
    """
    pieces = re.split(r"(\s+)", text)  # words, and the white space between them
    for index, (hit, kind, place) in zip(range(0, len(pieces), 2), rng.random((len(pieces) // 2 + 1, 3)), strict=True):
        if hit >= level:
            continue
        word, last = pieces[index], index == len(pieces) - 1
        if kind >= 0.8 and not last:
            pieces[index + 1] = ""
        elif kind >= 0.6 and len(word) > 1:
            cut = 1 + int(place * (len(word) - 1))
            pieces[index] = f"{word[:cut]} {word[cut:]}"
        else:
            pieces[index] = _misread(word, place)
    return "".join(pieces)


def truncation(text: str, level: float, rng: np.random.Generator) -> str:
    """The last share `level` of the characters is cut off, as by a field that is too short; nothing is drawn."""
    return text[: len(text) - round(level * len(text))]


def _neighbours() -> dict[str, str]:
    """The keys beside each key; of the rows above and below, which are set off by half a key, two each."""
    found = {}
    for rows in KEYBOARDS:
        for number, row in enumerate(rows):
            above = rows[number - 1] if number else ""
            below = rows[number + 1] if number + 1 < len(rows) else ""
            for place, key in enumerate(row):
                start = max(0, place - 1)
                found[key] = (
                    row[start:place] + row[place + 1 : place + 2] + above[place : place + 2] + below[start : place + 1]
                )
    return found


NEIGHBOURS = _neighbours()
_LOOK_ALIKE = re.compile("|".join(sorted(LOOK_ALIKES, key=len, reverse=True)))


def _mistyped(word: str, kind: float, place: float, key: float) -> str:
    """The word with one typing error, by three draws in [0, 1); where the kind does not fit, a neighbouring key."""
    keys = [index for index, letter in enumerate(word) if letter.lower() in NEIGHBOURS]
    if not keys:
        return word
    spot = keys[int(place * len(keys))]
    before, letter, after = word[:spot], word[spot], word[spot + 1 :]
    if kind < 0.25 and after and after[0] != letter:
        return before + after[0] + letter + after[1:]
    if 0.25 <= kind < 0.5 and len(word) > 1:
        return before + after
    if 0.5 <= kind < 0.75:
        return before + letter * 2 + after
    near = NEIGHBOURS[letter.lower()]
    other = near[int(key * len(near))]
    return before + (other.upper() if letter.isupper() else other) + after


def _misread(word: str, place: float) -> str:
    """The word with one look-alike, where it has a letter that looks like another."""
    found = list(_LOOK_ALIKE.finditer(word))
    if not found:
        return word
    match = found[int(place * len(found))]
    return word[: match.start()] + LOOK_ALIKES[match[0]] + word[match.end() :]
