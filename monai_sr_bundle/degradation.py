"""From high resolution to low resolution: named, versioned operators for training pairs, evaluation and certificates.

Every reduction is linear and separable, ``low = R @ high @ C.T``, with the matrices of the usual antialiased filters
(Pillow's, which widen the kernel by the factor). Results made with different operators are never compared: the name
of the operator, as `bicubic_antialias_x4`, is part of every number this project prints.

Degradations that only training uses (blur, noise, JPEG) are appended to the name:
`bicubic_antialias_x4+blur0.8+noise2+jpeg70`, applied in that fixed order.

`slab_area_x4` is the loss of resolution along the slices of a CT: a thick slice is the mean of four thin ones (a box
as slice profile). It takes planes of slices and columns (or slices and rows) and leaves the columns as they are.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from PIL import Image as Picture


def cubic_kernel(x: np.ndarray, a: float = -0.5) -> np.ndarray:
    """Return the weights of samples at distances (Keys 1981, equation 15); a is -0.5, as in Pillow, if not given."""
    x = np.abs(x)
    inner = ((a + 2) * x - (a + 3)) * x * x + 1
    outer = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x < 1, inner, np.where(x < 2, outer, 0.0))


def _bilinear(x: np.ndarray) -> np.ndarray:
    return np.maximum(0.0, 1.0 - np.abs(x))


def _area(x: np.ndarray) -> np.ndarray:
    return np.where((x > -0.5) & (x <= 0.5), 1.0, 0.0)


def _lanczos(x: np.ndarray) -> np.ndarray:
    return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0.0)


_KERNELS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], float]] = {
    "bicubic_antialias": (cubic_kernel, 2.0),
    "bilinear_antialias": (_bilinear, 1.0),
    "area": (_area, 0.5),
    "lanczos_antialias": (_lanczos, 3.0),
}
KERNELS = (*_KERNELS, "nearest")
SLAB = "slab_area"
"""Beginning of a name if lines alone are reduced, each to the mean of its part: thin slices to thick ones."""


def along_slices(operator: str) -> bool:
    """Return whether the degradation of this name makes thick slices of thin ones, and leaves the plane alone."""
    return operator.startswith(SLAB)


@lru_cache(maxsize=4)
def reduction_matrix(kernel: str, scale: int, high: int) -> np.ndarray:
    """Matrix that reduces a line of `high` samples by `scale`.

    Args:
        kernel: one of `KERNELS`.
        scale: high-resolution samples per low-resolution sample.
        high: samples of the line, a multiple of `scale`.

    Returns:
        ``[high / scale, high]`` float64, read-only; every row sums to 1.

    Raises:
        ValueError: unknown kernel, or a length that is not a multiple of the scale.
    """
    if kernel not in KERNELS:
        raise ValueError(f"degradation kernel is {kernel!r}, expected one of {', '.join(KERNELS)}.")
    if high % scale:
        raise ValueError(f"{high} samples cannot be reduced by {scale} exactly; crop to a multiple of {scale} first.")
    low = high // scale
    if kernel == "nearest":
        # The sample whose box holds the centre of the output box; to the right of the centre for even factors.
        matrix = np.zeros((low, high))
        matrix[np.arange(low), np.arange(low) * scale + scale // 2] = 1.0
    else:
        function, support = _KERNELS[kernel]
        centre = (np.arange(low) + 0.5) * scale
        offset = (np.arange(high)[None, :] + 0.5 - centre[:, None]) / scale
        # Pillow keeps the samples whose centre lies within the support, rounded outwards to whole samples.
        first = np.maximum(0, np.floor(centre - support * scale + 0.5))[:, None]
        last = np.minimum(high, np.floor(centre + support * scale + 0.5))[:, None]
        inside = (np.arange(high)[None, :] >= first) & (np.arange(high)[None, :] < last)
        matrix = np.where(inside, function(offset), 0.0)
        matrix /= matrix.sum(axis=1, keepdims=True)
    matrix.flags.writeable = False
    return matrix


@dataclass(frozen=True)
class Degradation:
    """A named way from high to low resolution.

    Attributes:
        kernel: one of `KERNELS`.
        scale: high-resolution pixels per low-resolution pixel along rows and columns; of a slab, thin slices per thick
            slice.
        blur: standard deviation in high-resolution pixels of a Gaussian applied first; 0 for none.
        noise: standard deviation of white noise added last, in grey levels of 0 to 255; 0 for none.
        jpeg: JPEG quality of the low-resolution image, 1 to 95; 0 for none.
        slab: reduce the rows of a plane alone, which are slices; its columns stay as they are.
    """

    kernel: str
    scale: int
    blur: float = 0.0
    noise: float = 0.0
    jpeg: int = 0
    slab: bool = False

    @classmethod
    def parse(cls, name: str) -> Degradation:
        """The operator of a name such as `area_x2` or `bicubic_antialias_x4+noise2`.

        Raises:
            ValueError: a name this version does not know.
        """
        match = re.fullmatch(r"(\w+?)_x(\d+)(?:\+blur([\d.]+))?(?:\+noise([\d.]+))?(?:\+jpeg(\d+))?", name)
        if not match or match[1] not in (*KERNELS, SLAB) or int(match[2]) < 1:
            raise ValueError(
                f"degradation is {name!r}, expected KERNEL_xSCALE[+blurS][+noiseS][+jpegQ] with one of the kernels "
                f"{', '.join((*KERNELS, SLAB))}; for example bicubic_antialias_x4."
            )
        blur, noise, jpeg = float(match[3] or 0), float(match[4] or 0), int(match[5] or 0)
        if jpeg > 95:
            raise ValueError(f"degradation {name!r}: JPEG quality is {jpeg}, expected 1 to 95.")
        slab = match[1] == SLAB
        return cls("area" if slab else match[1], int(match[2]), blur, noise, jpeg, slab)

    @property
    def name(self) -> str:
        """The name that `parse` takes, and that stands beside every number."""
        losses = (("blur", self.blur), ("noise", self.noise), ("jpeg", self.jpeg))
        added = "".join(f"+{name}{amount:g}" for name, amount in losses if amount)
        return f"{SLAB if self.slab else self.kernel}_x{self.scale}{added}"

    def reduce(self, high: np.ndarray) -> np.ndarray:
        """Blur and reduce: the linear, noise-free part, which a consistency certificate inverts.

        Args:
            high: ``[..., rows, columns]``, both multiples of `scale`; of a slab, the rows.

        Returns:
            ``[..., rows / scale, columns / scale]`` float64, not clipped, not rounded; of a slab, all columns.
        """
        fewer = self.matrix(high.shape[-2]) @ np.asarray(high, dtype=np.float64)
        return np.asarray(fewer if self.slab else fewer @ self.matrix(high.shape[-1]).T)

    def matrix(self, high: int) -> np.ndarray:
        """Return the matrix that blurs and reduces a line of `high` samples, ``[high / scale, high]`` float64."""
        reduction = reduction_matrix(self.kernel, self.scale, high)
        return reduction @ blur_matrix(self.blur, high) if self.blur else reduction

    def __call__(self, high: np.ndarray, levels: int = 255, rng: np.random.Generator | None = None) -> np.ndarray:
        """The low-resolution image a scanner or archive would have stored.

        Args:
            high: ``[rows, columns]``, intensities in ``[0, 1]`` (beyond is allowed and kept, as for bone in CT).
            levels: number of steps between 0 and 1 that the storage distinguishes: 255 for 8 bits, 1400 for HU in a
                window of 1400; 0 leaves the result unrounded.
            rng: needed when the operator adds noise.

        Returns:
            ``[rows / scale, columns / scale]`` float32, rounded to `levels`.

        Raises:
            ValueError: noise without a random generator, or JPEG of anything but 8 bits.
        """
        low = self.reduce(high)
        if self.noise:
            if rng is None:
                raise ValueError(f"degradation {self.name!r} adds noise: pass a seeded random generator.")
            low = low + rng.normal(0.0, self.noise / 255.0, low.shape)
        if levels:
            low = np.rint(low * levels) / levels
        if self.jpeg:
            if levels != 255:
                raise ValueError(f"degradation {self.name!r} stores a JPEG, which has 255 steps, not {levels}.")
            low = through_jpeg(low, self.jpeg)
        if levels == 255:
            low = np.clip(low, 0.0, 1.0)
        return low.astype(np.float32)


def at_scale(operator: str, scale: int) -> str:
    """Return the name of the operator that does the same for another scale: `area_x2` for `area_x4` and 2.

    Raises:
        ValueError: see `Degradation.parse`.
    """
    return replace(Degradation.parse(operator), scale=scale).name


def blur_matrix(deviation: float, size: int) -> np.ndarray:
    """Return the matrix that blurs a line of `size` samples by a Gaussian: ``[size, size]`` float64, rows sum to 1."""
    offset = np.arange(size)[None, :] - np.arange(size)[:, None]
    matrix = np.exp(-0.5 * (offset / deviation) ** 2)
    return np.asarray(matrix / matrix.sum(axis=1, keepdims=True))


def through_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """Return ``[rows, columns]`` in [0, 1] as a JPEG of 8 bits keeps it, float64."""
    stored = io.BytesIO()
    Picture.fromarray(np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)).save(stored, "JPEG", quality=quality)
    with Picture.open(stored) as picture:
        return np.asarray(picture, dtype=np.float64) / 255.0
