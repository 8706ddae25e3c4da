"""Events of a job: plain records, so that they can come from another process or machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from monai_sr_bundle.errors import SuperResolutionError


@dataclass(frozen=True)
class Listed:
    """The inputs were searched for images.

    Attributes:
        images: number of images that were found.
        processes: number of images that are worked on at the same time; None if that is up to a cluster.
    """

    images: int
    processes: int | None


@dataclass(frozen=True)
class ImageEvent:
    """Something happened to an image.

    Attributes:
        input: path that the user named.
        name: name that tells the images of a folder or zip apart.
    """

    input: str
    name: str


@dataclass(frozen=True)
class Found(ImageEvent):
    """An image was read, and the work on it begins.

    Attributes:
        output: file or folder of the result.
        shape_zyx: slices, rows and columns.
        bits, modality, spacing_source: see `Image` and `Grid`.
        spacing_xyz: millimetres; None where they are unknown. That between slices is None for one slice, and frames.
        bundle, version, scale: the model.
        backend, device: runtime and device that compute the result.
    """

    output: str
    shape_zyx: tuple[int, int, int]
    bits: int
    modality: str
    spacing_xyz: tuple[float, float, float | None] | None
    spacing_source: str
    bundle: str
    version: str
    scale: int
    backend: str
    device: str


@dataclass(frozen=True)
class Progress(ImageEvent):
    """A part of an image is done.

    Attributes:
        fraction: the part, 0 to 1.
        seconds_left: an estimate; None at the beginning.
    """

    fraction: float
    seconds_left: float | None


@dataclass(frozen=True)
class Checked(ImageEvent):
    """All that a dry run finds out about an image.

    Attributes:
        interpolated: whether the image is unlike all that the bundle knows, so that it would be interpolated.
        warnings: one sentence each.
        seconds: estimate of the time in the network, from a small image that was enlarged on this machine.
        memory_bytes: upper bound of the memory that the enlargement takes.
        disk_bytes: size of the result and of its error bars, before compression.
    """

    interpolated: bool
    warnings: tuple[str, ...]
    seconds: float
    memory_bytes: int
    disk_bytes: int


@dataclass(frozen=True)
class Finished(ImageEvent):
    """An image is enlarged and written.

    Attributes:
        written: files and folders.
        shape_zyx: slices, rows and columns of the result.
        interpolated: whether it was interpolated, because it is unlike all that the bundle knows.
        warnings: one sentence each.
        seconds: duration, with reading and writing.
    """

    written: tuple[str, ...]
    shape_zyx: tuple[int, int, int]
    interpolated: bool
    warnings: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class Skipped(ImageEvent):
    """A file was left out.

    Attributes:
        reason: why, as the end of a sentence.
    """

    reason: str


@dataclass(frozen=True)
class Failed(ImageEvent):
    """An image or a file could not be enlarged; the next one follows.

    Attributes:
        error: the reason.
    """

    error: SuperResolutionError


Event = Listed | Found | Progress | Checked | Finished | Skipped | Failed
LAST_EVENTS = (Checked, Finished, Skipped, Failed)
"""Events after which nothing more happens to an image."""
Listener = Callable[[Event], None]
