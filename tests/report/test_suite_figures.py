import re
from xml.etree import ElementTree

import pytest

from patchmi.report import suite_figures


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg.replace("xlink:href", "href"))


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in parsed(svg).iter("text")]


def dots(svg: str, colour: str, kind: str = "fill") -> list[tuple[float, float]]:
    """Where the dots of a colour stand, those of the legend left out."""
    legend = svg.find('id="', svg.find("legend_1"))
    body = svg if legend == -1 else svg[: svg.find("legend_1")]
    found = re.findall(rf'<use [^>]*\bx="([\d.]+)" y="([\d.]+)" style="[^"]*{kind}: {colour}', body)
    return [(float(x), float(y)) for x, y in found]


def charts(suite) -> dict[str, str]:
    drawn = {
        "success": suite_figures.success_of_rows(suite, "mnist", name="success-0"),
        "spread": suite_figures.coverage_over_success(suite, "mnist", name="spread-0"),
    }
    return drawn | {f"curve {place}": curve.svg for place, curve in enumerate(suite_figures.curves_of(suite))}


def test_charts_are_clean_svg_with_names_and_drawn_twice_to_the_same_bytes(suite):
    drawn = charts(suite)
    assert drawn == charts(suite)
    assert len(drawn) == 3
    for svg in drawn.values():
        root = parsed(svg)
        assert root.get("role") == "img"
        assert root.get("aria-label")
        assert "://" not in svg
        assert "<style" not in svg


def test_no_two_charts_share_an_id(suite):
    suite["curves"].append({**suite["curves"][0], "scores": ["recall", "frechet_distance"]})
    ids = [set(re.findall(r'\sid="([^"]+)"', svg)) for svg in charts(suite).values()]
    assert len(ids) == 5
    assert sum(map(len, ids)) == len(set().union(*ids))


def test_the_rows_stand_in_the_tables_order_with_what_failed_and_what_was_published(suite):
    words = texts(suite_figures.success_of_rows(suite, "mnist", name="a"))
    named = [
        word for word in words if word in ("general", "variational", "patch-mi", "devanagari", "strokes")
    ]
    assert named[:4] == ["general", "devanagari", "general", "strokes"]
    assert words.count("published") == 3, "two lines and the legend"
    assert words.count("failed") == 1
    assert "best control" in words


def test_dots_stand_at_their_values_and_published_ones_in_another_shape(suite):
    suite["rows"] = suite["rows"][:2]
    suite["curves"] = []
    for row, value in zip(suite["rows"], (0.0, 1.0), strict=True):
        row["scores"]["judge_top1"] = {"value": value, "low": value, "high": value, "n": 9}
    suite["published"] = [{**suite["published"][0], "scores": {"judge_top1": 0.5}}]
    svg = suite_figures.success_of_rows(suite, "mnist", name="a")
    (left, first), (right, second) = dots(svg, "#1d5a96")
    ((middle, third),) = dots(svg, "#a8481c", "stroke")
    assert left < right
    assert first < second < third
    assert middle == pytest.approx((left + right) / 2, abs=0.01)


def test_coverage_and_success_are_not_exchanged(suite):
    suite["rows"] = suite["rows"][:2]
    wanted = ((0.2, 0.8), (0.9, 0.1))
    for row, (success, coverage) in zip(suite["rows"], wanted, strict=True):
        row["scores"]["judge_top1"] = {"value": success, "low": success, "high": success, "n": 9}
        row["scores"]["coverage"] = {"value": coverage, "low": coverage, "high": coverage, "n": 9}
    svg = suite_figures.coverage_over_success(suite, "mnist", name="a")
    (x1, y1), (x2, y2) = dots(svg, "#1d5a96")
    assert x1 < x2
    assert y1 < y2, "the lower coverage stands lower, and y grows downwards"


def test_more_attacks_than_colours_still_differ_and_long_names_do_not_merge(suite):
    row = suite["rows"][0]
    suite["rows"] = [{**row, "id": f"{attack}", "attack": "a" * 60 + f"{attack}"} for attack in range(13)]
    svg = suite_figures.coverage_over_success(suite, "mnist", name="a")
    legend = svg[svg.index("legend_1") :]
    looks = re.findall(r'<use [^>]*href="#([^"]+)"[^>]*style="[^"]*fill: (#\w{6})', legend)
    assert len(looks) == 13
    assert len(set(looks)) == 13


