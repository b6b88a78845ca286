"""The page in a real browser: no sideways scrolling, A4 on paper, nothing asked for from outside."""

import json
import re
import shutil
import subprocess
from html import escape, unescape
from pathlib import Path

import pytest

from patchmi.report import render_report, write_report

CHROMIUM = shutil.which("chromium")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --hide-scrollbars"
).split()
MEASURE = """
<script>
addEventListener("load", () => {
  const page = document.documentElement;
  const wide = [...document.querySelectorAll("body *")].filter(
    (e) => !e.closest(".scroll *, svg *, script") && e.getBoundingClientRect().right > page.clientWidth + 1);
  const cut = [...document.querySelectorAll("img")].filter((e) => e.naturalWidth === 0);
  const asked = performance.getEntriesByType("resource").filter((e) => !e.name.startsWith("data:"));
  parent.document.title = JSON.stringify({
    inner: innerWidth, scroll: page.scrollWidth, wide: wide.map((e) => e.outerHTML.slice(0, 80)),
    cut: cut.length, asked: asked.map((e) => e.name),
  });
});
</script>
"""
"""Sizes and requests of the page, handed to the page around it."""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")


def browse(page: Path, *flags: str) -> str:
    profile = page.parent / "profile"
    done = subprocess.run(
        [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", *flags, page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout


def measured(html: str, folder: Path, width: int) -> dict:
    """Sizes of a copy of the page, in a frame of that width, that may run one script of ours."""
    free = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", html).replace(
        "</body>", MEASURE + "</body>"
    )
    around = folder / "around.html"
    frame = f'<iframe width="{width}" height="900" style="border: 0" srcdoc="{escape(free)}"></iframe>'
    around.write_text(f'<!doctype html><meta charset="utf-8"><title></title>{frame}', encoding="utf-8")
    dom = browse(around, "--window-size=1400,1000", "--dump-dom")
    title = re.search(r"<title>(.*?)</title>", dom, flags=re.DOTALL)
    assert title
    return json.loads(unescape(title.group(1)))


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
