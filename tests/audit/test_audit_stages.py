"""Each stage leaves a file and is not run twice."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from patchmi.attacks import RECIPES, PatchMI
from patchmi.audit import Plan, Private, fit_judge, fit_target
from patchmi.audit.stages import attack_target, draw_without_target, join_runs, to_bytes, to_unit_range
from patchmi.networks import ARCHITECTURES
from patchmi.runs import open_run
from patchmi.target import Training
from patchmi.types import silent

SHORT = Training(step_count=3, batch_size=16)


def refuse(steps: Iterable[int], description: str) -> NoReturn:
    raise AssertionError(f"this was to be taken from its file: {description}")


@pytest.fixture(params=sorted(ARCHITECTURES))
def architecture(request) -> str:
    return request.param


@pytest.fixture
def private(world) -> Private:
    return world.private


def fit_in(folder: Path, private: Private, architecture: str, progress=silent, *, seed: int = 2) -> nn.Module:
    with open_run(folder, config={}, resume=True) as run:
        judge = fit_judge(
            run, private, architecture=architecture, training=SHORT, seed=seed, progress=progress
        )
    assert (judge.name, judge.architecture) == (architecture, architecture)
    assert judge.trained_on == "blobs in quarters, training split"
    return judge.model


def test_a_judge_is_trained_once_and_then_answers_the_same_to_the_last_bit(tmp_path, private, architecture):
    fresh = fit_in(tmp_path, private, architecture)
    assert (tmp_path / f"judges/{architecture}.safetensors").exists()
    again = fit_in(tmp_path, private, architecture, refuse)
    assert not fresh.training
    assert not again.training
    # Kernels sum in the order of memory: the layout must be the same, whether it was trained or read.
    assert [value.stride() for value in fresh.state_dict().values()] == [
        value.stride() for value in again.state_dict().values()
    ]
    with torch.no_grad():
        assert torch.equal(fresh(private.held_out_images), again(private.held_out_images))


def test_a_seed_gives_the_same_judge_anywhere_and_another_seed_another(tmp_path, private):
    files = []
    for number, seed in enumerate((2, 2, 3)):
        torch.manual_seed(number)
        fit_in(tmp_path / str(number), private, "vgg6", seed=seed)
        files.append((tmp_path / str(number) / "judges/vgg6.safetensors").read_bytes())
    assert files[0] == files[1] != files[2]


def test_a_target_is_trained_once_and_knows_its_classes_and_images(tmp_path, private):
    targets = []
    for progress in (silent, refuse):
        with open_run(tmp_path, config={}, resume=True) as run:
            targets.append(
                fit_target(run, private, architecture="resnet10", training=SHORT, seed=0, progress=progress)
            )
    fresh, again = targets
    assert (fresh.class_names, fresh.image_shape) == (private.class_names, (1, 16, 16))
    assert fresh.name == "resnet10 on blobs in quarters"
    with torch.no_grad():
        assert torch.equal(fresh.model(private.held_out_images), again.model(private.held_out_images))


@pytest.fixture
def plan(world) -> Plan:
    recipe = replace(RECIPES["default"], student_warm_up=1)
    return Plan(PatchMI(recipe, step_count=2), world.public, seeds=(3, 1), count_per_class=2, neighbours=1)


def test_every_seed_is_attacked_once_and_all_are_joined_in_the_contract_s_file(tmp_path, world, plan):
    with open_run(tmp_path, config={}, resume=False) as run:
        made = attack_target(run, world.target, plan, progress=silent)
        tensors, metadata = run.read_tensors("reconstructions.safetensors")
    assert tensors["images"].dtype == torch.uint8
    assert tensors["images"].shape == (16, 1, 16, 16)
    assert tensors["labels"].dtype == tensors["seeds"].dtype == torch.int64
    assert tensors["seeds"].tolist() == [3] * 8 + [1] * 8
    assert tensors["labels"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3] * 2
    assert json.loads(metadata["class_names"]) == list(world.target.class_names)
    assert metadata["patchmi_version"]
    joined = torch.cat([one.reconstructions.images for one in made])
    assert torch.equal(to_unit_range(tensors["images"]), joined)
    with open_run(tmp_path, config={}, resume=True) as run:
        again = attack_target(run, world.target, plan, progress=refuse)
    for one, other in zip(made, again, strict=True):
        assert torch.equal(one.reconstructions.images, other.reconstructions.images)
        assert (one.seconds, one.step_count, one.queries) == (other.seconds, other.step_count, other.queries)
        assert one.reconstructions.snapshots[-1].step == one.step_count == 2


def test_the_control_draws_for_the_first_seed_without_asking_for_a_gradient(tmp_path, world, plan):
    with open_run(tmp_path, config={}, resume=False) as run:
        made = draw_without_target(run, world.target, plan, progress=silent)
        assert run.has("controls/untrained.safetensors")
    assert made.queries.backward == 0
    assert made.reconstructions.seeds.unique().tolist() == [3]
    expected = plan.attack.without_target()
    with open_run(tmp_path / "other", config={}, resume=False) as run:
        (alone,) = attack_target(
            run, world.target, replace(plan, attack=expected, seeds=(3,)), progress=silent
        )
    assert torch.equal(alone.reconstructions.images, made.reconstructions.images)


def shared_out(run, world, plan) -> list[str]:
    """The run of seed 0 in two shards, as two cells of a suite leave them."""
    names = []
    for shard in range(2):
        part = replace(
            plan, attack=replace(plan.attack, weights=False, shard_count=2, shard=shard), seeds=(0,)
        )
        attack_target(run, world.target, part, progress=silent)
        for file in run.folder.glob("attack/seed-0.*"):
            target = run.path(f"shards/{shard}/{file.name}")
            target.parent.mkdir(parents=True, exist_ok=True)
            file.rename(target)
        names.append(f"shards/{shard}/seed-0")
    return names


def test_shards_are_joined_as_if_one_process_had_rebuilt_them(tmp_path, world, plan):
    together = replace(plan, attack=replace(plan.attack, weights=False, shard_count=2), seeds=(0,))
    with open_run(tmp_path / "one", config={}, resume=False) as run:
        (whole,) = attack_target(run, world.target, together, progress=silent)
    with open_run(tmp_path / "two", config={}, resume=False) as run:
        join_runs(run, shared_out(run, world, plan), "attack/seed-0")
        (joined,) = attack_target(run, world.target, together, progress=refuse)
    assert (tmp_path / "one/attack/seed-0.safetensors").stat().st_size > 0
    for field in ("images", "labels", "seeds"):
        assert torch.equal(getattr(joined.reconstructions, field), getattr(whole.reconstructions, field))
    snapshots = zip(joined.reconstructions.snapshots, whole.reconstructions.snapshots, strict=True)
    for mine, theirs in snapshots:
        assert mine.step == theirs.step
        assert torch.equal(mine.images, theirs.images)
        assert torch.equal(mine.labels, theirs.labels)
    assert joined.step_count == whole.step_count
    assert joined.queries.backward == whole.queries.backward
    # Each process deals the classes for itself: one look more.
    assert joined.queries.images == whole.queries.images + len(plan.public.images)


def test_shards_that_share_a_class_are_not_joined(tmp_path, world, plan):
    with open_run(tmp_path, config={}, resume=False) as run:
        first, _ = shared_out(run, world, plan)
        with pytest.raises(ValueError, match="two of them rebuilt the same class"):
            join_runs(run, [first, first], "attack/seed-0")
        assert not run.has("attack/seed-0.safetensors")


def test_what_stands_in_the_files_is_what_the_attack_said(tmp_path, world, plan):
    with open_run(tmp_path, config={}, resume=False) as run:
        made = draw_without_target(run, world.target, plan, progress=silent)
    stored = load_file(tmp_path / "controls/untrained.safetensors")
    assert torch.equal(to_bytes(made.reconstructions.images), stored["images"])


def test_eight_bits_survive_the_way_through_the_unit_range():
    every_level = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert torch.equal(to_bytes(to_unit_range(every_level)), every_level)
