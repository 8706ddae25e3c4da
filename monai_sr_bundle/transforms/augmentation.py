"""The boxes of a target, and marks drawn into the input that is made from it.

Boxes move with the pixels of a target: findings, rectangles and the image always tell the same place.

Marks of radiographs, as side markers, letters, digits, buttons, plates and lines, are drawn on a copy of the target:
the input is then marked, the target clean, and the network learns to remove them.
"""

from __future__ import annotations

import string
import zlib
from collections.abc import Hashable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from monai.transforms.transform import MapTransform, Randomizable
from PIL import Image, ImageDraw, ImageFont

BOXES, FINDINGS = "boxes_xyxy", "findings"
"""Keys of an item: float32 ``[boxes, 4]``, and as many names. Their number differs, so they cannot be batched."""


def move_boxes(item: Mapping[Hashable, Any], matrix: np.ndarray, rows: int, columns: int) -> dict[Hashable, Any]:
    """Return the boxes of an item after its pixels have been moved: the upright rectangles around the moved corners.

    Args:
        item: dictionary with ``boxes_xyxy`` and `findings`, or with neither.
        matrix: ``[3, 3]``, from old to new positions in pixels ``(x, y, 1)`` from the top left corner.
        rows, columns: size of the moved image, to which boxes are clipped.

    Returns:
        The two keys with the remaining boxes; empty for an item without these keys.
    """
    if BOXES not in item:
        return {}
    boxes = np.asarray(item[BOXES], dtype=np.float64).reshape(-1, 4)
    corners = boxes[:, [[0, 1], [2, 1], [0, 3], [2, 3]]] @ matrix[:2, :2].T + matrix[:2, 2]
    moved = np.hstack([corners.min(axis=1), corners.max(axis=1)]).clip(0, [columns, rows, columns, rows])
    is_inside = (moved[:, :2] < moved[:, 2:]).all(axis=1)
    findings = tuple(name for name, keep in zip(item[FINDINGS], is_inside, strict=True) if keep)
    return {BOXES: moved[is_inside].astype(np.float32), FINDINGS: findings}


