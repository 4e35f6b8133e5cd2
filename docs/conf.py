"""Sphinx settings of the site. The source folder is the project's root, so that links between pages work everywhere."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
from project import __version__  # noqa: E402

project = "text-centric-robustness"
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
root_doc = "docs/index"
include_patterns = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/*.md", "data/demo/README.md"]
exclude_patterns = [".*", "outputs", "site", "project", "conf", "tests", "wandb", "build"]
templates_path = ["_templates"]
myst_heading_anchors = 3
suppress_warnings = ["toc.not_included"]  # README.md and data/demo/README.md are not in the contents
default_role = "code"
add_module_names = False
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
html_theme = "pydata_sphinx_theme"
html_title = project
html_theme_options = {
    "navbar_center": [],
    "navbar_end": ["theme-switcher"],
    "show_prev_next": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": [],
    "footer_end": [],
}
html_sidebars = {"**": ["contents.html"]}
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_additional_pages = {"index": "redirect.html"}


def escape_markup(app, what, name, obj, options, lines):
    """Escape what docstrings contain as plain text and reStructuredText reads as markup."""
    lines[:] = [re.sub(r"(?<!`)([*|])|(?<=\w)_(?=\W|$)(?!`)", r"\\\g<0>", line) for line in lines]


def setup(app):
    """Register the hook."""
    app.connect("autodoc-process-docstring", escape_markup)
