"""Conversion of stored numbers to the unit range of networks and back, and of the padding of a CT to air and back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from numbers import Real

import numpy as np
from monai_sr_bundle.errors import InputError, UsageError, quote
from monai_sr_bundle.images.image import MODALITIES, Image, named_modality, require_finite

SMALLEST_SIDE = 8
LARGEST_VALUE, SMALLEST_RANGE = 1e15, 1e-30
"""Largest value of a pixel, and smallest difference of two, that arithmetic in float64 does not lose."""
STRIP = 64
"""Number of rows converted at a time: in float64, a whole film would be large and three times as slow."""
Window = tuple[float, float]


def check_window(window: Sequence[float]) -> Window:
    """Return a window as two numbers, or raise UsageError if it is not two rising ones."""
    ends = [float(end) for end in np.atleast_1d(window) if isinstance(end, Real)]
    if len(ends) != 2 or not 0 < ends[1] - ends[0] < LARGEST_VALUE:
        raise UsageError(f"window is {quote(window)}, expected two rising numbers. Leave it out for the bundle's own.")
    return ends[0], ends[1]


def value_window(image: Image, modality: str, window: Window) -> Window:
    """Return the values that become 0 and 1 inside the model.

    CT has a fixed HU window. The window of an 8-bit radiograph is all 256 grey levels; with more bits, of which each
    maker uses another range, it is the range of the pixels. No value is clipped.

    Args:
        image: image to enlarge.
        modality: modality of the bundle: "CXR", "CT" or "any".
        window: window of the bundle, in HU or grey levels of 8 bits.
    """
    low, high = float(window[0]), float(window[1])
    if modality == "CT" or (image.stored_range == (0, 255) and image.slope == 1 and image.intercept == 0):
        return low, high
    extremes = (float(image.pixels.min()), float(image.pixels.max()))
    low, high = sorted(extreme * image.slope + image.intercept for extreme in extremes)
    return (low, high) if high - low > SMALLEST_RANGE else (low, low + 1.0)


def from_stored(image: Image, stored: np.ndarray, window: Window) -> np.ndarray:
    """Convert stored numbers of any shape for the network: float32, 0 and 1 at the window's ends, not clipped."""
    low, high = window
    unit = np.empty(stored.shape, dtype=np.float32)
    for start in range(0, len(stored), STRIP):
        strip = slice(start, start + STRIP)
        values = stored[strip].astype(np.float64) * image.slope + image.intercept
        # Inside the model, larger values are always whiter, as in its training images.
        unit[strip] = (high - values if image.black_is_high else values - low) / (high - low)
    return unit


def stored_limits(image: Image, window: Window) -> tuple[float, float] | None:
    """Return the range of values inside the model that the image's storage can hold; None for floats."""
    if image.stored_range is None:
        return None
    low, high = window
    values = [end * image.slope + image.intercept for end in image.stored_range]
    ends = [(high - value if image.black_is_high else value - low) / (high - low) for value in values]
    return min(ends), max(ends)


def to_stored(image: Image, unit: np.ndarray, window: Window) -> np.ndarray:
    """Convert values of a network to the storage of `image`, rounded and clipped if that holds integers."""
    low, high = window
    above = unit.astype(np.float64) * (high - low)
    stored = ((high - above if image.black_is_high else low + above) - image.intercept) / image.slope
    if image.stored_range is None:
        return stored.astype(image.pixels.dtype)
    return np.clip(np.rint(stored), *image.stored_range).astype(image.pixels.dtype)


def check_pixels(image: Image) -> None:
    """Raise an error if the image is too small or has values that cannot be computed with.

    Raises:
        InputError: smaller than 8x8 pixels; NaN, infinite or enormous values; a slope that leaves no difference.
    """
    _, rows, columns = image.pixels.shape
    if min(rows, columns) < SMALLEST_SIDE:
        raise InputError(
            f"{image.path.name}: {columns}x{rows} pixels, expected at least {SMALLEST_SIDE}x{SMALLEST_SIDE}. "
            "It is too small to predict detail from; choose a larger image."
        )
    require_finite(image.pixels, image.path)
    extremes = (float(image.pixels.min()), float(image.pixels.max()))
    largest = max(abs(extreme * image.slope + image.intercept) for extreme in extremes)
    if not (largest <= LARGEST_VALUE and abs(image.slope) > SMALLEST_RANGE):
        raise InputError(
            f"{image.path.name}: its values reach {largest:g} (stored {extremes[0]:g} to {extremes[1]:g}, slope "
            f"{image.slope:g}, intercept {image.intercept:g}), expected at most {LARGEST_VALUE:g} and a slope above "
            f"{SMALLEST_RANGE:g}. Export it again with another scaling."
        )


