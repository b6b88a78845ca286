"""`result.json` → `report.sarif`: the verdict and each class as SARIF 2.1.0, for code scanning in CI.

EXPOSED is `fail` with level `error`, NOT DEMONSTRATED `pass`, INCONCLUSIVE `open`, an attack that was not run
`notApplicable`. Some services, GitHub's among them, show results of every kind as alerts: filter by `kind`.
"""

import hashlib
import json
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import quote

from patchmi.report.outcomes import Finding, Outcome, class_finding, verdict_finding
from patchmi.report.result import Result, validate_result

_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_KINDS: dict[Outcome, str] = {"exposed": "fail", "not demonstrated": "pass", "open": "open"}
_EXIT_CODES: dict[Outcome, int] = {"exposed": 1, "not demonstrated": 0, "open": 3}

_TAGS = ("privacy", "security", "model inversion", "OWASP ML03:2023", "MITRE ATLAS AML.T0024.001")
_CLASS_NUMBERS = ("label", "consensus_top1", "judge_top1", "confidence", "nearest_ratio")


class _Rule(NamedTuple):
    name: str
    summary: str
    help: str
    level: str
    tags: tuple[str, ...]


_RULES = {
    "model-inversion/verdict": _Rule(
        "ModelInversionVerdict",
        "The model gives away what its classes look like.",
        "An attack drew pictures from the model. This fails when judges that no attack saw recognise them "
        "clearly more often than those of the best control. It passes only where the attack could have "
        "succeeded: real images are recognised, and the same attack exposes a model known to leak. All else "
        "is open. A pass speaks of the attacks that were run and of no others (EDPB Opinion 28/2024, par. "
        "55). MITRE ATLAS describes the attack through an interface; with white-box access it needs the "
        "weights. To lower the exposure, restrict who can reach weights and scores, or train with a defence; "
        "then audit again.",
        "error",
        (*_TAGS, "EDPB Opinion 28/2024 par. 43", "EDPB Opinion 28/2024 par. 55"),
    ),
    "model-inversion/class": _Rule(
        "ModelInversionClass",
        "The model gives away what one of its classes looks like.",
        "Judges recognise this class in the attack's pictures more often than in those of its best control, "
        "by more than the verdict's margin. For the people behind a class only their own counts, not the "
        "mean (EDPB Opinion 28/2024, par. 34 and 43). A picture of a class is no copy of a single image. "
        "Where the audit decides nothing as a whole, its classes are open.",
        "error",
        (*_TAGS, "EDPB Opinion 28/2024 par. 34", "EDPB Opinion 28/2024 par. 43"),
    ),
    "model-inversion/not-tested": _Rule(
        "AttackNotTested",
        "An attack that this audit did not run.",
        "The verdict says nothing about this attack. What testing is due depends on who can reach the model "
        "(EDPB Opinion 28/2024, par. 46 and 55).",
        "none",
        ("privacy", "coverage", "EDPB Opinion 28/2024 par. 46", "EDPB Opinion 28/2024 par. 55"),
    ),
}
"""What viewers show of each rule. The keys are relied on from outside: never change one."""


def sarif_bytes(result: Result) -> bytes:
    """The bytes of `report.sarif`, the same for the same document.

    Args:
        result: A document that keeps to `patchmi.result/1`.

    Returns:
        One run of SARIF 2.1.0 as ASCII JSON: a result for the verdict, for each class, and for each attack
        that was not run.

    Raises:
        ResultInvalid: The document does not keep to its schema.
    """
    validate_result(result)
    verdict = verdict_finding(result)
    results = [
        _judged(result, "model-inversion/verdict", verdict, about="", numbers=result["scores"]),
        *(
            _judged(
                result,
                "model-inversion/class",
                class_finding(entry, result),
                about=entry["name"],
                numbers={name: entry[name] for name in _CLASS_NUMBERS},
            )
            for entry in result["classes"]
        ),
        *(_not_tested(result, entry) for entry in result["not_tested"]),
    ]
    run = {
        "tool": {
            "driver": {
                "name": "patchmi",
                "version": result["patchmi_version"],
                "rules": [_described(*rule) for rule in _RULES.items()],
            }
        },
        # Up to the last slash it keeps one model's results apart from another's.
        "automationDetails": {"id": f"patchmi/{quote(result['target']['name'], safe='', errors='replace')}/"},
        "invocations": [
            {
                "commandLine": result["command"],
                "endTimeUtc": _utc(result["created"]),
                "executionSuccessful": True,
                "exitCodeDescription": (
                    f"with --gate, exit code {_EXIT_CODES[verdict.outcome]}: {result['verdict']['word']}"
                ),
            }
        ],
        "artifacts": [_target_artifact(result)],
        "results": results,
    }
    log = {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}
    return (json.dumps(log, indent=2, allow_nan=False) + "\n").encode("ascii")


def _described(identifier: str, rule: _Rule) -> dict[str, Any]:
    return {
        "id": identifier,
        "name": rule.name,
        "shortDescription": {"text": rule.summary},
        "fullDescription": {"text": rule.help},
        "help": {"text": rule.help},
        "defaultConfiguration": {"level": rule.level},
        "properties": {"tags": list(rule.tags)},
    }


def _judged(
    result: Result, rule: str, finding: Finding, *, about: str, numbers: dict[str, Any]
) -> dict[str, Any]:
    """The SARIF result of the verdict or of a class."""
    level = "error" if finding.outcome == "exposed" else "none"
    return {
        **_result(result, rule, finding.sentence, about=about),
        "kind": _KINDS[finding.outcome],
        "level": level,
        "properties": {"access": result["threat"]["access"], **numbers},
    }


def _not_tested(result: Result, entry: dict[str, str]) -> dict[str, Any]:
    text = f"{entry['attack']} was not tested: {entry['reason']}."
    return {
        **_result(result, "model-inversion/not-tested", text, about=entry["attack"]),
        "kind": "notApplicable",
        "level": "none",
        "properties": {"scope": entry["scope"]},
    }


def _result(result: Result, rule: str, text: str, *, about: str) -> dict[str, Any]:
    """What all SARIF results have."""
    # Of names alone, so that the next audit of a retrained model is seen to say the same thing again.
    identity = "\0".join([rule, result["target"]["name"], result["attack"]["name"], about])
    return {
        "ruleId": rule,
        "ruleIndex": [*_RULES].index(rule),
        "message": {"text": text},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": _target_uri(result), "index": 0},
                    "region": {"startLine": 1},  # a model has no lines, but viewers ask for one
                }
            }
        ],
        "partialFingerprints": {"patchmi/v1": hashlib.sha256(identity.encode(errors="replace")).hexdigest()},
    }


def _target_artifact(result: Result) -> dict[str, Any]:
    digest = result["target"]["sha256"]
    hashes = {"hashes": {"sha-256": digest}} if digest else {}
    return {"location": {"uri": _target_uri(result)}, "roles": ["analysisTarget"], **hashes}


def _target_uri(result: Result) -> str:
    """The target's file in the run folder, or else its name, as a relative address without dot segments."""
    target = result["target"]
    files = (name for name, digest in result["artefacts"].items() if digest == target["sha256"])
    parts = next(files, target["name"]).split("/")
    return "/".join(quote(part, safe="", errors="replace") for part in parts if part.strip(".")) or "target"


def _utc(created: str) -> str:
    return datetime.fromisoformat(created).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
