"""`result.json` → `junit.xml`: the verdict and each attacked class as test cases, for CI servers.

Exposed is a failure, undecided is skipped, not demonstrated passes.
"""

import re
from datetime import UTC, datetime
from xml.etree import ElementTree as ET

from patchmi.report.outcomes import Finding, class_finding, verdict_finding
from patchmi.report.result import Result, validate_result

_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot hold, not even escaped."""


def junit_bytes(result: Result) -> bytes:
    """The bytes of `junit.xml`, the same for the same document.

    Args:
        result: A document that keeps to `patchmi.result/1`.

    Returns:
        UTF-8 XML in the form that CI servers read: one suite for the attack, one case for the verdict and one
        for each class. Characters that XML cannot hold are dropped from names.

    Raises:
        ResultInvalid: The document does not keep to its schema.
    """
    validate_result(result)
    attack, target = result["attack"], result["target"]
    cases = {"verdict": verdict_finding(result)}
    for entry in result["classes"]:
        cases[f"class {entry['label']}: {entry['name']}"] = class_finding(entry, result)
    outcomes = [finding.outcome for finding in cases.values()]
    counts = {
        "tests": str(len(outcomes)),
        "failures": str(outcomes.count("exposed")),
        "errors": "0",
        "skipped": str(outcomes.count("open")),
        "time": f"{attack['seconds']:.3f}",
    }
    suites = ET.Element("testsuites", {"name": "patchmi", **counts})
    name = _text(f"{attack['name']}, recipe {attack['recipe']}, on {target['name']}")
    suite = ET.SubElement(suites, "testsuite", {"name": name, **counts, "timestamp": _utc(result["created"])})
    for case, finding in cases.items():
        seconds = attack["seconds"] if case == "verdict" else 0  # the classes were attacked together
        _add_case(suite, case, finding, classname=f"patchmi.{attack['name']}", seconds=seconds)
    ET.indent(suites)
    return ET.tostring(suites, encoding="utf-8", xml_declaration=True) + b"\n"


def _add_case(
    suite: ET.Element, name: str, finding: Finding, *, classname: str, seconds: int | float
) -> None:
    case = ET.SubElement(suite, "testcase", {"classname": _text(classname), "name": _text(name)})
    case.set("time", f"{seconds:.3f}")
    sentence = _text(finding.sentence)
    if finding.outcome == "exposed":
        ET.SubElement(case, "failure", {"type": "EXPOSED", "message": sentence}).text = sentence
    elif finding.outcome == "open":
        ET.SubElement(case, "skipped", {"message": sentence})
    else:
        ET.SubElement(case, "system-out").text = sentence


def _text(text: str) -> str:
    return _NOT_IN_XML.sub("", text)


def _utc(created: str) -> str:
    return datetime.fromisoformat(created).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")
