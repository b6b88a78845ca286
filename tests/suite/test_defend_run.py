"""`patchmi defend` on a small problem: networks really trained, attacked, judged, and put in one plane."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from patchmi.cli import main
from patchmi.defences import DEFENCES
from patchmi.metrics import cluster_interval
from patchmi.report.suite_result import read_suite as read_document
from patchmi.suite import Bench, defence_suite, load_suite, plan_jobs, report_suite, run_job, run_read
from patchmi.suite.file import save_suite
from patchmi.suite.jobs import cell_folder, is_done, read_json
from patchmi.suite.targets import answered_accuracy, open_subject
from patchmi.target import OutputMode

pytestmark = pytest.mark.xdist_group("suite")

NETWORKS = (
    "target/network-0",
    "defended/network-0/early-stopping_0.8",
    "defended/network-0/label-smoothing_0.1",
    "defended/network-0/mid_0.01",
)


ALWAYS = ("none", "early-stopping", "label-smoothing")
LIGHT = {"step_count": 6, "weights": False, "students": False, "selection": False}
BRIEF = {"step_count": 6, "fit_step_count": 10, "student_width": 4}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Path:
    """The folder of a bench of MID and of rounding with brief attacks, done in this process."""
    out = tmp_path_factory.mktemp("defend")
    made = defence_suite(
        Bench(
            str(images / "quarters.npz"),
            (1, 16, 16),
            defences=("mid", "rounding"),
            strength_count=1,
            network_count=1,
            adaptive=("student",),
            step_count=40,
            judge_steps=30,
            count_per_class=5,
            budget=300,
            validation_share=0.2,
            public=str(images / "blobs.npz"),
        )
    )
    plain = replace(made.attacks["plain"], settings=LIGHT)
    student = replace(made.attacks["student"], settings=BRIEF, defences=("none", "rounding"))
    suite = replace(made, attacks={"plain": plain, "student": student})
    save_suite(out, suite)
    for job in plan_jobs(suite):
        run_job(out, suite, job.name)
    report_suite(out)
    return out


@pytest.fixture(scope="module")
def plane(bench: Path) -> dict:
    (plane,) = read_document(bench / "suite.json")["planes"]
    return plane


def test_every_cell_is_done_and_the_page_is_there(bench: Path) -> None:
    out = bench
    suite = load_suite(out)
    assert all(is_done(out, suite, job.name) for job in plan_jobs(suite))
    page = (out / "suite.html").read_text()
    assert "What defences cost" in page
    assert "bypassed" in page


def test_a_point_has_the_accuracy_and_the_leakage_that_its_cells_have(bench: Path, plane: dict) -> None:
    out = bench
    points = {point["name"]: point for point in plane["points"]}
    assert set(points) == {"none", "early-stopping 0.8", "label-smoothing 0.1", "mid 0.01", "rounding 1"}
    about = read_json(cell_folder(out, "defended/network-0/mid_0.01") / "target.json")
    rates = torch.tensor([about["class_accuracy"]], dtype=torch.float64)
    mid = points["mid 0.01"]
    assert mid["accuracy"]["value"] == pytest.approx(float(rates.mean()))
    assert mid["accuracy"]["low"] == pytest.approx(cluster_interval(rates).low)
    result = read_json(cell_folder(out, "row/network-0/plain/public/mid_0.01") / "result.json")
    own = [one["judge_top1"]["value"] for one in result["classes"]]
    assert mid["leakage"]["plain"]["value"] == pytest.approx(sum(own) / len(own))
    assert (mid["state"], mid["replicate_count"]) == ("done", 1)
    assert set(mid["robust_accuracy"]) == {"0.25", "1"}
    assert mid["robust_accuracy"]["1"]["value"] <= mid["robust_accuracy"]["0.25"]["value"]
    assert mid["cost"] > 0
    # the student was not run against MID, and what MID asks for was not run at all
    assert set(mid["leakage"]) == {"plain"}
    assert not mid["is_adaptively_tested"]


def test_answers_are_defended_without_a_network_of_their_own_and_no_white_box_has_a_number(
    plane: dict,
) -> None:
    rounding = next(point for point in plane["points"] if point["defence"] == "rounding")
    none = next(point for point in plane["points"] if point["defence"] == "none")
    assert rounding["leakage"]["plain"] == "bypassed"
    assert rounding["leakage"]["student"]["n"] == 4
    assert rounding["is_adaptively_tested"]
    assert rounding["accuracy"] == none["accuracy"]
    assert rounding["cost"] == 1
    assert set(none["leakage"]) == {"plain", "student"}


def test_noisy_answers_cost_accuracy_and_rounded_ones_none(bench: Path) -> None:
    suite = load_suite(bench)
    subject = open_subject(suite, "network-0", cell_folder(bench, "target/network-0"))
    target, private = subject.case.target, subject.private
    plain = read_json(cell_folder(bench, "target/network-0") / "target.json")["class_accuracy"]
    assert answered_accuracy(target, private, OutputMode(decimals=1)) == plain
    noisy = answered_accuracy(target, private, OutputMode(noise=100.0))
    assert abs(sum(noisy) / 4 - 0.25) < 0.25 < sum(plain) / 4, "of four classes one is guessed"


def test_networks_of_different_defences_are_different_and_each_says_what_it_is(
    bench: Path,
) -> None:
    out = bench
    weights = {name: load_file(cell_folder(out, name) / "target.safetensors") for name in NETWORKS}
    first = {name: own["trunk.0.weight"] for name, own in weights.items()}
    for name in NETWORKS[1:]:
        assert not torch.equal(first[name], first["target/network-0"])
    about = read_json(cell_folder(out, NETWORKS[3]) / "target.json")
    assert about["architecture"] == "patchmi:resnet10+bottleneck"


def test_held_out_images_choose_nothing(bench: Path, images: Path, tmp_path: Path) -> None:
    """The moment of a training is chosen among training images: what is held out can be anything at all."""
    import numpy as np

    from patchmi.audit import Private
    from patchmi.case import open_private
    from patchmi.suite.images import private_files
    from patchmi.suite.targets import train_network

    out = bench
    suite = load_suite(out)
    target = suite.targets["network-0"]
    private, _ = open_private(private_files(suite, target), image_shape=(1, 16, 16))
    spoilt = Private(
        private.train_images,
        private.train_labels,
        torch.zeros_like(private.held_out_images),
        torch.zeros_like(private.held_out_labels),
        private.class_names,
        private.description,
    )
    made = [
        train_network(suite, target, one, suite.defences["mid_0.01"]).network.state_dict()
        for one in (private, spoilt)
    ]
    assert all(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(*(m.values() for m in made), strict=True))


def test_the_same_suite_has_nothing_left_to_do(bench: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in bench.rglob("done.json")}
    assert run_read(load_suite(bench), bench, jobs=2) == ()
    assert {path: path.stat().st_mtime_ns for path in bench.rglob("done.json")} == before


@pytest.fixture
def command(images: Path, tmp_path: Path) -> list[str]:
    """A command line that asks for little."""
    return [
        *("defend", "--target-data", str(images / "quarters.npz"), "--public", str(images / "blobs.npz")),
        *("--defences", "mid", "rounding", "--strengths", "1", "--seeds", "1", "--adaptive", "student"),
        *("--step-count", "40", "--out", str(tmp_path / "none")),
    ]


def test_a_dry_run_counts_and_trains_nothing(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--dry-run"]) == 0
    said = capsys.readouterr().err
    assert "5 settings of defences, 4 networks to train, 8 runs of 2 attacks, 8 rows" in said
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--strengths", "0"], "--strengths"),
        (["--validation-share", "1"], "--validation-share"),
        (["--defences", "tl-dmi"], "pretraining"),
        (["--defences", "rolss", "--architecture", "lenet"], "residual"),
        (["--target-data", "nowhere"], "nowhere"),
        (["--memory", "0"], "--memory"),
        (["--cluster", "nowhere"], "--cluster nowhere"),
        (["--defences", "wall"], "defences"),
    ],
)
def test_mistakes_are_told_in_one_line_before_anything_is_trained(
    change: list[str],
    words: str,
    command: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    try:
        code = main([*command, *change])
    except SystemExit as end:
        code = end.code
    assert code == 2
    message = capsys.readouterr().err
    assert words in message
    assert "Traceback" not in message
    assert not (tmp_path / "none").exists()


def test_the_document_knows_every_defence_by_the_table_s_names(plane: dict) -> None:
    assert {point["defence"] for point in plane["points"]} <= DEFENCES.keys()
    assert json.loads(json.dumps(plane)) == plane
