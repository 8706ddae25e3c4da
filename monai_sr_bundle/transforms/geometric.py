"""Random flips, turns, crops, zooms and rotations of a target and its boxes.

They come before the degradation: the low-resolution input is then made from the moved target, so that the pair is
aligned by construction and only one image is resampled.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.transforms.transform import MapTransform, Randomizable
from torch.nn.functional import affine_grid, grid_sample

from monai_sr_bundle.transforms.moved_boxes import moved_boxes


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
        boxes = moved_boxes(data, matrix, rows, columns, least_share=self.least_share)
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
