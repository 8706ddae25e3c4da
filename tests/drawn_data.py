"""Small data sets with a manifest, drawn for the tests of training and evaluation."""

import csv
from pathlib import Path

import nibabel
import numpy as np
from monai_sr_bundle.datasets.phantom import draw_phantom
from PIL import Image

COLUMNS = ("file", "split", "patient_id", "view", "labels", "width", "height", "license")


def write_radiographs(root: Path, *, size: int = 128, counts=(("train", 3), ("val", 2), ("test", 3))) -> Path:
    """`root/drawn/` with PNGs of different drawn chests and a manifest; returns `root`."""
    folder = root / "drawn"
    (folder / "images").mkdir(parents=True)
    rows = []
    for split, count in counts:
        for index in range(count):
            name = f"drawn/images/{split}{index}.png"
            pixels = np.rint(draw_phantom(size, seed=len(rows)) * 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name)
            rows.append((name, split, f"patient-{len(rows)}", "PA", "", size, size, "drawn"))
    _write(folder / "manifest.csv", COLUMNS, rows)
    return root


def write_volumes(root: Path, *, size: int = 64, slices: int = 10, splits=("train", "test")) -> Path:
    """`root/ct/` with a drawn CT volume of each split, or several of one, and a manifest; returns `root`."""
    folder = root / "ct"
    folder.mkdir(parents=True)
    rows = []
    for index, split in enumerate(splits):
        film = draw_phantom(size, seed=index).T
        volume = np.stack([np.rint(film * 1400 - 1000 + 5 * z).astype(np.int16) for z in range(slices)], axis=2)
        name = f"ct/{split}{splits[:index].count(split) or ''}.nii.gz"
        nibabel.save(nibabel.Nifti1Image(volume, np.diag([-0.8, -0.8, 5.0, 1.0])), root / name)
        shape, spacing = f"{size}x{size}x{slices}", "0.8x0.8x5.0"
        rows.append((name, "nifti", split, f"ct-patient-{index}", shape, spacing, -1000, 400, "drawn"))
    columns = ("file", "kind", "split", "patient_id", "shape_xyz", "spacing_mm", "hu_min", "hu_max", "license")
    _write(folder / "manifest.csv", columns, rows)
    return root


def _write(path: Path, columns, rows) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