class BoxMaskd(MapTransform):
    """Add the union of an item's boxes as an image.

    Args:
        ref_key: key of the image ``[1, rows, columns]``, in whose pixels ``boxes_xyxy`` are.
        out_key: key of the mask: float32 of the same shape, 1 in pixels that a box touches, else 0.
    """

    def __init__(self, ref_key: Hashable, out_key: Hashable = "mask") -> None:
        super().__init__([ref_key])
        self.ref_key, self.out_key = ref_key, out_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        mask = torch.zeros_like(data[self.ref_key], dtype=torch.float32)
        for left, top, right, bottom in data[BOXES]:
            mask[:, int(top) : -int(-bottom // 1), int(left) : -int(-right // 1)] = 1.0
        return {**data, self.out_key: mask}


COUNT = (10, 25)
KINDS = ("circle", "rectangle", "line", "letter", "digit", "side")
FINE = 3
"""Factor by which the drawing is finer than the pixels, over which it is averaged."""


def draw_artifacts(image: np.ndarray, rng: np.random.Generator, count: tuple[int, int] = COUNT) -> np.ndarray:
    """Draw bright marks at random positions on a copy of an image.

    Sizes are those of the published 256-pixel images and grow with the image: circles of radius 5 to 9, rectangles
    with sides of 5 to 14, lines, letters and digits 8 to 18 high, the side markers L and R up to 24. Each has
    one brightness, 0.7 to 1, and soft edges, and darkens no pixel; circles and rectangles are filled or outlined.

    Args:
        image: ``[rows, columns]`` of floats, intensities in ``[0, 1]`` (values outside are allowed); not changed.
        rng: random generator of all marks.
        count: smallest and largest number of marks.

    Returns:
        The marked image, of the image's type.
    """
    rows, columns = image.shape
    drawing = Image.new("L", (columns * FINE, rows * FINE))
    pen = ImageDraw.Draw(drawing)
    pen.fontmode = "1"  # no partial fine pixels: every one above 0 is covered
    unit = FINE * min(rows, columns) / 256
    for _ in range(rng.integers(count[0], count[1] + 1)):
        position = (float(rng.uniform(0, columns * FINE)), float(rng.uniform(0, rows * FINE)))
        brightness = int(rng.integers(179, 256))
        _draw_mark(pen, KINDS[rng.integers(len(KINDS))], position, brightness, unit, rng)
    covered = np.asarray(drawing.point([0] + [255] * 255).reduce(FINE), dtype=np.float32) / 255
    light = np.asarray(drawing.reduce(FINE), dtype=np.float32) / 255
    # Metal never darkens a radiograph.
    return np.asarray(image + np.maximum(light - covered * image, 0).astype(image.dtype))


def _draw_mark(
    pen: ImageDraw.ImageDraw,
    kind: str,
    position: tuple[float, float],
    brightness: int,
    unit: float,
    rng: np.random.Generator,
) -> None:
    x, y = position
    width = max(1, round(unit * rng.uniform(1.0, 2.5)))
    paint: dict[str, Any] = {"outline": brightness, "width": width, "fill": brightness if rng.random() < 0.5 else None}
    if kind == "circle":
        radius = unit * rng.uniform(5, 9)
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), **paint)
    elif kind == "rectangle":
        right, down = unit * rng.uniform(5, 14, 2)
        pen.rectangle((x, y, x + right, y + down), **paint)
    elif kind == "line":
        length, angle = unit * rng.uniform(10, 60), rng.uniform(0, 2 * np.pi)
        pen.line((x, y, x + length * np.cos(angle), y + length * np.sin(angle)), fill=brightness, width=width)
    else:
        signs = {"letter": string.ascii_uppercase, "digit": string.digits, "side": "LR"}[kind]
        height = unit * (rng.uniform(14, 24) if kind == "side" else rng.uniform(8, 18))
        sign, bold = signs[rng.integers(len(signs))], round(unit * rng.uniform(0.0, 0.5))
        pen.text(position, sign, fill=brightness, font=_load_font(round(height)), anchor="mm", stroke_width=bold)


@lru_cache(maxsize=256)
def _load_font(height: int) -> Any:
    # A capital letter is 0.7 of the size of a font.
    return ImageFont.load_default(size=height / 0.7)


class DrawArtifactsd(MapTransform):
    """Add a marked copy of the target; an image always gets the same marks, by its item's `name`.

    Args:
        key: key of the clean target, ``[1, rows, columns]``.
        out_key: key of the marked copy.
    """

    def __init__(self, key: Hashable = "label", out_key: Hashable = "dirty") -> None:
        super().__init__([key])
        self.key, self.out_key = key, out_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        name = zlib.crc32(str(data.get("name", "")).encode())
        return self._add_marks(data, np.random.default_rng([0, name]), COUNT)

    def _add_marks(
        self, data: Mapping[Hashable, Any], rng: np.random.Generator, count: tuple[int, int]
    ) -> dict[Hashable, Any]:
        dirty = draw_artifacts(np.asarray(data[self.key][0]), rng, count)
        return {**data, self.out_key: torch.from_numpy(dirty)[None]}


class RandArtifactsd(DrawArtifactsd, Randomizable):
    """Add a marked copy of the target, with new marks at every call.

    Args:
        prob: share of the images that are marked; the copy of the others is clean.
        key, out_key: see `DrawArtifactsd`.
    """

    def __init__(self, key: Hashable = "label", out_key: Hashable = "dirty", *, prob: float = 1.0) -> None:
        super().__init__(key, out_key)
        self.prob = prob

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        count = COUNT if self.R.random_sample() < self.prob else (0, 0)
        return self._add_marks(data, np.random.default_rng(self.R.randint(2**32, dtype=np.uint32)), count)
