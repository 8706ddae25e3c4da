"""The manifest: the images of a set, the facts about them, and their splits for training and testing.

A set is a folder with `manifest.csv`, one row per image, and perhaps `boxes.csv`. `file` is relative to that folder
or to its parent (then it begins with the folder's name); which of the two holds is found out. Columns, all text:

- both kinds: `file, split, license, patient_id`, then `set, source_path, sha256`;
- radiographs: `view, width, height, mm_per_pixel`;
- CT: `shape_xyz` (as 512x512x64), `spacing_mm` (as 0.7x0.7x1.0), `kernel`.

Further columns, such as labels, are for people and kept as they are. A row with a `shape_xyz`, `spacing_mm` or `hu_min`
is a CT. Empty means unknown. The splits are train, val and test;
sample marks files to try things on, which nobody trains or tests with. One patient is never in two splits.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from monai_sr_bundle.boxes.box import Box, BoxError, check_edges
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.table import number, read_table

Kind = Literal["cxr", "ct"]

SPLITS = ("train", "val", "test", "sample")
_REQUIRED = ("file", "split", "license")
_COLUMNS = (
    *(*_REQUIRED, "patient_id", "set", "source_path", "sha256"),
    *("view", "width", "height", "mm_per_pixel", "shape_xyz", "spacing_mm", "kernel"),
)
BOX_COLUMNS = ("image", "finding", "x_min", "y_min", "x_max", "y_max")


@dataclass(frozen=True)
class Record:
    """One image of a manifest.

    Attributes:
        file: absolute path of a picture, a NIfTI volume, or a folder of DICOM slices.
        kind: "cxr" for a radiograph, "ct" for a volume.
        split: "train", "val", "test" or "sample".
        patient_id: name of the patient; may be empty for a sample only.
        licence: terms of the source.
        view: "PA", "AP", "frontal", "lateral", ...; empty when unknown.
        mm_per_pixel: millimetres per pixel along a row of the stored image; None if unknown.
        sha256: SHA-256 of the file.
        set: name of the set the image belongs to.
        source_path: path of the original.
        width, height: columns and rows of the stored image.
        shape_xyz, spacing_xyz: samples and millimetres along columns, rows and slices (CT).
        kernel: reconstruction kernel (CT).
        others: cells of further columns.
    """

    file: Path
    kind: Kind
    split: str
    patient_id: str
    licence: str
    view: str = ""
    mm_per_pixel: float | None = None
    sha256: str | None = None
    set: str = ""
    source_path: str = ""
    width: int | None = None
    height: int | None = None
    shape_xyz: tuple[int, int, int] | None = None
    spacing_xyz: tuple[float, float, float] | None = None
    kernel: str = ""
    others: Mapping[str, str] = field(default_factory=dict, hash=False)


def read_manifest(
    data_dir: Path, *, kind: Kind | None = None, split: str | None = None, sets: Collection[str] | None = None
) -> list[Record]:
    """Read the images of a set, or of every set in a folder, in the order of their manifests.

    Args:
        data_dir: folder with `manifest.csv`, or folder of such folders.
        kind: radiographs only ("cxr") or volumes only ("ct"). Default: both.
        split: this split only. Default: all but "sample".
        sets: names of the folders to read, or one name. Default: all.

    Raises:
        InputError: no manifest, a column missing, an unknown split, a bad number, a file listed twice or missing, a
            patient in two splits, or no image that fits.
    """
    if split is not None and split not in SPLITS:
        raise InputError(f"split {split!r} is unknown, expected one of {', '.join(SPLITS)}.")
    records = [record for folder in set_folders(data_dir, sets) for record in _read_records(folder)[1]]
    check_patients(((record.patient_id, record.split) for record in records), data_dir)
    of_kind = [record for record in records if kind in (None, record.kind)]
    selected = [record for record in of_kind if (record.split == split if split else record.split != "sample")]
    if not selected:
        counts = Counter((record.kind, record.split) for record in records)
        available = ", ".join(f"{kind_} {split_} {count}" for (kind_, split_), count in sorted(counts.items()))
        selection = " ".join(filter(None, (kind, split))) or "train, val or test"
        raise InputError(
            f"{data_dir}: no {selection} image; there is {available or 'no row at all'}. Choose one of these, prepare "
            "such images, or give whole patients another split in manifest.csv."
        )
    missing = [record.file for record in selected if not os.path.exists(record.file)]
    if missing:
        first = ", ".join(str(path) for path in missing[:3])
        raise InputError(
            f"{data_dir}: {len(missing)} of {len(selected)} files of the manifest are missing: {first}"
            f"{', ...' if len(missing) > 3 else ''}. Copy them, or remove their rows from manifest.csv."
        )
    return selected


def read_boxes(data_dir: Path, *, sets: Collection[str] | None = None) -> dict[Path, list[Box]]:
    """Read the boxes of every image that has any; an image without boxes is not proof of a normal chest.

    Args:
        data_dir, sets: see `read_manifest`.

    Returns:
        Boxes by absolute image path; empty when no set has a `boxes.csv`.

    Raises:
        InputError: a column missing, a bad number, an image that is not in the manifest, a box outside its image or
            without area; the message names the line.
    """
    boxes: dict[Path, list[Box]] = {}
    for folder in set_folders(data_dir, sets):
        table = folder / "boxes.csv"
        if not table.exists():
            continue
        root, of_folder = _read_records(folder)
        records = {record.file: record for record in of_folder}
        for line, cells in read_table(table, BOX_COLUMNS):
            file = _resolve(root, cells["image"], table, line)
            if file not in records:
                raise InputError(f"{table}, line {line}: {cells['image']} is not in manifest.csv. Remove the box.")
            boxes.setdefault(file, []).append(_read_box(cells, records[file], table, line))
    return boxes


def check_patients(patients: Iterable[tuple[str, str]], path: Path) -> None:
    """Raise an error if ``(patient_id, split)`` pairs put one patient into two splits; empty names are not checked.

    Raises:
        InputError: a patient is in two splits; the message names the first and their number.
    """
    splits: dict[str, set[str]] = defaultdict(set)
    for patient, split in patients:
        if patient:
            splits[patient].add(split)
    divided = sorted(patient for patient, of_patient in splits.items() if len(of_patient) > 1)
    if divided:
        raise InputError(
            f"{path}: {len(divided)} patients are in more than one split, the first is {divided[0]} "
            f"in {' and '.join(sorted(splits[divided[0]]))}. Keep each patient in one."
        )


def record_from_cells(cells: Mapping[str, str], root: Path, table: Path, line: int) -> Record:
    """Return the record of a row's cells; `table` and `line` are for messages.

    Raises:
        InputError: an unknown split, a bad number, a path that leaves `root`, or no patient outside the samples.
    """
    split, patient = cells["split"], cells.get("patient_id", "")
    if split not in SPLITS:
        raise InputError(f"{table}, line {line}: split is {split!r}, expected one of {', '.join(SPLITS)}.")
    if not patient and split != "sample":
        raise InputError(
            f"{table}, line {line}: patient_id is empty or missing, expected a name; "
            "without one, a patient could be in two splits unnoticed."
        )

    def read_number(column: str) -> float | None:
        text = cells.get(column, "")
        return number(text, path=table, line=line, column=column, above=0) if text else None

    def read_integer(column: str) -> int | None:
        value = read_number(column)
        if value is not None and not value.is_integer():
            raise InputError(f"{table}, line {line}: {column} is {value:g}, expected a whole number. Correct the cell.")
        return None if value is None else int(value)

    def read_triple(column: str) -> tuple[float, float, float] | None:
        text = cells.get(column, "")
        if not text:
            return None
        parts = text.split("x")
        if len(parts) != 3:
            raise InputError(f"{table}, line {line}: {column} is {text!r}, expected three numbers such as 1x2x3.")
        x, y, z = (number(part, path=table, line=line, column=column, above=0) for part in parts)
        return x, y, z

    shape, spacing = read_triple("shape_xyz"), read_triple("spacing_mm")
    is_ct = any(cells.get(name) for name in ("shape_xyz", "spacing_mm", "hu_min"))
    return Record(
        file=_resolve(root, cells["file"], table, line),
        kind="ct" if is_ct else "cxr",
        split=split,
        patient_id=patient,
        licence=cells["license"],
        view=cells.get("view", ""),
        mm_per_pixel=read_number("mm_per_pixel") or (spacing[0] if spacing else None),
        sha256=cells.get("sha256") or None,
        set=cells.get("set", ""),
        source_path=cells.get("source_path", ""),
        width=read_integer("width"),
        height=read_integer("height"),
        shape_xyz=None if shape is None else (int(shape[0]), int(shape[1]), int(shape[2])),
        spacing_xyz=spacing,
        kernel=cells.get("kernel", ""),
        others={name: text for name, text in cells.items() if name not in _COLUMNS},
    )


def set_folders(data_dir: Path, sets: Collection[str] | None = None) -> list[Path]:
    """Return the folders with a manifest: `data_dir` itself, or the folders in it, of these names if any are given.

    Raises:
        InputError: no manifest, or no folder of one of these names.
    """
    data_dir, sets = data_dir.expanduser().absolute(), [sets] if isinstance(sets, str) else sets
    if (data_dir / "manifest.csv").is_file():
        folders = [data_dir]
    else:
        folders = sorted(path.parent for path in data_dir.glob("*/manifest.csv"))
    if not folders:
        raise InputError(
            f"{data_dir}: holds no manifest.csv, nor does a folder in it. "
            "Make one with: monai-sr prepare SOURCE DIR OUT, then give OUT here."
        )
    unknown = set(sets or ()) - {folder.name for folder in folders}
    if unknown:
        names, available = ", ".join(sorted(unknown)), ", ".join(folder.name for folder in folders)
        raise InputError(
            f"{data_dir}: no set named {names}; there is {available}. Name sets with --sets, or in the protocol; with "
            "MONAI's train_films.yaml by --films, --validation_films; train_scans.yaml by --scans, --validation_scans."
        )
    return [folder for folder in folders if sets is None or folder.name in sets]


def _read_records(folder: Path) -> tuple[Path, list[Record]]:
    """Return the folder that the files of a set are relative to, and the records of its manifest."""
    table = folder / "manifest.csv"
    rows = read_table(table, _REQUIRED)
    root = _find_root(folder, [cells["file"] for _, cells in rows])
    lines: dict[Path, int] = {}
    records = []
    for line, cells in rows:
        record = record_from_cells(cells, root, table, line)
        if record.file in lines:
            raise InputError(
                f"{table}, line {line}: {cells['file']} was listed in line {lines[record.file]} already. Keep one row."
            )
        lines[record.file] = line
        records.append(record)
    return root, records


def _find_root(folder: Path, files: list[str]) -> Path:
    """Return the folder that `file` is relative to: the manifest's or its parent, whichever has any of the files."""
    for root in (folder, folder.parent):
        if any(os.path.exists(root / file) for file in files if file):  # not an error for a name that is too long
            return root
    return folder.parent if all(file.startswith(f"{folder.name}/") for file in files) else folder


