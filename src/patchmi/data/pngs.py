"""Images as a folder of PNG files."""

from pathlib import Path

from PIL import Image

from patchmi.types import Images


def write_pngs(images: Images, folder: Path) -> None:
    """Write `000000.png`, `000001.png` and so on; the folder is made if it is missing.

    Args:
        images: One channel or three.
        folder: Where to; files of these names are replaced.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate((images * 255).round().byte().permute(0, 2, 3, 1).numpy()):
        Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image).save(folder / f"{number:06}.png")
