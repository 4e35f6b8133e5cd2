"""Corrupt texts. White space between words stays unchanged, unless a word is dropped or two words are joined."""

import re

import numpy as np

KEYBOARDS = (
    ("1234567890",),  # digits have no letters as neighbours, so that a number stays a number
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
"""What a scanner confuses: Latin and Cyrillic letters, and digits."""


def word_dropout(text: str, level: float, rng: np.random.Generator) -> str:
    """Drop each whitespace-separated word with probability `level`; the text may become empty."""
    words = text.split()
    remaining = [word for word, draw in zip(words, rng.random(len(words)), strict=True) if draw >= level]
    return text if len(remaining) == len(words) else " ".join(remaining)


def typing_errors(text: str, level: float, rng: np.random.Generator) -> str:
    """Put one typing error into each word with probability `level`.

    The error is a neighbouring key, two letters swapped, one left out or one doubled, equally often. These are the four
    kinds of single errors of Damerau 1964, "A technique for computer detection and correction of spelling errors". A
    word without a key of KEYBOARDS stays unchanged.
    """
    draws = iter(rng.random((len(text.split()), 4)))

    def corrupt_word(match: re.Match) -> str:
        hit, *error_draws = next(draws)
        return _mistype(match[0], *error_draws) if hit < level else match[0]

    return re.sub(r"\S+", corrupt_word, text)


def ocr_errors(text: str, level: float, rng: np.random.Generator) -> str:
    """Misread each word as a scanner does with probability `level`.

    Three times in five a look-alike replaces a letter; otherwise the word is split in two or joined with the next one.
    """
    pieces = re.split(r"(\s+)", text)  # words and the white space between them
    for index, (hit, kind, place) in zip(range(0, len(pieces), 2), rng.random((len(pieces) // 2 + 1, 3)), strict=True):
        if hit >= level:
            continue
        word, is_last = pieces[index], index == len(pieces) - 1
        if kind >= 0.8 and not is_last:
            pieces[index + 1] = ""
        elif kind >= 0.6 and len(word) > 1:
            cut = 1 + int(place * (len(word) - 1))
            pieces[index] = f"{word[:cut]} {word[cut:]}"
        else:
            pieces[index] = _replace_by_look_alike(word, place)
    return "".join(pieces)


def truncation(text: str, level: float, rng: np.random.Generator) -> str:
    """Cut off the last share `level` of the characters, as a database field that is too short does; no random draw."""
    return text[: len(text) - round(level * len(text))]


def _neighbours() -> dict[str, str]:
    """Return the adjacent keys of each key: two in its row, and two in each half-shifted row above and below."""
    neighbours = {}
    for rows in KEYBOARDS:
        for number, row in enumerate(rows):
            above = rows[number - 1] if number else ""
            below = rows[number + 1] if number + 1 < len(rows) else ""
            for place, key in enumerate(row):
                start = max(0, place - 1)
                neighbours[key] = (
                    row[start:place] + row[place + 1 : place + 2] + above[place : place + 2] + below[start : place + 1]
                )
    return neighbours


NEIGHBOURS = _neighbours()
_LOOK_ALIKE = re.compile("|".join(sorted(LOOK_ALIKES, key=len, reverse=True)))


def _mistype(word: str, kind: float, place: float, key: float) -> str:
    """Return the word with one typing error, from three draws in [0, 1).

    If the word does not allow the drawn kind of error, the error is a neighbouring key.
    """
    indices = [index for index, letter in enumerate(word) if letter.lower() in NEIGHBOURS]
    if not indices:
        return word
    chosen = indices[int(place * len(indices))]
    before, letter, after = word[:chosen], word[chosen], word[chosen + 1 :]
    if kind < 0.25 and after and after[0] != letter:
        return before + after[0] + letter + after[1:]
    if 0.25 <= kind < 0.5 and len(word) > 1:
        return before + after
    if 0.5 <= kind < 0.75:
        return before + letter * 2 + after
    neighbours = NEIGHBOURS[letter.lower()]
    replacement = neighbours[int(key * len(neighbours))]
    return before + (replacement.upper() if letter.isupper() else replacement) + after


def _replace_by_look_alike(word: str, place: float) -> str:
    """Return the word with one letter replaced by a look-alike; unchanged if no letter has one."""
    matches = list(_LOOK_ALIKE.finditer(word))
    if not matches:
        return word
    match = matches[int(place * len(matches))]
    return word[: match.start()] + LOOK_ALIKES[match[0]] + word[match.end() :]
