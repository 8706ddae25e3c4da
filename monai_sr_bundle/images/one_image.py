"""Read the one image that a path holds."""

from __future__ import annotations

from pathlib import Path

from monai_sr_bundle.errors import InputError
from monai_sr_bundle.images.files import discover, read
from monai_sr_bundle.images.image import Image


def read_one(path: Path) -> Image:
    """Read the one image a path holds: a DICOM file or series, a NIfTI or a picture.

    Raises:
        InputError: not an image, or a folder or zip with several.
    """
    with discover([path]) as sources:
        if len(sources) > 1:
            raise InputError(
                f"{path.name}: holds {len(sources)} images, expected one. Name one of them, or use `monai-sr enhance` "
                "for them all."
            )
        return read(sources[0])
