"""Protocols of comparisons: methods, images and degradation, read from the texts in `configs/protocols`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml
from monai_sr_bundle.backends.backend import BACKENDS
from monai_sr_bundle.bundles import Bundle
from monai_sr_bundle.degradation import Degradation
from monai_sr_bundle.errors import BundleError, InputError
from monai_sr_bundle.inferers.sampler_options import SAMPLERS, SamplerOptions
from monai_sr_bundle.shipped_bundles import configs_dir, find_bundle

BICUBIC_MEANS = "bicubic_means"
"""Cubic interpolation along the slices, after which the mean of the thin slices is set to the thick one."""
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", BICUBIC_MEANS)
PARTS = ("consistency", "mirror")
"""Parts that a bundle can be measured without: data consistency, and the mean over the mirror image."""
SPLITS = ("train", "val", "test")
_SAMPLER_OPTIONS = ("sampler", "steps", "samples", "texture", "strength")
_RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("levels", "reduce", "limit", "steps", "samples", "seeds"), (1, math.inf)),
    **dict.fromkeys(("texture", "strength"), (0, 1)),
}


@dataclass(frozen=True)
class Row:
    """One method of a comparison.

    Attributes:
        method: one of `INTERPOLATIONS`, or a bundle with its variant, e.g. `chest_xray_srgan_x4:regression`.
        label: name of the row in the tables.
        backend: a `BackendName`. Default "auto".
        sampler, steps, samples, texture, strength: options of the model, see `SamplerOptions`. Default: the bundle's.
        seeds: number of seeds to draw with, from 0; a figure is the mean over them. Default 1.
        ceiling: whether to measure the reconstruction of the original by a latent diffusion model's autoencoder.
        recalibrated_on: image set whose training images calibrate the error bars anew. Default: none.
        without: names from `PARTS` that the bundle has and that are left out.
    """

    method: str
    label: str
    backend: str = "auto"
    sampler: str | None = None
    steps: int | None = None
    samples: int | None = None
    texture: float | None = None
    strength: float | None = None
    seeds: int = 1
    ceiling: bool = False
    recalibrated_on: str | None = None
    without: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Return the row's name in results and references: `method`, and `@backend` and other options if given."""
        options = [f"{name}={getattr(self, name)}" for name in _SAMPLER_OPTIONS if getattr(self, name) is not None]
        options += [f"seeds={self.seeds}"] * (self.seeds > 1) + ["ceiling"] * self.ceiling
        options += [f"recalibrated_on={self.recalibrated_on}"] * (self.recalibrated_on is not None)
        options += [f"without={part}" for part in self.without]
        suffix = "".join(f"+{option}" for option in options)
        return (self.method if self.backend == "auto" else f"{self.method}@{self.backend}") + suffix

    @property
    def is_interpolation(self) -> bool:
        return self.method in INTERPOLATIONS

    @property
    def options(self) -> SamplerOptions:
        """Return the sampler options that the row states."""
        return SamplerOptions(**{name: getattr(self, name) for name in _SAMPLER_OPTIONS})

    def bundle(self, scale: int | None = None) -> Bundle | None:
        """Return the row's bundle without the parts of `without`; None for an interpolation.

        Args:
            scale: scale that it is to have, if it is one of its own. Default: the bundle's own.

        Raises:
            BundleError: see `find_bundle`; or the bundle lacks a part of `without`.
        """
        if self.is_interpolation:
            return None
        bundle = find_bundle(self.method)
        if scale in bundle.scales:
            bundle = bundle.at_scale(scale)
        definition = bundle.facts.get("network_def") or {}
        has = {
            "consistency": bundle.family.consistency,
            "mirror": definition.get("mirror") is True,
        }
        for part in self.without:
            if not has[part]:
                raise BundleError(f"{self.key}: bundle {bundle.name} has no {part}. Take it out of `without`.")
        if "consistency" in self.without:
            bundle = bundle.with_facts(consistency=False)
        if "mirror" in self.without:
            bundle = bundle.with_facts(network_def={**definition, "mirror": False})
        return bundle


