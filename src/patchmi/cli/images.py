"""`patchmi data`: look at a source of images, or draw one."""

from patchmi.cli.checks import check_counts
from patchmi.cli.options import Inspect, Make
from patchmi.cli.screen import print_path


def inspect(options: Inspect) -> None:
    """Print what the source holds, and draw the contact sheet if one is wanted."""
    from patchmi.data import contact_sheet, inspect_source, listed

    seen = inspect_source(options.source, split=options.split)
    low, high = seen.pixel_range
    sizes = [f"{height}×{width} ({count:,})" for (height, width), count in seen.sizes]
    rows = [
        ("source", f"{seen.source}, part {seen.split} of {', '.join(seen.splits)}"),
        ("images", f"{seen.count:,}"),
        ("classes", listed([f"{name} ({count:,})" for name, count in seen.class_counts], 100) or "none"),
        ("sizes", listed(sizes, 10)),
        ("kinds", listed([f"{mode} ({count:,})" for mode, count in seen.modes], 10)),
        ("pixels", f"{low:.3g} to {high:.3g}, mean {seen.pixel_mean:.3f}, std {seen.pixel_std:.3f}"),
        ("duplicates", listed([f"{one} = {other}" for one, other in seen.duplicates], 10) or "none"),
        ("broken", listed([str(one) for one in seen.broken], 10) or "none"),
        *(("note", note) for note in seen.notes),
    ]
    for name, text in rows:
        print(f"{name:<11}{text}")  # noqa: T201 - what was asked for
    if options.sheet is not None:
        contact_sheet(seen).save(options.sheet)
        print_path(options.sheet)


def draw(options: Make) -> None:
    """Draw procedural images into PNG files."""
    check_counts(options, "count", "image_size")
    from patchmi.data import PROCEDURAL, write_pngs

    write_pngs(
        PROCEDURAL[options.source](options.count, image_size=options.image_size, seed=options.seed),
        options.out,
    )
    print_path(options.out)
