"""Any folder of chest images: pictures, DICOM radiographs, DICOM CT, NIfTI volumes. See docs/data/folder.md."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from monai_sr_bundle.datasets.ct_folder import (
    LICENCE,
    MIN_SLICES,
    patient_name,
    read_header,
    scan_series,
    visible_files,
)
from monai_sr_bundle.datasets.item import Item, Scan, Skipped
from monai_sr_bundle.datasets.make_manifest import assign_split
from monai_sr_bundle.datasets.manifest import Kind
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.images.image import MODALITIES

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_SUFFIX = re.compile(r"\.(png|jpe?g|tiff?|dcm|dicom|nii|nii\.gz)$", re.IGNORECASE)


def scan(input_dir: Path, *, patient_from: str | None = None, min_slices: int = MIN_SLICES) -> Scan:
    """Find all images of a folder and its subfolders, by content.

    Args:
        input_dir: folder to search.
        patient_from: regular expression searched in each path relative to `input_dir` (with `/`); the group named
            "patient", else the first group, else the whole match is the patient. Without it, the patient is a DICOM
            file's Patient ID, else the file name up to its first underscore, else the file itself.
        min_slices: fewest slices of a CT series that is not skipped.

    Raises:
        InputError: `patient_from` is no regular expression.
    """
    from monai_sr_bundle.images.dicom_file import is_dicom
    from monai_sr_bundle.images.nifti import is_nifti
    from monai_sr_bundle.images.picture import picture_format

    patients = _PatientNames(input_dir, patient_from)
    items: list[Item] = []
    skipped: list[Skipped] = []
    slices: list[Path] = []
    for path in visible_files(input_dir):
        relative_path = path.relative_to(input_dir).as_posix()
        if patient_from is not None and not patients.match_pattern(path):
            skipped.append(Skipped(relative_path, f"its path does not match the patient pattern {patient_from!r}"))
        elif is_dicom(path):
            try:
                header = read_header(path)
            except InputError as error:
                skipped.append(Skipped(relative_path, str(error)))
                continue
            modality = header.get("Modality") or "missing"
            if modality == "CT":
                slices.append(path)
            elif modality in MODALITIES["CXR"]:
                items.append(_item(path, "cxr", patients.name_patient(path, header), input_dir, header))
            else:
                expected = ", ".join(MODALITIES["CXR"])
                skipped.append(Skipped(relative_path, f"the modality is {modality}, expected CT or {expected}"))
        elif is_nifti(path):
            items.append(_item(path, "ct", patients.name_patient(path), input_dir))
        elif picture_format(path):
            items.append(_item(path, "cxr", patients.name_patient(path), input_dir))
        else:
            skipped.append(Skipped(relative_path, "not a picture, DICOM or NIfTI"))
    series = scan_series(slices, input_dir, min_slices=min_slices, patient_of=patients.name_slice_patient)
    return Scan(
        [*_make_names_unique(items), *series.items],
        [*skipped, *series.skipped],
        [*series.warnings, *patients.warnings([*items, *series.items])],
    )


class _PatientNames:
    """Patients by file, and the number of files without a patient (`alone`)."""

    def __init__(self, input_dir: Path, pattern: str | None) -> None:
        self.input_dir = input_dir
        self.alone = 0
        try:
            self.pattern = None if pattern is None else re.compile(pattern)
        except re.error as error:
            raise InputError(
                f"the patient pattern {pattern!r} is no regular expression ({error}). Example: '^([^/]+)/' takes the "
                "first folder."
            ) from error

    def match_pattern(self, path: Path) -> str:
        """Return the match of the pattern in the path; empty without one."""
        match = self.pattern.search(path.relative_to(self.input_dir).as_posix()) if self.pattern else None
        if not match:
            return ""
        return match.groupdict().get("patient") or next(filter(None, match.groups()), match[0])

    def name_slice_patient(self, path: Path, header: Dataset) -> str:
        """Return the patient of a CT slice; empty if neither the pattern nor the header names one."""
        return self.match_pattern(path) or patient_name(header)

    def name_patient(self, path: Path, header: Dataset | None = None) -> str:
        """Return the patient of a file; the file itself, counted in `alone`, if the patient is unknown."""
        patient = self.match_pattern(path) or (patient_name(header) if header is not None else "")
        if patient:
            return patient
        prefix, underscore, _ = path.name.partition("_")
        if underscore and prefix:
            return prefix
        self.alone += 1
        return path.relative_to(self.input_dir).as_posix()

    def warnings(self, items: list[Item]) -> list[str]:
        """Return warnings about patients that may make the split wrong."""
        messages = []
        if self.alone:
            messages.append(
                f"PATIENTS UNKNOWN: {self.alone} of {len(items)} files name no patient, so each counts as a "
                "patient of its own. If a patient has several files, training and test images will mix: give the "
                "patient pattern."
            )
        if len(items) > 1 and len({item.patient_id for item in items}) == 1:
            messages.append(
                f"ONE PATIENT: all {len(items)} images count as patient {items[0].patient_id!r} and are in the split "
                f"{items[0].split}. If they are not of one patient, give the patient pattern."
            )
        return messages


def _item(path: Path, kind: Kind, patient: str, input_dir: Path, header: Dataset | None = None) -> Item:
    relative_path = path.relative_to(input_dir).as_posix()
    return Item(
        name=_SUFFIX.sub("", relative_path),
        files=(path,),
        kind=kind,
        patient_id=patient,
        split=assign_split(patient),
        licence=LICENCE,
        shown_path=relative_path,
        view=str(header.get("ViewPosition") or "") if header else "",
        age=str(header.get("PatientAge") or "").rstrip("Y").lstrip("0") if header else "",
        sex=str(header.get("PatientSex") or "") if header else "",
    )


def _make_names_unique(items: list[Item]) -> list[Item]:
    """Keep the suffix in every name if `a.png` and `a.jpg` would both become `a.png`."""
    if len({item.name for item in items}) == len(items):
        return items
    return [replace(item, name=item.shown_path) for item in items]
