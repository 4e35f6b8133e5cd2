"""The notebooks are committed clean, call the package alone, and run from top to bottom."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from project import notebook
from project.cli.main import main
from project.errors import UserError
from project.evaluation import tracking
from project.evaluation.comparison import Estimate

ROOT = Path(__file__).parent.parent
BOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
KERNEL = "text-centric-robustness"


@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_clean_and_calls_the_package_alone(path):
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)
    assert book.metadata.kernelspec.name == KERNEL and f"--name {KERNEL}" in (ROOT / "Makefile").read_text()
    assert book.cells[0].cell_type == "markdown" and book.cells[0].source.startswith("# ")
    code = ast.parse("\n".join(line for cell in cells for line in cell.source.splitlines() if line[:1] != "%"))
    imported = {node.module.split(".")[0] for node in ast.walk(code) if isinstance(node, ast.ImportFrom)}
    assert imported <= {"project", "IPython", "pathlib", "tempfile"}
    assert not [node for node in ast.walk(code) if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.While)]


@pytest.fixture(scope="module")
def demo_runs(tmp_path_factory):
    """Small runs of the demo on its recorded store."""
    folder = tmp_path_factory.mktemp("demo")
    for method in ("plain", "ours"):
        assert (
            main(
                [
                    "train",
                    "experiment=demo",
                    "debug=fast",
                    f"method={method}",
                    f"output={folder}",
                    "wandb.mode=disabled",
                    f"store.path={folder / 'store'}",
                ]
            )
            == 0
        )
    return f"{folder}/demo/*/seed-*"


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    """The kernel of `make notebooks`, registered in a folder of the test's own."""
    prefix = tmp_path_factory.mktemp("kernel")
    subprocess.run(
        [sys.executable, "-m", "ipykernel", "install", "--prefix", prefix, "--name", KERNEL],
        check=True,
        capture_output=True,
    )
    return str(prefix / "share" / "jupyter")


@pytest.mark.slow
@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(path, demo_runs, kernel, monkeypatch):
    from nbclient import NotebookClient

    for key, value in {"TCR_RUNS": demo_runs, "JUPYTER_PATH": kernel, "PYTHONPATH": str(ROOT)}.items():
        monkeypatch.setenv(key, value)
    book = nbformat.read(path, as_version=4)
    NotebookClient(book, timeout=400, resources={"metadata": {"path": str(path.parent)}}).execute()
    figures = [
        output
        for cell in book.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]
    assert figures
    if os.environ.get("TCR_KEEP_NOTEBOOKS"):
        nbformat.write(book, Path(os.environ["TCR_KEEP_NOTEBOOKS"]) / path.name)


def test_a_folder_without_runs_names_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("TCR_RUNS", f"{tmp_path}/*")
    with pytest.raises(UserError, match="run .make demo."):
        notebook.open_runs()


def test_a_users_mistake_is_one_line_in_a_notebook_too(tmp_path, capsys):
    from IPython.core.interactiveshell import InteractiveShell

    InteractiveShell().run_cell(f"from project.notebook import open_runs; open_runs('{tmp_path}/seed-*')")
    said = capsys.readouterr().out.strip()
    assert said.startswith(f"error: {tmp_path}/seed-*: no finished run") and "\n" not in said


def test_cards_mark_what_changed_and_never_run_what_a_text_holds():
    html = notebook.cards_html(
        [
            {
                "record": "a<b",
                "target": "x",
                "instruction": "noise",
                "columns": [
                    ("perturbed", [("", [("equal", "a red"), ("delete", "<script>"), ("insert", "blue & green")])])
                ],
            }
        ]
    )
    assert "<script>" not in html and "&lt;script&gt;</del>" in html and "<ins><b>blue &amp; green</b></ins>" in html
    assert "a&lt;b, target x; instruction: noise" in html


def test_rows_of_a_table_become_estimates():
    table = notebook.pd.DataFrame({"method": ["a", "b"], "value": [1.0, 2.0], "low": [0.5, 1.5], "high": [1.5, 2.5]})
    assert notebook.estimates(table, "method") == {"a": Estimate(1.0, 0.5, 1.5), "b": Estimate(2.0, 1.5, 2.5)}


def test_runs_of_wandb_come_into_run_folders_and_never_out_of_them(tmp_path, monkeypatch):
    """The API of W&B is stood in for: there is no server here."""

    class Artifact:
        type = "run"

        def download(self, root):
            Path(root).mkdir(parents=True)

    class Other(Artifact):
        type = "wandb-history"

    def run(name):
        made = type("Run", (), {"config": {"name": name, "seed": 3}})()
        made.logged_artifacts = lambda: [Artifact(), Other()]
        return made

    api = type("Api", (), {"runs": lambda self, project, filters: [run("ours"), run("../../evil")]})
    monkeypatch.setattr("wandb.Api", api)
    assert tracking.download("me/mine", "demo", str(tmp_path / "in")) == f"{tmp_path / 'in'}/*/seed-*"
    assert sorted(path.name for path in (tmp_path / "in").iterdir()) == ["-.-..-evil", "ours"]
    assert [path.name for path in (tmp_path / "in" / "ours").iterdir()] == ["seed-3"]
    monkeypatch.setattr("wandb.Api", type("Api", (), {"runs": lambda self, project, filters: []}))
    with pytest.raises(UserError, match="no finished run in the group demo"):
        tracking.download("me/mine", "demo", str(tmp_path / "in"))
