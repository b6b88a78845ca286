import pytest

from patchmi.claims import forbidden_claims_in


@pytest.mark.parametrize(
    "text",
    [
        "The model is anonymous.",
        "These weights are GDPR-compliant",
        "it complies with the AI Act",
        "We found no leakage.",
        "The model does not leak.",
        "certified by patchmi",
        "This proves that nothing comes back.",
        "The audit guarantees privacy.",
        "The classifier is\n  safe",
        "The target remains fully private.",
        "It cannot be inverted.",
        "patchmi recovered the training image of person 3",
        "reconstructs training pictures",
        "Negative smoothing prevents model inversion.",
        "a risk-free release",
        "at no cost in accuracy",
        "This generalises to faces.",
        "The target is differentially private.",
    ],
)
def test_claims_that_no_audit_supports_are_found(text: str) -> None:
    assert forbidden_claims_in(text)


@pytest.mark.parametrize(
    "text",
    [
        "The private images are omitted; judges recognise private held-out images.",
        "An audit does not prove anything about other attacks; weights are not anonymous by default.",
        "Success fell from 0.90 to 0.12 at 0.91 accuracy.",
        "For privacy and security engineers.",
        "Trained differentially private with epsilon 3.1, delta 1e-5.",
        "The attack never received a training image.",
        "The target improves with training images.",
    ],
)
def test_sober_sentences_pass(text: str) -> None:
    assert forbidden_claims_in(text) == []


def test_claims_are_listed_in_the_texts_own_words_and_order() -> None:
    text = "Certified: the model is secure and Anonymous."
    assert forbidden_claims_in(text) == ["Certified", "is secure", "Anonymous"]
