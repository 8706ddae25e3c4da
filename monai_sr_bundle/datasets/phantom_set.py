"""A small synthetic data set with a manifest, to try the workflows without a patient."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
from monai_sr_bundle.boxes.box import Box
from monai_sr_bundle.datasets.make_manifest import write_boxes, write_manifest
from monai_sr_bundle.datasets.manifest import Record
from monai_sr_bundle.datasets.phantom import draw_phantom, write_phantom_png

SLICES = 10
_SPACING_MM = (0.7, 0.7, 5.0)


def write_phantom_set(out: Path, modality: str, *, size: int = 64, train: int = 3, val: int = 2, test: int = 2) -> Path:
    """Draw one radiograph with a box, or one volume of `SLICES` similar slices, for each patient.

    Args:
        out: new folder, whose name is the set's name.
        modality: "CXR" for 8-bit PNG, "CT" for NIfTI of whole HU from -1000 to 400.
        size: rows and columns, 32 to 4096.
        train, val, test: number of patients in each split.

    Returns:
        Path of the manifest.

    Raises:
        OutputError: another file exists already.
        ValueError: a size out of range.
    """
    out.mkdir(parents=True, exist_ok=True)
    splits = ["train"] * train + ["val"] * val + ["test"] * test
    draw = _volume if modality == "CT" else _radiograph
    records = [draw(out, number, split, size) for number, split in enumerate(splits)]
    if modality != "CT":
        # A position in a lung, for training with a loss inside boxes.
        box = Box("Nodule", 0.2 * size, 0.3 * size, 0.4 * size, 0.5 * size)
        write_boxes({record.file: [box] for record in records}, out)
    return write_manifest(records, out)


def _radiograph(out: Path, number: int, split: str, size: int) -> Record:
    file = out / f"phantom_{number:02d}.png"
    write_phantom_png(file, size, seed=number)
    return Record(file, "cxr", split, f"phantom {number}", "Apache-2.0", width=size, height=size)


def _volume(out: Path, number: int, split: str, size: int) -> Record:
    chest = draw_phantom(size, seed=number) * 1400.0 - 1000.0
    volume = np.stack([np.roll(chest, index, axis=0) for index in range(SLICES)], axis=-1)
    file = out / f"phantom_{number:02d}.nii.gz"
    image = nibabel.Nifti1Image(np.rint(volume).astype(np.int16).swapaxes(0, 1), np.diag([*_SPACING_MM, 1.0]))
    image.header.set_xyzt_units("mm")
    nibabel.save(image, file)
    shape = (size, size, SLICES)
    return Record(file, "ct", split, f"phantom {number}", "Apache-2.0", shape_xyz=shape, spacing_xyz=_SPACING_MM)
