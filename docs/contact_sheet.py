"""Contact sheet of unmodified test images, 8 films and 16 CT slices, enlarged four times in two ways.

    python docs/contact_sheet.py DIR docs/contact_sheet.jpg
    python docs/contact_sheet.py DIR sheet.png --shuffle 7

Each pair shows the same 64x64 pixels, where the image has most detail: bicubic interpolation on the left, the bundle on
the right. A film in the range of the square's own grey levels, CT in a lung and a soft tissue window in turn. With
`--shuffle` the sides are drawn by lot, and the command prints where the bundle is: for someone who does not know, and
looks for rings, grids, strands and halos.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from monai_sr_bundle import enhance
from monai_sr_bundle.datasets.manifest import read_manifest
from monai_sr_bundle.images.image import Image
from monai_sr_bundle.images.one_image import read_one
from monai_sr_bundle.report.detail_region import find_detail_region
from PIL import Image as Picture
from PIL import ImageDraw

SETS = {"cxr_native": ("nih*", "kermany*"), "ct_slices": ("*",), "ct_patients": ("*",), "ct": ("*.nii.gz",)}
COUNTS = {"cxr_native": 4, "ct_slices": 11, "ct_patients": 2, "ct": 3}
"""Images of each pattern of names; slices of a volume."""
WINDOWS = ((-1000.0, 200.0), (-150.0, 250.0))
SIDE, SCALE, GAP, PAIRS_ACROSS = 64, 4, 8, 3
Value = TypeVar("Value")


def main() -> None:
    """Write the contact sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of folders with manifests")
    parser.add_argument("out", type=Path, help="picture to write")
    parser.add_argument("--shuffle", type=int, metavar="SEED", help="draw by lot on which side the bundle is")
    arguments = parser.parse_args()
    lot = None if arguments.shuffle is None else random.Random(arguments.shuffle)

    pairs = []
    for number, (name, image, index) in enumerate(test_slices(arguments.data), start=1):
        pair = enlarge_region(image, index, WINDOWS[number % 2])
        bundle_is_left = lot is not None and lot.random() < 0.5
        pairs.append(pair[::-1] if bundle_is_left else pair)
        print(f"{number:2d}  {name}, slice {index + 1}: the bundle is {'left' if bundle_is_left else 'right'}")
    lay_out(pairs).save(arguments.out, quality=90)


def test_slices(data: Path) -> Iterator[tuple[str, Image, int]]:
    """Yield name, image and slice of the test images, evenly spread over each set."""
    for set_name, patterns in SETS.items():
        for pattern in patterns:
            records = [each for each in read_manifest(data, split="test", sets=[set_name]) if each.file.match(pattern)]
            images = [(each.file.name, read_one(each.file)) for each in spread(records, COUNTS[set_name])]
            if len(images) == 1:
                (name, volume), count = images[0], COUNTS[set_name]
                yield from ((name, volume, index) for index in spread(range(len(volume.pixels)), count))
            else:
                yield from ((name, image, 0) for name, image in images)


def spread(values: Sequence[Value], count: int) -> list[Value]:
    """Return `count` of the values at even distances, none of them at an end."""
    return [values[int((k + 0.5) * len(values) / count)] for k in range(min(count, len(values)))]


def enlarge_region(image: Image, index: int, window: tuple[float, float]) -> list[np.ndarray]:
    """Return a square of a slice, enlarged by bicubic interpolation and by the bundle, as 8 bits."""
    ct = image.modality == "CT"
    values = np.clip(image.pixels[index], *window) if ct else image.pixels[index]
    limits = window if ct else (float(values.min()), float(values.max()))
    top, left, side = find_detail_region(values, limits, hu=ct)
    top, left = top + (side - SIDE) // 2, left + (side - SIDE) // 2
    source = values[top : top + SIDE, left : left + SIDE]
    low, high = window if ct else (float(source.min()), float(source.max()) + 1)
    squares = []
    for bundle in ("bicubic", "chest_ct_blind" if ct else "chest_xray_blind"):
        roi = (left, top, left + SIDE, top + SIDE)
        result = enhance(image, bundle, scale=SCALE, roi=roi, slices=(index, index + 1), force=True)
        squares.append(result.image.pixels[0])
    return [np.rint((np.clip(square, low, high) - low) / (high - low) * 255).astype(np.uint8) for square in squares]


def lay_out(pairs: list[list[np.ndarray]]) -> Picture.Image:
    """Return one picture of all pairs, numbered."""
    side = SIDE * SCALE
    cell = (2 * side + 3 * GAP, side + 3 * GAP)
    down = -(-len(pairs) // PAIRS_ACROSS)
    sheet = Picture.new("L", (cell[0] * PAIRS_ACROSS, cell[1] * down), 255)
    pen = ImageDraw.Draw(sheet)
    for number, pair in enumerate(pairs):
        x, y = number % PAIRS_ACROSS * cell[0] + GAP, number // PAIRS_ACROSS * cell[1]
        pen.text((x, y + GAP // 2), str(number + 1), fill=0)
        for side_index, square in enumerate(pair):
            sheet.paste(Picture.fromarray(square), (x + side_index * (side + 2), y + 2 * GAP))
    return sheet


if __name__ == "__main__":
    main()
