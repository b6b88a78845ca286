"""A plan that cannot be carried out is refused before anything is computed."""

import pytest

from patchmi.attacks import PatchMI
from patchmi.audit import Plan, audit
from patchmi.runs import open_run


@pytest.mark.parametrize("seeds", [(), (1, 1)])
def test_a_plan_has_seeds_and_none_twice(world, seeds):
    with pytest.raises(ValueError, match="seeds"):
        Plan(PatchMI(), world.public, seeds=seeds)


def test_every_class_gets_more_reconstructions_than_a_measure_looks_at_neighbours(world):
    Plan(PatchMI(), world.public, count_per_class=3, neighbours=2)
    with pytest.raises(ValueError, match="give count_per_class 4 or more"):
        Plan(PatchMI(), world.public, count_per_class=3, neighbours=3)


def test_fewer_judges_than_votes_are_refused_before_the_attack(brief, world, tmp_path):
    with (
        open_run(tmp_path, config={}, resume=False) as run,
        pytest.raises(ValueError, match="1 judge, but a reconstruction needs the votes of 2"),
    ):
        audit(
            run,
            target=world.target,
            target_digest="0" * 64,
            private=brief.private,
            judges=brief.judges[:1],
            plan=brief.plan,
        )
    assert not list(tmp_path.rglob("*.safetensors"))
