import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from patchmi.claims import forbidden_claims_in
from patchmi.verdict import (
    CONTROLS,
    Circumstances,
    Evidence,
    Rule,
    Verdict,
    best_control,
    decide,
    exposed_classes,
    lift,
)

SEVERITY = {"NOT DEMONSTRATED": 0, "INCONCLUSIVE": 1, "EXPOSED": 2}
CIRCUMSTANCES = Circumstances(
    access="white-box",
    public="procedural strokes",
    attacks=("patch-mi", "general"),
    budget="1,000 steps a seed",
    reference_model="resnet-smoothed",
)


def verdict_on(evidence: Evidence, rule: Rule | None = None) -> Verdict:
    verdict = decide(evidence, circumstances=CIRCUMSTANCES, rule=rule)
    assert forbidden_claims_in(verdict.sentence) == []
    assert not any(forbidden_claims_in(reason) for reason in verdict.reasons)
    assert verdict.reasons
    return verdict


def noise(seed_count: int, class_count: int, *, around: float, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (around + 0.02 * torch.randn(seed_count, class_count, generator=generator)).clamp(0, 1)


def evidence_of(attack: torch.Tensor, *, controls_around: float = 0.1) -> Evidence:
    class_count = attack.shape[1]
    return Evidence(
        attack=attack,
        controls={
            name: noise(
                1 if name == "random" else attack.shape[0], class_count, around=controls_around, seed=index
            )
            for index, name in enumerate(CONTROLS)
        },
        held_out=noise(1, class_count, around=0.96, seed=9)[0],
        judge_kappa=0.85,
        judge_count=3,
        positive_control_exposed=True,
    )


EXPOSED = evidence_of(noise(3, 10, around=0.95, seed=5))
RESISTANT = evidence_of(noise(3, 10, around=0.1, seed=5))


def test_an_attack_that_always_succeeds_exposes() -> None:
    evidence = replace(
        EXPOSED, attack=torch.ones(3, 10), controls={name: torch.zeros(3, 10) for name in CONTROLS}
    )
    verdict = verdict_on(evidence)
    assert verdict.word == "EXPOSED"
    assert "10 of 10 classes" in verdict.sentence
    assert "1.00 [0.69, 1.00]" in verdict.sentence
    assert "white-box access and no images but procedural strokes, patch-mi" in verdict.sentence


def test_exposure_needs_no_positive_control_but_every_control() -> None:
    for outcome in (None, False, True):
        assert verdict_on(replace(EXPOSED, positive_control_exposed=outcome)).word == "EXPOSED"
    for name in CONTROLS:
        fewer = {control: rates for control, rates in EXPOSED.controls.items() if control != name}
        verdict = verdict_on(replace(EXPOSED, controls=fewer))
        assert verdict.word == "INCONCLUSIVE"
        assert name in verdict.reasons[0]
    alone = replace(EXPOSED, controls={"random": EXPOSED.controls["random"]})
    assert verdict_on(alone, Rule(controls=("random",))).word == "EXPOSED"


def test_resistance_is_stated_with_what_it_leaves_open() -> None:
    verdict = verdict_on(RESISTANT)
    assert verdict.word == "NOT DEMONSTRATED"
    assert "up to 25.9 % of such classes" in verdict.sentence
    assert "reference model, resnet-smoothed" in verdict.sentence
    assert "1,000 steps a seed" in verdict.sentence


@pytest.mark.parametrize("outcome", [None, False])
def test_resistance_needs_a_reference_model_that_was_exposed(outcome: bool | None) -> None:
    verdict = verdict_on(replace(RESISTANT, positive_control_exposed=outcome))
    assert verdict.word == "INCONCLUSIVE"
    assert len(verdict.reasons) == 1
    assert ("raise the attack's budget" in verdict.sentence) is (outcome is False)


@pytest.mark.parametrize("evidence", [EXPOSED, RESISTANT])
@pytest.mark.parametrize(
    ("flaw", "reason", "remedy"),
    [
        ({"cut_short": True}, "cut short", "resume"),
        ({"held_out": torch.full((10,), 0.79)}, "only 0.79", "better judges"),
        ({"held_out": None}, "no real held-out images", "give held-out"),
        ({"judge_kappa": 0.59}, "kappa 0.590", "better judges"),
        ({"judge_kappa": 0.5954}, "kappa 0.595, 0.60 is needed", "better judges"),
        ({"judge_kappa": math.nan}, "kappa undefined", "better judges"),
        ({"judge_count": 2}, "2 judges where 3", "3 judges"),
    ],
)
def test_a_flawed_run_decides_nothing(evidence: Evidence, flaw: dict, reason: str, remedy: str) -> None:
    verdict = verdict_on(replace(evidence, **flaw))
    assert verdict.word == "INCONCLUSIVE"
    assert len(verdict.reasons) == 1
    assert reason in verdict.reasons[0]
    assert remedy in verdict.sentence.split("What would decide: ")[1]


def test_thresholds_are_met_by_their_own_values() -> None:
    on_the_line = replace(EXPOSED, judge_kappa=0.6, held_out=torch.full((10,), 0.8, dtype=torch.float64))
    assert verdict_on(on_the_line).word == "EXPOSED"


def test_one_seed_is_inconclusive_but_says_what_it_found_and_what_would_decide() -> None:
    verdict = verdict_on(replace(evidence_of(noise(1, 10, around=0.95)), positive_control_exposed=None))
    assert verdict.word == "INCONCLUSIVE"
    assert verdict.reasons == ("1 seed where 3 are needed",)
    assert "at a rate of 0.94 [0.93, 0.96] (95 % interval)" in verdict.sentence
    assert "10 of 10 classes" in verdict.sentence
    assert verdict.sentence.endswith("What would decide: run with --seeds 3.")


@pytest.mark.parametrize("success", [0.3, 0.4, 0.5])
def test_a_lead_around_the_margin_is_inconclusive(success: float) -> None:
    attack = torch.tensor([0.0, success] * 5).expand(3, 10)
    verdict = verdict_on(evidence_of(attack))
    assert verdict.word == "INCONCLUSIVE"
    assert "either side of the margin" in verdict.reasons[0]


def test_one_exposed_class_among_many_forbids_not_demonstrated() -> None:
    attack = noise(3, 100, around=0.1, seed=5)
    assert verdict_on(evidence_of(attack)).word == "NOT DEMONSTRATED"
    attack[:, 7] = 0.9
    verdict = verdict_on(evidence_of(attack))
    assert verdict.word == "INCONCLUSIVE"
    assert verdict.reasons == ("1 class of 100 stood out although the mean did not",)


@pytest.mark.parametrize("name", list(CONTROLS))
def test_controls_in_the_attacks_place_expose_nothing(name: str) -> None:
    rates = EXPOSED.controls[name].expand(3, 10)
    assert verdict_on(replace(EXPOSED, attack=rates)).word == "NOT DEMONSTRATED"


@pytest.mark.parametrize("name", list(CONTROLS))
def test_one_control_as_good_as_the_attack_takes_the_exposure_away(name: str) -> None:
    strong = replace(EXPOSED, controls={**EXPOSED.controls, name: EXPOSED.attack})
    assert verdict_on(strong).word == "NOT DEMONSTRATED"
    assert best_control(strong).name == name
    assert lift(strong) == pytest.approx(0)


def test_the_lead_must_hold_over_every_control_and_not_the_best_alone() -> None:
    # The second control has the lower mean, but a wide spread over the classes: the lead over it is unsure.
    attack = torch.full((3, 10), 0.8)
    erratic = torch.tensor([1.0] * 5 + [0.0] * 5).expand(3, 10)
    evidence = replace(
        EXPOSED,
        attack=attack,
        controls={"steady": torch.full((3, 10), 0.55), "random": erratic},
        positive_control_exposed=True,
    )
    best = best_control(evidence)
    assert best.name == "steady"
    assert best.lead.value == pytest.approx(0.25)
    assert best.lead.low < 0.1
    assert verdict_on(evidence, Rule(controls=())).word == "INCONCLUSIVE"


def test_held_out_images_in_the_attacks_place_have_lift_one() -> None:
    assert EXPOSED.held_out is not None
    real = replace(EXPOSED, attack=EXPOSED.held_out.expand(3, 10))
    assert lift(real) == pytest.approx(1)
    assert verdict_on(real).word == "EXPOSED"
    with pytest.raises(ValueError, match="lift"):
        lift(replace(EXPOSED, held_out=None))
    with pytest.raises(ValueError, match="lift"):
        lift(replace(EXPOSED, held_out=torch.zeros(10)))


def test_a_class_is_exposed_when_it_passes_its_own_best_control_by_the_margin() -> None:
    evidence = replace(
        EXPOSED,
        attack=torch.tensor([[0.5, 0.0, 0.6, 0.2], [0.5, 0.5, 0.8, 0.3]]),
        controls={
            "random": torch.tensor([[0.1, 0.1, 0.1, 0.1]]),
            "public_selected": torch.tensor([[0.0, 0.0, 0.65, 0.1]]),
        },
        held_out=torch.ones(4),
    )
    assert exposed_classes(evidence, margin=0.1).tolist() == [True, True, False, True]
    assert exposed_classes(evidence, margin=0.2).tolist() == [True, False, False, False]


@st.composite
def evidences(draw: st.DrawFn) -> Evidence:
    class_count, seed_count = draw(st.sampled_from([2, 5, 10, 25])), draw(st.sampled_from([3, 3, 4, 1]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    level, spread = draw(st.sampled_from([0.0, 0.1, 0.2, 0.3])), draw(st.sampled_from([0.0, 0.05, 0.3]))
    attack = (level + spread * torch.randn(seed_count, class_count, generator=generator)).clamp(0, 1)
    evidence = evidence_of(attack, controls_around=draw(st.sampled_from([0.0, 0.05, 0.1])))
    return replace(evidence, positive_control_exposed=draw(st.sampled_from([True, True, None])))


@settings(max_examples=100, deadline=None)
@given(
    evidence=evidences(),
    share=st.sampled_from([0.1, 0.5, 1.0]),
    step=st.sampled_from([0.02, 0.1, 0.9]),
    seed=st.integers(0, 999),
)
def test_raising_success_never_makes_the_word_milder(
    evidence: Evidence, share: float, step: float, seed: int
) -> None:
    chosen = torch.rand(evidence.attack.shape, generator=torch.Generator().manual_seed(seed)) < share
    higher = replace(evidence, attack=(evidence.attack + step * chosen).clamp(max=1))
    assert SEVERITY[verdict_on(higher).word] >= SEVERITY[verdict_on(evidence).word]


def test_one_class_that_gives_away_everything_does_not_undo_an_exposure() -> None:
    steady = replace(
        EXPOSED,
        attack=torch.full((3, 10), 0.25),
        controls={name: torch.full((1, 10), 0.1) for name in CONTROLS},
    )
    assert verdict_on(steady).word == "EXPOSED"
    attack = steady.attack.clone()
    attack[:, 0] = 1.0
    assert verdict_on(replace(steady, attack=attack)).word == "EXPOSED"


def test_a_model_that_gives_nothing_away_is_rarely_called_exposed() -> None:
    """Attack and controls drawn alike, as from a constant model, in 200 audits."""
    generator = torch.Generator().manual_seed(0)
    exposures = 0
    for _ in range(200):
        arms = [
            torch.binomial(torch.full((3, 10), 20.0), torch.full((3, 10), 0.1), generator=generator) / 20
            for _ in range(5)
        ]
        evidence = replace(EXPOSED, attack=arms[0], controls=dict(zip(CONTROLS, arms[1:], strict=True)))
        exposures += verdict_on(evidence).word == "EXPOSED"
    assert exposures == 0


@pytest.mark.parametrize(
    ("flaw", "message"),
    [
        ({"controls": {}}, "at least one control"),
        ({"attack": torch.full((3, 10), 1.2)}, "attack holds .* outside"),
        ({"attack": torch.full((3, 10), math.nan)}, "attack holds .* outside"),
        ({"controls": {"random": torch.zeros(1, 9)}}, "random has 9 classes"),
        ({"held_out": torch.ones(11)}, "held_out has 11 classes"),
        ({"controls": {"random": torch.zeros(2, 10)}}, "seeds"),
    ],
)
def test_impossible_evidence_is_refused(flaw: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decide(replace(EXPOSED, **flaw), circumstances=CIRCUMSTANCES)
