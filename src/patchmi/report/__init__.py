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

__all__ = [
    "SCHEMA",
    "EvidenceInvalid",
    "Result",
    "ResultInvalid",
    "junit_bytes",
    "read_result",
    "render_report",
    "result_bytes",
    "result_schema",
    "sarif_bytes",
    "validate_result",
    "write_report",
]