@dataclass(frozen=True)
class Protocol:
    """A comparison with the same images, degradation and metric code for every row.

    Attributes:
        name: name of its text.
        title, about: a headline and some sentences.
        modality: "CXR" or "CT".
        sets: folders of the data; all of them if empty.
        split: "train", "val" or "test".
        operator: name of the degradation.
        reduce: reduction of the stored image to the target.
        window, levels: window and grey steps, see a bundle's model.yaml.
        artifacts: whether to draw letters, digits, circles and lines into the input.
        validation_share: share of the training patients in the validation split, see a bundle's model.yaml.
        reference: key of the row that the others are compared with.
        rows: the methods.
        limit: largest number of images, evenly spread; for slow methods.
        only_boxes: whether to use only images with boxes of findings.
        processes: keys of rows whose diffusion process is drawn step by step.
        trust: whether to measure consistency, error bars, agreement by frequency, and nodules.
        speed: whether it is a protocol of `monai-sr benchmark speed`.
    """

    name: str
    title: str
    about: str
    modality: str
    sets: tuple[str, ...]
    operator: str
    window: tuple[float, float]
    levels: int
    rows: tuple[Row, ...]
    reference: str = "bicubic"
    split: str = "test"
    reduce: int = 1
    artifacts: bool = False
    validation_share: float = 0.0
    limit: int | None = None
    only_boxes: bool = False
    processes: tuple[str, ...] = ()
    trust: bool = False
    speed: bool = False

    @property
    def scale(self) -> int:
        return Degradation.parse(self.operator).scale

    @property
    def along_slices(self) -> bool:
        """Return whether the degradation averages slices; images are then the thin slices of whole volumes."""
        return Degradation.parse(self.operator).slab

    def only(self, methods: Iterable[str]) -> Protocol:
        """Return the same protocol for some of its methods, named with or without their backend, and its reference.

        Raises:
            InputError: the protocol lacks a method.
        """
        rows = choose_rows(self.name, self.rows, self.reference, methods)
        keys = {row.key for row in rows}
        return replace(self, rows=rows, processes=tuple(key for key in self.processes if key in keys))


def choose_rows(protocol: str, rows: tuple[Row, ...], reference: str, methods: Iterable[str]) -> tuple[Row, ...]:
    """Return the rows of some methods, named with or without their backend, and the reference.

    Raises:
        InputError: no row has a method.
    """
    names = set(methods)
    unknown = names - {name for row in rows for name in (row.method, row.key)}
    if unknown:
        available = ", ".join(row.key for row in rows)
        raise InputError(f"protocol {protocol} has no {', '.join(sorted(unknown))}; it has {available}.")
    return tuple(row for row in rows if names & {row.method, row.key} or row.key == reference)


def protocol_names() -> list[str]:
    """Return the names of the shipped protocols, in alphabetical order."""
    return sorted(path.stem for path in (configs_dir() / "protocols").glob("*.yaml"))


def read_protocol(name_or_path: str | Path) -> Protocol:
    """Read a shipped protocol by name, or any protocol by the path of its YAML text.

    Raises:
        InputError: see `read_text`; a key is missing, unknown, of another type or out of range, the operator is
            unknown or averages slices, the reference is no row, or a row stands there twice.
    """
    path, content = read_text(name_or_path)
    protocol = _parse_protocol(path, content)
    _check_text(path, protocol)
    return protocol


def read_text(name_or_path: str | Path) -> tuple[Path, Any]:
    """Return the path and the content of a protocol's text, by the name of a shipped one or by its path.

    Raises:
        InputError: there is no such protocol, or its text is no YAML.
    """
    path = configs_dir() / "protocols" / f"{name_or_path}.yaml"
    if not path.is_file():
        path = Path(name_or_path)
    if not path.is_file():
        raise InputError(
            f"protocol {str(name_or_path)!r} is unknown. Available: {', '.join(protocol_names())}; or give the path of "
            "a YAML text."
        )
    try:
        return path, yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: is no YAML ({' '.join(str(error).split())}). Correct the text.") from error


def check_keys(
    source: str,
    noun: str,
    content: object,
    keys: Sequence[Field[Any]],
    ranges: Mapping[str, tuple[float, float]],
    choices: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """Return the keys of a text; refuse those that do not fit the fields of a dataclass.

    Args:
        source: the text, and perhaps the part of it, for the message.
        noun: name of what the keys describe, as "a protocol".
        content: the keys and their values.
        keys: fields of the dataclass that the text states.
        ranges: least and greatest value of numbers.
        choices: values that a key may have.

    Raises:
        InputError: a key is missing, unknown, of another type or out of range.
    """
    if not isinstance(content, dict):
        raise InputError(f"{source}: is {content!r}, expected keys with values. Correct the text.")
    types = {field.name: _types_of(str(field.type)) for field in keys}
    required = {field.name for field in keys if field.default is MISSING and field.default_factory is MISSING}
    for problem, names in (("lacks", required - set(content)), ("has the unknown", set(content) - set(types))):
        if names:
            raise InputError(
                f"{source}: {problem} {', '.join(sorted(map(str, names)))}; {noun} states {', '.join(types)}."
            )
    for key, value in content.items():
        least, greatest = ranges.get(key, (0, math.inf))
        if type(value) not in types[key]:
            expected = " or ".join(expected_type.__name__ for expected_type in types[key])
        elif key in choices and value not in choices[key]:
            expected = f"one of {', '.join(choices[key])}"
        elif key in ranges and not least <= value <= greatest:
            expected = f"at least {least}" + (f" and at most {greatest}" if greatest < math.inf else "")
        else:
            continue
        raise InputError(f"{source}: {key} is {value!r}, expected {expected}. Correct the text.")
    return content


def _types_of(annotation: str) -> tuple[type, ...]:
    """Return the types that the value of a field may have in YAML."""
    kinds: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "bool": (bool,), "tuple": (list,)}
    return kinds.get(re.split(r"\W", annotation)[0], (str,))


