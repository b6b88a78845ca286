import copy
import json
import re
from pathlib import Path

import pytest
from tests.report.conftest import of_a_black_box
from tests.report.pages import Page, contrast, is_printed_as, part_of, resolve

from patchmi.claims import forbidden_claims_in
from patchmi.report import ResultInvalid, render_report, validate_result, write_report

NUMBER = re.compile(r"(?<![\w.])[<>]?−?(?:\d[\d,]*)?\.?\d+(?![\w])")


@pytest.fixture
def page(result, evidence, metadata) -> str:
    return render_report(result, evidence, metadata=metadata)


def test_every_number_shown_traces_to_the_result(page, result):
    measures = Page(page).measures
    assert len(measures) > 100
    for pointer, text in measures:
        value = resolve(result, pointer)
        if value is None:
            assert text == "not computed"
        elif isinstance(value, dict):
            shown = re.fullmatch(r"(\S+) \[(\S+), (\S+)\], n = (\S+)", text)
            assert shown, text
            for part, name in zip(shown.groups(), ("value", "low", "high", "n"), strict=True):
                assert is_printed_as(part, value[name]), (pointer, name, text)
        else:
            assert is_printed_as(text, value), (pointer, text)


def test_the_result_is_shown_whole(page, result):
    shown = {pointer for pointer, _ in Page(page).measures}
    wanted = {f"/scores/{name}" for name in result["scores"]}
    wanted |= {
        f"/controls/{arm}/{kind}" for arm in result["controls"] for kind in ("judge_top1", "consensus_top1")
    }
    wanted |= {f"/judge_scores/{place}/top1" for place in range(len(result["judge_scores"]))}
    fields = [name for name in result["classes"][0] if name not in ("label", "name")]
    wanted |= {f"/classes/{place}/{field}" for place in range(10) for field in fields}
    wanted |= {f"/judges/{place}/accuracy_interval" for place in range(3)}
    wanted |= {f"/agreement/kappa/{row}/{column}" for row in range(3) for column in range(3)}
    wanted |= {"/neighbours_ratio", "/target/accuracy_interval"}
    assert wanted <= shown


def rows_of(html: str, section: str) -> dict[str, list[str]]:
    """The tables of a section: the head of each row and the sources of its numbers."""
    body = part_of(html, rf'<section id="{section}">(.*?)</section>')
    rows = re.findall(r'<tr[^>]*><th scope="row">([^<]*)(.*?)</tr>', body, flags=re.DOTALL)
    return {head: re.findall(r'data-path="([^"]*)"', cells) for head, cells in rows}


def test_each_row_shows_the_numbers_of_what_its_head_names(page, result):
    controls, scores = rows_of(page, "controls"), rows_of(page, "fidelity")
    assert controls["Reconstructions (the attack)"][:2] == ["/scores/consensus_top1", "/scores/judge_top1"]
    assert controls["Random noise"][:2] == ["/controls/random/consensus_top1", "/controls/random/judge_top1"]
    assert controls["Real held-out images"][0] == "/controls/held_out/consensus_top1"
    for head, arm in (("Reconstructions (the attack)", "attack"), ("Random noise", "random")):
        places = [int(path.split("/")[2]) for path in controls[head][2:]]
        judges = [
            (result["judge_scores"][place]["judge"], result["judge_scores"][place]["arm"]) for place in places
        ]
        assert judges == [(judge["name"], arm) for judge in result["judges"]]
    for head in ("Recall", "Precision", "Density", "Coverage", "Confidence"):
        assert scores[head] == [f"/scores/{head.lower()}"]
    assert scores["Lowest class"] == ["/scores/worst_class_top1"]
    fields = (
        "judge_top1 consensus_top1 confidence target_top1 precision recall density coverage nearest_ratio"
    )
    assert rows_of(page, "classes")["3"] == [f"/classes/3/{field}" for field in fields.split()]


def test_no_table_holds_a_measured_number_without_its_source(page, result):
    allowed = {"4,000"}
    loose = {number for cell in Page(page).loose_cells for number in NUMBER.findall(cell)}
    assert loose <= allowed | {"2", "3"}, loose


def test_a_changed_number_changes_the_page(page, result, evidence, metadata):
    result["scores"]["coverage"] = {"value": 0.6789, "low": 0.61, "high": 0.7, "n": 77}
    changed = render_report(result, evidence, metadata=metadata)
    text = dict(Page(changed).measures)["/scores/coverage"]
    assert text == ".68 [.61, .70], n = 77"


