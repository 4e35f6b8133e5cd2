"""Compare finished runs in one HTML page, with figures and tables as files, and in terminal tables."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ..config.schema import Config
from ..evaluation.comparison import Comparison, compare
from ..evaluation.primary_endpoint import endpoint
from ..evaluation.run_loading import Run, experiment_runs, load_runs, run_folders
from . import formatting
from .calibration import calibration
from .conditions import cell_row, conditions, further_kinds
from .cost import cost
from .curves import measures
from .formatting import bounds_text, difference_text, name_text, number_text
from .primary import endpoint_sentence, primary, sentences
from .section import Section
from .texts import texts
from .wandb_report import log_report

SECTIONS = (primary, conditions, measures, calibration, texts, cost)
"""The sections of the page in order: each maps a comparison to a Section, or to None if it does not apply."""
_TABLE_WIDTH = 100
"""Maximum width of the terminal table, in characters."""


def report(config: Config, patterns: Sequence[str] = (), log: bool = False, console: Console | None = None) -> Path:
    """Write the page that compares finished runs, and return its path.

    `patterns` are run folders or globs of them, and the page is `<output>/report/index.html`. Without them the runs of
    the experiment are compared, in `<output>/<experiment>/report/index.html`. `log` logs the report to W&B. If a
    `console` is given, the tables and the paths of all files are printed to it. Raises UserError if there is no
    finished run, or if the runs on one data set cannot be compared.
    """
    folder = Path(config.output) if patterns else Path(config.output) / config.experiment
    runs = load_runs(run_folders(patterns) if patterns else experiment_runs(folder))
    comparisons = compare_all(runs, config.robustness.resamples)
    if console:
        for comparison in comparisons:
            print_table(comparison, console)
    title = f"{len(runs)} runs" if patterns else config.experiment
    page = build_report(comparisons, folder / "report", title, config.robustness.resamples)
    if log:
        log_report(config, page.parent, comparisons)
    if console:
        wandb_folders = [max(paths) for run in runs if (paths := sorted((run.folder / "wandb").glob("*run-*")))]
        parts = [(name, page.parent.glob(f"*.{end}")) for name, end in (("figures", "png"), ("tables", "csv"))]
        for name, paths in (("report", [page]), *parts, ("W&B", wandb_folders)):
            lines = "\n".join(f"{name:<8}{path}" for path in sorted(paths))
            console.print(lines, soft_wrap=True, markup=False, highlight=False)
    return page


def compare_all(runs: list[Run], resamples: int) -> list[Comparison]:
    """Return one comparison per data set, sorted by the name of the data set."""
    names = sorted({run.info.data for run in runs})
    return [compare([run for run in runs if run.info.data == name], resamples) for name in names]


def build_report(comparisons: list[Comparison], folder: Path, title: str, resamples: int) -> Path:
    """Write the page, its figures as PNG and its tables as CSV into `folder`, and return the path of the page.

    The name of a file has the number of its comparison. The files of an earlier report are deleted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for stale in [*folder.glob("*.png"), *folder.glob("*.csv")]:
        stale.unlink()
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("name", "number", "bounds", "signed", "level", "p"):
        environment.filters[name] = getattr(formatting, f"{name}_text")
    parts = []
    for number, comparison in enumerate(comparisons, start=1):
        sections = [section for build in SECTIONS if (section := build(comparison))]
        html = [_render_section(section, comparison, folder, number, environment) for section in sections]
        parts.append({"comparison": comparison, "html": html})
    page = environment.get_template("page.html.j2").render(title=title, parts=parts, resamples=resamples)
    (folder / "index.html").write_text(page, encoding="utf-8")
    return folder / "index.html"


def _render_section(
    section: Section, comparison: Comparison, folder: Path, number: int, environment: Environment
) -> Markup:
    """Write the figures and tables of a section into the folder, and return its HTML."""
    figures, files = {}, []
    for name, figure in section.figures.items():
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=160)
        files.append(f"{name}-{number}.png")
        (folder / files[-1]).write_bytes(buffer.getvalue())
        figures[name] = base64.b64encode(buffer.getvalue()).decode()
    for name, table in section.tables.items():
        files.append(f"{name}-{number}.csv")
        table.to_csv(folder / files[-1], index=False)
    template = environment.get_template(section.template)
    return Markup(template.render(section.values, comparison=comparison, figures=figures, files=files))


def print_table(comparison: Comparison, console: Console | None = None) -> None:
    """Print score, drop ratio and paired difference of each method under the main conditions, and the summary."""
    console = console or Console()
    level = comparison.middle
    modality = comparison.conditions["modality"]
    groups = [("clean", ["clean"])]
    groups += [(f"noise {level:g}\n{modality[name]}", [name]) for name in comparison.select("noisy", level=level)]
    groups += [(f"{kind}\n(mean)", comparison.select(kind)) for kind in further_kinds(comparison)]
    table = Table(
        title=f"{comparison.data}: {comparison.rows} test rows, chance {number_text(comparison.chance)}",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        width=min(_TABLE_WIDTH, console.width),
    )
    table.add_column("condition")
    table.add_column("method", overflow="fold")
    metric = name_text(comparison.metric)
    for name in (f"{metric} [95 %]", "drop ratio [95 %]", f"{metric} - {comparison.reference}"):
        table.add_column(name, justify="right")
    for label, names in groups:
        # A label of two lines spans the rows of the first two methods, so that the column stays narrow.
        labels = label.split("\n")
        for index, cell in enumerate(cell_row(comparison, label, names)["cells"]):
            drop, difference = cell["drop"], cell["difference"]
            table.add_row(
                labels[index] if index < len(labels) else "",
                cell["method"],
                f"{number_text(cell['score'].value)} {bounds_text(cell['score'])}",
                f"{number_text(drop.value)} {bounds_text(drop)}" if drop else "",
                difference_text(difference) if difference else "",
                end_section=index == len(comparison.methods) - 1,
            )
    console.print(table)
    for sentence in [endpoint_sentence(comparison, endpoint(comparison)), *sentences(comparison)]:
        console.print(sentence, markup=False, highlight=False)
