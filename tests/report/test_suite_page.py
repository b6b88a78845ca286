import copy
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.report.pages import Page, contrast, is_printed_as, part_of, resolve

from patchmi.claims import forbidden_claims_in
from patchmi.report import EvidenceInvalid
from patchmi.report.images import png_data_uri
from patchmi.report.suite_page import render_suite, write_suite_page
from patchmi.report.suite_result import SuiteInvalid

TARGET = re.compile(r'<section id="target-\d+" class="target">(.*?)</section>', flags=re.DOTALL)
ROW = re.compile(r'<tr class="(ours|published)">\s*<th scope="row">(.*?)</th>(.*?)</tr>', flags=re.DOTALL)


@pytest.fixture
def page(suite, suite_pictures) -> str:
    return render_suite(suite, suite_pictures)


def text_of(html: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


def table_rows(page: str, target: int) -> list[tuple[str, str, list[str]]]:
    """(kind, head in words, cells in words) of a target's table."""
    rows = ROW.findall(TARGET.findall(page)[target])
    return [
        (
            kind,
            text_of(head),
            [text_of(cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", cells, flags=re.DOTALL)],
        )
        for kind, head, cells in rows
    ]


def columns_of(page: str, target: int) -> list[str]:
    head = part_of(TARGET.findall(page)[target], r"<thead>.*?<tr>(.*?)</thead>").split("<tr>")[-1]
    return [
        text_of(cell).replace("\xad", "")
        for cell in re.findall(r"<th[^>]*>(.*?)</th>", head, flags=re.DOTALL)
    ]


def test_every_number_shown_traces_to_the_suite(page, suite):
    measures = Page(page).measures
    assert len(measures) > 200
    for pointer, text in measures:
        value: Any = resolve(suite, pointer)
        if isinstance(value, dict):
            shown = re.fullmatch(r"([^\s▲]+)▲? \[(\S+), (\S+)\](?:, n = (\S+)| (?:n = (\S+))?)", text)
            assert shown, text
            for part, name in zip(shown.groups()[:3], ("value", "low", "high"), strict=True):
                assert is_printed_as(part, value[name]), (pointer, name, text)
            assert (shown[4] or shown[5] or f"{value['n']:,}") == f"{value['n']:,}"
        elif pointer.endswith("/seconds"):
            minutes, seconds = map(int, re.findall(r"\d+", text))
            assert abs(60 * minutes + seconds - value) <= 0.5
        else:
            assert is_printed_as(text, value), (pointer, text)


def test_a_row_shows_its_own_numbers_column_by_column(page, suite):
    html = TARGET.findall(page)[0]
    _, _, cells = ROW.findall(html)[1]
    scores = [
        "judge_top1", "judge_top5", "confidence", "worst_class_top1", "disjoint_top1", "precision", "recall",
        "density", "coverage", "frechet_distance", "student_accuracy",
    ]  # fmt: skip
    wanted = [f"/rows/1/scores/{score}" for score in scores] + ["/rows/1/seconds", "/rows/1/queries/images"]
    wanted.insert(1, "/rows/1/controls/public_selected/judge_top1")
    assert re.findall(r'data-path="([^"]*)"', cells) == wanted
    assert columns_of(page, 0)[:2] == ["Top-1 n = 30", "Best control n = 30"]
    assert columns_of(page, 0)[-3:] == ["Student n = 1,000", "Time", "Images asked"]
    assert text_of(cells).startswith(suite["rows"][1]["verdict"])


def test_an_n_stands_in_the_head_or_in_each_cell_but_never_nowhere(suite):
    suite["rows"][1]["scores"]["recall"]["n"] = 27
    page = render_suite(suite)
    assert "Recall" in columns_of(page, 0)
    place = 1 + columns_of(page, 0).index("Recall")  # the verdict stands before them
    cells = [cells for kind, _, cells in table_rows(page, 0) if kind == "ours" and len(cells) > 2]
    assert [cell[place].rpartition("] ")[2] for cell in cells[:3]] == ["n = 30", "n = 27", "n = 30"]


def test_a_published_number_stands_under_ours_is_called_so_and_has_no_interval(page):
    rows = table_rows(page, 0)
    place = next(place for place, row in enumerate(rows) if row[0] == "published")
    assert rows[place - 1][:2] == ("ours", "general strokes")
    _, head, cells = rows[place]
    assert head == "published general first ten classes only"
    assert cells[0] == ""  # a verdict is ours alone
    assert cells[1] == ".51"
    assert cells[3] == ".83"
    assert {cells[column] for column in (2, 4, 5, 6, 7, 8, 9, 10, 12, 13, 14)} == {"–"}
    said = [cell for kind, _, cells in rows if kind == "published" for cell in cells]
    assert len(said) == 2 * len(cells)
    assert not any("[" in cell for cell in said)
    assert rows[place + 4][:2] == (
        "published",
        "published patch-mi devanagari table 1 also Target top-1 .997",
    )
    assert "They were not measured here." in TARGET.findall(page)[0]
    assert "published" not in TARGET.findall(page)[1]


def test_rows_that_failed_or_are_missing_stay_in_the_table_with_their_reason(page, suite):
    failed, missing = table_rows(page, 0)[4], table_rows(page, 1)[5]
    assert failed[1:] == ("variational strokes", [f"failed {suite['rows'][3]['error']}"])
    assert missing[1:] == ("patch-mi strokes", ["missing not run yet"])
    assert "13 of 15 rows done · 1 failed · 1 missing ·" in Page(page).text


def test_a_column_that_is_empty_for_a_target_is_left_out_there_only(page):
    assert "Student n = 1,000" in columns_of(page, 0)
    assert not any("Student" in head for head in columns_of(page, 1))
    for target in (0, 1):
        lengths = {len(cells) for kind, _, cells in table_rows(page, target) if len(cells) > 1}
        assert lengths == {len(columns_of(page, target)) + 1}


def test_the_table_comes_before_the_pictures_before_the_figures_before_the_run(page):
    for html in TARGET.findall(page):
        places = [html.index(part) for part in ("<table>", 'class="gallery"', 'class="figures"')]
        assert places == sorted(places)
    assert page.rindex('class="figures"') < page.index('id="run"')


def test_only_a_value_clear_of_all_others_is_marked_and_the_rule_is_said(page):
    first, second = TARGET.findall(page)
    assert 'class="clear"' not in first, "weight-3 and weight-10 overlap"
    assert "▲" not in first
    marked = [(row[1], cell) for row in table_rows(page, 1) for cell in row[2] if "▲" in cell]
    assert len(marked) == 9
    assert {head for head, _ in marked} == {"patch-mi devanagari"}
    assert "its whole interval lies beyond the intervals of all other rows here" in " ".join(second.split())


def test_each_row_that_is_done_leads_to_its_own_report(page, suite):
    links = {value for tag, name, value in Page(page).attributes if (tag, name) == ("a", "href")}
    wanted = {f"{row['folder']}/report.html" for row in suite["rows"] if row["state"] == "done"}
    assert {link for link in links if not link.startswith("#")} == wanted


def test_each_picture_stands_in_its_attacks_line_and_its_classes_column(page, suite_pictures):
    html = TARGET.findall(page)[0]
    shown = dict(re.findall(r'<img src="([^"]+)" alt="([^"]+)">', html))
    assert (
        shown[png_data_uri(suite_pictures["mnist/patch-mi/strokes/none"][3, 0])]
        == "patch-mi, strokes, class 3"
    )
    assert shown[png_data_uri(suite_pictures["mnist/held_out"][7, 3])] == "Real, held out, class 7"
    lines = re.findall(
        r'<figure class="gallery-line[^>]*aria-label="([^"]+)">(.*?)</figure>', html, flags=re.DOTALL
    )
    assert [name for name, _ in lines][:4] == [
        "Real, held out",
        "general, devanagari",
        "general, strokes",
        "variational, devanagari",
    ]
    counts = {name: body.count("<img") for name, body in lines}
    assert counts.pop("variational, strokes") == 0
    assert set(counts.values()) == {40}


def test_held_out_pictures_bring_a_note_on_handling(suite, suite_pictures):
    assert "Handling." in render_suite(suite, suite_pictures)
    del suite_pictures["mnist/held_out"]
    hidden = render_suite(suite, suite_pictures)
    assert "Handling." not in hidden
    assert "Real, held out" not in hidden


@pytest.mark.parametrize(
    ("name", "array", "fault"),
    [
        ("svhn/held_out", np.zeros((10, 4, 1, 32, 32), np.uint8), "no such row or target"),
        ("mnist/held_out", np.zeros((10, 4, 1, 32, 32), np.float32), "float32"),
        ("mnist/held_out", np.zeros((10, 4, 2, 32, 32), np.uint8), "[10, 4, 2, 32, 32]"),
        ("mnist/held_out", np.zeros((10, 1, 32, 32), np.uint8), "[10, 1, 32, 32]"),
        ("mnist/held_out", np.zeros((10, 0, 1, 32, 32), np.uint8), "[10, 0, 1, 32, 32]"),
        ("mnist/general/strokes/none", np.zeros((9, 4, 1, 32, 32), np.uint8), "other classes or sizes"),
        ("mnist/general/strokes/none", np.zeros((10, 4, 1, 28, 28), np.uint8), "other classes or sizes"),
    ],
)
def test_pictures_that_do_not_fit_are_refused_in_one_line(suite, suite_pictures, name, array, fault):
    suite_pictures[name] = array
    with pytest.raises(EvidenceInvalid) as caught:
        render_suite(suite, suite_pictures)
    assert fault in str(caught.value)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_of_classes_that_do_not_fit_the_pictures_are_refused(suite, suite_pictures):
    suite["targets"][1]["shown_classes"].pop()
    with pytest.raises(EvidenceInvalid, match="10 classes where its shown_classes names 9"):
        render_suite(suite, suite_pictures)


def test_without_names_of_classes_the_columns_are_numbered(suite, suite_pictures):
    del suite["targets"][1]["shown_classes"]
    alts = [value for _, name, value in Page(render_suite(suite, suite_pictures)).attributes if name == "alt"]
    assert "patch-mi, devanagari, class 10" in alts


def test_pictures_that_would_make_the_file_too_large_are_fewer_classes_and_said_to_be(suite):
    noise = np.random.default_rng(0).integers(0, 256, size=(10, 4, 3, 128, 128), dtype=np.uint8)
    pictures = {row["id"]: noise for row in suite["rows"] if row["state"] == "done"}
    html = render_suite(suite, pictures)
    assert len(html.encode()) < 12_000_000
    shown = int(part_of(TARGET.findall(html)[0], r"(\d+) of 10 classes are shown"))
    assert 2 <= shown < 10
    assert html.count("patch-mi, strokes, class 9") == 4, "both ends are kept"


def test_hostile_texts_stay_text(suite, suite_pictures):
    hostile = "<script>alert(1)</script>"
    suite["title"] = "</title><img src=x onerror=alert(1)>"
    for part in ("description", "small_note", "command"):
        suite[part] = hostile
    suite["targets"][0].update(architecture=hostile, private=hostile)
    suite["targets"][0]["judges"][0]["name"] = hostile
    suite["targets"][0]["shown_classes"][0] = '"><script>'
    suite["rows"][0]["settings"][hostile] = {"a": "</script><!--"}
    suite["rows"][3]["error"] = hostile
    suite["published"][0].update(note=hostile, attack=hostile)
    suite["curves"][0].update(title=hostile, along=hostile)
    read = Page(render_suite(suite, suite_pictures))
    ((attributes, document),) = read.scripts
    assert attributes == {"type": "application/json", "id": "suite"}
    assert json.loads(document) == suite
    assert hostile in read.text
    assert not [name for _, name, _ in read.attributes if name.startswith("on")]
    assert all(
        value.startswith("data:image/png;base64,") for _, name, value in read.attributes if name == "src"
    )


def test_the_page_loads_nothing_and_runs_nothing(page):
    read = Page(page)
    assert not {"link", "iframe", "object", "embed", "audio", "video", "base", "form"} & set(read.tags)
    for tag, name, value in read.attributes:
        assert "://" not in value, (tag, name, value)
        if name in ("src", "xlink:href", "srcset", "action", "data", "poster"):
            assert value.startswith(("data:image/png;base64,", "#")), (tag, name, value)
    assert "@import" not in page
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", page))
    assert "default-src 'none'" in page
    assert [attributes["type"] for attributes, _ in read.scripts] == ["application/json"]


def test_every_id_is_whole_every_image_named_and_every_head_has_its_scope(page):
    attributes = Page(page).attributes
    ids = [value for _, name, value in attributes if name == "id"]
    assert len(ids) == len(set(ids))
    inside = {
        value[1:] for _, name, value in attributes if name in ("href", "xlink:href") and value[0] == "#"
    }
    assert inside <= set(ids)
    assert all(value for tag, name, value in attributes if tag == "img" and name == "alt")
    assert page.count("<img ") == sum(tag == "img" and name == "alt" for tag, name, _ in attributes)
    assert all("scope=" in head for head in re.findall(r"<th\b[^>]*>", page))


def test_a_page_made_again_has_the_same_bytes(suite_folder: Path):
    path = write_suite_page(suite_folder)
    assert path == suite_folder / "suite.html"
    first = path.read_bytes()
    assert write_suite_page(suite_folder).read_bytes() == first
    assert {entry.name for entry in suite_folder.iterdir()} == {
        "suite.json",
        "suite-pictures.safetensors",
        "suite.html",
    }


def test_a_suite_without_pictures_makes_a_page(suite_folder: Path):
    (suite_folder / "suite-pictures.safetensors").unlink()
    html = write_suite_page(suite_folder).read_text(encoding="utf-8")
    assert "Side by side" not in html
    assert "<img" not in html


def test_a_wrong_suite_or_broken_pictures_leave_the_old_page(suite_folder: Path, suite):
    old = write_suite_page(suite_folder).read_bytes()
    (suite_folder / "suite-pictures.safetensors").write_bytes(b"no tensors")
    with pytest.raises(EvidenceInvalid, match=r"suite-pictures\.safetensors.*patchmi suite report"):
        write_suite_page(suite_folder)
    del suite["rows"]
    (suite_folder / "suite.json").write_text(json.dumps(suite), encoding="utf-8")
    with pytest.raises(SuiteInvalid, match="rows"):
        write_suite_page(suite_folder)
    assert (suite_folder / "suite.html").read_bytes() == old


def test_rendering_changes_nothing_it_was_given(suite, suite_pictures):
    before = copy.deepcopy(suite)
    render_suite(suite, suite_pictures)
    assert suite == before


def test_a_suite_of_which_nothing_is_done_has_a_page_that_says_so(suite):
    for row in suite["rows"]:
        row.update(state="missing", error=None, folder=None, scores={}, controls={})
    suite["published"], suite["targets"][1]["class_count"] = [], None
    suite["targets"][1].update(accuracy=None, judges=[], disjoint_judge=None, shown_classes=[])
    page = render_suite(suite)
    text = Page(page).text
    assert "0 of 15 rows done · 15 missing" in text
    assert text.count("missing not run yet") == 2 * 15, "once in the tables and once among the costs"
    assert columns_of(page, 0) == []


def test_a_small_suite_is_said_to_be_small_and_a_whole_one_is_not(suite):
    assert "Small form. ResNet-10 of width 16" in Page(render_suite(suite)).text
    suite["small_note"] = "One seed."
    assert "Small form. One seed. These are not" in Page(render_suite(suite)).text
    suite["small_note"] = None
    assert "Small form" not in render_suite(suite)


@pytest.mark.parametrize(("seeds", "words"), [([0], "ran once, 200"), ([0, 1, 2], "ran 3 times, 200")])
def test_few_seeds_are_said_to_be_few(suite, seeds, words):
    suite["seeds"] = seeds
    text = Page(render_suite(suite)).text
    assert words in text
    assert ("A firm verdict needs 3 runs" in text) == (len(seeds) < 3)


def test_settings_stand_once_where_targets_share_them_and_apart_where_not(suite):
    run = part_of(render_suite(suite), r'(<section id="run">.*?</section>)')
    assert len(re.findall(r"<h4>general", run)) == 1
    suite["rows"][0]["settings"] = {**suite["rows"][0]["settings"], "step_count": 77}
    suite["rows"][1]["settings"] = suite["rows"][0]["settings"]
    run = part_of(render_suite(suite), r'(<section id="run">.*?</section>)')
    heads = [text_of(head) for head in re.findall(r"<h4>(.*?)</h4>", run)]
    assert heads[:1] + heads[-1:] + [head for head in heads if head == "general letters"] == [
        "general mnist",
        "weight-10 mnist",
        "general letters",
    ]


def test_an_attack_that_needs_no_public_images_is_said_to_use_none(suite, suite_pictures):
    suite["rows"][0]["uses_public"] = False
    page = render_suite(suite, suite_pictures)
    assert table_rows(page, 0)[0][1] == "general no public images"


def test_the_page_makes_no_forbidden_claim(suite, suite_pictures):
    assert forbidden_claims_in(Page(render_suite(suite, suite_pictures)).text) == []
    for row in suite["rows"]:
        row.update(state="failed", error="killed")
    assert forbidden_claims_in(Page(render_suite(suite)).text) == []


def test_texts_stand_out_from_every_ground_they_stand_on(page):
    style = part_of(page, r"<style>(.*?)</style>")
    named = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", style))
    words = dict(re.findall(r"\.word\.([\w-]+) \{ color: (#\w{6}); \}", style))
    assert set(words) == {"exposed", "not-demonstrated", "inconclusive"}
    for colour in (*words.values(), named["ink"], named["muted"], named["accent"]):
        assert contrast(colour, "#ffffff") >= 4.5
        assert contrast(colour, named["wash"]) >= 4.5
    for colour in re.findall(r"<text style=\"[^\"]*fill: (#\w{6})", page):
        assert contrast(colour, "#ffffff") >= 4.5
