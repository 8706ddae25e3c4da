"""Shapes drawn several times finer than the pixels and averaged; lengths are fractions of the image's width."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Point = tuple[float, float]


class Canvas:
    """A square of pixels to draw on; every method returns ``[size, size]`` float64, 1 where the shape covers a pixel.

    Attributes:
        x, y: ``[size, size]``, centre of each pixel from the top left corner.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.fine = max(2, min(12, 3072 // size))
        centres = (np.arange(size) + 0.5) / size
        self.x, self.y = np.meshgrid(centres, centres)

    def _average(self, drawing: Image.Image) -> np.ndarray:
        return np.asarray(drawing.reduce(self.fine), dtype=np.float64) / 255.0

    def _make_drawing(self) -> tuple[Image.Image, ImageDraw.ImageDraw]:
        drawing = Image.new("L", (self.size * self.fine, self.size * self.fine))
        return drawing, ImageDraw.Draw(drawing)

    def polygon(self, points: Sequence[Point]) -> np.ndarray:
        """Draw one filled outline."""
        return self.polygons([points])

    def polygons(self, shapes: Iterable[Sequence[Point] | np.ndarray]) -> np.ndarray:
        """Draw the union of filled outlines."""
        drawing, pen = self._make_drawing()
        for points in shapes:
            pen.polygon((np.asarray(points) * (self.size * self.fine) - 0.5).ravel().tolist(), fill=255)
        return self._average(drawing)

    def tubes(self, curves: Iterable[Sequence[Point]], width: float) -> np.ndarray:
        """Draw the union of bands of one width along curves."""
        return self.strokes([(points, width) for points in curves])

    def strokes(self, curves: Sequence[tuple[Sequence[Point], float]]) -> np.ndarray:
        """Draw the union of bands along curves of equally many points, each with its own width."""
        middle = np.array([points for points, _ in curves], dtype=np.float64)
        aside = _normals(middle) * np.array([width for _, width in curves])[:, None, None] / 2
        return self.polygons(np.concatenate([middle + aside, (middle - aside)[:, ::-1]], axis=1))

    def text(self, words: str, left_middle: Point, height: float) -> np.ndarray:
        """Draw letters, whose left edge has its middle at `left_middle`."""
        drawing, pen = self._make_drawing()
        scale = self.size * self.fine
        font = ImageFont.load_default(size=height * scale)
        pen.text((left_middle[0] * scale, left_middle[1] * scale), words, fill=255, font=font, anchor="lm")
        return self._average(drawing)

    def rim(self, shape: np.ndarray, thickness: float) -> np.ndarray:
        """Draw the dense outer layer of a bone: the shape minus its blurred copy, at least 0."""
        return np.clip(shape - self.blur(shape, thickness) ** 1.5, 0.0, None) * 1.6 * shape

    def blur(self, image: np.ndarray, sigma: float) -> np.ndarray:
        """Blur an image by a Gaussian; its border is extended."""
        pixels = sigma * self.size
        pad = int(np.ceil(4 * pixels))
        extra = -(self.size + 2 * pad) % 64  # a transform of a length with small factors is several times faster
        padded = np.pad(image, (pad, pad + extra), mode="edge")
        length = len(padded)
        down = np.exp(-2 * (np.pi * pixels * np.fft.fftfreq(length)) ** 2)
        across = np.exp(-2 * (np.pi * pixels * np.fft.rfftfreq(length)) ** 2)
        blurred = np.fft.irfft2(np.fft.rfft2(padded) * down[:, None] * across, s=padded.shape)
        inside = blurred[pad : pad + self.size, pad : pad + self.size]
        return np.clip(inside, image.min(), image.max())  # the transform rings where sigma is below half a pixel


def sigmoid(along: np.ndarray, middle: float, width: float) -> np.ndarray:
    """Return a sigmoid that rises from 0 to 1 around `middle`."""
    return 1.0 / (1.0 + np.exp((middle - along) / width))


def smooth(points: Sequence[Point], closed: bool = True) -> list[Point]:
    """Return a Catmull-Rom spline through the points, eight steps between two of them."""
    knots = np.array(points, dtype=np.float64)
    around = np.vstack([knots[-1], knots, knots[:2]]) if closed else np.vstack([knots[0], knots, knots[-1]])
    step = np.linspace(0.0, 1.0, 8, endpoint=False)[:, None]
    curve = []
    for a, b, c, d in zip(around, around[1:], around[2:], around[3:], strict=False):
        curve.append(
            0.5 * (2 * b + (c - a) * step + (2 * a - 5 * b + 4 * c - d) * step**2 + (3 * b - a - 3 * c + d) * step**3)
        )
    if not closed:
        curve.append(knots[-1:])
    return [(float(x), float(y)) for x, y in np.vstack(curve)]


def band(points: Sequence[Point], widths: Sequence[float]) -> list[Point]:
    """Return the outline of a round-ended band along a curve, whose width follows `widths` from end to end."""
    middle = np.array(points, dtype=np.float64)
    normal = _normals(middle)
    along = np.linspace(0.0, 1.0, len(middle))
    half = np.interp(along, np.linspace(0.0, 1.0, len(widths)), widths)[:, None] / 2
    turn = np.linspace(0.0, np.pi, 9)[1:-1, None]
    forwards = normal[[0, -1]] @ [[0.0, -1.0], [1.0, 0.0]]
    end = middle[-1] + half[-1] * (np.cos(turn) * normal[-1] + np.sin(turn) * forwards[1])
    start = middle[0] - half[0] * (np.cos(turn) * normal[0] + np.sin(turn) * forwards[0])
    outline = np.vstack([middle + half * normal, end, (middle - half * normal)[::-1], start])
    return [(float(x), float(y)) for x, y in outline]


def _normals(curves: np.ndarray) -> np.ndarray:
    """Return unit vectors across curves ``[..., points, 2]``, a quarter turn from forwards."""
    tangent = np.gradient(curves, axis=-2)
    tangent /= np.maximum(np.linalg.norm(tangent, axis=-1, keepdims=True), 1e-12)
    return np.stack([-tangent[..., 1], tangent[..., 0]], axis=-1)


def ellipse(centre: Point, half_width: float, half_height: float, degrees: float) -> list[Point]:
    """Return the outline of an ellipse, rotated clockwise on the image."""
    angle = np.linspace(0.0, 2 * np.pi, 64, endpoint=False)
    x, y = half_width * np.cos(angle), half_height * np.sin(angle)
    turn = np.deg2rad(degrees)
    rotated = zip(x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn), strict=True)
    return [(centre[0] + float(u), centre[1] + float(v)) for u, v in rotated]


def box(left: float, top: float, width: float, height: float) -> list[Point]:
    """Return the outline of an upright rectangle."""
    return [(left, top), (left + width, top), (left + width, top + height), (left, top + height)]
