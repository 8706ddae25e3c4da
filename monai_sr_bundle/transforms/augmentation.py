"""Augmentations of a target and its boxes, before the input is made from it, and marks drawn into the input.

The pair is then aligned by construction and only one image is resampled. The published methods' augmentations have
names; the papers name the steps, the ranges are ours. Boxes move with the pixels: findings, rectangles and the image
always tell the same place.

Marks of radiographs, as side markers, letters, digits, buttons, plates and lines, are drawn on a copy of the target:
the input is then marked, the target clean, and the network learns to remove them.
"""

from __future__ import annotations

import string
import zlib
from collections.abc import Callable, Hashable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from monai.transforms.compose import Compose, OneOf
from monai.transforms.transform import MapTransform, Randomizable, Transform
from monai.transforms.utility.dictionary import Identityd
from PIL import Image, ImageDraw, ImageFont
from torch.nn.functional import affine_grid, grid_sample

from monai_sr_bundle.errors import InputError


def _flip_turn_crop_cutout() -> list[Transform]:
    changed = Compose([RandGeometryd("label", flip=0.5, turns=True, window=(0.7, 1.0)), RandCutoutd("label")])
    # One random draw decides about both, so that 30 % of the images are unchanged.
    return [OneOf([changed, Identityd("label")], weights=[0.7, 0.3])]


_SETS: dict[str, Callable[[], list[Transform]]] = {
    "none": list,
    "flip_turn_crop_cutout": _flip_turn_crop_cutout,
    "resize_crop_zoom_rotate": lambda: [
        RandGeometryd("label", window=(0.8, 1.0), zoom=(0.9, 1.1), degrees=(0.0, 10.0))
    ],
    "rotated_copy": lambda: [RandGeometryd("label", prob=0.5, degrees=(20.0, 20.0))],
}
NAMES = tuple(_SETS)


def augmentation(name: str) -> list[Transform]:
    """Return the random transforms of a named augmentation, for the `label` before the input is made from it.

    - "none": no transforms.
    - "flip_turn_crop_cutout": flips, right-angle turns, a random window enlarged to the image's size, and cutout;
      together on 70 % of the images.
    - "resize_crop_zoom_rotate": a random window enlarged to the image's size, zoom and a rotation of up to 10 degrees.
    - "rotated_copy": half of the images are rotated by 20 degrees, left or right.

    Args:
        name: one of `NAMES`. `boxes_xyxy` and `findings` move with the pixels.

    Raises:
        InputError: an unknown name.
    """
    if name not in _SETS:
        raise InputError(
            f"augmentation is {name!r}, expected one of {', '.join(NAMES)}. Correct it in the bundle's model.yaml "
            "or in the argument."
        )
    return _SETS[name]()


BOXES, FINDINGS = "boxes_xyxy", "findings"
"""Keys of an item: float32 ``[boxes, 4]``, and as many names. Their number differs, so they cannot be batched."""


def move_boxes(
    item: Mapping[Hashable, Any], matrix: np.ndarray, rows: int, columns: int, *, least_share: float = 0.0
) -> dict[Hashable, Any]:
    """Return the boxes of an item after its pixels have been moved: the upright rectangles around the moved corners.

    Args:
        item: dictionary with ``boxes_xyxy`` and `findings`, or with neither.
        matrix: ``[3, 3]``, from old to new positions in pixels ``(x, y, 1)`` from the top left corner.
        rows, columns: size of the moved image, to which boxes are clipped.
        least_share: smallest share of its area that a clipped box keeps, or it is dropped. Default 0.

    Returns:
        The two keys with the remaining boxes; empty for an item without these keys.
    """
    if BOXES not in item:
        return {}
    boxes = np.asarray(item[BOXES], dtype=np.float64).reshape(-1, 4)
    corners = boxes[:, [[0, 1], [2, 1], [0, 3], [2, 3]]] @ matrix[:2, :2].T + matrix[:2, 2]
    around = np.hstack([corners.min(axis=1), corners.max(axis=1)])
    inside = around.clip(0, [columns, rows, columns, rows])
    is_inside = (area(inside) > 0) & (area(inside) >= least_share * area(around))
    findings = tuple(name for name, keep in zip(item[FINDINGS], is_inside, strict=True) if keep)
    return {BOXES: inside[is_inside].astype(np.float32), FINDINGS: findings}


