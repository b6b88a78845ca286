"""Which cells a suite has, what they need, and what becomes of what they leave."""

import json
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from patchmi.attacks import ATTACKS, PatchMI
from patchmi.attacks.general import GeneralMI
from patchmi.audit import Private
from patchmi.audit.document import describe
from patchmi.case import open_private
from patchmi.runs import ConfigChanged, RunLocked, open_run
from patchmi.suite import Suite, jobs, plan_jobs
from patchmi.suite.images import from_elsewhere, open_attackers_images, private_files, share_out
from patchmi.suite.jobs import (
    Job,
    attack_of,
    cell_config,
    cell_folder,
    control_of,
    failure_of,
    forget_failure,
    is_done,
    open_cell,
    reason_of,
    record_failure,
    skip_dependants,
)
from patchmi.suite.tables import Origin, SuiteAttack, SuitePublic, SuiteTarget

ATTACK = "attack/digits/a/strokes/none/seed-1"


def make_suite(**changes) -> Suite:
    return replace(
        Suite(
            title="Two of each",
            targets={
                name: SuiteTarget(f"data:{name}", image_shape=(1, 8, 8), architecture="lenet")
                for name in ("digits", "letters")
            },
            public={name: SuitePublic(name) for name in ("strokes", "glyphs")},
            attacks={
                "a": SuiteAttack("patch-mi", {"step_count": 3}),
                "b": SuiteAttack("patch-mi", {}, publics=("glyphs",)),
            },
            seeds=2,
            memory_gb=1.5,
            gpus=0.5,
            threads=3,
        ),
        **changes,
    )


def test_a_run_in_shards_is_a_cell_a_shard_and_its_row_needs_all_of_them():
    suite = make_suite(attacks={"a": SuiteAttack("patch-mi", {"shard_count": 3, "step_count": 2})})
    row = "digits/a/strokes/none"
    cells = [f"attack/{row}/seed-{seed}/shard-{shard}" for seed in range(2) for shard in range(3)]
    needs = {job.name: job.needs for job in plan_jobs(suite)}
    assert [name for name in needs if name.startswith(f"attack/{row}")] == cells
    assert set(cells) < set(needs[f"row/{row}"])
    assert attack_of(suite, cells[4]) == PatchMI(step_count=2, shard_count=3, shard=1)
    assert attack_of(suite, f"row/{row}") == PatchMI(step_count=2, shard_count=3)
    config = cell_config(suite, cells[4])
    assert (config["seed"], config["attack"]["shard"]) == (1, 1)
    (control,) = [name for name in needs if name.startswith("control/digits/") and "/strokes/" in name]
    assert attack_of(suite, control) == PatchMI(step_count=2).without_target()


def test_cells_are_counted_by_hand() -> None:
    planned = plan_jobs(make_suite())
    names = [job.name for job in planned]
    # two targets with their judges, three rows each, with two runs, a control and the row itself
    assert len(names) == len(set(names)) == 2 * 2 + 2 * 3 * 4
    assert all(job == Job(job.name, job.needs, memory_gb=1.5, gpus=0.5, threads=3) for job in planned)
    needs = {job.name: job.needs for job in planned}
    assert needs["target/letters"] == ()
    suite = make_suite()
    assert needs[ATTACK] == needs[control_of(suite, ("digits", "b", "glyphs", "none"))] == ("target/digits",)
    assert needs["judges/letters"] == ("target/letters",)
    assert set(needs["row/letters/a/glyphs/none"]) == {
        "target/letters",
        "judges/letters",
        "attack/letters/a/glyphs/none/seed-0",
        "attack/letters/a/glyphs/none/seed-1",
        control_of(suite, ("letters", "a", "glyphs", "none")),
    }
    assert "row/digits/b/strokes/none" not in needs
    for place, job in enumerate(planned):
        assert set(job.needs) <= set(names[:place]), "what a cell needs stands before it"


def test_attacks_that_differ_in_the_target_s_word_share_a_control() -> None:
    settings = {
        "plain": {},
        "loud": {"attack_weight": 9},
        "alone": {"students": False},
        "short": {"step_count": 2},
    }
    suite = make_suite(attacks={name: SuiteAttack("patch-mi", changes) for name, changes in settings.items()})
    plain, loud, alone, short = (control_of(suite, ("digits", name, "strokes", "none")) for name in settings)
    assert plain == loud == alone != short
    assert control_of(suite, ("digits", "plain", "glyphs", "none")) != plain
    names = [job.name for job in plan_jobs(suite)]
    assert sum(name.startswith("control/") for name in names) == 2 * 2 * 2  # targets, public sets, lengths
    assert cell_config(suite, plain)["attack"] == {"name": "PatchMI", **describe(PatchMI().without_target())}
    assert cell_config(suite, short)["attack"]["step_count"] == 2


