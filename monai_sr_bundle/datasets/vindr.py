"""VinDr-CXR: 18,000 PA radiographs in DICOM with boxes by radiologists.

Nguyen et al., "VinDr-CXR: An open dataset of chest X-rays with radiologist's annotations", Scientific Data 9:429
(2022), https://doi.org/10.13026/3akn-b287. See docs/data/vindr_cxr.md.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from monai_sr_bundle.boxes.box import Box
from monai_sr_bundle.datasets.item import Item, Scan, Skipped
from monai_sr_bundle.datasets.make_manifest import assign_split
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.table import number, read_table

LICENCE = "PhysioNet Credentialed Health Data License 1.5.0 (no redistribution); Kaggle copy: competition rules"
NO_FINDING = "No finding"


def scan(input_dir: Path, *, official_split: bool = False) -> Scan:
    """Find the DICOM files, their findings and every reader's boxes.

    Args:
        input_dir: folder with `train/` and `test/` with `*.dicom`, and `annotations/annotations_{train,test}.csv` and
            `image_labels_{train,test}.csv` (PhysioNet) or `train.csv` (Kaggle).
        official_split: files in `test/` are the test split, the others are hashed into train and val.

    Raises:
        InputError: no table, a column missing, a bad number, or no folder `test` for the official split.
    """
    tables = [*sorted((input_dir / "annotations").glob("annotations_*.csv")), *sorted(input_dir.glob("train.csv"))]
    if not tables:
        raise InputError(
            f"{input_dir}: holds neither annotations/annotations_train.csv nor train.csv. "
            "Give the folder that VinDr-CXR was unpacked into."
        )
    if official_split and not (input_dir / "test").is_dir():
        raise InputError(
            f"{input_dir}: the official split needs the folder test, which is not there. "
            "Copy it there, or prepare without the official split."
        )
    boxes: dict[str, list[Box]] = defaultdict(list)
    labels: dict[str, set[str]] = defaultdict(set)
    for table in tables:
        _read_boxes(table, boxes, labels)
    for table in sorted((input_dir / "annotations").glob("image_labels_*.csv")):
        _read_labels(table, labels)

    items, skipped, names = [], [], set()
    for path in sorted(path for path in input_dir.rglob("*") if path.suffix.lower() in (".dicom", ".dcm")):
        relative_path = path.relative_to(input_dir).as_posix()
        if path.stem in names:
            skipped.append(Skipped(relative_path, "a file of this name was found before"))
            continue
        names.add(path.stem)
        patient = f"vindr-{path.stem}"
        in_test = official_split and path.relative_to(input_dir).parts[0] == "test"
        findings = labels.get(path.stem, set())
        items.append(
            Item(
                name=path.stem,
                files=(path,),
                kind="cxr",
                patient_id=patient,
                split="test" if in_test else assign_split(patient, test=0.0 if official_split else 0.1),
                licence=LICENCE,
                shown_path=relative_path,
                view="PA",
                # One reader's finding outweighs another's "No finding".
                labels=tuple(sorted(findings - {NO_FINDING} or findings)),
                boxes=tuple(boxes.get(path.stem, ())),
            )
        )
    warnings = ["VinDr-CXR publishes no patient identifiers: every image counts as a patient of its own."]
    absent = len(labels.keys() - names)
    if absent:
        warnings.append(f"{absent} of {len(labels)} annotated images are not in {input_dir}.")
    return Scan(items, skipped, warnings)


def _read_boxes(table: Path, boxes: dict[str, list[Box]], labels: dict[str, set[str]]) -> None:
    edges = ("x_min", "y_min", "x_max", "y_max")
    for line, cells in read_table(table, ("image_id", "class_name", *edges)):
        image, finding = cells["image_id"], cells["class_name"]
        labels[image].add(finding)
        if any(cells[name] for name in edges):
            x_min, y_min, x_max, y_max = (number(cells[name], path=table, line=line, column=name) for name in edges)
            boxes[image].append(Box(finding, x_min, y_min, x_max, y_max, reader=cells.get("rad_id", "")))


def _read_labels(table: Path, labels: dict[str, set[str]]) -> None:
    for line, cells in read_table(table, ("image_id",)):
        for name, value in cells.items():
            is_finding = name not in ("image_id", "rad_id") and value != ""
            if is_finding and number(value, path=table, line=line, column=name) > 0:
                labels[cells["image_id"]].add(name)
