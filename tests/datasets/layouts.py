"""Sets as their publishers lay them out, tiny and drawn by rule: no patient is in them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from monai_sr_bundle.datasets.make_manifest import assign_split


def chest(width: int = 64, height: int = 64, dtype: str = "uint8", top: int = 255) -> np.ndarray:
    """``[height, width]``: a smooth slope from 0 to `top` with two dark lungs."""
    y, x = np.mgrid[0:height, 0:width] / np.array([height, width]).reshape(2, 1, 1)
    lungs = np.exp(-((np.abs(x - 0.5) - 0.25) ** 2 + (y - 0.5) ** 2) / 0.02)
    return np.rint(top * np.clip((x + y) / 2 * (1 - 0.8 * lungs), 0, 1)).astype(dtype)


def thorax(slices: int = 6, side: int = 24) -> np.ndarray:
    """``[slices, side, side]`` int16, stored so that intercept -1024 gives HU: air, lung and tissue."""
    volume = np.full((slices, side, side), 24, "int16")
    volume[:, 4:20, 2:22] = 1064
    volume[:, 6:18, 4:10] = 200
    volume[:, 6:18, 14:20] = 200
    return volume + np.arange(slices, dtype="int16")[:, None, None]


def picture(path: Path, pixels: np.ndarray | None = None, **save: Any) -> Path:
    """One picture file; its format follows from the name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(chest() if pixels is None else pixels).save(path, **save)
    return path


def table(path: Path, header: str, *rows: str) -> Path:
    """A CSV file from its lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *rows, ""]))
    return path


def skipped(folder: Path) -> dict[str, str]:
    """Return the reason why each file that is missing in a prepared set was left out."""
    with (folder / "skipped.csv").open(newline="") as stream:
        return {row["file"]: row["reason"] for row in csv.DictReader(stream)}


def files_below(folder: Path) -> dict[str, bytes]:
    """Every file of a folder with its content, to show that nothing changed."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


NIH_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
)


def nih(folder: Path, patients: Sequence[int] = (1, 2, 3), images: int = 2, side: int = 128) -> Path:
    """NIH ChestX-ray14: `images` pictures per patient over two of its image folders, 3056x2544 at 0.139 mm before."""
    rows = []
    for patient in patients:
        for index in range(images):
            name = f"{patient:08d}_{index:03d}.png"
            picture(folder / f"images_{1 + patient % 2:03d}" / "images" / name, chest(side, side))
            rows.append(f"{name},Effusion|Nodule,{index},{patient},058Y,F,AP,3056,2544,0.139,0.139,")
    table(folder / "Data_Entry_2017.csv", NIH_HEADER, *rows)
    table(
        folder / "BBox_List_2017.csv",
        "Image Index,Finding Label,Bbox [x,y,w,h],,,",
        f"{patients[0]:08d}_000.png,Nodule,256.0,512.0,128.0,64.0,,,",
    )
    return folder


def split_of(split: str, pattern: str) -> int:
    """The first number whose patient, named by `pattern`, falls into a split."""
    return next(number for number in range(1, 1000) if assign_split(pattern.format(number)) == split)
