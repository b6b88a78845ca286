"""The suite behind `patchmi defend`, and what defences change in any suite's cells."""

import dataclasses
import json
from pathlib import Path

import pytest

from patchmi.defences import ADAPTIVE_ATTACKS, DEFENCES, DpSgd
from patchmi.suite import Bench, Suite, defence_suite, load_suite, plan_jobs
from patchmi.suite.checks import suite_faults
from patchmi.suite.defend import ALWAYS
from patchmi.suite.file import read_suite, save_suite
from patchmi.suite.jobs import cell_config, control_of, grant_of, target_of
from patchmi.suite.tables import SuiteAttack, SuiteDefence, SuitePublic, SuiteTarget
from patchmi.target import OutputMode

BENCH = Bench("data.npz", (1, 16, 16))
PLAIN = {"plain": SuiteAttack("patch-mi", {"step_count": 3})}


def suite_of(**changes) -> Suite:
    return dataclasses.replace(
        Suite(
            title="Two networks",
            targets={
                f"network-{seed}": SuiteTarget(
                    "it.npz", image_shape=(1, 8, 8), architecture="resnet10", seed=seed
                )
                for seed in range(2)
            },
            public={"strokes": SuitePublic("strokes")},
            attacks={
                "plain": SuiteAttack("patch-mi", {"step_count": 3}),
                "student": SuiteAttack("patch-transfer", {}, access="score", adaptive="student"),
            },
            defences={
                "none": SuiteDefence("none"),
                "mid": SuiteDefence("mid", 0.1),
                "round": SuiteDefence("rounding", 1.0),
                "labels": SuiteDefence("label-only"),
            },
            seeds=1,
        ),
        **changes,
    )


def test_cells_of_defended_networks_are_counted_by_hand() -> None:
    names = [job.name for job in plan_jobs(suite_of())]
    assert [name for name in names if name.startswith(("target/", "defended/", "judges/"))] == [
        "target/network-0",
        "judges/network-0",
        "defended/network-0/mid",
        "target/network-1",
        "defended/network-1/mid",
    ]
    # plain against none and mid, the student against all four
    assert sum(name.startswith("attack/") for name in names) == 2 * (2 + 4)
    assert sum(name.startswith("row/") for name in names) == 2 * (2 + 4)
    assert sum(name.startswith("control/") for name in names) == 2  # one of each kind of attack


def test_what_a_defended_row_needs_is_its_network_and_what_those_that_are_alike_share() -> None:
    needs = {job.name: job.needs for job in plan_jobs(suite_of())}
    row = ("network-1", "plain", "strokes", "mid")
    assert needs["attack/network-1/plain/strokes/mid/seed-1"] == ("defended/network-1/mid",)
    assert set(needs[f"row/{'/'.join(row)}"]) == {
        "defended/network-1/mid",
        "judges/network-0",
        "attack/network-1/plain/strokes/mid/seed-1",
        control_of(suite_of(), row),
    }
    assert control_of(suite_of(), row) == control_of(suite_of(), ("network-0", "plain", "strokes", "none"))
    assert needs["attack/network-0/student/strokes/labels/seed-0"] == ("target/network-0",)


def test_targets_with_other_images_or_judges_share_nothing() -> None:
    suite = suite_of()
    other = dataclasses.replace(suite.targets["network-1"], judge_steps=7)
    apart = suite_of(targets={"network-0": suite.targets["network-0"], "network-1": other})
    assert suite.first_alike("network-1") == "network-0"
    assert apart.first_alike("network-1") == "network-1"
    wider = dataclasses.replace(suite.targets["network-1"], width=8, architecture="vgg6", step_count=3)
    assert suite_of(targets={**suite.targets, "wide": wider}).first_alike("wide") == "network-0"


def test_runs_on_repeated_networks_have_seeds_of_their_own() -> None:
    suite = suite_of(seeds=2)
    assert list(suite.seeds_of("network-1")) == [2, 3]
    config = cell_config(suite, "attack/network-1/plain/strokes/none/seed-3")
    assert (config["seed"], config["target"]["seed"]) == (3, 1)


