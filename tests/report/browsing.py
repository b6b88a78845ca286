"""A page in a real browser: sizes, requests and paper."""

import json
import re
import shutil
import subprocess
from html import escape, unescape
from pathlib import Path

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
