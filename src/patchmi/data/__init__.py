"""Images: where they come from, the ones drawn by rule, and how private ones are split."""

from patchmi.data.procedural import PROCEDURAL, glyphs, leaves, strokes
from patchmi.data.sources import (
    LabelledImages,
    Source,
    SourceInvalid,
    load_digits,
    load_labelled,
    load_public,
)
from patchmi.data.splits import split_by_class

__all__ = [
    "PROCEDURAL",
    "LabelledImages",
    "Source",
    "SourceInvalid",
    "glyphs",
    "leaves",
    "load_digits",
    "load_labelled",
    "load_public",
    "split_by_class",
    "strokes",
]
