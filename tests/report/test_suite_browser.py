"""The suite's page in a real browser: no sideways scrolling, A4 on paper, nothing asked for from outside."""

import re

import numpy as np
import pytest
from tests.report.browsing import CHROMIUM, browse, measured

from patchmi.report.suite_page import render_suite, write_suite_page

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_the_screen_and_asks_for_nothing(suite_folder, width):
    html = write_suite_page(suite_folder).read_text(encoding="utf-8")
    sizes = measured(html, suite_folder, width)
    assert sizes["inner"] == width
    assert sizes["scroll"] <= width
    assert sizes["wide"] == []
    assert sizes["cut"] == 0
    assert sizes["asked"] == []


@pytest.mark.parametrize("width", [320, 700, 1000])
def test_long_texts_and_large_pictures_fit_every_screen(suite, tmp_path, width):
    long = "x" * 200
    suite["title"] = suite["description"] = suite["small_note"] = long
    suite["command"] = "patchmi suite run " + "--option value " * 60
    suite["targets"][0].update(
        architecture=long, private=long, shown_classes=[f"{long}{place}" for place in range(3)]
    )
    suite["rows"][3]["error"] = long + " and why"
    suite["rows"][0]["settings"]["a_setting_with_a_very_long_name_indeed"] = "z" * 120
    suite["published"][0].update(note=long, attack=long)
    suite["curves"][0].update(title=long, along=long)
    random = np.random.default_rng(0)
    pictures = {
        row["id"]: random.integers(0, 256, size=(3, 4, 3, 112, 92), dtype=np.uint8)
        for row in suite["rows"]
        if row["state"] == "done" and row["target"] == "mnist"
    }
    sizes = measured(render_suite(suite, pictures), tmp_path, width)
    assert sizes["scroll"] <= width
    assert sizes["wide"] == []


def test_the_page_prints_to_several_sheets_of_a4_on_its_side(suite_folder):
    page = write_suite_page(suite_folder)
    paper = suite_folder / "suite.pdf"
    browse(page, "--no-pdf-header-footer", f"--print-to-pdf={paper}")
    content = paper.read_bytes()
    boxes = {tuple(map(float, box.split())) for box in re.findall(rb"/MediaBox\s*\[([^\]]*)\]", content)}
    assert boxes
    for left, bottom, right, top in boxes:
        assert abs(right - left - 841.89) < 1
        assert abs(top - bottom - 595.28) < 1
    assert 1 < len(re.findall(rb"/Type\s*/Page\b", content)) < 20
