import re
from xml.etree import ElementTree

import pytest
from tests.report.conftest import of_a_black_box

from patchmi.report import figures

CHARTS = (figures.control_ladder, figures.class_forest, figures.success_over_steps, figures.nearest_ratios)


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg.replace("xlink:href", "href"))


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in parsed(svg).iter("text")]


@pytest.mark.parametrize("draw", CHARTS)
def test_a_chart_is_drawn_twice_to_the_same_bytes(draw, result):
    assert draw(result) == draw(result)


@pytest.mark.parametrize("draw", CHARTS)
def test_a_chart_is_clean_svg_with_a_name_and_without_an_outside_address(draw, result):
    svg = draw(result)
    root = parsed(svg)
    assert root.get("role") == "img"
    assert root.get("aria-label")
    assert "://" not in svg
    assert "<style" not in svg
    ids = re.findall(r'\sid="([^"]+)"', svg)
    assert set(re.findall(r"url\(#([^)]+)\)", svg)) | set(re.findall(r'href="#([^"]+)"', svg)) <= set(ids)


def test_no_two_charts_share_an_id(result):
    ids = [set(re.findall(r'\sid="([^"]+)"', draw(result))) for draw in CHARTS]
    assert sum(map(len, ids)) == len(set().union(*ids))


def test_the_ladder_names_every_arm_and_judge(result):
    words = " ".join(texts(figures.control_ladder(result)))
    for name in ("resnet", "convnet", "hog-knn", "Real held-out", "Random noise", "Reconstructions"):
        assert name in words


def test_an_arm_that_is_not_known_is_drawn_under_its_own_name(result):
    result["judge_scores"].append({**result["judge_scores"][0], "arm": "blurred"})
    assert "blurred" in texts(figures.control_ladder(result))


def test_the_forest_is_sorted_by_the_lower_bound(result):
    lows = [0.5, 0.9, 0.1, 0.3, 0.2, 0.8, 0.7, 0.4, 0.6, 0.05]
    for entry, low in zip(result["classes"], lows, strict=True):
        entry["judge_top1"] = {"value": 0.95, "low": low, "high": 1.0, "n": 9}
    names = [text for text in texts(figures.class_forest(result)) if text in set("0123456789") and text]
    ticks = names[-10:] if len(names) == 10 else [name for name in names if name][-10:]
    assert ticks == ["1", "5", "6", "8", "0", "7", "3", "4", "2", "9"]


def test_dots_stand_at_their_values(result):
    result["classes"] = result["classes"][:2]
    for entry, value in zip(result["classes"], (0.0, 1.0), strict=True):
        entry["judge_top1"] = {"value": value, "low": value, "high": value, "n": 9}
    svg = figures.class_forest(result)
    dots = sorted(
        {float(x) for x in re.findall(r'<use [^>]*\bx="([\d.]+)" y="[\d.]+" style="fill: #1d5a96', svg)}
    )
    grid = sorted({float(x) for x in re.findall(r'd="M ([\d.]+) [\d.]+ \s*L \1 ', svg)})
    assert len(dots) == 2
    assert min(abs(x - dots[0]) for x in grid) < 0.01
    assert min(abs(x - dots[1]) for x in grid) < 0.01


@pytest.mark.parametrize(("seeds", "line_count"), [((0,), 2), ((0, 1, 2), 8)])
def test_one_line_a_seed_and_one_for_the_mean(result_of, seeds, line_count):
    svg = figures.success_over_steps(result_of(seeds=seeds))
    thick = len(re.findall(r"stroke-width: 2(?:;|\b)(?!\.)", svg))
    thin = len(re.findall(r"stroke-width: 0\.7", svg))
    legend_lines = 2
    assert thick + thin - legend_lines == line_count


def test_the_curve_of_a_black_box_runs_along_what_was_sent(result_of):
    svg = figures.success_over_steps(of_a_black_box(result_of(seeds=(0, 1, 2))))
    assert "images sent to the model" in texts(svg)
    assert "step of the attack" not in texts(svg)
    thick = len(re.findall(r"stroke-width: 2(?:;|\b)(?!\.)", svg))
    thin = len(re.findall(r"stroke-width: 0\.7", svg))
    assert (thick - 2, thin) == (2, 6), "seeds that sent other numbers of images still have a mean"


@pytest.mark.parametrize("draw", CHARTS)
def test_names_that_matplotlib_would_read_as_mathematics_or_hide_stay_as_they_are(draw, result):
    names = ["$x^$", "_hidden", "数字", "<b>&"]
    for entry, name in zip(result["classes"], names, strict=False):
        entry["name"] = name
    for score in result["judge_scores"]:
        score["judge"] = {"resnet": "$j^$", "convnet": "_judge", "hog-knn": "数字"}[score["judge"]]
    words = texts(draw(result))
    if draw is figures.class_forest:
        assert set(names) <= set(words)
    if draw is figures.control_ladder:
        assert {"$j^$", "_judge", "数字"} <= set(words)


def test_nothing_is_drawn_where_nothing_was_measured(result):
    result["history"], result["judge_scores"], result["neighbours_ratio"] = [], [], None
    for entry in result["classes"]:
        entry["nearest_ratio"] = None
    assert figures.success_over_steps(result) == ""
    assert figures.control_ladder(result) == ""
    assert figures.nearest_ratios(result) == ""
