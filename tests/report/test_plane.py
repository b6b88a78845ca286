"""The plane of accuracy and leakage: what is drawn where, and what the page says of defences."""

import copy
import json
import re
from functools import cache
from typing import Any

import numpy as np
import pytest
from tests.report.browsing import CHROMIUM, measured
from tests.report.pages import Page, contrast, is_printed_as, part_of, resolve
from tests.report.test_suite_figures import dots, parsed, texts

from patchmi.claims import forbidden_claims_in
from patchmi.report.plane import utility_leakage_plane
from patchmi.report.suite_page import render_suite
from patchmi.report.suite_result import SuiteInvalid, validate_suite

GREY, BLUE, RED = "#566170", "#1d5a96", "#a8481c"
REFERENCE = "#c9d0d9"
ROW = re.compile(r'<tr(?: class="begins")?>\s*<th scope="row">(.*?)</th>(.*?)</tr>', flags=re.DOTALL)


@pytest.fixture
def defended(suite, plane) -> dict[str, Any]:
    """A suite without other figures, for speed, that compares defences."""
    return suite | {"rows": suite["rows"][11:12], "curves": [], "published": [], "planes": [plane]}


@pytest.fixture
def page(defended) -> str:
    return rendered(json.dumps(defended))


@cache
def rendered(document: str) -> str:
    return render_suite(json.loads(document))


def section_of(page: str) -> str:
    return part_of(page, r'<section id="defences"[^>]*>(.*?)</section>')


