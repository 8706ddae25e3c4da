"""The picture at the top of the README: a film and a CT slice of test patients, reduced and enlarged again.

    python docs/example.py DIR docs/example.jpg

From left to right: the original, what is left of it, bicubic interpolation, the default bundle. Both have lost three
quarters of their rows and columns and got noise, as in the benchmarks of films and scans.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image as Picture

from monai_sr_bundle import enhance
from monai_sr_bundle.benchmark.originals import ORIGINALS, Original
from monai_sr_bundle.benchmark.protocol_choice import choose_protocols
from monai_sr_bundle.bundles import default_bundle
from monai_sr_bundle.images.image import image_from_array
from monai_sr_bundle.inferers.neighbours import middle
from monai_sr_bundle.report.preview import most_detailed_region
from monai_sr_bundle.transforms.pairs import pair_items

EXAMPLES = {
    "CXR": ("cxr_pediatric", 2, 40, "chest_xray_films", "noise 2"),
    "CT": ("ct", 1, 30, "chest_ct_scans", "30 HU of noise"),
}
"""For each modality the folder, the factor that its images are reduced by first, the place of one in the test split,
and a protocol with one of its losses of resolution."""
SCALE, SIDE, GAP = 4, 208, 4
LUNG_WINDOW = (-1000.0, 200.0)


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of folders with manifests")
    parser.add_argument("out", type=Path, help="picture to write")
    arguments = parser.parse_args()
    lay_out([make_row(arguments.data, modality) for modality in EXAMPLES]).save(arguments.out, quality=90)


def make_row(data: Path, modality: str) -> list[np.ndarray]:
    """Return the original, the input, bicubic interpolation and the bundle's result, ``[SIDE, SIDE]`` of 8 bits."""
    folder, reduce, place, protocol, label = EXAMPLES[modality]
    loss = next(loss for loss in choose_protocols([protocol])[0].losses if loss.label == label)
    original = ORIGINALS[modality](pair_items(str(data), modality, "test", sets=[folder])[place], reduce, SCALE)
    low_res = original.degrade(loss, SCALE)
    stored = to_values(original, low_res)
    results = [
        enhance(image_from_array(stored, modality=modality), name, scale=SCALE, force=True).image.pixels
        for name in ("bicubic", default_bundle(modality).name)
    ]
    pictures = [to_values(original, original.high_res), np.kron(middle(stored), np.ones((SCALE, SCALE)))]
    pictures += [middle(pixels) for pixels in results]
    window = LUNG_WINDOW if modality == "CT" else (0.0, 255.0)
    low, high = window
    shades = [np.rint((np.clip(each, low, high) - low) / (high - low) * 255).astype(np.uint8) for each in pictures]
    top, left, side = most_detailed_region(shades[0], (1, 1))
    top, left = (max(0, start + (side - SIDE) // 2) // SCALE * SCALE for start in (top, left))
    return [shade[top : top + SIDE, left : left + SIDE] for shade in shades]


def to_values(original: Original, unit: np.ndarray) -> np.ndarray:
    """Return grey levels or HU of intensities in units of the window, as stored."""
    low, high = original.window
    stored = np.rint(unit * (high - low) + low)
    return stored.astype(np.uint8 if original.kind == "cxr" else np.int16)


def lay_out(rows: list[list[np.ndarray]]) -> Picture.Image:
    """Return one picture of all rows."""
    height, width = len(rows) * (SIDE + GAP) - GAP, len(rows[0]) * (SIDE + GAP) - GAP
    sheet = Picture.new("L", (width, height), 255)
    for row, squares in enumerate(rows):
        for column, square in enumerate(squares):
            sheet.paste(Picture.fromarray(square), (column * (SIDE + GAP), row * (SIDE + GAP)))
    return sheet


if __name__ == "__main__":
    main()