def test_hostile_names_stay_text(result, evidence, metadata):
    hostile = "<script>alert(1)</script>"
    result["classes"][0]["name"] = hostile
    result["target"]["name"] = "</title><img src=x onerror=alert(1)>"
    result["judges"][0]["name"] = result["judge_scores"][0]["judge"] = hostile
    result["attack"]["config"][hostile] = {"a": "</script><!--"}
    result["attack"]["notes"].append(hostile)
    result["verdict"]["sentence"] = "]]></style>" + hostile
    result["artefacts"]["</script>"] = "ab" * 32
    read = Page(render_report(result, evidence, metadata=metadata))
    ((attributes, document),) = read.scripts
    assert attributes == {"type": "application/json", "id": "result"}
    assert json.loads(document) == result
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
        if name in ("src", "href", "xlink:href", "srcset", "action", "data", "poster"):
            assert value.startswith(("data:image/png;base64,", "#")), (tag, name, value)
    assert "@import" not in page
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", page))
    assert "default-src 'none'" in page
    assert [attributes["type"] for attributes, _ in read.scripts] == ["application/json"]
    assert len(page.encode()) < 10_000_000


def test_every_link_and_id_is_whole(page):
    attributes = Page(page).attributes
    ids = [value for _, name, value in attributes if name == "id"]
    assert len(ids) == len(set(ids))
    targets = {value[1:] for _, name, value in attributes if name in ("href", "xlink:href")}
    assert targets <= set(ids)
    assert all(value for tag, name, value in attributes if tag == "img" and name == "alt")


def test_a_report_made_again_has_the_same_bytes(run_folder: Path):
    path = write_report(run_folder)
    assert path == run_folder / "report.html"
    first = path.read_bytes()
    assert write_report(run_folder).read_bytes() == first
    assert {entry.name for entry in run_folder.iterdir()} == {
        "result.json",
        "evidence.safetensors",
        "report.html",
        "report.sarif",
        "junit.xml",
    }


def test_a_result_alone_makes_a_report(run_folder: Path):
    (run_folder / "evidence.safetensors").unlink()
    assert "No pictures were stored with this result." in write_report(run_folder).read_text(encoding="utf-8")