def check_modality(image: Image, modality: str, bundle: str, *, force: bool = False) -> tuple[str, ...]:
    """Raise an error if the image has another modality than the bundle, or its file names another one.

    Args:
        image: image to enlarge.
        modality: modality of the bundle: "CXR", "CT" or "any".
        bundle: name of the bundle, for messages.
        force: accept another modality. Default False.

    Returns:
        Remarks on the modality for the user, one sentence each.

    Raises:
        InputError: the modality does not fit and `force` is not set.
    """
    if modality == "any":
        return ()
    named, allowed = named_modality(image), (modality, "unknown", *MODALITIES[modality])
    other = next((each for each in (image.modality, named) if each not in allowed), None)
    if other and not force:
        advice = f"Take a bundle for {other}" if other == image.modality else "Choose another image"
        raise InputError(
            f"{image.path.name}: this is {quote(other)}, but bundle {bundle} is made for {modality} (Modality "
            f"{', '.join(MODALITIES[modality])}). {advice}, or pass --force to use it nevertheless."
        )
    if other:
        return (f"Bundle {bundle} is made for {modality} and was forced onto {quote(other)}.",)
    if image.modality == modality or named != "unknown" or image.format in ("png", "jpeg", "tiff"):
        return ()  # no picture names it: said of each, it says nothing
    words = "a chest X-ray" if modality == "CXR" else modality
    return (f"The file does not name its modality; taken as {words}.",)


AIR = -1000.0
"""HU of air, which takes the place of padding."""
FADE = 12
"""Pixels over which tissue that reaches the padding fades to air: cut off, it is an edge that no anatomy has."""
NEAR_PADDING = 4
"""Pixels from padding whose neighbourhood is half unknown: no detail may be brighter than the source around it."""
PADDING = -1024
"""Highest value of padding in HU; a CT stores it as the least number that its storage can hold, or less."""


def find_padding(hu: np.ndarray, tagged: tuple[float, float] | None = None) -> np.ndarray:
    """Find the pixels that were not reconstructed: `PADDING` or less up to an edge of the slice, along both axes.

    Dark noise in the air around a patient is as low, but does not reach to the edges. A slice of nothing else has none.

    Args:
        hu: ``[..., rows, columns]`` in HU.
        tagged: lowest and highest HU that the file says are padding too. Default: none.

    Returns:
        Booleans of the same shape.
    """
    low = np.asarray(hu) <= PADDING
    if tagged is not None:
        low |= (hu >= tagged[0]) & (hu <= tagged[1])
    padding = reaches_an_edge(low, -1) & reaches_an_edge(low, -2)
    return padding & ~padding.all(axis=(-2, -1), keepdims=True)


class Padding:
    """The padding of a CT: the pixels of its slices that were not reconstructed.

    Each slice is found when it is asked for: booleans of a volume would take half of its memory again.

    Args:
        image: the image.
        part: slices, rows and columns of it, with their starts. Default: all.
    """

    def __init__(self, image: Image, part: tuple[slice, slice, slice] | None = None) -> None:
        self.image = image
        slices, rows, columns = part or tuple(slice(0, size) for size in image.pixels.shape)
        self._slices, self._inside = slices, (rows, columns)
        ends = [end * image.slope + image.intercept for end in image.padding or ()]
        self._tagged = (min(ends), max(ends)) if ends else None

    def __len__(self) -> int:
        return int(self._slices.stop - self._slices.start)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> np.ndarray:
        """Return the padding of a slice of the part, as booleans of its rows and columns."""
        image = self.image
        hu = image.pixels[self._slices.start + index] * image.slope + image.intercept
        return find_padding(hu, self._tagged)[self._inside]


class FilledSlices:
    """The stored slices of a CT with air in place of its padding, into which what lies beside it fades.

    Each slice is filled when it is asked for, and the last few are kept, which neighbours ask for again.

    Args:
        padding: padding of the whole image.
    """

    def __init__(self, padding: Padding) -> None:
        self._padding = padding
        self._fill = lru_cache(maxsize=8)(partial(_fill, padding))  # a method of its own would keep the CT alive

    def __len__(self) -> int:
        return len(self._padding)

    def __getitem__(self, index: int | Sequence[int]) -> np.ndarray:
        """Return a slice, or a stack of slices."""
        return self._fill(index) if isinstance(index, int) else np.stack([self._fill(each) for each in index])


def _fill(padding: Padding, index: int) -> np.ndarray:
    image, mask = padding.image, padding[index]
    pixels = image.pixels[index]
    if not mask.any():
        return pixels
    air = (AIR - image.intercept) / image.slope
    filled, fading = pixels.copy(), _fade(pixels, mask, air)[mask]
    # A storage that begins at 0 HU, as some do, holds no air.
    filled[mask] = fading if image.stored_range is None else np.clip(np.rint(fading), *image.stored_range)
    return filled


def image_padding(image: Image, modality: str) -> Padding | None:
    """Return the padding of a CT; None for an image without.

    Args:
        image: the image.
        modality: modality of the bundle, for an image that does not state its own.
    """
    if "CT" not in (image.modality, modality):
        return None
    padding = Padding(image)
    return padding if any(mask.any() for mask in padding) else None


