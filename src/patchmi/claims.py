"""Claims that no audit of this kind can support, and the search for them in anything that will be printed.

A model inversion audit shows what some attacks achieved: not that a model is safe, that data are anonymous,
or that a certain training image came back. Reference: EDPB Opinion 28/2024, paragraph 55 (resistance is
evidence about the attacks that were run); NIST AI 100-2, section 2.4.1 (inversion yields representatives of
a class).
"""

import re

FORBIDDEN_CLAIMS: tuple[str, ...] = (
    r"anonym(ous|i[sz]ed)\b",
    r"(gdpr|ai act|hipaa|ccpa)[- ](compliant|compliance|conform\w*)",
    r"(compl(y|ies|iant)|conforms?) with (the )?(gdpr|ai act|hipaa|ccpa|law|regulation)",
    r"(no|zero|without( any)?|free (of|from)) (privacy |data |information )?leak(s|age)?\b",
    r"(does not|doesn't|do not|don't|did not|never) leaks?\b",
    r"certif(y|ies|ied|icate|ication)\b",
    r"pro(ves?|ved|ven)\b",
    r"guarantee[sd]?\b",
    r"(is|are|was|were|be|remains?|stays?) ((now|fully|completely|entirely|provably) )?"
    r"(safe|secure|private|immune)\b",
    r"(cannot|can't|can not) be (inverted|attacked|reconstructed|recovered|extracted)",
    r"(recover|reconstruct|extract|reveal|restor)(s|ed|ing|e|es)? "
    r"((an?|the|its|their|actual|original|real) )*training (image|picture|photo)",
    r"(prevent|stop|eliminate|block|defeat)(s|ed)? ((all|any) )?(model )?(inversion|attack|leak)(s|age)?\b",
    r"risk[- ]free\b|(no|zero) (privacy )?risk\b|100 ?% (safe|secure|private)\b",
    r"(same|equal|identical|unchanged) (utility|accuracy)\b|no (loss|cost) (of|in) accuracy\b",
    r"generali[sz]es? to (real )?(faces|photographs|people)\b",
    r"differentially private(?![^.]*(\bepsilon\b|\beps\b|ε))",
)
"""Regular expressions, matched without regard to case. A plain negation before a match takes it out."""

_NOT_NEGATED = "".join(
    rf"(?<!\b{word} )" for word in ("not", "not be", "never", "nor", "cannot", "no", "isn't")
)


def forbidden_claims_in(text: str) -> list[str]:
    """The forbidden claims that a text makes, in its own words and order; none if it may be printed."""
    plain = " ".join(text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").split())
    matches = [
        match
        for claim in FORBIDDEN_CLAIMS
        for match in re.finditer(rf"{_NOT_NEGATED}\b(?:{claim})", plain, flags=re.IGNORECASE)
    ]
    return [match.group() for match in sorted(matches, key=lambda match: match.start())]
