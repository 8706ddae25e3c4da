"""Read images with their boxes as a data set that a training can use.

A patient is always on the same side of the split, in every training, because the hash of the patient decides.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel
import numpy as np
import PIL.Image
from monai_sr_bundle.boxes.box import Box
from monai_sr_bundle.boxes.readings import Reading
from monai_sr_bundle.datasets.make_manifest import assign_split, write_boxes, write_manifest
from monai_sr_bundle.datasets.manifest import Record
from monai_sr_bundle.images import files, unit
from monai_sr_bundle.images.files import Source
from monai_sr_bundle.images.geometry import Grid, ras_from_lps

from labelling.box_store import CONSENSUS, Version
from labelling.consensus import fuse
from labelling.errors import ConflictError

SET = "labelled"
"""Name of the image set."""
HELD_OUT, VALIDATION = 0.25, 0.15
"""Shares of the patients that no training sees, and that choose among the weights of one."""
_SALT = "monai-sr-labels-v1"
_GREY = (0.0, 255.0)


@dataclass(frozen=True)
class LabelledImage:
    """An image with the boxes that a training takes for true.

    Attributes:
        name: name on the server.
        source: files.
        patient: pseudonym.
        boxes: with `slice_index` in a volume; none where there is no finding.
    """

    name: str
    source: Source
    patient: str
    boxes: tuple[Box, ...]


def agreed_reading(versions: Sequence[Version]) -> Reading | None:
    """Return the reading that a training takes for true: the adjudicated one, the consensus, or the only one.

    Args:
        versions: current versions of an image, without those that were drawn on other files.
    """
    submitted = [each for each in versions if each.status == "submitted"]
    adjudicated = [each for each in submitted if each.reader == CONSENSUS]
    if adjudicated:
        return adjudicated[0].reading
    readings = [each.reading for each in submitted if each.reading is not None]
    return fuse(readings) if len(readings) > 1 else readings[0] if readings else None


def split_of(patient: str) -> str:
    """Return "train", "val" or "test" (held out)."""
    return assign_split(patient, salt=_SALT, val=VALIDATION, test=HELD_OUT)


def require_splits(images: Sequence[LabelledImage]) -> None:
    """Refuse images of which nothing could be learnt, or whose result could not be judged.

    Raises:
        ConflictError: no patient in one of the splits, or no box to train with.
    """
    patients = {image.patient: split_of(image.patient) for image in images}
    counts = Counter(patients.values())
    if not {"train", "val", "test"} <= counts.keys():
        raise ConflictError(
            f"{len(patients)} patients were read: {counts['train']} to train with, {counts['val']} to validate and "
            f"{counts['test']} held out, expected at least 1 of each. Read images of more patients."
        )
    if not any(image.boxes for image in images if patients[image.patient] == "train"):
        raise ConflictError("no image to train with has a box. Read more images.")


def write_data_set(images: Sequence[LabelledImage], modality: str, out: Path) -> Path:
    """Write images and boxes as a data set with a manifest; returns `out`, which holds the set `SET`.

    Pictures and NIfTI volumes are copied. A DICOM radiograph becomes 8 bits of its whole range, a CT series NIfTI.

    Raises:
        InputError: an image that cannot be read.
    """
    folder = out / SET
    folder.mkdir(parents=True)
    records, boxes = [], {}
    for number, image in enumerate(images):
        path, grid = _write_image(image.source, modality, folder / f"{number:05d}")
        slices, rows, columns = grid.shape_zyx
        record = Record(path, "ct" if modality == "CT" else "cxr", split_of(image.patient), image.patient, "local")
        if modality == "CT":
            record = replace(record, shape_xyz=(columns, rows, slices), spacing_xyz=grid.spacing_xyz)
        else:
            record = replace(record, width=columns, height=rows)
        records.append(record)
        if image.boxes:
            boxes[path] = [replace(box, reader="") for box in image.boxes]
    write_manifest(records, folder)
    write_boxes(boxes, folder)
    return out


def _write_image(source: Source, modality: str, stem: Path) -> tuple[Path, Grid]:
    image = files.read(source)
    original = source.files[0]
    if source.format != "dicom":
        suffix = ".nii.gz" if original.name.lower().endswith(".nii.gz") else original.suffix.lower()
        path = stem.with_name(stem.name + suffix)
        shutil.copyfile(original, path)
    elif modality == "CT":
        values = image.pixels * image.slope + image.intercept
        hu = np.clip(np.rint(values), -32768, 32767).astype(np.int16)
        path = stem.with_name(f"{stem.name}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(hu.transpose(2, 1, 0), ras_from_lps(image.grid.affine)), path)
    else:
        values = unit.from_stored(image, image.pixels, unit.value_window(image, "CXR", _GREY))
        path = stem.with_name(f"{stem.name}.png")
        PIL.Image.fromarray(np.clip(np.rint(values[0] * 255), 0, 255).astype(np.uint8)).save(path)
    return path, image.grid