def text_of(html: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


def table_rows(page: str) -> dict[str, list[str]]:
    """Name of the point → its cells in words."""
    return {
        text_of(head): [text_of(cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", cells, flags=re.DOTALL)]
        for head, cells in ROW.findall(section_of(page))
    }


def rate(value: float, spread: float = 0.0) -> dict[str, Any]:
    return {"value": value, "low": value - spread, "high": value + spread, "n": 9}


def at(plane, place: int, *, accuracy: float, leakage: float, plain: float | None = None) -> None:
    plane["points"][place].update(
        accuracy=rate(accuracy),
        leakage={"patch-mi": rate(leakage if plain is None else plain), "margin": rate(leakage)},
        strongest={"attack": "margin", "leakage": rate(leakage)},
    )


# ---------------------------------------------------------------- the figure


def test_the_plane_is_clean_svg_drawn_twice_to_the_same_bytes_from_an_unchanged_document(plane):
    before = copy.deepcopy(plane)
    svg = utility_leakage_plane(plane, name="plane-0")
    assert svg == utility_leakage_plane(plane, name="plane-0")
    assert plane == before
    root = parsed(svg)
    assert root.get("role") == "img"
    assert root.get("aria-label") == "Defences of digits: leakage against accuracy of each defence"
    assert "://" not in svg
    assert all(own.startswith("plane-0-") for own in re.findall(r'\sid="([^"]+)"', svg))


def test_accuracy_goes_right_and_leakage_up(plane):
    plane["points"] = plane["points"][4:7]
    for place, (accuracy, leakage) in enumerate(((0.9, 0.2), (0.94, 0.6), (0.98, 1.0))):
        at(plane, place, accuracy=accuracy, leakage=leakage)
    (x1, y1), (x2, y2), (x3, y3) = dots(utility_leakage_plane(plane, name="a"), BLUE)
    assert x1 < x2 < x3
    assert y1 > y2 > y3, "y grows downwards"
    assert x2 == pytest.approx((x1 + x3) / 2, abs=0.01), "a narrow range is even"
    assert y2 == pytest.approx((y1 + y3) / 2, abs=0.01)


def test_a_wide_axis_gives_the_crowd_room_and_names_round_accuracies(plane):
    plane["points"] = plane["points"][4:7]
    for place, accuracy in enumerate((0.2, 0.94, 0.99)):
        at(plane, place, accuracy=accuracy, leakage=0.5)
    svg = utility_leakage_plane(plane, name="a")
    (x1, _), (x2, _), (x3, _) = dots(svg, BLUE)
    assert x1 < x2 < x3
    assert (x3 - x2) / (x3 - x1) > 0.3, "a sixteenth of the range"
    assert 30 < x1 < 60, "the axis ends near the marks"
    assert 340 < x3 < 372
    named = [text for text in texts(svg) if re.fullmatch(r"\.\d\d", text)]
    assert {".20", ".80", ".90", ".95", ".98"} <= set(named)


def test_a_narrow_axis_names_accuracies_at_even_distances(plane):
    plane["points"] = plane["points"][4:7]
    for place, accuracy in enumerate((0.88, 0.94, 0.985)):
        at(plane, place, accuracy=accuracy, leakage=0.5)
    svg = utility_leakage_plane(plane, name="a")
    named = re.findall(r'<text style="[^"]*text-anchor: middle[^"]*" x="([\d.]+)"[^>]*>(\d?\.\d\d)<', svg)
    assert len(named) >= 4
    places, accuracies = ([float(one) for one in column] for column in zip(*named, strict=True))
    assert np.diff(accuracies) == pytest.approx([accuracies[1] - accuracies[0]] * (len(named) - 1))
    assert np.diff(places) == pytest.approx([places[1] - places[0]] * (len(named) - 1), abs=0.01)


def test_every_named_accuracy_stands_where_it_belongs(plane):
    plane["points"] = plane["points"][4:7]
    for place, accuracy in enumerate((0.4, 0.8, 0.99)):
        at(plane, place, accuracy=accuracy, leakage=0.5)
    svg = utility_leakage_plane(plane, name="a")
    (x1, _), (x2, _), _ = dots(svg, BLUE)
    ticks = re.findall(r'<text style="[^"]*text-anchor: middle[^"]*" x="([\d.]+)"[^>]*>(\.\d\d)<', svg)
    named = {text: float(x) for x, text in ticks}
    assert (named[".40"], named[".80"]) == pytest.approx((x1, x2), abs=0.01)


def test_a_mark_stands_at_the_strongest_attack_with_an_arrow_from_a_plain_one_that_got_less(plane):
    plane["points"] = plane["points"][4:7]
    for place, (accuracy, leakage) in enumerate(((0.98, 0.8), (0.97, 0.4), (0.96, 0.2))):
        at(plane, place, accuracy=accuracy, leakage=leakage)
    level = utility_leakage_plane(plane, name="a")
    assert arrows(level) == []
    at(plane, 0, accuracy=0.98, leakage=0.8, plain=0.2)
    risen = utility_leakage_plane(plane, name="a")
    assert dots(risen, BLUE) == dots(level, BLUE)
    right, _, left = dots(risen, BLUE)
    ((x, tail, head),) = arrows(risen)
    assert (x, tail) == pytest.approx((right[0], left[1]), abs=0.01), "from .2, where another mark stands"
    assert right[1] < head < right[1] + 5, "to below the mark"


def arrows(svg: str) -> list[tuple[float, float, float]]:
    """(x, y of the tail, y of the head) of each arrow."""
    lines = re.findall(r'<path d="(M [^"]*Q[^"]*)" style="fill: none; opacity: 0.6', svg)
    ends = [[float(part) for part in re.findall(r"[\d.]+", line)] for line in lines]
    return [(own[0], own[1], own[-1]) for own in ends]


def test_without_a_maximum_a_mark_stands_at_the_plain_attack(plane):
    plane["points"] = plane["points"][4:6]
    at(plane, 0, accuracy=0.98, leakage=0.8)
    at(plane, 1, accuracy=0.97, leakage=0.8, plain=0.4)
    svg = utility_leakage_plane(plane, name="a")
    plane["points"][1]["strongest"] = None
    lower = utility_leakage_plane(plane, name="a")
    assert dots(svg, BLUE)[0][1] == dots(svg, BLUE)[1][1]
    assert dots(lower, BLUE)[0][1] < dots(lower, BLUE)[1][1]


def test_a_bypassed_plain_attack_leaves_the_others_their_mark_and_alone_leaves_none(plane):
    plane["points"] = plane["points"][10:12]
    assert len(dots(utility_leakage_plane(plane, name="a"), BLUE)) == 1
    del plane["points"][0]
    assert utility_leakage_plane(plane, name="a") == ""


def test_points_without_numbers_are_left_out_of_the_figure_and_of_its_legend(plane):
    words = texts(utility_leakage_plane(plane, name="a"))
    for defence in ("none", "early-stopping", "mid", "rolss", "at-at", "rounding"):
        assert words.count(defence) == 1
    assert not {"dp-sgd", "trap-mid"} & set(words)


def test_hollow_marks_are_those_not_adaptively_tested_and_the_legend_says_so(plane):
    plane["points"] = plane["points"][4:7]
    full = utility_leakage_plane(plane, name="a")
    assert len(dots(full, BLUE)) == 3
    assert "not adaptively tested" not in texts(full)
    plane["points"][1]["is_adaptively_tested"] = False
    hollow = utility_leakage_plane(plane, name="a")
    assert len(dots(hollow, BLUE)) == 2
    assert len(dots(hollow, f"#ffffff; stroke: {BLUE}")) == 1
    assert "not adaptively tested" in texts(hollow)


def test_the_reference_goes_through_plain_training_in_order_of_accuracy(plane):
    plane["points"] = [plane["points"][place] for place in (2, 0, 3, 1, 4)]
    svg = utility_leakage_plane(plane, name="a")
    (path,) = re.findall(rf'<path d="([^"]*)"[^>]*stroke: {REFERENCE}', svg)
    corners = [(float(x), float(y)) for x, y in re.findall(r"[ML] ([\d.]+) ([\d.]+)", path)]
    assert len(corners) == 4
    assert corners == sorted(corners)
    marks = dots(svg, GREY)
    for corner in corners:
        assert any(corner == pytest.approx(mark, abs=0.01) for mark in marks)
    plane["points"] = plane["points"][-1:]
    assert REFERENCE not in utility_leakage_plane(plane, name="a")


def test_every_defence_has_its_own_colour_and_shape_and_marks_grow_with_strength(plane):
    point = plane["points"][4]
    plane["points"] = [{**point, "defence": f"d{place}", "name": f"d{place}"} for place in range(20)]
    svg = utility_leakage_plane(plane, name="a")
    legend = svg[svg.index("legend_1") :]
    looks = re.findall(r'<use [^>]*href="#([^"]+)"[^>]*style="[^"]*fill: (#\w{6})', legend)
    assert len(looks) == len(set(looks)) == 20
    plane["points"] = [{**point, "name": f"mid {place}"} for place in range(3)]
    svg = utility_leakage_plane(plane, name="a")
    widths = []
    for path in re.findall(r'<path id="a-m\w+" d="([^"]*)" style="stroke: #ffffff', svg):
        across = [float(x) for x in re.findall(r"(-?[\d.]+) -?[\d.]+", path)]
        widths.append(max(across) - min(across))
    assert widths[:3] == sorted(widths[:3])
    assert widths[0] < widths[1] < widths[2]


def test_nothing_is_drawn_of_a_plane_without_numbers(plane):
    plane["points"] = plane["points"][-2:]
    assert utility_leakage_plane(plane, name="a") == ""
    plane["points"] = []
    assert utility_leakage_plane(plane, name="a") == ""


# ---------------------------------------------------------------- the page


def test_a_suite_without_planes_says_nothing_of_defences(suite, defended):
    for part in ({}, {"planes": []}):
        html = render_suite({name: own for name, own in defended.items() if name != "planes"} | part)
        assert 'id="defences"' not in html
        assert "#defences" not in html
    assert "planes" not in suite


def test_every_number_of_the_section_traces_to_the_suite(page, defended):
    measures = [(path, text) for path, text in Page(page).measures if path.startswith("/planes/")]
    everywhere, plain, strongest = 12 * 5, 10, 11
    assert len(measures) == everywhere + plain + strongest
    for pointer, text in measures:
        value = resolve(defended, pointer)
        if isinstance(value, dict):
            shown = re.fullmatch(r"(\S+) \[(\S+), (\S+)\], n = (\S+)", text)
            assert shown, text
            for part, name in zip(shown.groups()[:3], ("value", "low", "high"), strict=True):
                assert is_printed_as(part, value[name]), (pointer, name, text)
            assert shown[4] == f"{value['n']:,}"
        else:
            assert is_printed_as(text, value), (pointer, text)
    assert not [cell for cell in Page(section_of(page)).loose_cells if re.search(r"\d", cell)]


def test_a_row_shows_its_own_numbers_column_by_column(page):
    _, cells = ROW.findall(section_of(page))[7]
    own = "/planes/0/points/7"
    assert re.findall(r'data-path="([^"]*)"', cells) == [
        f"{own}/accuracy",
        f"{own}/leakage/patch-mi",
        f"{own}/strongest/leakage",
        f"{own}/early_stopped_leakage",
        f"{own}/robust_accuracy/0.25",
        f"{own}/robust_accuracy/1",
        f"{own}/cost",
    ]
    heads = [text_of(head) for head in re.findall(r'<th scope="col">(.*?)</th>', section_of(page))]
    assert heads == [
        "Defence and strength",
        "Accuracy held out",
        "Plain attack patch-mi",
        "Strongest attack of 2",
        "Early-stopped at this accuracy",
        "Robust accuracy within .25/255",
        "Robust accuracy within 1/255",
        "Training cost undefended: 1",
        "Remarks",
    ]
    row = table_rows(page)["rolss 0.6 3 networks"]
    assert row[0].startswith(".984 [.981, .987]"), "accuracies have three decimals"
    assert row[2].endswith("margin"), "which attack was the strongest"


def test_bypassed_is_a_word_and_never_a_number(page):
    rows = table_rows(page)
    others, alone = rows["rounding 1 3 networks"], rows["rounding 0 3 networks"]
    assert others[1] == alone[1] == "bypassed"
    assert others[2].startswith(".60 [")
    assert alone[2] == "–"
    assert "Bypassed: the plain attack" in section_of(page)


def test_remarks_say_what_is_missing_failed_partial_or_untested(page, defended):
    rows = table_rows(page)
    assert rows["mid 0.1 3 networks"][-1] == (
        "partial seed 2 of 3 has no result adaptive: margin The bottleneck has 64 units."
    )
    assert rows["dp-sgd 1.1 3 networks"] == ["failed out of memory: 2.0 GB asked for"]
    assert rows["trap-mid 0.05"] == ["missing not trained yet"]
    assert rows["at-at 0.08 3 networks"][-1] == "not adaptively tested : margin"
    assert "3 of 14 points lack a number and are left out." in text_of(section_of(page))
    assert "Hollow:" in page
    for point in defended["planes"][0]["points"]:
        point["is_adaptively_tested"] = True
    assert "Hollow:" not in render_suite(defended)


def test_the_sentences_stand_above_the_figure_above_the_table(page, defended):
    section, plane = section_of(page), defended["planes"][0]
    places = [
        section.index(part) for part in (plane["sentence"], plane["power"]["sentence"], "<svg", "<table>")
    ]
    assert places == sorted(places)
    assert '<a href="#defences">' in page


@pytest.mark.parametrize(
    ("has_power", "word"), [(True, "Power shown."), (False, "No power shown."), (None, "Power not tried.")]
)
def test_whether_the_attacks_had_power_is_said_in_a_word(defended, has_power, word):
    plane = defended["planes"][0]
    plane["power"]["has_power"], plane["points"] = has_power, []
    assert f"<strong>{word}</strong>" in render_suite(defended)


def test_the_section_is_plain_markup_without_forbidden_claims(defended):
    hostile = "<script>alert(1)</script>"
    plane = defended["planes"][0]
    second = copy.deepcopy(plane)
    plane["title"] = plane["sentence"] = plane["power"]["sentence"] = hostile
    plane["points"][12]["error"] = plane["points"][0]["name"] = hostile
    plane["points"][4]["notes"] = [hostile]
    defended["planes"].append(second)
    html = render_suite(defended)
    read = Page(html)
    assert len(read.scripts) == 1
    assert forbidden_claims_in(read.text) == []
    ids = [value for _, name, value in read.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    for colour in re.findall(r"<text style=\"[^\"]*fill: (#\w{6})", section_of(html)):
        assert contrast(colour, "#ffffff") >= 4.5


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
@pytest.mark.parametrize("width", [390, 1280])
def test_the_section_fits_the_screen(defended, tmp_path, width):
    long = "x" * 200
    plane = defended["planes"][0]
    plane["title"] = plane["sentence"] = plane["power"]["sentence"] = long
    plane["points"][12]["error"] = plane["points"][0]["name"] = long
    plane["points"][4]["notes"] = [long]
    sizes = measured(render_suite(defended), tmp_path, width)
    assert sizes["scroll"] <= width
    assert sizes["wide"] == []


# ---------------------------------------------------------------- the document


def test_a_plane_of_every_state_is_taken(defended):
    validate_suite(defended)


@pytest.mark.parametrize(
    ("path", "value", "place"),
    [
        ("title", "", ".title"),
        ("attacks", [], ".attacks"),
        ("plain_attack", "margin", ".attacks"),
        ("power.has_power", "yes", ".power.has_power"),
        ("points.0.state", "running", ".points[0].state"),
        ("points.0.accuracy", 0.98, ".points[0].accuracy"),
        ("points.0.leakage.patch-mi", 0.96, ".points[0].leakage"),
        ("points.0.leakage.patch-mi", "avoided", ".points[0].leakage"),
        ("points.0.leakage.margin", rate(97.0), ".points[0].leakage"),
        ("points.0.leakage.other", rate(0.5), ".points[0].leakage"),
        ("points.0.strongest.attack", "margin", ".points[0].strongest.attack"),
        ("points.10.strongest.attack", "patch-mi", ".points[10].strongest.attack"),
        ("points.0.strongest.leakage", None, ".points[0].strongest.leakage"),
        ("points.0.early_stopped_leakage", 97.0, ".points[0].early_stopped_leakage"),
        ("points.0.robust_accuracy.quarter", rate(0.5), ".points[0].robust_accuracy"),
        ("points.0.cost", -1.0, ".points[0].cost"),
        ("points.0.adaptive", {"wanted": []}, ".points[0].adaptive"),
        ("points.1.name", "none", ".points"),
        ("points.12.error", None, ".points[12].error"),
    ],
)  # fmt: skip
def test_a_wrong_plane_is_refused_with_its_place(defended, path, value, place):
    *parents, name = path.split(".")
    part = defended["planes"][0]
    for step in parents:
        part = part[int(step)] if step.isdigit() else part[step]
    part[name] = value
    with pytest.raises(SuiteInvalid) as caught:
        validate_suite(defended)
    line = str(caught.value)
    assert line.startswith(f"$.planes[0]{place}")
    assert "\n" not in line
    assert ";" in line, "a remedy follows the fault"
    assert "with the version of patchmi" not in line


@pytest.mark.parametrize(
    ("parent", "names"),
    [
        ((), "title plain_attack attacks points power sentence"),
        (("power",), "has_power sentence"),
        (
            ("points", 0),
            "defence strength name error replicate_count accuracy leakage strongest early_stopped_leakage "
            "robust_accuracy cost adaptive is_adaptively_tested notes",
        ),
        (("points", 0, "strongest"), "attack leakage"),
        (("points", 0, "adaptive"), "wanted done"),
    ],
)
def test_each_required_field_of_a_plane_is_missed_by_name(defended, parent, names):
    for name in names.split():
        broken = copy.deepcopy(defended)
        part = broken["planes"][0]
        for step in parent:
            part = part[step]
        del part[name]
        with pytest.raises(SuiteInvalid, match=f"the field '{name}' is missing"):
            validate_suite(broken)
