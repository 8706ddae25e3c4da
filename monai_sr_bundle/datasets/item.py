"""The images of a source and their metadata before any of them is opened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from monai_sr_bundle.boxes.box import Box
from monai_sr_bundle.datasets.manifest import Kind


@dataclass(frozen=True)
class Item:
    """One image to prepare.

    Attributes:
        name: path of the prepared file below `images/`, with `/` and without suffix; unique in its source.
        files: the source file, or all slices of one CT series in any order.
        kind: "cxr" or "ct".
        patient_id, split, licence, view, labels, age, sex: values for the manifest; see `manifest.Record`.
        spacing_xy: published millimetres per pixel along a row and down a column of the picture as it was
            `spacing_size_xy` pixels large; None if only the file may state it.
        spacing_size_xy: columns and rows; None for the size of the source file.
        boxes: boxes of findings in pixels of the picture as it was `boxes_size_xy` large.
        boxes_size_xy: columns and rows; None for the size of the source file.
        shown_path: path of the source for the manifest and messages, relative to the input folder.
    """

    name: str
    files: tuple[Path, ...]
    kind: Kind
    patient_id: str
    split: str
    licence: str
    shown_path: str
    view: str = ""
    labels: tuple[str, ...] = ()
    age: str = ""
    sex: str = ""
    spacing_xy: tuple[float, float] | None = None
    spacing_size_xy: tuple[int, int] | None = None
    boxes: tuple[Box, ...] = ()
    boxes_size_xy: tuple[int, int] | None = None


@dataclass(frozen=True)
class Skipped:
    """A file (or series) that is not prepared, and why."""

    shown_path: str
    reason: str


@dataclass(frozen=True)
class Scan:
    """The images in the input folder of a source.

    Attributes:
        items: images to prepare, in a stable order.
        skipped: files that cannot be prepared, with the reason.
        warnings: remarks about the set, one sentence each.
    """

    items: Sequence[Item]
    skipped: Sequence[Skipped] = ()
    warnings: Sequence[str] = ()
