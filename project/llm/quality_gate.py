"""What a language model returns is untrusted: the checks that every completion passes before it is used.

The checks see the completion, its source text and the class names. None of them sees a row's target.
"""

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass

_REFUSAL = re.compile(
    r"\b(i('m| am) (sorry|unable)|i (can('|no)?t|will not|won't) (assist|help|comply|provide|do)|as an ai\b"
    r"|language model)",
    re.IGNORECASE,
)
_STOP = frozenset(
    "the a an and or of in on at to for with by as is are be was it its this that there may show shows image text "
    "table from has have not no yes which can".split()
)


@dataclass(frozen=True)
class Gate:
    """How a stage's completions are judged, against their source.

    `shortest` and `longest` are bounds on the ratio of word counts; `facts` is the least share of the source's content
    words that must come back; `changed` asks for other words, or another order; `classes` are the names that must not
    appear unless the source has them.
    """

    shortest: float = 0.0
    longest: float = 3.0
    facts: float = 0.0
    changed: bool = False
    classes: tuple[str, ...] = ()

    def flags(self, text: str, source: str, finish: str = "stop") -> tuple[str, ...]:
        """The names of the checks that the text fails, in a fixed order; empty where it passes."""
        words, source_words = text.split(), source.split()
        # A floor of 25 words, for a one-word source may well become a sentence.
        longest = max(self.longest * len(source_words), 25)
        failed = {
            "empty": not any(map(str.isalnum, text)),
            "cut off": finish == "length",
            "refusal": bool(_REFUSAL.search(text)) and not _REFUSAL.search(source),
            "loop": is_loop(words),
            "too long": len(words) > longest,
            "too short": len(words) < self.shortest * len(source_words),
            "script": foreign_letters(text, source) > 0.1,
            "numbers": bool(_numbers(text) - _numbers(source)),
            "class name": any(_names(text, name) and not _names(source, name) for name in self.classes),
            "facts": facts_kept(source, text) < self.facts,
            "unchanged": self.changed and _same(text) == _same(source),
        }
        return tuple(name for name, fails in failed.items() if fails)


def is_loop(words: list[str], size: int = 4, repeats: int = 3) -> bool:
    """Whether one run of `size` words stands there at least `repeats` times."""
    runs = Counter(tuple(words[start : start + size]) for start in range(len(words) - size + 1))
    return any(count >= repeats for count in runs.values())


def _same(text: str) -> list[str]:
    """The text's words without case and punctuation."""
    return re.findall(r"\w+", text.lower())


def _numbers(text: str) -> set[str]:
    return {number.rstrip(".") for number in re.findall(r"\d+(?:[.,]\d+)*", text)}


def _names(text: str, name: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text, re.IGNORECASE) is not None


def _script(letter: str) -> str:
    """The first word of a letter's Unicode name, which is its script: LATIN, CYRILLIC, CJK ..."""
    return unicodedata.name(letter, "UNKNOWN").split()[0]


def foreign_letters(text: str, source: str) -> float:
    """The share of the text's letters whose script the source does not have; Latin is never foreign."""
    scripts = {_script(letter) for letter in source if letter.isalpha()} | {"LATIN"}
    letters = [letter for letter in text if letter.isalpha()]
    return sum(_script(letter) not in scripts for letter in letters) / len(letters) if letters else 0.0


def content_words(text: str) -> set[str]:
    """The words and numbers that carry facts: lower case, without function words."""
    return {word for word in re.findall(r"\d+(?:\.\d+)*|[^\W\d_]{2,}", text.lower())} - _STOP


def facts_kept(source: str, text: str) -> float:
    """The share of the source's content words that stand in the text too, up to a plural s; 1 for an empty source."""
    wanted = content_words(source)
    have = content_words(text)
    stems = {word.rstrip("s") for word in have}
    return sum(word in have or word.rstrip("s") in stems for word in wanted) / len(wanted) if wanted else 1.0
