"""show prints one record after every step of the pipeline."""

import pytest

from project.cli import show
from project.config.compose import load_config
from project.data.rows import read_rows
from project.errors import UserError


@pytest.fixture
def shown(tiny_args, capsys):
    def made(**args):
        show.run(load_config([*tiny_args, "method=rules"]), args)
        return capsys.readouterr().out

    return made


def test_every_step_is_printed(shown):
    out = shown()
    assert [name for name in ("raw", "described", "composed") if name not in out] == []


def test_a_condition_marks_removed_words(shown):
    assert "corrupted" in shown(condition="missing(text)")


def test_a_realistic_corruption_is_shown_like_any_condition(tiny_args, capsys):
    config = load_config([*tiny_args, "method=plain", "robustness.natural=[truncation]"])
    show.run(config, {"condition": "natural(truncation, 0.5)"})
    assert "corrupted" in capsys.readouterr().out


def test_a_round_shows_the_perturbed_text(shown, tiny_args):
    row = read_rows(load_config([*tiny_args, "method=rules"]).data).train[0]
    assert "perturbed" in shown(id=row.id, round="1")


@pytest.mark.parametrize(
    "args, what",
    [
        ({"id": "no such row"}, "id=no such row"),
        ({"condition": "noisy(sound, 1)"}, "unknown condition; give one of clean"),
        ({"round": "7"}, "give a number from 0 to 1"),
    ],
)
def test_an_unknown_id_condition_or_round_is_a_one_line_error(shown, args, what):
    with pytest.raises(UserError, match=what.replace("(", r"\(").replace(")", r"\)")):
        shown(**args)


def test_marks_are_word_by_word():
    text = show.marked("a red thing", "a blue thing")
    assert text.plain.split() == ["a", "red", "blue", "thing"]
    assert {str(span.style) for span in text.spans} == {"red strike", "green underline"}
