"""The page of the report in a browser."""

import shutil
import subprocess

import pytest
from PIL import Image

from project.cli.report import run as report
from project.cli.train import run as train
from project.config.compose import load_config
from project.config.run_identity import run_folder

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
@pytest.mark.parametrize("width", [1100, 390])
def test_the_page_opens_from_disk_and_fits_its_window(tiny_args, tmp_path, width):
    for method in ("plain", "rules"):
        config = load_config([*tiny_args, f"method={method}"])
        train(config, {})
    report(config, {})
    page = run_folder(config).parent.parent / "report" / "index.html"
    screenshot = tmp_path / "page.png"
    browser = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={tmp_path / 'profile'}",
        f"--window-size={width},2000",
    ]
    subprocess.run(
        [*browser, f"--screenshot={screenshot}", page.as_uri()], check=True, capture_output=True, timeout=120
    )
    with Image.open(screenshot) as image:
        assert len(image.convert("RGB").getcolors(2**24)) > 100  # a blank page has one colour
    dom = subprocess.run(
        [*browser, "--dump-dom", page.as_uri()], check=True, capture_output=True, text=True, timeout=120
    ).stdout
    assert "data:image/png;base64," in dom and "http://" not in dom and "https://" not in dom
