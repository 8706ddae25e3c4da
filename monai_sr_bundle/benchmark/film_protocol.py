"""Protocols of real conditions: images of several sets, each reduced with several losses and by several factors.

A text in `configs/protocols` with a key `losses` is such a protocol. It compares on films or CT slices as they are:
what a bundle says about the operator and the reduction it was trained with plays no part.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar

from monai_sr_bundle.benchmark.protocol import SPLITS, Row, check_keys, choose_rows, parse_rows, read_text
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.transforms.random_degradation import KERNELS, FilmDegradation, ScanDegradation

DEGRADATIONS: dict[str, type[FilmDegradation] | type[ScanDegradation]] = {"CXR": FilmDegradation, "CT": ScanDegradation}
"""The class that makes a loss of resolution, by modality."""
_RANGES = {
    "blur": (0, math.inf), "noise": (0, math.inf), "noise_correlation": (0, math.inf), "noise_growth": (0, 1),
    "noise_cutoff": (0.01, math.inf), "sharpening": (0, math.inf), "sharpening_radius": (0.1, math.inf),
    "jpeg_quality": (0, 97),
}  # fmt: skip


@dataclass(frozen=True)
class FilmSet:
    """Films or CT of one folder of the data.

    Attributes:
        label: name of the set in the tables.
        folder: folder with the manifest.
        files: pattern of the file names, such as "kermany*". Default: all of the split.
        kernels: pattern of the reconstruction kernels of CT, such as "B[23]*". Default: all.
        reduce: whole factor that the stored images are reduced by first, antialiased bicubic. Default 1.
    """

    label: str
    folder: str
    files: str = "*"
    kernels: str = "*"
    reduce: int = 1


@dataclass(frozen=True)
class FilmLoss:
    """One way in which images lose their resolution.

    Attributes:
        label: name of the loss in the tables; the noise depends on it.
        attributes: attributes of the modality's degradation, all but the scale.
        modality: "CXR" or "CT". Default "CXR".
    """

    label: str
    attributes: Mapping[str, Any]
    modality: str = "CXR"

    def degradation(self, scale: int) -> FilmDegradation | ScanDegradation:
        return DEGRADATIONS[self.modality](scale, **self.attributes)


@dataclass(frozen=True)
class FilmProtocol:
    """A comparison of methods on every set of images, with every loss, by every factor.

    Attributes:
        name: name of its text.
        title, about: a headline and some sentences.
        sets: the images.
        losses: the losses of resolution.
        scales: output pixels per input pixel along both axes, or thin slices per thick one.
        rows: the methods, with bicubic interpolation among them.
        split: "train", "val" or "test".
        modality: "CXR" or "CT".
        along_slices: whether a loss averages as many neighbouring slices of a CT as the factor says, which methods make
            thin again; rows and columns stay. Then there is one loss, without attributes.
        unmodified: images of each set that are also enlarged as they are stored; of sets that are reduced first, none.
            Default 0.
        reference: method that the others are compared with.
        trust: False, as such a protocol measures fidelity alone.
    """

    name: str
    title: str
    about: str
    sets: tuple[FilmSet, ...]
    losses: tuple[FilmLoss, ...]
    scales: tuple[int, ...]
    rows: tuple[Row, ...]
    split: str = "test"
    modality: str = "CXR"
    along_slices: bool = False
    unmodified: int = 0
    reference: ClassVar[str] = "bicubic"
    trust: ClassVar[bool] = False

    @property
    def reference_index(self) -> int:
        return [row.key for row in self.rows].index(self.reference)

    @property
    def unmodified_sets(self) -> tuple[FilmSet, ...]:
        """Return the sets whose images are also enlarged as they are stored."""
        return tuple(each for each in self.sets if each.reduce == 1) if self.unmodified else ()

    def only(self, methods: Iterable[str]) -> FilmProtocol:
        """Return the same protocol for some of its methods and bicubic interpolation.

        Raises:
            InputError: the protocol lacks a method.
        """
        return replace(self, rows=choose_rows(self.name, self.rows, self.reference, methods))


def read_film_protocol(name_or_path: str | Path) -> FilmProtocol:
    """Read a shipped protocol of real conditions by name, or any by the path of its YAML text.

    Raises:
        InputError: see `read_text`; a key is missing, unknown, of another type or out of range; a label or a row
            stands there twice; or bicubic interpolation is no row.
    """
    path, content = read_text(name_or_path)
    keys = [field for field in fields(FilmProtocol) if field.name != "name"]
    choices = {"split": SPLITS, "modality": tuple(DEGRADATIONS)}
    content = check_keys(str(path), "a protocol", content, keys, {"unmodified": (0, math.inf)}, choices)
    for key in ("sets", "losses", "scales", "rows"):
        if not content[key]:
            raise InputError(f"{path}: {key} is empty, expected at least one. Add it to the text.")
    if not all(type(scale) is int and scale >= 2 for scale in content["scales"]):
        raise InputError(f"{path}: scales is {content['scales']}, expected whole numbers of at least 2.")
    modality = content.get("modality", "CXR")
    lists = {
        "sets": tuple(_parse_set(f"{path}, set {number}", each) for number, each in enumerate(content["sets"], 1)),
        "losses": tuple(
            _parse_loss(f"{path}, loss {number}", each, modality) for number, each in enumerate(content["losses"], 1)
        ),
        "scales": tuple(content["scales"]),
        "rows": parse_rows(path, content["rows"], along_slices=content.get("along_slices", False)),
    }
    protocol = FilmProtocol(**{**content, **lists, "name": path.stem, "about": " ".join(content["about"].split())})
    _check(path, protocol)
    return protocol


def _parse_set(source: str, entry: object) -> FilmSet:
    return FilmSet(**check_keys(source, "a set", entry, fields(FilmSet), {"reduce": (1, math.inf)}, {}))


def _parse_loss(source: str, entry: object, modality: str) -> FilmLoss:
    label = next(field for field in fields(FilmLoss) if field.name == "label")
    loss_fields = [field for field in fields(DEGRADATIONS[modality]) if field.name != "scale"]
    content = check_keys(source, "a loss", entry, [label, *loss_fields], _RANGES, {"kernel": KERNELS})
    return FilmLoss(content["label"], {key: value for key, value in content.items() if key != "label"}, modality)


def _check(path: Path, protocol: FilmProtocol) -> None:
    for noun, names in (
        ("set", [each.label for each in protocol.sets]),
        ("loss", [each.label for each in protocol.losses]),
        ("scale", list(map(str, protocol.scales))),
    ):
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise InputError(f"{path}: the {noun} {', '.join(repeated)} stands there twice. Keep one.")
    if protocol.along_slices and (
        protocol.modality != "CT"
        or [loss.attributes for loss in protocol.losses] != [{}]
        or any(each.reduce > 1 for each in protocol.sets)
        or protocol.unmodified
    ):
        raise InputError(
            f"{path}: averages slices (along_slices), expected modality CT, one loss of a label alone, sets "
            "without reduce, and no unmodified images. Correct it, or leave along_slices out."
        )
    if protocol.reference not in [row.key for row in protocol.rows]:
        raise InputError(f"{path}: has no row {protocol.reference}, which every method is compared with. Add it.")
    for row in protocol.rows:
        if row.seeds > 1 or row.ceiling or row.recalibrated_on is not None:
            raise InputError(
                f"{path}: {row.method} has seeds, ceiling or recalibrated_on, which a protocol with losses does not "
                "measure. Leave them out."
            )