def test_a_defence_of_the_output_trains_nothing_and_stands_before_black_boxes_only() -> None:
    suite = suite_of()
    rows = {parts[1:] for parts in suite.rows()}
    assert ("plain", "strokes", "round") not in rows
    assert target_of(suite, "network-0", "round") == "target/network-0"
    grant = grant_of(suite, "attack/network-0/student/strokes/round/seed-0")
    assert (grant.access, grant.mode) == ("score", OutputMode(decimals=1))
    grant = grant_of(suite, "attack/network-0/student/strokes/labels/seed-0")
    assert (grant.access, grant.mode) == ("label", OutputMode())
    assert grant_of(suite, "attack/network-0/student/strokes/mid/seed-0").access == "score"


def test_a_cell_knows_its_defence_and_a_plain_one_none() -> None:
    suite = suite_of()
    assert cell_config(suite, "defended/network-0/mid")["defence"] == {"name": "Mid", "strength": 0.1}
    assert "defence" not in cell_config(suite, "attack/network-0/plain/strokes/none/seed-0")
    stronger = suite_of(defences={**suite.defences, "mid": SuiteDefence("mid", 0.2)})
    for cell in ("defended/network-0/mid", "row/network-0/plain/strokes/mid"):
        assert cell_config(stronger, cell) != cell_config(suite, cell)
    assert cell_config(stronger, "target/network-0") == cell_config(suite, "target/network-0")


def test_a_key_at_its_default_leaves_folders_of_older_versions_valid() -> None:
    """Configs hold only what was set: that a table gains keys changes none."""
    config = cell_config(suite_of(), "target/network-1")
    assert config == {
        "threads": 1,
        "target": {"private": "it.npz", "image_shape": (1, 8, 8), "architecture": "resnet10", "seed": 1},
    }


def test_an_attack_is_run_against_the_defences_that_it_is_for() -> None:
    attacks = {
        "margin": SuiteAttack("patch-mi", {}, adaptive="margin", defences=("none", "negative-smoothing"))
    }
    assert {parts[3] for parts in suite_of(attacks=attacks).rows()} == {"none"}


def test_a_suite_of_defences_is_read_from_toml_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "suite.toml"
    path.write_text("""
title = "Defended"
[targets.it]
private = "it.npz"
image_shape = [1, 8, 8]
architecture = "resnet10"
[public.strokes]
source = "strokes"
[attacks.plain]
attack = "patch-mi"
defences = ["none", "mid"]
[defences.none]
[defences.mid]
[defences.stronger]
defence = "mid"
strength = 1
""")
    suite = read_suite(path)
    assert suite.defences == {
        "none": SuiteDefence("none"),
        "mid": SuiteDefence("mid"),
        "stronger": SuiteDefence("mid", 1.0),
    }
    assert suite.defences["mid"].made().strength == DEFENCES["mid"].start
    save_suite(tmp_path, suite)
    assert load_suite(tmp_path) == suite
    assert json.loads((tmp_path / "suite.toml.json").read_text())["defences"]["mid"]["strength"] is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"defences": {"none": SuiteDefence("none", 0.5)}}, "defences.none: none, strength 0.5"),
        ({"defences": {"x": SuiteDefence("nothing")}}, "defences.x: defence nothing: there is none"),
        ({"defences": {"tl": SuiteDefence("tl-dmi")}}, "give targets.network-0 a `pretraining`"),
        ({"attacks": {"a": SuiteAttack("patch-mi", {}, adaptive="might")}}, "attacks.a.adaptive"),
        ({"attacks": {"a": SuiteAttack("patch-mi", {}, defences=("wall",))}}, "attacks.a.defences"),
        (
            {
                "targets": {"it": SuiteTarget("it.npz", image_shape=(1, 8, 8), architecture="vgg6")},
                "defences": {"skip": SuiteDefence("rolss")},
            },
            "defences.skip, on targets.it: ",
        ),
        ({"targets": {"it": SuiteTarget("it.npz", model="m.pt")}}, "targets.it is a finished model"),
        ({"targets": {"it": SuiteTarget("it.npz", model="m.pt", seed=1)}}, "targets.it: width, flips, seed"),
        (
            {
                "targets": {
                    "it": SuiteTarget(
                        "it.npz", image_shape=(1, 8, 8), architecture="vgg6", validation_share=1.0
                    )
                }
            },
            "validation_share",
        ),
    ],
)
def test_faults_of_defences_are_named_in_one_line(changes: dict, words: str) -> None:
    faults = list(suite_faults(suite_of(**changes)))
    assert any(words in fault for fault in faults), faults
    assert not any("\n" in fault for fault in faults)


