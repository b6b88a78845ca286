"""A plan that cannot be carried out is refused before anything is computed."""

import pytest

from patchmi.attacks import PatchMI, PatchTransfer
from patchmi.audit import Grant, Plan, audit
from patchmi.audit.run import _budget
from patchmi.runs import open_run
from patchmi.target import AccessDenied


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


def test_a_verdict_is_told_how_much_a_black_box_could_be_asked(world):
    plan = Plan(PatchTransfer(), world.public, seeds=(0, 1), grant=Grant("label", 150))
    assert _budget(plan, world.target) == "2 seeds on 4 classes, 150 images sent in each at most"
    assert _budget(Plan(PatchMI(), world.public), world.target) == "1 seed on 4 classes"


def test_a_plan_grants_what_its_attack_can_use_and_something_to_ask(world):
    with pytest.raises(AccessDenied, match="PatchMI needs white-box access, not label"):
        Plan(PatchMI(), world.public, grant=Grant("label"))
    with pytest.raises(ValueError, match="budget 0: give 1 image or more"):
        Grant("label", 0)
