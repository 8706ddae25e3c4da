"""Maps on the grid of a result, in files next to it: the width of its error bars and a mask of the too wide ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from monai_sr_bundle.images import dicom_maps, nifti, picture
from monai_sr_bundle.images.files import Source
from monai_sr_bundle.images.image import Image
from monai_sr_bundle.images.provenance import Provenance
from monai_sr_bundle.images.staging import staged

ERROR_BAR, TRUST_MASK = "error_bar", "trust_mask"
_SUFFIXES = {"dicom": (".dcm", ".dcm"), "nifti": (".nii.gz", ".nii.gz"), "tiff": (".tif", ".tif")}
_PICTURE_SUFFIXES = (".tif", ".png")


def map_paths(source: Source, stem: Path, *, mask: bool) -> list[Path]:
    """Return the path of the error bars of a result and, if `mask`, of its trust mask.

    Args:
        source: image that the result was made from.
        stem: path without suffix that the names of the maps begin with.
        mask: whether a trust mask is written.
    """
    suffixes = _SUFFIXES.get(source.format, _PICTURE_SUFFIXES)
    names = (ERROR_BAR, TRUST_MASK)[: 1 + mask]
    return [stem.with_name(f"{stem.name}_{name}{suffix}") for name, suffix in zip(names, suffixes, strict=False)]


def check_result(image: Image, shape_zyx: Sequence[int]) -> None:
    """Raise an error, before anything is computed, if the result does not fit into its one file.

    Raises:
        OutputError: the frames of a DICOM file would need more than one DICOM object.
    """
    if image.format == "dicom" and len(image.header) == 1:
        dicom_maps.check_size(image.path.name, "results", shape_zyx, image.pixels.itemsize)


def check_maps(image: Image, shape_zyx: Sequence[int]) -> None:
    """Raise an error, before anything is computed, if the maps could not be written.

    Raises:
        InputError, OutputError: the reasons of `dicom_maps.check_dicom_maps`.
    """
    if image.format == "dicom":
        dicom_maps.check_dicom_maps(image.header, shape_zyx)


def write_maps(
    half_width: np.ndarray,
    result: Image,
    provenance: Provenance,
    written: Path,
    paths: Sequence[Path],
    *,
    percent: float,
    unit: str,
    tolerance: float,
    overwrite: bool = False,
) -> Iterator[Path]:
    """Write the error bars of a result and, at a second path, its trust mask; each completely or not at all.

    DICOM: see `dicom_maps`. NIfTI: float32, and uint8 with 0 and 1. Pictures: a TIFF of float32, and 0 and 255.

    Args:
        half_width: ``[slices, rows, columns]`` float32, in `unit`.
        result: result that the error bars belong to.
        provenance: record of the bundle and settings that made the result.
        written: file or folder of the result.
        paths: paths of the maps, from `map_paths`.
        percent: share of the pixels that the error bars are made to hold, on average over images, in percent.
        unit: "HU" or "grey levels".
        tolerance: largest half-width outside the mask, in `unit`.
        overwrite: replace older files.

    Yields:
        Each file, once it is written.

    Raises:
        OutputError: a file cannot be written (see `staged`) or highdicom refuses the header.
    """
    meanings = (
        f"Half-width of the {percent:.4g} % error bars in {unit}",
        f"Error bar wider than {tolerance:.6g} {unit}",
    )
    headers = dicom_maps.read_result_headers(written) if result.format == "dicom" else []
    for name, path, meaning in zip((ERROR_BAR, TRUST_MASK), paths, meanings, strict=False):
        values = half_width if name == ERROR_BAR else half_width > tolerance
        with staged(path, overwrite=overwrite, needed_bytes=values.nbytes) as temporary:
            if result.format == "dicom" and name == ERROR_BAR:
                dicom_maps.write_error_bar(values, headers, provenance, temporary, meaning=meaning, unit=unit)
            elif result.format == "dicom":
                dicom_maps.write_trust_mask(values, headers, provenance, temporary, meaning=meaning)
            elif result.format == "nifti":
                stored = values if name == ERROR_BAR else values.astype(np.uint8)
                map_image = replace(result, pixels=stored, slope=1.0, intercept=0.0)
                nifti.write_nifti(map_image, provenance, temporary, meaning)
            else:
                stored = values if name == ERROR_BAR else np.uint8(255) * values
                map_image = replace(result, pixels=stored, header=replace(result.header, icc_profile=None))
                picture.write_picture(map_image, provenance, temporary, meaning)
        yield path
