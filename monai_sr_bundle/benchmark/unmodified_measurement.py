"""Enlarge images as they are stored, as a user does, by every method of a protocol of real conditions, and measure."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from monai_sr_bundle.backends.backend import DeviceName
from monai_sr_bundle.benchmark.film_protocol import FilmProtocol
from monai_sr_bundle.benchmark.protocol import Row
from monai_sr_bundle.benchmark.unmodified import (
    find_blocks,
    find_edges,
    find_flat_blocks,
    measure_disagreement,
    measure_edges,
    measure_near_padding,
    measure_spread,
)
from monai_sr_bundle.engine.result import Result
from monai_sr_bundle.engine.session import EnhanceOptions, Session
from monai_sr_bundle.images.geometry import Region
from monai_sr_bundle.images.image import Image
from monai_sr_bundle.images.one_image import read_one
from monai_sr_bundle.images.unit import NEAR_PADDING, fill_padding, largest_around
from monai_sr_bundle.report.preview import slice_values
from monai_sr_bundle.shipped_bundles import find_bundle

FIGURES = (
    *("noise", "edge_width", "edge_width_mm", "overshoot", "near_padding"),
    *("disagreement", "flicker", "interpolated", "warned"),
)
"""Figures of an unmodified image; lengths in input pixels, values in grey levels or HU, shares of 0 or 1."""
LARGEST_SIDE = 512
"""Rows and columns in the middle of an image that are enlarged at most."""
SLICES = 5
"""Slices of a volume that are given to a method: the measured pair, with neighbours on both sides."""
TISSUE = {"CXR": (51.0, 242.0), "CT": (-200.0, 200.0)}
"""Means of blocks that noise is measured in: neither black border nor burnt out; soft tissue."""
BODY = (-950.0, 3071.0)
"""Means in HU of blocks in which slices are compared: all of the body, lungs too."""
LEAST_STEP = {"CXR": 20.0, "CT": 200.0}
"""Least difference of the two sides of an edge, in grey levels or HU."""


class UnmodifiedMeasurement:
    """A function of an image that gives the figures of all methods on it, enlarged as it is stored.

    Args:
        protocol: the protocol.
        device: device of the bundles.

    Returns:
        `FIGURES`, ``[figures, scales, rows]``; NaN where there is nothing to measure, where a method does not enlarge
        by the factor, and for interpolations but bicubic, which no user gets.

    Raises:
        BundleError: see `Session`.
    """

    def __init__(self, protocol: FilmProtocol, device: DeviceName) -> None:
        self.protocol = protocol
        self.sessions = [[_open_session(row, scale, device) for row in protocol.rows] for scale in protocol.scales]

    def __call__(self, item: Mapping[Hashable, Any]) -> np.ndarray:
        protocol = self.protocol
        image, index = _read_slices(str(item["path"]), int(item["slice_index"]))
        # Pictures do not say what they are, nor do single slices of CT in NIfTI.
        image = replace(image, modality=protocol.modality)  # type: ignore[arg-type]  # checked by read_film_protocol
        unmodified = _UnmodifiedImage(image, index, protocol.modality)
        values = np.full((len(FIGURES), len(protocol.scales), len(protocol.rows)), np.nan)
        for scale_index, sessions in enumerate(self.sessions):
            for row_index, (row, session) in enumerate(zip(protocol.rows, sessions, strict=True)):
                if session is not None:
                    options = EnhanceOptions(row.options, unmodified.slices)
                    values[:, scale_index, row_index] = unmodified.measure(
                        session.enhance(image, options, unmodified.region)
                    )
        return values


class _UnmodifiedImage:
    """An image with the places that are measured, the same for every method and factor."""

    def __init__(self, image: Image, index: int, modality: str) -> None:
        count, *shape = image.pixels.shape
        top, left = (max(0, side - LARGEST_SIDE) // 2 for side in shape)
        self.notes = image.notes
        self.region = Region(top, min(shape[0], top + LARGEST_SIDE), left, min(shape[1], left + LARGEST_SIDE))
        first = min(index, max(0, count - 2))
        self.slices, self.measured = (first, min(count, first + 2)), index - first
        part = (slice(*self.slices), *self.region.as_slices)
        padding = fill_padding(image, modality)[1]
        self.padding = np.zeros(image.pixels.shape, dtype=bool)[part] if padding is None else padding[part]
        pair = [slice_values(image, each)[self.region.as_slices] for each in range(*self.slices)]
        usable = [~largest_around(each, NEAR_PADDING) for each in self.padding]
        self.values, self.usable = pair[self.measured], usable[self.measured]
        self.flat = find_flat_blocks(self.values, self.usable, TISSUE[modality])
        self.edges = find_edges(self.values, self.usable, LEAST_STEP[modality])
        self.body = np.logical_and.reduce([find_blocks(*each, BODY) for each in zip(pair, usable, strict=True)])
        x, y, _ = image.grid.spacing_xyz
        self.spacing_mm = float(np.sqrt(x * y)) if image.grid.in_millimetres else np.nan

    def measure(self, result: Result) -> list[float]:
        """Return the `FIGURES` of a result."""
        pair = [slice_values(result.image, index) for index in range(len(self.padding))]
        enlarged, scale = pair[self.measured], result.bundle.scale
        width, overshoot = measure_edges(enlarged, self.values, self.edges)
        interpolated = bool(result.provenance.instead_of)
        return [
            measure_spread(enlarged, scale, self.flat),
            width,
            width * self.spacing_mm,
            overshoot,
            measure_near_padding(enlarged, self.values, self.padding[self.measured]),
            measure_disagreement(enlarged, self.values, self.usable),
            measure_spread(pair[-1] - pair[0], scale, self.body) if len(pair) > 1 else np.nan,
            float(interpolated),
            float(not interpolated and any(sentence not in self.notes for sentence in result.warnings)),
        ]


def _open_session(row: Row, scale: int, device: DeviceName) -> Session | None:
    if row.method == "bicubic":
        return Session(find_bundle("bicubic").at_scale(scale), row.backend, device)  # type: ignore[arg-type]
    bundle = row.bundle(scale)
    if bundle is None or bundle.scale != scale:
        return None
    return Session(bundle, row.backend, device)  # type: ignore[arg-type]  # checked by parse_rows


def _read_slices(path: str, index: int) -> tuple[Image, int]:
    """Return a slice with its neighbours, and its index among them; an image of one slice as it is."""
    image = _read(path)
    count, *shape = image.pixels.shape
    start = max(0, min(index - SLICES // 2, count - SLICES))
    end = min(count, start + SLICES)
    grid = image.grid.cropped((start, 0, 0), (end - start, *shape))
    return replace(image, pixels=image.pixels[start:end], grid=grid), index - start


@lru_cache(maxsize=1)
def _read(path: str) -> Image:
    # The slices of one volume follow each other.
    return read_one(Path(path))