def test_an_attack_without_public_images_is_run_once_a_target(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ATTACKS, "general", GeneralMI)
    attacks = {
        "a": SuiteAttack("general", {}),
        "b": SuiteAttack("general", {}, publics=("glyphs", "strokes")),
    }
    rows = list(make_suite(attacks=attacks).rows())
    assert rows == [
        (target, name, public, "none")
        for target in ("digits", "letters")
        for name, public in (("a", "strokes"), ("b", "glyphs"))
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"count_per_class": 50},
        {"threads": 1},
        {"attacks": {"a": SuiteAttack("patch-mi", {"step_count": 4})}},
        {"public": {"strokes": SuitePublic("strokes", count=10)}},
        {"public": {"strokes": SuitePublic("glyphs")}},
        {"targets": {"digits": SuiteTarget("data:digits", image_shape=(1, 8, 8), architecture="mlp")}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_cell_knows_what_its_results_depend_on(changes: dict) -> None:
    assert cell_config(make_suite(**changes), ATTACK) != cell_config(make_suite(), ATTACK)


def test_a_cell_does_not_mind_what_changes_nothing_in_it() -> None:
    suite = make_suite()
    shown = {
        name: replace(target, show_private=True, hub="hub:other/it") for name, target in suite.targets.items()
    }
    other = replace(suite, seeds=9, memory_gb=9.0, gpus=0.0, checkpoint_seconds=0.0, title="", targets=shown)
    control = control_of(suite, ("digits", "a", "strokes", "none"))
    assert control == control_of(other, ("digits", "a", "strokes", "none"))
    for name in (ATTACK, "target/digits", control):
        assert cell_config(other, name) == cell_config(suite, name)
    assert cell_config(other, "row/digits/a/strokes/none") != cell_config(suite, "row/digits/a/strokes/none")


def finish(folder: Path, suite: Suite, name: str) -> None:
    with open_cell(folder, suite, name) as run:
        run.write_json(jobs.DONE, {})


def test_a_cell_is_done_only_with_the_settings_it_was_done_with(tmp_path: Path) -> None:
    suite = make_suite()
    assert not is_done(tmp_path, suite, ATTACK)
    open_cell(tmp_path, suite, ATTACK).close()
    assert not is_done(tmp_path, suite, ATTACK)
    finish(tmp_path, suite, ATTACK)
    assert is_done(tmp_path, suite, ATTACK)
    changed = replace(suite, count_per_class=50)
    assert not is_done(tmp_path, changed, ATTACK)
    with pytest.raises(ConfigChanged) as caught:
        open_cell(tmp_path, changed, ATTACK)
    reason = reason_of(caught.value)
    assert "count_per_class: 200 -> 50" in reason
    assert "\n" not in reason
    assert is_done(tmp_path, suite, ATTACK), "what was done is still there"


def test_a_row_is_begun_anew_when_its_settings_change(tmp_path: Path) -> None:
    suite, name = make_suite(), "row/digits/a/strokes/none"
    finish(tmp_path, suite, name)
    (cell_folder(tmp_path, name) / "result.json").write_text("of two seeds")
    more = replace(suite, seeds=3)
    assert not is_done(tmp_path, more, name)
    with open_cell(tmp_path, more, name) as run:
        assert not run.has("result.json")
        assert run.config["seeds"] == 3


def test_a_cell_waits_for_a_process_that_is_about_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = make_suite()
    held = open_run(cell_folder(tmp_path, ATTACK), config=cell_config(suite, ATTACK), resume=True)
    threading.Timer(0.5, held.close).start()
    began = time.monotonic()
    with open_cell(tmp_path, suite, ATTACK):
        assert time.monotonic() - began > 0.4
        monkeypatch.setattr(jobs, "LOCKED_SECONDS", 0.1)
        with pytest.raises(RunLocked, match="in use by process"):
            open_cell(tmp_path, suite, ATTACK)


def test_a_failure_is_one_line_and_forgotten_when_asked(tmp_path: Path) -> None:
    record_failure(tmp_path, ATTACK, "it is\n  not there")
    assert failure_of(tmp_path, ATTACK) == "it is not there"
    assert failure_of(tmp_path, "target/digits") is None
    forget_failure(tmp_path, ATTACK)
    forget_failure(tmp_path, ATTACK)
    assert failure_of(tmp_path, ATTACK) is None


def test_errors_of_others_are_named_by_their_kind() -> None:
    assert reason_of(ValueError("no such\nfile")) == "no such file"
    assert reason_of(RunLocked("in use")) == "in use"
    assert reason_of(KeyError("x")) == "KeyError: 'x'"
    assert reason_of(ValueError()) == "ValueError"


def test_all_that_needs_a_failed_cell_is_skipped(tmp_path: Path) -> None:
    planned = plan_jobs(make_suite())
    record_failure(tmp_path, "target/digits", "no images")
    lost = skip_dependants(tmp_path, "target/digits", planned)
    assert set(lost) == {job.name for job in planned if job.name.split("/")[1] == "digits"} - {
        "target/digits"
    }
    assert failure_of(tmp_path, lost[-1]) == "not begun, because target/digits failed: no images"
    assert failure_of(tmp_path, "target/digits") == "no images"
    assert skip_dependants(tmp_path, ATTACK, planned) == ("row/digits/a/strokes/none",)


def numbered(counts: tuple[int, int, int]) -> Private:
    """Training images whose pixel says which one it is."""
    labels = torch.arange(3).repeat_interleave(torch.tensor(counts))
    images = (torch.arange(len(labels)) / len(labels)).reshape(-1, 1, 1, 1)
    return Private(images, labels, images[:3], torch.arange(3), ("a", "b", "c"), "numbers")


@given(
    counts=st.tuples(*[st.integers(20, 40)] * 3),
    private_count=st.one_of(st.none(), st.integers(48, 200)),
    share=st.sampled_from([0.0, 0.3, 0.5]),
)
def test_private_images_are_shared_out_evenly_and_to_one_side_only(
    counts: tuple[int, int, int], private_count: int | None, share: float
) -> None:
    private = numbered(counts)
    target = SuiteTarget("it", private_count=private_count, disjoint_share=share)
    kept, disjoint = share_out(private, target)
    mine = [min(count, count if private_count is None else private_count // 3) for count in counts]
    aside = [round(share * count) for count in mine]
    assert kept.train_labels.bincount().tolist() == [
        all_ - put for all_, put in zip(mine, aside, strict=True)
    ]
    identity = dict(zip(private.train_images.flatten().tolist(), private.train_labels.tolist(), strict=True))
    parts = [kept] if disjoint is None else [kept, disjoint]
    seen = [pixel for part in parts for pixel in part.train_images.flatten().tolist()]
    assert len(seen) == len(set(seen)) == sum(mine)
    for part in parts:
        assert [
            identity[pixel] for pixel in part.train_images.flatten().tolist()
        ] == part.train_labels.tolist()
        assert torch.equal(part.held_out_images, private.held_out_images)
    assert (disjoint is None) == (share == 0.0)
    assert share_out(private, target)[0].train_images.equal(kept.train_images)


def test_names_that_look_like_numbers_of_cells_are_names():
    suite = make_suite(
        public={"seed-9": SuitePublic("strokes")}, attacks={"shard-7": SuiteAttack("patch-mi", {})}
    )
    cell = "attack/digits/shard-7/seed-9/none/seed-1"
    assert cell_config(suite, cell)["seed"] == 1
    assert attack_of(suite, cell) == PatchMI()


def test_a_black_box_s_access_and_budget_are_part_of_its_cells_but_not_of_its_control():
    attacks = {
        "few": SuiteAttack("patch-transfer", {}, budget=300),
        "many": SuiteAttack("patch-transfer", {}, access="label", budget=3000),
        "scores": SuiteAttack("patch-transfer", {}, access="score", budget=300),
    }
    assert attacks["many"].number("budget") == 3000
    suite = make_suite(attacks=attacks)
    configs = {name: cell_config(suite, f"attack/digits/{name}/strokes/none/seed-0") for name in attacks}
    assert [(one["access"], one["budget"]) for one in configs.values()] == [
        ("label", 300),
        ("label", 3000),
        ("score", 300),
    ]
    controls = {control_of(suite, ("digits", name, "strokes", "none")) for name in attacks}
    assert len(controls) == 1
    assert "budget" not in cell_config(suite, controls.pop())
    white = make_suite()
    assert "access" not in cell_config(white, ATTACK)


def test_some_classes_are_spread_over_all_and_numbered_anew() -> None:
    labels = torch.arange(40) % 10
    images = labels.reshape(-1, 1, 1, 1) / 10
    private = Private(images, labels, images[:20], labels[:20], tuple("abcdefghij"), "numbers")
    kept, _ = share_out(private, SuiteTarget("it", class_count=3))
    assert kept.class_names == ("a", "d", "g")
    for own, theirs in (
        (kept.train_images, kept.train_labels),
        (kept.held_out_images, kept.held_out_labels),
    ):
        assert torch.equal((own.flatten() * 10).round().long(), torch.tensor([0, 3, 6])[theirs])
    assert (len(kept.train_labels), len(kept.held_out_labels)) == (12, 6)
    whole, _ = share_out(private, SuiteTarget("it", class_count=10))
    assert torch.equal(whole.train_labels, labels)
    with pytest.raises(ValueError, match="has 10 classes, class_count asks for 11; give fewer"):
        share_out(private, SuiteTarget("it", class_count=11))


@pytest.mark.parametrize(("private_count", "count", "left"), [(60, 200, 111), (60, 12, 12), (168, 200, 3)])
def test_unused_images_are_those_that_neither_target_nor_judges_have(
    tmp_path: Path, private_count: int, count: int, left: int
) -> None:
    labels = np.arange(3).repeat(60)
    pixels = np.arange(180, dtype=np.uint8).reshape(-1, 1, 1, 1) * np.ones((1, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "train.npz", images=pixels, labels=labels)
    target = SuiteTarget(
        "train.npz",
        image_shape=(1, 8, 8),
        private_count=private_count,
        disjoint_share=0.2,
        held_out_share=0.05,
    )
    suite = make_suite(
        targets={"digits": target},
        public={"own": SuitePublic("unused:digits", count=count)},
        origin=Origin(str(tmp_path)),
    )
    private, _ = open_private(private_files(suite, target), image_shape=(1, 8, 8))
    kept, disjoint = share_out(private, target)
    assert disjoint is not None
    public, _ = open_attackers_images(suite, "own", kept, image_shape=(1, 8, 8))
    values = set(public.images.flatten(1)[:, 0].tolist())
    assert len(values) == len(public.images) == left
    assert not values & {pixel for part in (kept, disjoint) for pixel in part.train_images.flatten().tolist()}
    assert public.description == f"{left} images of train.npz, none of them a training image"


def test_a_target_that_takes_all_images_leaves_none_unused(tmp_path: Path) -> None:
    pixels = np.arange(60, dtype=np.uint8).reshape(-1, 1, 1) * np.ones((8, 8), dtype=np.uint8)
    np.savez(tmp_path / "all.npz", images=pixels, labels=np.arange(3).repeat(20))
    suite = make_suite(
        targets={"digits": SuiteTarget("all.npz", private_count=600)},
        public={"own": SuitePublic("unused:digits")},
        origin=Origin(str(tmp_path)),
    )
    with pytest.raises(ValueError, match="private_count takes all"):
        open_attackers_images(suite, "own", None, image_shape=(1, 8, 8))


def save_others(path: Path, labels: list[int], names: list[str]) -> None:
    """Images of another collection; each one's pixels say which it is."""
    pixels = torch.arange(len(labels), dtype=torch.uint8).reshape(-1, 1, 1, 1).repeat(1, 1, 8, 8)
    tensors = {"images": pixels, "labels": torch.tensor(labels)}
    save_file(tensors, path, metadata={"class_names": json.dumps(names)})


def small_digits() -> Private:
    """Private images of three classes, 8 pixels a side."""
    images = torch.zeros(9, 1, 8, 8)
    labels = torch.arange(9) % 3
    return Private(images, labels, images[:3], labels[:3], ("nought", "one", "two"), "digits")


def test_the_disjoint_judge_may_learn_from_another_collection_in_the_targets_order_of_classes(
    tmp_path: Path,
) -> None:
    save_others(tmp_path / "others.safetensors", [0, 1, 2, 0, 1, 2], ["two", "nought", "one"])
    private = small_digits()
    suite = make_suite(origin=Origin("elsewhere", data=str(tmp_path)))
    others = from_elsewhere(suite, SuiteTarget("it", disjoint="data:others.safetensors"), private)
    assert others is not None
    assert (others.train_images[:, 0, 0, 0] * 255).round().tolist() == [0, 1, 2, 3, 4, 5]
    assert others.train_labels.tolist() == [2, 0, 1, 2, 0, 1]
    assert others.held_out_images is private.held_out_images
    assert others.description == "others.safetensors"
    assert from_elsewhere(suite, SuiteTarget("it"), private) is None


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["nought", "one", "two"], "no image of two; give images of every class"),
        (["nought", "one", "three"], "classes three are not among"),
    ],
)
def test_another_collection_must_have_the_targets_classes(
    tmp_path: Path, names: list[str], message: str
) -> None:
    save_others(tmp_path / "others.safetensors", [0, 1, 0, 1], names)
    suite = make_suite(origin=Origin(str(tmp_path)))
    with pytest.raises(ValueError, match=message):
        from_elsewhere(suite, SuiteTarget("it", disjoint="others.safetensors"), small_digits())


def test_too_few_images_of_a_class_are_refused() -> None:
    for target in (
        SuiteTarget("it", private_count=11),
        SuiteTarget("it", disjoint_share=0.1),
        SuiteTarget("it", disjoint_share=0.9),
    ):
        with pytest.raises(ValueError, match="fewer than 4 training images of a class"):
            share_out(numbered((20, 20, 20)), target)