def test_attacks_of_one_colour_with_several_public_sets_differ_too(suite):
    row = suite["rows"][0]
    publics = ("devanagari", "omniglot", "strokes", "glyphs", "digits")
    suite["rows"] = [
        {**row, "id": f"{attack}{public}", "attack": f"attack {attack}", "public": public}
        for attack in range(9)
        for public in publics[: 5 if attack in (2, 8) else 1]
    ]
    svg = suite_figures.coverage_over_success(suite, "mnist", name="a")
    legend = svg[svg.index("legend_1") :]
    looks = re.findall(r'<use [^>]*href="#([^"]+)"[^>]*style="[^"]*fill: (#\w{6})', legend)
    assert len(looks) == len(set(looks)) == 17


def test_published_lines_without_the_number_are_left_out(suite):
    before = texts(suite_figures.success_of_rows(suite, "mnist", name="a")).count("published")
    del suite["published"][0]["scores"]["judge_top1"]
    words = texts(suite_figures.success_of_rows(suite, "mnist", name="a"))
    assert words.count("published") == before - 1


def test_a_curve_is_drawn_by_setting_and_says_what_is_missing(suite):
    suite["curves"][0]["points"].reverse()
    suite["rows"][-1].update(state="failed", error="killed")
    (curve,) = suite_figures.curves_of(suite)
    assert curve.caption == "mnist, strokes. 1 of 3 points have no result."
    assert "attack_weight" in texts(curve.svg)
    across = [x for x, _ in dots(curve.svg, "#1d5a96")]
    assert across == sorted(across)
    assert len(across) == 2


@pytest.mark.parametrize("settings", [(1, 3, 10), (1, 30, 1000), (0, 0.5, 1), (7, 7, 7)])
def test_the_dots_of_two_scores_stand_beside_each_other_and_none_is_cut_off(suite, settings):
    for dot, x in zip(suite["curves"][0]["points"], settings, strict=True):
        dot["x"] = x
    (curve,) = suite_figures.curves_of(suite)
    success, coverage = dots(curve.svg, "#1d5a96"), dots(curve.svg, "#a8481c")
    assert len(success) == len(coverage) == 3
    for (left, _), (right, _) in zip(success, coverage, strict=True):
        assert 2 < right - left < 8
    assert 30 < success[0][0] <= coverage[-1][0] < 370


def test_two_rows_may_share_a_setting(suite):
    suite["curves"][0]["points"][1]["x"] = 1
    (curve,) = suite_figures.curves_of(suite)
    assert len(dots(curve.svg, "#1d5a96")) == 3


def test_a_distance_has_a_chart_of_its_own_and_so_has_each_target(suite):
    suite["curves"][0]["scores"] = ["judge_top1", "frechet_distance", "coverage"]
    first, second = suite_figures.curves_of(suite)
    assert {"Judge top-1", "Coverage"} <= set(texts(first.svg))
    assert "Fréchet distance" not in texts(first.svg)
    assert "Fréchet distance" in texts(second.svg)
    letters = [
        {**row, "id": row["id"].replace("mnist", "letters"), "target": "letters"}
        for row in suite["rows"][-3:]
    ]
    suite["rows"] += letters
    suite["curves"][0]["points"] += [
        {"row": row["id"], "x": x} for row, x in zip(letters, (1, 3, 10), strict=True)
    ]
    captions = [curve.caption for curve in suite_figures.curves_of(suite)]
    assert captions == ["mnist, strokes.", "mnist, strokes.", "letters, strokes.", "letters, strokes."]


def test_nothing_is_drawn_where_nothing_was_measured(suite):
    for row in suite["rows"]:
        row.update(state="missing", scores={}, controls={})
    assert suite_figures.success_of_rows(suite, "mnist", name="a") == ""
    assert suite_figures.coverage_over_success(suite, "mnist", name="a") == ""
    (curve,) = suite_figures.curves_of(suite)
    assert curve.svg == ""
    assert curve.caption == "mnist, strokes. 3 of 3 points have no result. Too few points to draw."


def test_names_that_matplotlib_would_read_as_mathematics_and_titles_with_quotes_stay_text(suite):
    suite["curves"][0].update(title='a "b" <c>', along="$x^$")
    (curve,) = suite_figures.curves_of(suite)
    assert "$x^$" in texts(curve.svg)
    assert parsed(curve.svg).get("aria-label", "").startswith('a "b" <c>:')
