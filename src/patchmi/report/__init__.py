"""`result.json` → `report.html`, SARIF and JUnit: the document's schema, figures and page. No network."""

from patchmi.report.evidence import EvidenceInvalid
from patchmi.report.html import render_report, write_report
from patchmi.report.junit import junit_bytes
from patchmi.report.result import (
    SCHEMA,
    Result,
    ResultInvalid,
    read_result,
    result_bytes,
    result_schema,
    validate_result,
)
from patchmi.report.sarif import sarif_bytes
from patchmi.report.suite_page import render_suite, write_suite_page
from patchmi.report.suite_result import SUITE_SCHEMA, read_suite, suite_bytes, suite_schema, validate_suite

__all__ = [
    "SCHEMA",
    "SUITE_SCHEMA",
    "EvidenceInvalid",
    "Result",
    "ResultInvalid",
    "junit_bytes",
    "read_result",
    "read_suite",
    "render_report",
    "render_suite",
    "result_bytes",
    "result_schema",
    "sarif_bytes",
    "suite_bytes",
    "suite_schema",
    "validate_result",
    "validate_suite",
    "write_report",
    "write_suite_page",
]
