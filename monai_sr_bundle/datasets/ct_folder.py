"""A folder of DICOM CT: every chest series in it becomes one volume. See docs/data/ct_folder.md."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from monai_sr_bundle.datasets.item import Item, Scan, Skipped
from monai_sr_bundle.datasets.make_manifest import assign_split
from monai_sr_bundle.errors import InputError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

MIN_SLICES = 4
"""Default of `min_slices`: fewer slices are scouts or samples, not a volume."""

LICENCE = "not stated by the files; whoever gave them decides"

_TAGS = (
    *("Modality", "ImageType", "NumberOfFrames", "PatientID", "PatientIdentityRemoved", "PatientAge", "PatientSex"),
    *("StudyInstanceUID", "SOPInstanceUID", "ViewPosition"),
)


def scan(input_dir: Path, *, min_slices: int = MIN_SLICES) -> Scan:
    """Find the CT series of a folder and its subfolders.

    Args:
        input_dir: folder of DICOM files in any order and depth.
        min_slices: fewest slices of a series that is not skipped.

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
    series = scan_series(files, input_dir, min_slices=min_slices, patient_of=lambda path, header: patient_name(header))
    return Scan(series.items, [*skipped, *series.skipped], series.warnings)


def scan_series(
    files: Iterable[Path], input_dir: Path, *, min_slices: int, patient_of: Callable[[Path, Dataset], str]
) -> Scan:
    """Return one item for each CT series among DICOM files.

    Args:
        files: DICOM files.
        input_dir: folder that the paths of the items are relative to.
        min_slices: fewest slices of a series that is not skipped.
        patient_of: function from a file's path and header to its patient, empty if unknown.
    """
    from monai_sr_bundle.images.dicom_file import series_key

    series: dict[tuple[Hashable, bool], list[tuple[Path, Dataset]]] = defaultdict(list)
    skipped = []
    for path in files:
        relative_path = path.relative_to(input_dir).as_posix()
        try:
            header = read_header(path)
            modality = header.get("Modality") or "missing"
            if modality == "CT":
                localizer = "LOCALIZER" in (header.get("ImageType") or ())
                series[(series_key(path), localizer)].append((path, header))
            else:
                skipped.append(Skipped(relative_path, f"the modality is {modality}, expected CT"))
        except InputError as error:
            skipped.append(Skipped(relative_path, str(error)))

    items, unnamed = [], 0
    for (key, localizer), slices in series.items():
        path, header = slices[0]
        relative_path = path.relative_to(input_dir).as_posix()
        if len(slices) > 1:
            relative_path += f" and {len(slices) - 1} more"
        # The key of what is no CT slice ends in its path; a name is the same wherever the folder lies.
        identity = str(key).replace(str(path), str(header.get("SOPInstanceUID") or path.relative_to(input_dir)))
        count = sum(int(header.get("NumberOfFrames") or 1) for _, header in slices)
        if localizer:
            skipped.append(Skipped(relative_path, "a localizer, not a volume"))
        elif count < min_slices:
            skipped.append(Skipped(relative_path, f"{count} slices, expected {min_slices} or more"))
        else:
            patient = patient_of(path, header)
            if not patient:
                unnamed += 1
                patient = f"study-{_short_hash(str(header.get('StudyInstanceUID') or identity))}"
            items.append(
                Item(
                    name=_short_hash(identity),
                    files=tuple(path for path, _ in slices),
                    kind="ct",
                    patient_id=patient,
                    split=assign_split(patient),
                    licence=LICENCE,
                    shown_path=relative_path,
                )
            )
    warnings = []
    if unnamed:
        warnings.append(f"{unnamed} series have no Patient ID: each study counts as a patient of its own.")
    return Scan(items, skipped, warnings)


def visible_files(folder: Path) -> list[Path]:
    """Return all files below a folder, sorted, without names that begin with a dot."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def read_header(path: Path) -> Dataset:
    """Read the tags of a DICOM file that identify its kind, without its pixels.

    Raises:
        InputError: the header is damaged.
    """
    from monai_sr_bundle.images.dicom_file import read_file

    return read_file(path, stop_before_pixels=True, tags=list(_TAGS))


def patient_name(header: Dataset) -> str:
    """Return a name for the patient of a DICOM file; empty if the header has no Patient ID.

    Patient ID (0010,0020) is unchanged if Patient Identity Removed (0012,0062) is YES, else it becomes "p-" and 16
    digits of its SHA-256. That is a pseudonym, not anonymity: a list of the patients identifies them.
    """
    patient = str(header.get("PatientID") or "").strip()
    if patient and header.get("PatientIdentityRemoved") != "YES":
        return f"p-{_short_hash(patient)}"
    return patient


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
