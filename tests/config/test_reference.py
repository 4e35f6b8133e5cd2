"""The reference of keys: the help of the command line, and docs/configuration.md."""

from pathlib import Path

from project.config.reference import help_text, page, sections
from project.config.schema import PARTS

ROOT = Path(__file__).parents[2]


def test_the_committed_page_is_the_one_that_make_docs_config_writes():
    committed = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    assert committed == page(), "run: make docs-config"


def test_every_kind_has_a_section_and_every_key_a_type_and_a_meaning():
    by_title = dict(sections())
    assert {f"{group}, kind {kind}" for group, kinds in PARTS.items() for kind in kinds} <= set(by_title)
    assert all(key.type and key.meaning for keys in by_title.values() for key in keys)


def test_the_help_and_the_page_show_the_bounds():
    assert "  trainer.epochs  (int; default 10; at least 0)\n" in help_text()
    assert "  alignment.min_fact_recall  (float; default 0.8; in [0, 1])\n" in help_text()
    assert "| `alignment.min_fact_recall` | float | `0.8` | in [0, 1] |" in page()
