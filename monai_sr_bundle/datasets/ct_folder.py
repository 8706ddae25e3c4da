"""A folder of DICOM CT: every chest series in it becomes one volume. See docs/data/ct_folder.md."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from monai_sr_bundle.datasets.item import Item, Scan, Skipped
from monai_sr_bundle.datasets.manifest import assign_split
from monai_sr_bundle.errors import InputError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

MIN_SLICES = 4
"""Default: fewer slices are scouts or samples, not a volume."""

LICENCE = "not stated by the files; whoever gave them decides"

_TAGS = (
    *("Modality", "ImageType", "NumberOfFrames", "PatientID", "PatientIdentityRemoved", "PatientAge", "PatientSex"),
    *("StudyInstanceUID", "ViewPosition"),
)


def scan(input_dir: Path, *, min_slices: int = MIN_SLICES) -> Scan:
    """Find the CT series of a folder and its subfolders.

    Args:
        input_dir: DICOM files in any order and depth.
        min_slices: series with fewer are skipped.

    Raises:
        InputError: `min_slices` below 2, which is no volume.
    """
    if min_slices < 2:
        raise InputError(f"min_slices is {min_slices}, expected 2 or more: a volume has a spacing between slices.")
    from monai_sr_bundle.images.dicom_file import is_dicom

    files, skipped = [], []
    for path in visible_files(input_dir):
        if is_dicom(path):
            files.append(path)
        else:
            skipped.append(Skipped(path.relative_to(input_dir).as_posix(), "not DICOM"))
    found = scan_series(files, input_dir, min_slices=min_slices, patient_of=lambda path, header: patient_name(header))
    return Scan(found.items, [*skipped, *found.skipped], found.warnings)


def scan_series(
    files: Iterable[Path], input_dir: Path, *, min_slices: int, patient_of: Callable[[Path, Dataset], str]
) -> Scan:
    """One item per CT series among DICOM files.

    Args:
        files: DICOM files.
        patient_of: patient of a file from its path and header; empty when it does not tell.
    """
    from monai_sr_bundle.images.dicom_file import series_key

    series: dict[tuple[Hashable, bool], list[tuple[Path, Dataset]]] = defaultdict(list)
    skipped = []
    for path in files:
        shown = path.relative_to(input_dir).as_posix()
        try:
            header = read_header(path)
            modality = header.get("Modality") or "missing"
            if modality == "CT":
                localizer = "LOCALIZER" in (header.get("ImageType") or ())
                series[(series_key(path), localizer)].append((path, header))
            else:
                skipped.append(Skipped(shown, f"the modality is {modality}, expected CT"))
        except InputError as error:
            skipped.append(Skipped(shown, str(error)))

    items, unnamed = [], 0
    for (key, localizer), slices in series.items():
        path, header = slices[0]
        shown = path.relative_to(input_dir).as_posix()
        if len(slices) > 1:
            shown += f" and {len(slices) - 1} more"
        count = sum(int(header.get("NumberOfFrames") or 1) for _, header in slices)
        if localizer:
            skipped.append(Skipped(shown, "a localizer, not a volume"))
        elif count < min_slices:
            skipped.append(Skipped(shown, f"{count} slices, expected {min_slices} or more"))
        else:
            patient = patient_of(path, header)
            if not patient:
                unnamed += 1
                patient = f"study-{_short_hash(str(header.get('StudyInstanceUID') or key))}"
            items.append(
                Item(
                    name=_short_hash(str(key)),
                    files=tuple(path for path, _ in slices),
                    kind="ct",
                    patient_id=patient,
                    split=assign_split(patient),
                    licence=LICENCE,
                    shown_path=shown,
                )
            )
    warnings = []
    if unnamed:
        warnings.append(f"{unnamed} series have no Patient ID: each study counts as a patient of its own.")
    return Scan(items, skipped, warnings)


def visible_files(folder: Path) -> list[Path]:
    """All files below a folder, sorted; names that begin with a dot are left out."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def read_header(path: Path) -> Dataset:
    """The tags of a DICOM file that decide what it is, without its pixels.

    Raises:
        InputError: the header is damaged.
    """
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    try:
        header = dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS), force=True)
        # pydicom decodes an element when it is first asked for; here it must fail now or never.
        list(header)
    except (InvalidDicomError, OSError, EOFError, ValueError, TypeError, AttributeError, NotImplementedError) as error:
        # The error's text may quote the patient's data, its name does not.
        raise InputError(
            f"{path.name}: the DICOM header is damaged ({type(error).__name__}). Get the file again."
        ) from error
    return header


def patient_name(header: Dataset) -> str:
    """A name for the patient of a DICOM file; empty when the header does not tell.

    Patient ID (0010,0020) as it is where Patient Identity Removed (0012,0062) says YES, else "p-" and 16 digits of its
    SHA-256. That is a pseudonym, not anonymity: who knows the list of patients can find them again.
    """
    patient = str(header.get("PatientID") or "").strip()
    if patient and header.get("PatientIdentityRemoved") != "YES":
        return f"p-{_short_hash(patient)}"
    return patient


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
