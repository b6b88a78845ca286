"""Settings of an attack as `--setting` gives them, and the attacks they make."""

from dataclasses import dataclass, replace

import pytest

from patchmi.attacks import ATTACKS, RECIPES, PatchMI, choose_attack
from patchmi.cli.options import AdaptiveAttackName, AttackName, DefenceName, OwnArchitecture
from patchmi.cli.settings import read_settings
from patchmi.defences import ADAPTIVE_ATTACKS, DEFENCES
from patchmi.networks import ARCHITECTURES
from patchmi.structured import structured


def test_values_are_read_as_toml_and_else_as_texts():
    texts = ["a=3", "b=0.5", "c=false", 'd="x y"', "e=logit", " f = 1e-3 ", "g=a=b"]
    assert read_settings(texts) == {
        "a": 3, "b": 0.5, "c": False, "d": "x y", "e": "logit", "f": 1e-3, "g": "a=b",
    }  # fmt: skip


def test_dots_lead_into_groups():
    texts = ["identity.loss=logit", "identity.student_count=3", "gan.deep.er=1"]
    assert read_settings(texts) == {
        "identity": {"loss": "logit", "student_count": 3},
        "gan": {"deep": {"er": 1}},
    }


@pytest.mark.parametrize(
    "texts",
    [
        ["views"], ["=3"], [".a=3"], ["a.=3"], ["a..b=3"], ["a=1", "a=2"], ["a=1", "a.b=2"],
        ["a.b=1", "a=2"], ["a.b=1", "a.b.c.d=2"],
    ],
)  # fmt: skip
def test_a_text_that_sets_nothing_or_twice_is_named_in_one_line(texts):
    with pytest.raises(ValueError, match=r"^--setting ") as refused:
        read_settings(texts)
    assert texts[-1] in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_command_line_names_every_attack_in_the_table():
    assert list(AttackName.__args__) == list(ATTACKS)


def test_the_command_line_names_every_defence_adaptive_attack_and_network_in_their_tables():
    assert list(DefenceName.__args__) == list(DEFENCES)
    assert list(AdaptiveAttackName.__args__) == list(ADAPTIVE_ATTACKS)
    assert list(OwnArchitecture.__args__) == list(ARCHITECTURES)


def test_settings_reach_the_attack_and_the_others_keep_their_defaults():
    assert choose_attack("patch-mi", {"step_count": 7, "views": False, "attack_weight": 3}) == PatchMI(
        step_count=7, views=False, attack_weight=3.0
    )
    assert choose_attack("patch-mi", {"step_count": None}) == PatchMI()


def test_a_setting_in_a_group_leaves_the_attack_s_own_defaults_of_the_group():
    term = choose_attack("plg-mi", {"identity": {"student_count": 1}}).identity  # pyright: ignore[reportAttributeAccessIssue]
    assert (term.loss, term.student_count) == ("max_margin", 1)
    assert choose_attack("generative", {"identity": {"loss": "logit"}}).identity.student_count == 0  # pyright: ignore[reportAttributeAccessIssue]


def test_a_group_may_hold_what_no_table_can_and_keeps_it():
    recipe = choose_attack("patch-transfer", {"recipe": {"prior_weight": 3}}).recipe  # pyright: ignore[reportAttributeAccessIssue]
    assert recipe == replace(RECIPES["default"], prior_weight=3.0)


@dataclass(frozen=True)
class Inner:
    near: int = 1
    far: int = 2


@dataclass(frozen=True)
class Outer:
    inner: Inner | None = None


@dataclass(frozen=True)
class Whole:
    outer: Outer = Outer(Inner(far=7))


def test_a_group_in_a_group_keeps_what_it_held_there_and_not_what_its_kind_holds():
    made = structured(Whole, {"outer": {"inner": {"near": 5}}}, where="table")
    assert made == Whole(Outer(Inner(near=5, far=7)))


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("patchmi", {}, "attack patchmi: .* patch-mi"),
        ("patch-mi", {"step_counts": 3}, "step_counts; is it step_count"),
        ("patch-mi", {"zzz": 3}, "no setting zzz; there are recipe, step_count"),
        ("patch-mi", {"uses_target": False}, "no setting uses_target"),
        ("patch-mi", {"step_count": "three"}, "'three' is not a whole number"),
        ("patch-mi", {"step_count": True}, "True is not a whole number"),
        ("patch-mi", {"step_count": 2.0}, "2.0 is not a whole number"),
        ("patch-mi", {"step_count": 0}, "step_count is 0: give 1 or more"),
        ("patch-mi", {"views": 1}, "views = 1 is not true or false"),
        ("patch-mi", {"recipe": "paper"}, "recipe = 'paper' is not one of default, paper-mnist"),
        ("generative", {"identity": {"lost": 1}}, "attack generative: identity: no setting lost; is it loss"),
        ("generative", {"identity": {"loss": "hinge"}}, "loss = 'hinge' is not one of cross_entropy"),
        ("generative", {"identity": "logit"}, "identity = 'logit' is not a table"),
        ("generative", {"gan": {"width": 0}}, "attack generative: gan: width is 0"),
        ("patch-transfer", {"recipe": {"prior": 1}}, "recipe: no setting prior; is it prior_"),
        ("patch-transfer", {"recipe": {"views": "x"}}, "recipe: views = 'x' is not a function"),
        ("patch-mi", {"attack_weight": "much"}, "attack_weight = 'much' is not a number"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_line_that_names_it(name, settings, words):
    with pytest.raises(ValueError, match=words) as refused:
        choose_attack(name, settings)
    assert "\n" not in str(refused.value)