def _parse_protocol(path: Path, content: object) -> Protocol:
    keys = [field for field in fields(Protocol) if field.name != "name"]
    content = check_keys(str(path), "a protocol", content, keys, _RANGES, {"modality": ("CXR", "CT"), "split": SPLITS})
    lists: dict[str, Any] = {key: tuple(map(str, content.get(key, ()))) for key in ("sets", "processes")}
    lists |= {"window": tuple(content["window"]), "rows": parse_rows(path, content["rows"])}
    about = " ".join(content["about"].split())
    return Protocol(**{**content, **lists, "name": path.stem, "about": about})


def parse_rows(path: Path, entries: Sequence[object], *, along_slices: bool = False) -> tuple[Row, ...]:
    """Return the rows of a protocol's text.

    Args:
        path: the text, for messages.
        entries: the rows as they stand there.
        along_slices: whether the protocol averages slices.

    Raises:
        InputError: a key is missing, unknown or of another type, or does not fit the row's method or the protocol; or
            two rows have the same key.
    """
    rows = tuple(_parse_row(f"{path}, row {number}", entry) for number, entry in enumerate(entries, start=1))
    if not along_slices and any(row.method == BICUBIC_MEANS for row in rows):
        raise InputError(f"{path}: {BICUBIC_MEANS} sets the means of thin slices, which an image has not. Take it out.")
    keys = [row.key for row in rows]
    repeated = sorted({key for key in keys if keys.count(key) > 1})
    if repeated:
        raise InputError(
            f"{path}: {', '.join(repeated)} stands in more than one row. Keep one, or name other backends."
        )
    return rows


def _parse_row(source: str, entry: object) -> Row:
    choices = {"backend": BACKENDS, "sampler": tuple(SAMPLERS)}
    content = check_keys(source, "a row", entry, fields(Row), _RANGES, choices)
    without = content.get("without", [])
    if any(part not in PARTS or without.count(part) > 1 for part in without):
        raise InputError(f"{source}: without is {without!r}, expected a list of {' and '.join(PARTS)}. Correct it.")
    row = Row(**{**content, "without": tuple(sorted(without))})
    sampler_keys = [name for name in (*_SAMPLER_OPTIONS, "seeds") if name in content]
    if sampler_keys and (row.ceiling or row.is_interpolation):
        what = "a ceiling" if row.ceiling else "an interpolation"
        raise InputError(
            f"{source}: {row.method} has {', '.join(sampler_keys)}, but {what} draws nothing. Leave it out."
        )
    if without and row.is_interpolation:
        raise InputError(f"{source}: {row.method} has without, but an interpolation has no parts. Leave it out.")
    if "mirror" in without and row.backend != "torch":
        raise InputError(
            f"{source}: {row.method} is to be measured without mirror on the backend {row.backend}, but an ONNX "
            "graph holds the mirror image. Write backend: torch."
        )
    return row


def _check_text(path: Path, protocol: Protocol) -> None:
    try:
        scale = protocol.scale
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
    if scale < 2:
        raise InputError(f"{path}: scale is {scale}, expected at least 2.")
    if protocol.along_slices:
        raise InputError(
            f"{path}: {protocol.operator} averages slices. Write a protocol with losses and along_slices, as "
            "chest_ct_throughplane, or name an operator of the plane."
        )
    window = protocol.window
    if len(window) != 2 or not all(isinstance(end, int | float) for end in window) or not window[0] < window[1]:
        raise InputError(f"{path}: window is {list(window)}, expected two rising numbers.")
    keys = [row.key for row in protocol.rows]
    if protocol.reference not in keys:
        raise InputError(
            f"{path}: the reference {protocol.reference} is not among the rows {', '.join(keys)}. Add it, or name one "
            "of them."
        )
    unknown_processes = [key for key in protocol.processes if key not in keys]
    if unknown_processes:
        raise InputError(
            f"{path}: processes names {', '.join(unknown_processes)}, which is no row. There is {', '.join(keys)}."
        )


def check_bundles(protocol: Protocol) -> None:
    """Refuse rows that do not belong into one table: every bundle was made for the protocol's degradation.

    Raises:
        BundleError: a bundle is unknown, or made for another modality, operator, scale or intensities.
    """
    for row in protocol.rows:
        bundle = row.bundle(protocol.scale)
        if bundle is None:
            continue
        conditions: list[tuple[str, object, object]] = [
            ("operator", bundle.operator, protocol.operator),
            ("scale", bundle.scale, protocol.scale),
        ]
        if bundle.modality != "any":
            conditions += [
                ("modality", bundle.modality, protocol.modality),
                ("window", bundle.window, tuple(map(float, protocol.window))),
                ("levels", bundle.facts["levels"], protocol.levels),
            ]
        for key, value, expected in conditions:
            if value != expected:
                raise BundleError(
                    f"protocol {protocol.name}: bundle {row.method} has {key} {value}, the protocol {expected}. "
                    "Degradation operators are never mixed in one table, nor are modalities or intensities; "
                    "take the row out, or name a protocol of its own."
                )