def fill_padding(image: Image, modality: str) -> tuple[Image, np.ndarray | None]:
    """Replace the padding of a CT by air, into which what lies beside it fades.

    Args:
        image: the image; not changed.
        modality: modality of the bundle, for an image that does not state its own.

    Returns:
        The image to enlarge, and where its padding was, as booleans of its shape; the image itself and None where there
        is no padding.
    """
    padding = image_padding(image, modality)
    if padding is None:
        return image, None
    return replace(image, pixels=FilledSlices(padding)[range(len(padding))]), np.stack(list(padding))


def restore_padding(
    enlarged: np.ndarray,
    source: np.ndarray,
    padding: np.ndarray | Padding | None,
    *,
    bounded: bool,
    part: tuple[slice, slice, slice] | None = None,
) -> None:
    """Put the padding of an image back into its enlargement, by repeating pixels, in place.

    Args:
        enlarged: ``[scale_z * slices, scale_y * rows, scale_x * columns]`` of the part; changed.
        source: ``[slices, rows, columns]`` of the same type, the whole image with its padding.
        padding: booleans of the same shape; None for none.
        bounded: let a pixel at most `NEAR_PADDING` input pixels from padding be no brighter than all of the source, but
            padding, as far around it. An edge at the padding lacks one side, and a network would overshoot. Not for
            results that are made consistent with the input, which bounds them.
        part: slices, rows and columns that were enlarged. Default: all.
    """
    if padding is None:
        return
    slices, *inside = part or tuple(slice(0, size) for size in source.shape)
    scale_z, *scales = (
        large // small for large, small in zip(enlarged.shape, source[slices, *inside].shape, strict=True)
    )
    for index, pixels in enumerate(enlarged):
        number = (slices.start or 0) + index // scale_z
        mask, values = padding[number], source[number]
        if mask.any():
            if bounded:
                near_padding = largest_around(mask, NEAR_PADDING) & ~mask
                brightest = largest_around(np.where(mask, values.min(), values), NEAR_PADDING)
                limits = repeat_pixels(brightest[*inside], scales)
                np.minimum(pixels, limits, out=pixels, where=repeat_pixels(near_padding[*inside], scales))
            repeated = repeat_pixels(mask[*inside], scales)
            pixels[repeated] = repeat_pixels(values[*inside], scales)[repeated]


def largest_around(values: np.ndarray, reach: int) -> np.ndarray:
    """Return the largest value at most `reach` rows and columns from each pixel of ``[..., rows, columns]``.

    Of a mask, it is the mask with all pixels so near to it.
    """
    for axis in (-2, -1):
        largest = values.copy()
        lines, source = np.moveaxis(largest, axis, 0), np.moveaxis(values, axis, 0)
        for step in range(1, reach + 1):
            np.maximum(lines[step:], source[:-step], out=lines[step:])
            np.maximum(lines[:-step], source[step:], out=lines[:-step])
        values = largest
    return values


def repeat_pixels(values: np.ndarray, scales: Sequence[int]) -> np.ndarray:
    """Return ``[rows, columns]`` with every pixel as often along each axis as the factors say."""
    return values.repeat(scales[0], axis=0).repeat(scales[1], axis=1)


def _fade(pixels: np.ndarray, padding: np.ndarray, air: float) -> np.ndarray:
    """Return ``[rows, columns]`` float32 with the padding filled from its border inwards, each step nearer to air."""
    rows, columns = pixels.shape
    # Contrast to air, 0 where it is not yet known; and 1 where it is, to count the pixels in each sum.
    contrast, weight = (np.zeros((rows + 2, columns + 2), dtype=np.float32) for _ in range(2))
    contrast[1:-1, 1:-1], weight[1:-1, 1:-1] = np.where(padding, 0, pixels - np.float32(air)), ~padding
    for step in range(1, FADE):
        total, count = (_sum_of_neighbours(values) for values in (contrast, weight))
        border = (count > 0) & (weight[1:-1, 1:-1] == 0)
        contrast[1:-1, 1:-1][border] = (1 - step / FADE) * total[border] / count[border]
        weight[1:-1, 1:-1][border] = 1
    return np.asarray(np.float32(air) + contrast[1:-1, 1:-1])


def _sum_of_neighbours(values: np.ndarray) -> np.ndarray:
    rows = values[:-2] + values[1:-1] + values[2:]
    return np.asarray(rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:])


def reaches_an_edge(low: np.ndarray, axis: int) -> np.ndarray:
    """Return which true pixels are joined to an edge of the image by true pixels alone, along an axis."""
    from_start = np.logical_and.accumulate(low, axis)
    return np.asarray(from_start | np.flip(np.logical_and.accumulate(np.flip(low, axis), axis), axis))