def test_a_wrong_result_leaves_the_old_report(run_folder: Path, result):
    old = write_report(run_folder).read_bytes()
    del result["verdict"]
    (run_folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
    with pytest.raises(ResultInvalid, match="verdict"):
        write_report(run_folder)
    assert (run_folder / "report.html").read_bytes() == old


def test_rendering_changes_nothing_it_was_given(result, evidence, metadata):
    before = copy.deepcopy(result)
    render_report(result, evidence, metadata=metadata)
    assert result == before


@pytest.mark.parametrize("word", ["EXPOSED", "NOT DEMONSTRATED", "INCONCLUSIVE"])
@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
@pytest.mark.parametrize("ratio", [None, (0.8, 0.7, 0.9), (1.0, 0.9, 1.1), (1.2, 1.1, 1.3)])
def test_the_page_makes_no_forbidden_claim(result_of, word, seeds, ratio):
    result = result_of(seeds=seeds)
    result["verdict"]["word"] = word
    result["neighbours_ratio"] = ratio and {
        **dict(zip(("value", "low", "high"), ratio, strict=True)),
        "n": 30,
    }
    text = Page(render_report(result)).text
    assert forbidden_claims_in(text) == []
    assert "Readings that this report does not support" in text


def test_each_verdict_has_its_own_word_shape_and_place_on_top(result):
    shapes = set()
    for word in ("EXPOSED", "NOT DEMONSTRATED", "INCONCLUSIVE"):
        result["verdict"]["word"] = word
        html = render_report(result)
        shapes.add(part_of(html, r'(<svg class="mark".*?</svg>)'))
        assert html.index(f'<p class="word">{word}</p>') < html.index('id="summary"')
    assert len(shapes) == 3


def test_a_single_seed_is_said_and_explained_on_top(result_of):
    one, three = (Page(render_report(result_of(seeds=seeds))).text for seeds in ((4,), (4, 5, 6)))
    assert "One seed. The attack was run once; a firm verdict needs 3 runs" in one
    assert one.index("One seed.") < one.index("Consensus success")
    assert "a firm verdict needs" not in three


def test_the_lowest_class_is_marked_and_no_other(result):
    result["classes"][4]["judge_top1"] = {"value": 0.31, "low": 0.2, "high": 0.4, "n": 300}
    html = render_report(result)
    (row,) = re.findall(r'<tr class="lowest">(.*?)</tr>', html, flags=re.DOTALL)
    assert '/classes/4/judge_top1"' in row
    assert "lowest</span>" in row


def test_without_held_out_images_the_strip_says_so_and_no_handling_note_stands(result, evidence, metadata):
    shown = Page(render_report(result, evidence, metadata=metadata)).text
    del evidence["held_out"]
    hidden = Page(render_report(result, evidence, metadata=metadata)).text
    assert hidden.count("not shown") == 10
    assert "not shown" not in shown
    assert "Handling." in shown
    assert "Handling." not in hidden


def test_classes_the_verdict_counts_as_exposed_are_counted_and_marked(result):
    for entry in result["classes"]:
        entry["exposed"] = entry["label"] in (2, 5, 7)
    html = render_report(result)
    assert re.search(r"Classes above their controls</h3>\s*<p class=\"figure\">3<small> of 10", html)
    assert html.count('<span class="tag exposed">') == 3


def test_the_best_control_is_the_highest_below_the_ceiling(result):
    result["controls"]["untrained_attack"]["consensus_top1"] = {
        "value": 0.55,
        "low": 0.5,
        "high": 0.6,
        "n": 30,
    }
    html = render_report(result)
    card = part_of(html, r"Best control</h3>(.*?)</div>")
    assert "/controls/untrained_attack/consensus_top1" in card
    assert "Generator trained without the target" in card


def test_a_black_box_s_page_says_what_was_sent_and_for_what(result):
    validate_result(of_a_black_box(result))
    read = Page(render_report(result))
    for said in (
        "Sent to the model: 8,400 images, 840 a class. At one image a second: 2 h 20 min.",
        "8,400 images of at most 9,000 in 3 runs: 5,400 for public images, 3,000 for votes",
        "840 images on average, 280 a run.",
        "No rate was declared",
    ):
        assert said in read.text
    # Of each class, how often it was the answer.
    answered = {path: text for path, text in read.measures if path.startswith("/attack/black_box/answered/")}
    assert answered == {f"/attack/black_box/answered/{label}": "840" for label in range(10)}


@pytest.mark.parametrize(
    ("rate", "said"),
    [
        (10.0, "At 10 images a second: 14 min 00 s. A single run: 4 min 40 s."),
        (0.5, "At 0.5 images a second: 4 h 40 min. A single run: 1 h 33 min."),
        (1.0, "At one image a second: 2 h 20 min. A single run: 46 min 40 s."),
    ],
)
def test_at_a_declared_rate_the_page_says_how_long_the_questions_take(result, rate, said):
    of_a_black_box(result)["attack"]["black_box"] |= {
        "images_per_second": rate,
        "seconds_at_rate": 8400 / rate,
    }
    read = Page(render_report(result))
    assert said in read.text
    assert "No rate was declared" not in read.text


def test_what_the_audit_itself_sent_to_an_address_stands_apart(result):
    of_a_black_box(result)["target"] |= {"address": "https://host/v2/models/digits/infer", "sha256": None}
    stages = {"the public images, as a control": 15_000, "the reconstructions": 6000}
    result["audit_questions"] = {"asked": 21_000, "repeated": 3, "stages": stages}
    html = render_report(result)
    read = Page(html)
    assert "21,000 images: 15,000 for the public images, as a control, 6,000 for the rec" in read.text
    assert "asked at https://host/v2/models/digits/infer;" in read.text
    assert "batch-norm" not in part_of(html, r'<section id="threat">(.*?)</section>')


def test_a_white_box_s_page_has_no_questions(page):
    assert 'id="questions"' not in page
    assert "Answered" not in page


def test_scores_controls_and_history_that_are_missing_are_said_to_be(result):
    result["notes"] = ["frechet_distance, held_out and public_selected were not computed: no images."]
    result["scores"]["frechet_distance"] = None
    result["controls"]["held_out"] = result["controls"]["public_selected"] = None
    result["history"], result["agreement"] = [], {"judges": [], "kappa": []}
    read = Page(render_report(result))
    assert dict(read.measures)["/scores/frechet_distance"] == "not computed"
    assert dict(read.measures)["/controls/held_out/consensus_top1"] == "not computed"
    assert "The attack kept no snapshots." in read.text
    assert result["notes"][0] in read.text


@pytest.mark.parametrize(
    ("overlap", "words"),
    [
        (None, "not tested"),
        (False, "none found"),
        (True, "some public images"),
        (7, "7 of 20,000 public images"),
    ],
)
def test_the_overlap_of_public_and_private_images_is_put_in_words(result, overlap, words):
    result["threat"]["public_is_private_overlap"] = overlap
    cell = part_of(render_report(result), r"Overlap with private images</dt><dd>(.*?)</dd>")
    assert words in cell


def test_attacks_that_did_not_run_are_listed_as_not_tested(result):
    rows = part_of(render_report(result), r'(id="coverage".*?</section>)')
    assert re.search(r"Membership inference</th><td>not tested, out of scope</td>", rows)
    assert re.search(r"Model inversion, score access</th><td>not tested, in scope</td>", rows)
    assert rows.count("<strong>tested</strong>") == 1


def test_texts_stand_out_from_every_ground_they_stand_on(page):
    named = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", page))
    grounds = ["#ffffff", named["wash"], named["attack"]]
    for ink in ("ink", "muted", "accent"):
        assert all(contrast(named[ink], ground) >= 4.5 for ground in grounds)
    verdicts = re.findall(r"\.verdict\.[\w-]+ \{ background: (#\w{6}); color: (#\w{6}); \}", page)
    assert len(verdicts) == 3
    for ground, colour in verdicts:
        assert contrast(colour, ground) >= 4.5
        assert contrast(named["ink"], ground) >= 4.5
    charts = set(re.findall(r"(?:stroke|fill): (#[0-9a-f]{6})[^\"]*\"[^>]*/?>", page))
    assert charts >= {"#1d5a96", "#a8481c", "#2b7350"}
    assert all(
        contrast(colour, "#ffffff") >= 4.5
        for colour in re.findall(r"<text style=\"[^\"]*fill: (#\w{6})", page)
    )
