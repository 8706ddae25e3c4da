"""NIH ChestX-ray14: 112,120 frontal radiographs of 30,805 patients, 1024x1024 PNG.

Wang et al., "ChestX-ray8: Hospital-scale Chest X-ray Database and Benchmarks on Weakly-Supervised Classification and
Localization of Common Thorax Diseases", CVPR 2017. See docs/data/nih_chestxray14.md.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from monai_sr_bundle.boxes.box import Box
from monai_sr_bundle.datasets.item import Item, Scan, Skipped
from monai_sr_bundle.datasets.make_manifest import assign_split
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.table import number, read_table

LICENCE = "NIH Clinical Center ChestX-ray14 terms (free use and redistribution with attribution; CC0 on Kaggle)"
BOX_SIZE_XY = (1024, 1024)
"""Columns and rows of the published pictures, in whose pixels BBox_List_2017.csv is."""

# The header was split at its own commas: one title, "OriginalImage[Width,Height]", became two columns.
_ORIGINAL = (
    ("OriginalImage[Width", "Height]", "OriginalImagePixelSpacing[x", "y]"),
    ("OriginalImageWidth", "OriginalImageHeight", "OriginalImagePixelSpacing_x", "OriginalImagePixelSpacing_y"),
)


def scan(input_dir: Path, *, official_split: bool = False) -> Scan:
    """Find the pictures, their patients and their boxes.

    Args:
        input_dir: folder with `Data_Entry_2017*.csv` (or `sample_labels.csv`), pictures in `images*/images/` or
            `images/`, and optionally `BBox_List_2017.csv`, `train_val_list.txt` and `test_list.txt`.
        official_split: patients of `test_list.txt` are the test split, the others are hashed into train and val.

    Raises:
        InputError: no table, a column missing, a bad number, or no list for the official split.
    """
    tables = sorted(input_dir.glob("Data_Entry_2017*.csv")) or sorted(input_dir.glob("sample_labels.csv"))
    if not tables:
        raise InputError(
            f"{input_dir}: holds no Data_Entry_2017*.csv. Give the folder that the NIH files were unpacked into."
        )
    # The last by name is the corrected edition, Data_Entry_2017_v2020.csv.
    table = tables[-1]
    rows = {cells["Image Index"]: (line, cells) for line, cells in read_table(table, ("Image Index", "Patient ID"))}
    boxes = _read_boxes(input_dir / "BBox_List_2017.csv")
    official = _read_official_split(input_dir) if official_split else None

    items, skipped, names = [], [], set()
    for path in sorted(input_dir.rglob("*.png")):
        relative_path = path.relative_to(input_dir).as_posix()
        if path.name in names:
            skipped.append(Skipped(relative_path, "a picture of this name was found before"))
        elif path.name not in rows:
            skipped.append(Skipped(relative_path, f"not in {table.name}"))
        elif official is not None and path.name not in official:
            skipped.append(Skipped(relative_path, "in neither train_val_list.txt nor test_list.txt"))
        else:
            line, cells = rows[path.name]
            spacing, size = _read_spacing(cells, table, line)
            patient = f"nih-{int(number(cells['Patient ID'], path=table, line=line, column='Patient ID')):08d}"
            in_test = official is not None and official[path.name] == "test"
            items.append(
                Item(
                    name=path.stem,
                    files=(path,),
                    kind="cxr",
                    patient_id=patient,
                    split="test" if in_test else assign_split(patient, test=0.1 if official is None else 0.0),
                    licence=LICENCE,
                    shown_path=relative_path,
                    view=cells.get("View Position", ""),
                    labels=tuple(filter(None, cells.get("Finding Labels", "").split("|"))),
                    age=cells.get("Patient Age", "").rstrip("Y").lstrip("0"),
                    sex=cells.get("Patient Gender", "") or cells.get("Patient Sex", ""),
                    spacing_xy=spacing,
                    spacing_size_xy=size,
                    boxes=tuple(boxes.get(path.name, ())),
                    boxes_size_xy=BOX_SIZE_XY,
                )
            )
        names.add(path.name)
    absent = len(rows.keys() - names)
    warnings = [f"{absent} of {len(rows)} pictures of {table.name} are not in {input_dir}."] if absent else []
    return Scan(items, skipped, warnings)


def _read_spacing(
    cells: dict[str, str], table: Path, line: int
) -> tuple[tuple[float, float] | None, tuple[int, int] | None]:
    """Return the millimetres per pixel and the size of the radiograph before NIH resized it to 1024x1024."""
    for names in _ORIGINAL:
        if all(cells.get(name) for name in names):
            width, height, x, y = (number(cells[name], path=table, line=line, column=name, above=0) for name in names)
            return (x, y), (int(width), int(height))
    return None, None


def _read_boxes(table: Path) -> dict[str, list[Box]]:
    boxes: dict[str, list[Box]] = defaultdict(list)
    if table.exists():
        names = ("Bbox [x", "y", "w", "h]")
        for line, cells in read_table(table, ("Image Index", "Finding Label", *names)):
            x, y, width, height = (number(cells[name], path=table, line=line, column=name) for name in names)
            boxes[cells["Image Index"]].append(Box(cells["Finding Label"], x, y, x + width, y + height))
    return boxes


def _read_official_split(input_dir: Path) -> dict[str, str]:
    splits: dict[str, str] = {}
    for name, split in (("train_val_list.txt", "train_val"), ("test_list.txt", "test")):
        path = input_dir / name
        try:
            splits |= dict.fromkeys(path.read_text(encoding="utf-8").split(), split)
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"{path}: the official split needs this list, but it cannot be read ({error}). "
                "Copy it there, or prepare without the official split."
            ) from error
    return splits