def area(boxes: np.ndarray) -> np.ndarray:
    """Return the area of each of ``[boxes, 4]`` in pixels."""
    return np.asarray((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))


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


class RandGeometryd(MapTransform, Randomizable):
    """Move an image at random, and its boxes with it.

    Flips and right-angle turns move whole pixels. Crop, zoom and rotation follow in one affine, resampled once by
    bicubic interpolation; the border is extended and values stay in the range of the image. Enlarging
    adds no detail, so large windows keep the target sharp.

    Args:
        key: key of ``[1, rows, columns]``; ``boxes_xyxy`` and `findings` of the item move with it, if it has any.
        prob: share of the images that are moved, by all of the following transforms.
        flip: probability of a flip, along rows and columns each.
        turns: right-angle turns, all four equally likely; half of them swap rows and columns.
        window: smallest and largest side of a random window that is enlarged to the image's size, as a share of the
            image's side.
        zoom: smallest and largest factor of size about the centre.
        degrees: smallest and largest angle of a rotation about the centre, in either direction.
        least_share: boxes of which less than this share of the area stays in the image are dropped.
    """

    def __init__(
        self,
        key: Hashable,
        *,
        prob: float = 1.0,
        flip: float = 0.0,
        turns: bool = False,
        window: tuple[float, float] = (1.0, 1.0),
        zoom: tuple[float, float] = (1.0, 1.0),
        degrees: tuple[float, float] = (0.0, 0.0),
        least_share: float = 0.1,
    ) -> None:
        super().__init__([key])
        self.key, self.prob, self.flip, self.turns = key, prob, flip, turns
        self.window, self.zoom, self.degrees, self.least_share = window, zoom, degrees, least_share

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        if self.R.random_sample() >= self.prob:
            return dict(data)
        image: torch.Tensor = data[self.key]
        matrix = np.eye(3)
        for axis in (1, 2):
            if self.R.random_sample() < self.flip:
                matrix = _make_flip_matrix(axis, image) @ matrix
                image = image.flip(axis)
        for _ in range(self.R.randint(4) if self.turns else 0):
            matrix = _make_turn_matrix(image) @ matrix
            image = image.rot90(1, (1, 2))
        affine = self._affine(image)
        if not np.array_equal(affine, np.eye(3)):
            matrix = affine @ matrix
            image = resample(image, affine)
        _, rows, columns = image.shape
        boxes = move_boxes(data, matrix, rows, columns, least_share=self.least_share)
        return {**data, self.key: image.contiguous(), **boxes}

    def _affine(self, image: torch.Tensor) -> np.ndarray:
        """Draw a random affine of crop, zoom and rotation, from old to new positions."""
        _, rows, columns = image.shape
        side = self.R.uniform(*self.window)
        left, top = self.R.uniform(0, 1, 2) * (1 - side) * (columns, rows)
        size = self.R.uniform(*self.zoom)
        angle = np.deg2rad(self.R.uniform(*self.degrees)) * self.R.choice([-1, 1])
        crop = np.array([[1 / side, 0, -left / side], [0, 1 / side, -top / side], [0, 0, 1]])
        turn = size * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        centre = np.array([columns, rows]) / 2
        about_centre = np.eye(3)
        about_centre[:2, :2], about_centre[:2, 2] = turn, centre - turn @ centre
        return np.asarray(about_centre @ crop)


def resample(image: torch.Tensor, matrix: np.ndarray) -> torch.Tensor:
    """Move an image by an affine with bicubic interpolation, without changing its size; extend its border.

    Args:
        image: ``[1, rows, columns]``.
        matrix: ``[3, 3]``, from old to new positions in pixels ``(x, y, 1)`` from the top left corner.

    Returns:
        ``[1, rows, columns]`` in the range of the image.
    """
    _, rows, columns = image.shape
    # The sampler counts from -1 at the left and upper edge to 1 at the right and lower one, from new to old positions.
    unit = np.array([[2 / columns, 0, -1], [0, 2 / rows, -1], [0, 0, 1]])
    back = torch.from_numpy((unit @ np.linalg.inv(matrix) @ np.linalg.inv(unit))[:2]).to(image)
    grid = affine_grid(back[None], [1, 1, rows, columns], align_corners=False)
    moved = grid_sample(image[None], grid, mode="bicubic", padding_mode="border", align_corners=False)[0]
    return moved.clamp(image.min(), image.max())


