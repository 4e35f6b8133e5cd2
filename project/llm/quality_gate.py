"""Checks of every completion of a language model before it is used: its output is untrusted.

The checks read the completion, its source text and the class names, never a row's target.
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
    """Thresholds of the checks of one stage, which compare a completion with its source.

    `shortest` and `longest` bound the ratio of word counts; `facts` is the minimum recall of the source's content
    words; `changed` requires other words or another order; `classes` are names that may appear only if the source has
    them.
    """

    shortest: float = 0.0
    longest: float = 3.0
    facts: float = 0.0
    changed: bool = False
    classes: tuple[str, ...] = ()

    def flags(self, text: str, source: str, finish: str = "stop") -> tuple[str, ...]:
        """Return the names of the failed checks, in a fixed order; empty if the text passes."""
        words, source_words = text.split(), source.split()
        # At least 25 words are allowed: a one-word source may become a sentence.
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
            "class name": any(_mentions(text, name) and not _mentions(source, name) for name in self.classes),
            "facts": facts_kept(source, text) < self.facts,
            "unchanged": self.changed and _normalized(text) == _normalized(source),
        }
        return tuple(name for name, fails in failed.items() if fails)


def is_loop(words: list[str], size: int = 4, repeats: int = 3) -> bool:
    """Return True if a sequence of `size` words occurs at least `repeats` times."""
    runs = Counter(tuple(words[start : start + size]) for start in range(len(words) - size + 1))
    return any(count >= repeats for count in runs.values())


def _normalized(text: str) -> list[str]:
    """Return the words of a text in lower case, without punctuation."""
    return re.findall(r"\w+", text.lower())


def _numbers(text: str) -> set[str]:
    return {number.rstrip(".") for number in re.findall(r"\d+(?:[.,]\d+)*", text)}


def _mentions(text: str, name: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text, re.IGNORECASE) is not None


def _script(letter: str) -> str:
    """Return the script of a letter, the first word of its Unicode name: LATIN, CYRILLIC, CJK ..."""
    return unicodedata.name(letter, "UNKNOWN").split()[0]


def foreign_letters(text: str, source: str) -> float:
    """Return the share of letters in scripts that the source does not use, in [0, 1]; Latin is never foreign."""
    scripts = {_script(letter) for letter in source if letter.isalpha()} | {"LATIN"}
    letters = [letter for letter in text if letter.isalpha()]
    return sum(_script(letter) not in scripts for letter in letters) / len(letters) if letters else 0.0


def content_words(text: str) -> set[str]:
    """Return the lower-case words and numbers of a text without function words."""
    return {word for word in re.findall(r"\d+(?:\.\d+)*|[^\W\d_]{2,}", text.lower())} - _STOP


def facts_kept(source: str, text: str) -> float:
    """Return the share of the source's content words that the text contains, ignoring a plural s; 1 for no words."""
    source_words, words = content_words(source), content_words(text)
    stems = {word.rstrip("s") for word in words}
    recalled = sum(word in words or word.rstrip("s") in stems for word in source_words)
    return recalled / len(source_words) if source_words else 1.0
