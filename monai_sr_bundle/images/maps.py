"""Maps on the grid of a result, in files beside it: how wide its error bars are, and where they are too wide."""

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
_OF_PICTURES = (".tif", ".png")


def map_paths(source: Source, stem: Path, *, mask: bool) -> list[Path]:
    """Where the error bars of a result go, and its trust mask if there is to be one.

    Args:
        source: of the result.
        stem: what the files beside the result are named after.
    """
    suffixes = _SUFFIXES.get(source.format, _OF_PICTURES)
    names = (ERROR_BAR, TRUST_MASK)[: 1 + mask]
    return [stem.with_name(f"{stem.name}_{name}{suffix}") for name, suffix in zip(names, suffixes, strict=False)]


def check_maps(image: Image, shape_zyx: Sequence[int]) -> None:
    """Refuse, before anything is computed, maps that could not be written.

    Raises:
        InputError, OutputError: as `dicom_maps.check_dicom_maps`.
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
        result: which they belong to.
        provenance: how it was made.
        written: its file or folder.
        paths: by `map_paths`.
        percent: of the pixels that the error bars promise to hold.
        unit: "HU" or "grey levels".
        tolerance: the mask marks what is wider.
        overwrite: replace older files.

    Yields:
        Each file, once it is written.

    Raises:
        OutputError: as `staged` and the writers do.
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
                shown = replace(result, pixels=stored, slope=1.0, intercept=0.0)
                nifti.write_nifti(shown, provenance, temporary, meaning)
            else:
                stored = values if name == ERROR_BAR else np.uint8(255) * values
                shown = replace(result, pixels=stored, header=replace(result.header, icc_profile=None))
                picture.write_picture(shown, provenance, temporary, meaning)
        yield path