def test_a_bench_of_all_has_every_defence_that_can_be_run_and_the_three_that_are_always_there() -> None:
    suite = defence_suite(BENCH)
    kinds = {one.defence for one in suite.defences.values()}
    assert kinds == DEFENCES.keys() - {"tl-dmi"}
    with_public = defence_suite(dataclasses.replace(BENCH, pretraining="letters.npz"))
    assert {one.defence for one in with_public.defences.values()} == DEFENCES.keys()
    assert [*suite.targets] == ["network-0", "network-1", "network-2"]
    assert not list(suite_faults(suite))
    few = defence_suite(dataclasses.replace(BENCH, defences=("mid",)))
    assert {one.defence for one in few.defences.values()} == {*ALWAYS, "mid"}


def test_what_cannot_be_run_is_left_out_of_all_and_the_page_says_why() -> None:
    suite = defence_suite(dataclasses.replace(BENCH, architecture="lenet"))
    kinds = {one.defence for one in suite.defences.values()}
    assert kinds == DEFENCES.keys() - {"tl-dmi", "rolss"}
    assert "Left out: tl-dmi (learns from labelled images of other classes first" in suite.description
    assert "rolss (skip-0.2: give a residual network" in suite.description
    with pytest.raises(ValueError, match=r"--defences rolss: .* give a residual network"):
        defence_suite(dataclasses.replace(BENCH, architecture="lenet", defences=("rolss",)))


def test_what_is_not_installed_is_told_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DpSgd, "package", ("a_package_that_nobody_has", "dp"))
    remedy = r"needs a_package_that_nobody_has: pip install 'patchmi\[dp\]'"
    with pytest.raises(ValueError, match=f"--defences dp-sgd: {remedy}"):
        defence_suite(dataclasses.replace(BENCH, defences=("dp-sgd",)))
    (fault,) = suite_faults(suite_of(defences={"dp": SuiteDefence("dp-sgd")}, attacks=PLAIN))
    assert fault == "defences.dp: needs a_package_that_nobody_has: pip install 'patchmi[dp]'"
    assert "dp-sgd" not in {one.defence for one in defence_suite(BENCH).defences.values()}


def test_strengths_are_spread_over_those_of_the_table() -> None:
    def strengths(count: int) -> list[float | None]:
        suite = defence_suite(dataclasses.replace(BENCH, defences=("mid",), strength_count=count))
        return [one.strength for one in suite.defences.values() if one.defence == "mid"]

    listed = DEFENCES["mid"]
    assert strengths(5) == [*listed.strengths]
    assert strengths(3) == [listed.strengths[0], listed.strengths[2], listed.strengths[4]]
    assert strengths(2) == [listed.strengths[0], listed.strengths[4]]
    assert strengths(1) == [listed.start]


def test_adaptive_attacks_are_run_on_what_asks_for_them_and_on_the_undefended() -> None:
    suite = defence_suite(dataclasses.replace(BENCH, defences=("negative-smoothing",), attack_step_count=7))
    assert suite.attacks["plain"].defences == ()
    asked = DEFENCES["negative-smoothing"].adaptive
    assert {*suite.attacks} == {"plain", *asked}
    for kind in asked:
        assert suite.attacks[kind].defences == (*ALWAYS, "negative-smoothing")
        assert suite.attacks[kind].adaptive == kind
    assert suite.attacks["margin"].settings == {"step_count": 7, "identity_loss": "max_margin"}
    assert suite.attacks["student"].access == "score"


def test_every_adaptive_attack_is_one_that_can_be_made() -> None:
    suite = defence_suite(dataclasses.replace(BENCH, attack_step_count=4))
    for kind in ADAPTIVE_ATTACKS:
        if kind in suite.attacks:
            suite.attacks[kind].made()
    assert suite.attacks["ten-times"].settings["step_count"] == 40


@pytest.mark.parametrize("changes", [{"defences": ("wall",)}, {"adaptive": ("might",)}])
def test_unknown_names_are_refused_in_one_line(changes: dict) -> None:
    with pytest.raises(ValueError, match="there is none of this name") as caught:
        defence_suite(dataclasses.replace(BENCH, **changes))
    assert "\n" not in str(caught.value)
