"""What an audit will take: how its parts add up. How true it is, `benchmarks/estimate.py` measures."""

from dataclasses import replace

import pytest

from patchmi.attacks import RECIPES, PatchMI
from patchmi.audit import Plan
from patchmi.audit.estimate import TRIED_STEPS, estimate_cost
from patchmi.data import Source
from patchmi.target import Training


def test_more_seeds_more_judges_and_a_positive_control_cost_more_and_add_up(world):
    attack = PatchMI(replace(RECIPES["default"], students=()), step_count=2 * TRIED_STEPS)
    plan = Plan(attack, Source(world.public.images, "stripes"), count_per_class=4)
    judges = {"mlp": Training(step_count=400, batch_size=16)}
    one = estimate_cost(world.target, world.private, plan, judges=judges)
    three = estimate_cost(
        world.target,
        world.private,
        replace(plan, seeds=(0, 1, 2), reference=world.target),
        judges=judges | {"lenet": Training(step_count=400, batch_size=16)},
    )
    assert three.attack_seconds > 3 * one.attack_seconds
    assert three.judges_seconds > one.judges_seconds > 0
    parts = (one.judges_seconds, one.attack_seconds, one.control_seconds, one.scores_seconds)
    assert one.seconds == pytest.approx(sum(parts))
    assert one.peak_memory_bytes > 100e6


def test_a_recipe_that_counts_passes_is_drawn_out_to_all_its_steps():
    assert RECIPES["default"].steps_on(15_000) == 600
    # 30 passes over 15,000 images in batches of 64, the last one smaller
    assert RECIPES["paper-mnist"].steps_on(15_000) == 30 * 235
