"""The picture at the top of the README: a film and a CT slice of test patients, reduced and enlarged again.

    python docs/example.py DIR docs/example.jpg
    python docs/example.py DIR configs/NAME/example.jpg --bundle NAME

From left to right: the original, what is left of it, bicubic interpolation, the default bundle. Both have lost three
quarters of their rows and columns and got noise, as in the benchmarks of films and scans.

With `--bundle`, the row of one bundle, for its card: reduced as the bundle's operator says, and with noise where the
bundle was made for films or scans as they are. Of one that works along the slices, a coronal section.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from monai_sr_bundle import enhance
from monai_sr_bundle.benchmark.originals import ORIGINALS, Original
from monai_sr_bundle.benchmark.protocol_choice import choose_protocols
from monai_sr_bundle.bundles import Bundle
from monai_sr_bundle.degradation import Degradation
from monai_sr_bundle.engine.comparison import interpolate_source
from monai_sr_bundle.images.from_array import image_from_array
from monai_sr_bundle.images.geometry import Region
from monai_sr_bundle.images.one_image import read_one
from monai_sr_bundle.inferers.tiling import middle
from monai_sr_bundle.report.detail_region import find_detail_region
from monai_sr_bundle.shipped_bundles import default_bundle, find_bundle
from monai_sr_bundle.transforms.pairs import pair_items
from PIL import Image as Picture

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
    parser.add_argument("--bundle", help="name of the bundle of which a row is made")
    arguments = parser.parse_args()
    bundles = [find_bundle(arguments.bundle)] if arguments.bundle else [default_bundle(each) for each in EXAMPLES]
    lay_out([make_row(arguments.data, bundle) for bundle in bundles]).save(arguments.out, quality=90)


def make_row(data: Path, bundle: Bundle) -> list[np.ndarray]:
    """Return the original, the input, bicubic interpolation and the bundle's result, 8 bits and `SIDE` wide."""
    modality = bundle.modality
    folder, reduce, index, protocol, label = EXAMPLES[modality]
    item = pair_items(str(data), modality, "test", sets=[folder])[index]
    if bundle.scale_zyx[0] > 1:
        return make_coronal_row(Path(item["path"]), bundle)
    label, scale = label if bundle.family.is_blind else "ideal", bundle.scale
    loss = next(loss for loss in choose_protocols([protocol])[0].losses if loss.label == label)
    original = ORIGINALS[modality](item, reduce, scale)
    stored = to_values(original, original.degrade(loss, scale))
    low_res = middle(stored)
    whole = Region.whole(*low_res.shape)
    cubic = interpolate_source(bundle.family, lambda at: low_res.astype(np.float32), 0, (0, 1), whole)
    result = enhance(image_from_array(stored, modality=modality), bundle.name, scale=scale, force=True).image.pixels
    pictures = [to_values(original, original.high_res), np.kron(low_res, np.ones((scale, scale)))]
    shades = [to_shades(each, modality) for each in (*pictures, cubic, middle(result))]
    window = LUNG_WINDOW if modality == "CT" else (0.0, 255.0)
    top, left, side = find_detail_region(pictures[0], window, hu=modality == "CT", whole_film=modality == "CXR")
    top, left = (
        max(0, min(start + (side - SIDE) // 2, size - SIDE)) // scale * scale
        for start, size in zip((top, left), shades[0].shape, strict=True)
    )
    return [shade[top : top + SIDE, left : left + SIDE] for shade in shades]


def make_coronal_row(volume: Path, bundle: Bundle) -> list[np.ndarray]:
    """Return the same of a section across the slices of a volume, every sample twice as large."""
    thin = read_one(volume).pixels.astype(np.float32)
    scale, (slices, rows, columns) = bundle.scale, thin.shape
    thick = np.rint(Degradation.parse(bundle.operator).reduce(thin.reshape(slices, -1))).astype(np.int16)
    thick = thick.reshape(-1, rows, columns)
    result = enhance(image_from_array(thick, modality="CT"), bundle.name, scale=scale, force=True).image.pixels
    cubic = [
        interpolate_source(
            bundle.family, lambda at: thick[at].astype(np.float32), at, (0, len(thick)), Region.whole(rows, columns)
        )
        for at in range(slices)
    ]
    left = (columns // 2 - SIDE // 2) // 2
    return [
        np.kron(to_shades(each[::-1, rows // 2, left : left + SIDE // 2], "CT"), np.ones((2, 2), dtype=np.uint8))
        for each in (thin, thick.repeat(scale, axis=0), np.stack(cubic), result)
    ]


def to_shades(values: np.ndarray, modality: str) -> np.ndarray:
    """Return grey levels or HU as shades of 8 bits; of HU, in the lung window."""
    low, high = LUNG_WINDOW if modality == "CT" else (0.0, 255.0)
    return np.rint((np.clip(values, low, high) - low) / (high - low) * 255).astype(np.uint8)


def to_values(original: Original, unit: np.ndarray) -> np.ndarray:
    """Return grey levels or HU of intensities in units of the window, as stored."""
    low, high = original.window
    stored = np.rint(unit * (high - low) + low)
    return stored.astype(np.uint8 if original.kind == "cxr" else np.int16)


def lay_out(rows: list[list[np.ndarray]]) -> Picture.Image:
    """Return one picture of all rows."""
    heights = [row[0].shape[0] for row in rows]
    height, width = sum(heights) + GAP * (len(rows) - 1), len(rows[0]) * (SIDE + GAP) - GAP
    sheet = Picture.new("L", (width, height), 255)
    for row, squares in enumerate(rows):
        for column, square in enumerate(squares):
            top = sum(heights[:row]) + row * GAP
            sheet.paste(Picture.fromarray(square), (column * (SIDE + GAP), top))
    return sheet


if __name__ == "__main__":
    main()
