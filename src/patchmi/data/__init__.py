"""Images: where they come from, what is wrong with them, and how private ones are split."""

from patchmi.data.contents import Broken, SourceInvalid
from patchmi.data.inspection import Inspection, contact_sheet, inspect_source
from patchmi.data.names import listed
from patchmi.data.overlap import Overlap, Pair, overlap
from patchmi.data.pngs import write_pngs
from patchmi.data.procedural import PROCEDURAL, glyphs, leaves, strokes
from patchmi.data.sources import (
    LabelledImages,
    Source,
    class_names_of,
    load_digits,
    load_labelled,
    load_public,
    shape_of,
    splits_of,
)
from patchmi.data.splits import split_by_class

__all__ = [
    "PROCEDURAL",
    "Broken",
    "Inspection",
    "LabelledImages",
    "Overlap",
    "Pair",
    "Source",
    "SourceInvalid",
    "class_names_of",
    "contact_sheet",
    "glyphs",
    "inspect_source",
    "leaves",
    "listed",
    "load_digits",
    "load_labelled",
    "load_public",
    "overlap",
    "shape_of",
    "split_by_class",
    "splits_of",
    "strokes",
    "write_pngs",
]
