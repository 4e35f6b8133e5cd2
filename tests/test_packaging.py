"""The wheel contains the configuration, and works in any folder."""

import ast
import configparser
import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BUILT_FROM = ("project", "conf", "setup.py", "setup.cfg", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the files of the wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in BUILT_FROM:  # a copy, because a build leaves files in the source tree
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", "dist", "."],
        cwd=folder,
        check=True,
        timeout=300,
    )
    [wheel] = (folder / "dist").glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def run_tcr(*args, installed, cwd):
    env = {key: value for key, value in os.environ.items() if key != "TCR_CONF"} | {"PYTHONPATH": str(installed)}
    command = [sys.executable, "-m", "project", *args]
    return subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_the_wheel_contains_every_file_of_conf_and_every_template(installed):
    for source, target in (("conf", "project/conf"), ("project/report/templates", "project/report/templates")):
        names = {path.relative_to(ROOT / source) for path in (ROOT / source).rglob("*") if path.is_file()}
        assert names and not [name for name in names if not (installed / target / name).is_file()]


@pytest.mark.slow
def test_the_wheel_composes_its_configuration_in_any_folder(installed, tmp_path):
    done = run_tcr("train", "experiment=demo", "--print-config", installed=installed, cwd=tmp_path)
    assert done.returncode == 0 and "experiment: demo" in done.stdout, done.stderr
    code = "from project.config.compose import CONF; print(CONF)"
    path = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(installed)}, cwd=tmp_path, capture_output=True, text=True
    ).stdout
    assert Path(path.strip()) == installed / "project/conf"


@pytest.mark.slow
def test_the_wheel_says_that_the_demos_recording_is_in_the_repository(installed, tmp_path):
    done = run_tcr("prepare", "experiment=demo", "dry_run=true", installed=installed, cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "data/demo are part of the repository, not of the installed package" in done.stderr


def test_a_checkout_reads_conf_at_its_top_level():
    code = "from project.config.compose import CONF; print(CONF)"
    env = {key: value for key, value in os.environ.items() if key != "TCR_CONF"} | {"PYTHONPATH": str(ROOT)}
    path = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    assert Path(path.strip()) == ROOT / "conf"


def imported_modules(folder):
    """The top-level names of absolute imports in a folder."""
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from (alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                yield node.module.split(".")[0]


def test_every_package_that_the_project_imports_is_a_declared_requirement():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    extras = setup["options.extras_require"]
    lines = "\n".join([setup["options"]["install_requires"], *(extras[name] for name in extras if name != "test")])
    declared = {re.split("[<>=]", line.strip())[0].lower().replace("_", "-") for line in lines.splitlines()}
    packages = packages_distributions()
    missing = {
        name
        for name in set(imported_modules("project")) - set(sys.stdlib_module_names) - {"project"}
        if not {other.lower().replace("_", "-") for other in packages.get(name, [name])} & declared
    }
    assert not missing


def test_the_lowest_versions_are_the_lower_bounds_of_setup_cfg():
    done = subprocess.run([sys.executable, ROOT / ".ci/lowest_requirements.py"], capture_output=True, text=True)
    lines = done.stdout.split()
    assert done.returncode == 0 and {"transformers==5.6", "rich==14.1", "pytest==8"} <= set(lines)
    assert f"torch=={version('torch')}" in lines
