"""`result.json` → `report.html`: the document's schema, figures and page. Never touches a network."""

from patchmi.report.evidence import EvidenceInvalid
from patchmi.report.html import render_report, write_report
from patchmi.report.result import (
    SCHEMA,
    Result,
    ResultInvalid,
    read_result,
    result_bytes,
    result_schema,
    validate_result,
)

__all__ = [
    "SCHEMA",
    "EvidenceInvalid",
    "Result",
    "ResultInvalid",
    "read_result",
    "render_report",
    "result_bytes",
    "result_schema",
    "validate_result",
    "write_report",
]