def _make_flip_matrix(axis: int, image: torch.Tensor) -> np.ndarray:
    matrix = np.eye(3)
    index = 2 - axis  # axis 2 runs along x
    matrix[index, index], matrix[index, 2] = -1, image.shape[axis]
    return matrix


def _make_turn_matrix(image: torch.Tensor) -> np.ndarray:
    """Return the matrix of a quarter turn counter-clockwise: right becomes up."""
    return np.array([[0, 1, 0], [-1, 0, image.shape[2]], [0, 0, 1]], dtype=np.float64)


class RandCutoutd(MapTransform, Randomizable):
    """Set random rectangles of a target to one value, before the input is made from it; its boxes stay.

    DeVries and Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout", 2017,
    https://arxiv.org/abs/1708.04552. MONAI's RandCoarseDropout counts in pixels, not in shares of the image, and writes
    into its input.

    Args:
        key: key of the target ``[1, rows, columns]``, which is copied.
        prob: share of the images that are cut.
        count: smallest and largest number of rectangles.
        side: smallest and largest side of a rectangle, as a share of the image's side.
        value: value of the rectangles. Default 0.
    """

    def __init__(
        self,
        key: Hashable,
        *,
        prob: float = 1.0,
        count: tuple[int, int] = (1, 3),
        side: tuple[float, float] = (0.06, 0.2),
        value: float = 0.0,
    ) -> None:
        super().__init__([key])
        self.key, self.prob, self.count, self.side, self.value = key, prob, count, side, value

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        if self.R.random_sample() >= self.prob:
            return dict(data)
        image: torch.Tensor = data[self.key].clone()
        _, rows, columns = image.shape
        for _ in range(self.R.randint(self.count[0], self.count[1] + 1)):
            height, width = (max(1, round(n * self.R.uniform(*self.side))) for n in (rows, columns))
            top, left = self.R.randint(rows - height + 1), self.R.randint(columns - width + 1)
            image[:, top : top + height, left : left + width] = self.value
        return {**data, self.key: image}


COUNT = (10, 25)
KINDS = ("circle", "rectangle", "line", "letter", "digit", "side")
FINE = 3
"""Factor by which the drawing is finer than the pixels, over which it is averaged."""


def draw_artifacts(
    image: np.ndarray, rng: np.random.Generator, count: tuple[int, int] = COUNT
) -> tuple[np.ndarray, np.ndarray]:
    """Draw bright marks at random positions on a copy of an image.

    Sizes are those of the published 256-pixel images and grow with the image: circles of radius 5 to 9, rectangles
    with sides of 5 to 14, lines, letters and digits 8 to 18 high, the side markers L and R up to 24. Each has
    one brightness, 0.7 to 1, and soft edges, and darkens no pixel; circles and rectangles are filled or outlined.

    Args:
        image: ``[rows, columns]`` of floats, intensities in ``[0, 1]`` (values outside are allowed); not changed.
        rng: random generator of all marks.
        count: smallest and largest number of marks.

    Returns:
        The marked image, of the image's type, and the mask of the pixels in which it differs, bool.
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
    dirty = image + np.maximum(light - covered * image, 0).astype(image.dtype)  # metal never darkens a radiograph
    return dirty, dirty != image


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
    """Add a marked copy of the target; with one seed, an image always gets the same marks.

    Args:
        key: key of the clean target, ``[1, rows, columns]``.
        out_key: key of the marked copy.
        seed: seed of the marks, combined with the item's `name`, so that images differ.
    """

    def __init__(self, key: Hashable = "label", out_key: Hashable = "dirty", *, seed: int = 0) -> None:
        super().__init__([key])
        self.key, self.out_key, self.seed = key, out_key, seed

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        name = zlib.crc32(str(data.get("name", "")).encode())
        return self._add_marks(data, np.random.default_rng([self.seed, name]), COUNT)

    def _add_marks(
        self, data: Mapping[Hashable, Any], rng: np.random.Generator, count: tuple[int, int]
    ) -> dict[Hashable, Any]:
        dirty, _ = draw_artifacts(np.asarray(data[self.key][0]), rng, count)
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