def _resolve(root: Path, file: str, table: Path, line: int) -> Path:
    relative = PurePosixPath(file)
    if not file or relative.is_absolute() or ".." in relative.parts or "\\" in file:
        raise InputError(
            f"{table}, line {line}: file is {file!r}, expected a path inside the set, such as images/a.png."
        )
    return root / relative


def _read_box(cells: Mapping[str, str], record: Record, table: Path, line: int) -> Box:
    """Return the box of a row, in pixels of the stored image."""
    x_min, y_min, x_max, y_max = (number(cells[name], path=table, line=line, column=name) for name in BOX_COLUMNS[2:])
    slice_index = None
    if cells.get("slice_index"):
        slice_index = int(number(cells["slice_index"], path=table, line=line, column="slice_index", above=-1))
    box = Box(cells["finding"], x_min, y_min, x_max, y_max, slice_index, cells.get("reader", ""))
    width, height = record.shape_xyz[:2] if record.shape_xyz else (record.width, record.height)
    if width is None or height is None:
        raise InputError(
            f"{table}, line {line}: the size of {cells['image']} is unknown, so the box cannot be checked. "
            "Fill in width and height in manifest.csv."
        )
    try:
        check_edges(box, width, height)
    except BoxError as error:
        raise InputError(f"{table}, line {line}: {error}") from error
    slices = record.shape_xyz[2] if record.shape_xyz else 1
    if slice_index is not None and slice_index >= slices:
        raise InputError(
            f"{table}, line {line}: slice_index is {slice_index}, but {cells['image']} has {slices} slices "
            "counted from 0. Correct the row."
        )
    return box
