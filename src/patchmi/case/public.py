"""What the attacker has, with what was noticed in it."""

from patchmi.audit import Private
from patchmi.data import Source, load_public, overlap


def open_public(
    source: str,
    private: Private | None,
    *,
    image_shape: tuple[int, int, int],
    count: int,
    max_bad_share: float = 0.01,
) -> tuple[Source, tuple[str, ...]]:
    """The public images, and what was noticed: what was adapted, and which are among the private ones.

    Args:
        source: `strokes`, `glyphs`, `leaves`, a path, or `hub:OWNER/NAME`.
        private: To compare with.
        image_shape: Channels, height and width of the target's images.
        count: How many to draw, or at most to take.
        max_bad_share: Share of broken images to pass over.

    Raises:
        UnsafeInput: If a file could run code.
        SourceInvalid: If they cannot be read.
    """
    public = load_public(source, image_shape=image_shape, count=count, max_bad_share=max_bad_share)
    return public, public_notes(public, private)


def public_notes(public: Source, private: Private | None) -> tuple[str, ...]:
    """What was noticed in public images: what was adapted, and which are among the private ones."""
    notes = list(public.notes)
    if private is not None:
        shared = overlap(public=public.images, private=private.train_images)
        if shared.exact_count or shared.near_count:
            notes.append(
                f"{shared.exact_count:,} are private ones too and {shared.near_count:,} nearly so, which "
                "inflates what the attack reaches"
            )
    return tuple(f"Public images: {note}" for note in notes)
