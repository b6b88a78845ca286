"""The page in a real browser: no sideways scrolling, A4 on paper, nothing asked for from outside."""

import re

import pytest
from tests.report.browsing import CHROMIUM, browse, measured

from patchmi.report import render_report, write_report

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_the_screen_without_sideways_scrolling(run_folder, width):
    html = write_report(run_folder).read_text(encoding="utf-8")
    sizes = measured(html, run_folder, width)
    assert sizes["inner"] == width
    assert sizes["scroll"] <= width
    assert sizes["wide"] == []
    assert sizes["cut"] == 0
    assert sizes["asked"] == []


@pytest.mark.parametrize("width", [320, 700, 1000, 1280])
def test_long_names_and_wide_pictures_fit_every_screen(result_of, evidence_of, tmp_path, width):
    result = result_of(class_count=4)
    result["target"]["image_shape"] = [3, 112, 92]
    result["target"]["name"] = "x" * 200
    result["verdict"]["sentence"] = "y" * 300
    result["command"] = "patchmi audit " + "--option value " * 60
    result["attack"]["config"]["a_setting_with_a_very_long_name_indeed"] = "z" * 120
    for entry in result["classes"]:
        entry["name"] = "Somebody_With_A_Name_That_Has_No_Space_To_Break_At" + str(entry["label"])
    arrays, metadata = evidence_of(class_count=4, channels=3, side=64)
    sizes = measured(render_report(result, arrays, metadata=metadata), tmp_path, width)
    assert sizes["scroll"] <= width
    assert sizes["wide"] == []


def test_the_page_prints_to_several_sheets_of_a4(run_folder):
    page = write_report(run_folder)
    paper = run_folder / "report.pdf"
    browse(page, "--no-pdf-header-footer", f"--print-to-pdf={paper}")
    content = paper.read_bytes()
    boxes = {tuple(map(float, box.split())) for box in re.findall(rb"/MediaBox\s*\[([^\]]*)\]", content)}
    assert boxes
    for left, bottom, right, top in boxes:
        assert abs(right - left - 595.28) < 1
        assert abs(top - bottom - 841.89) < 1
    assert 1 < len(re.findall(rb"/Type\s*/Page\b", content)) < 20
