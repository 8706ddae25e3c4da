"""One nodule along the slices: how large it is on thin slices, and on thick ones enlarged in two ways.

    python docs/nodule_case.py DIR

A case report, no claim: the one nodule of the test volume that lies whole inside it (LIDC-IDRI-0314, slices of 1 mm).
Its slices are averaged in fours, as a scan of 4 mm has them. A pixel belongs to the nodule if it is above -400 HU and
inside a box that one of four readers drew on its slice. The diameter of a slice is that of a circle of the same area.
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
from monai_sr_bundle import enhance
from monai_sr_bundle.benchmark.slice_pairs import interpolate_slices
from monai_sr_bundle.images.image import Image
from monai_sr_bundle.images.nifti import read_nifti

VOLUME, BOXES = "ct/lidc0314_1mm_64sl.nii.gz", "ct_patients/lidc0314_boxes.csv"
THRESHOLD_HU, SCALE = -400.0, 4
BUNDLE = "chest_ct_throughplane"


def main() -> None:
    """Print the table of the nodule's diameters and volumes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the image sets")
    data = parser.parse_args().data

    thin = read_nifti(data / VOLUME)
    inside = union_of_boxes(data / BOXES, thin.pixels.shape)
    thick = average_slices(thin)
    volumes = {
        "thin slices, 1 mm": hounsfield(thin),
        "thick slices, 4 mm": np.repeat(hounsfield(thick), SCALE, axis=0),
        "cubic interpolation": interpolate_slices("bicubic", hounsfield(thick), SCALE),
        BUNDLE: hounsfield(enhance(thick, BUNDLE, scale=SCALE).image),
    }
    print("| slices | volume (mm³) | largest diameter (mm) | mean difference of the diameter per slice (mm) |")
    print("| --- | --- | --- | --- |")
    column_mm, row_mm, slice_mm = thin.grid.spacing_xyz
    truth = np.empty(0)
    for name, values in volumes.items():
        areas = ((values > THRESHOLD_HU) & inside).sum(axis=(1, 2)) * row_mm * column_mm
        diameters = 2 * np.sqrt(areas[inside.any(axis=(1, 2))] / np.pi)
        truth = truth if truth.size else diameters
        difference = f"{np.abs(diameters - truth).mean():.2f}" if name in list(volumes)[1:] else ""
        print(f"| {name} | {areas.sum() * slice_mm:.0f} | {diameters.max():.1f} | {difference} |")


def hounsfield(image: Image) -> np.ndarray:
    """Return the values of a CT in HU, float32."""
    return np.asarray(image.pixels * image.slope + image.intercept, dtype=np.float32)


def average_slices(thin: Image) -> Image:
    """Return the volume with the means of every `SCALE` slices, rounded as a scanner stores them."""
    slices, rows, columns = thin.pixels.shape
    means = thin.pixels[: slices // SCALE * SCALE].reshape(-1, SCALE, rows, columns).mean(axis=1)
    grid = thin.grid.cropped((0, 0, 0), (len(means) * SCALE, rows, columns))
    affine = grid.affine.copy()
    affine[:3, 3] += affine[:3, 2] * (SCALE - 1) / 2
    affine[:3, 2] *= SCALE
    grid = replace(grid, shape_zyx=means.shape, affine=affine)
    return replace(thin, pixels=np.rint(means).astype(thin.pixels.dtype), grid=grid)


def union_of_boxes(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Return the pixels that a reader drew a box around: a mask ``[slices, rows, columns]``."""
    inside = np.zeros(shape, dtype=bool)
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            top, bottom, left, right = (int(float(row[name])) for name in ("y_min", "y_max", "x_min", "x_max"))
            inside[int(row["slice_index"]), top:bottom, left:right] = True
    return inside


if __name__ == "__main__":
    main()
