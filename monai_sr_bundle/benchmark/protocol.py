"""Protocols: which methods are compared on which images, made with which degradation. Texts in `configs/protocols`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml

from monai_sr_bundle.bundles import Bundle, configs_dir, find_bundle
from monai_sr_bundle.degradation import Degradation
from monai_sr_bundle.errors import BundleError, InputError
from monai_sr_bundle.families.family import open_family
from monai_sr_bundle.inferers.diffusion_process import SAMPLERS

INTERPOLATIONS = ("nearest", "bilinear", "bicubic")
PARTS = ("consistency", "mirror")
"""What a bundle can be measured without, with the same weights: data consistency, the mean over the mirror image."""
_DRAW = ("sampler", "steps", "samples", "texture")


@dataclass(frozen=True)
class Row:
    """One method of a comparison.

    Attributes:
        method: one of `INTERPOLATIONS`, or a bundle with its variant, as `chest_xray_srgan_x4:regression`.
        label: what the tables call it.
        backend: "auto", "torch" or "onnx".
        sampler, steps, samples, texture: of a diffusion model or a flow, instead of what its bundle states.
        seeds: of what draws: draw with this many seeds, from 0; a figure is the mean over them.
        ceiling: what the autoencoder of a latent diffusion model leaves of the original itself.
        recalibrated_on: folder of the data; its error bars are calibrated anew on training images of it.
        without: some of `PARTS` that its bundle has and that are left out here.
    """

    method: str
    label: str
    backend: str = "auto"
    sampler: str | None = None
    steps: int | None = None
    samples: int | None = None
    texture: float | None = None
    seeds: int = 1
    ceiling: bool = False
    recalibrated_on: str | None = None
    without: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """What the row is called in results and as a reference: `method`, `@backend` and other options where stated."""
        stated = [f"{name}={getattr(self, name)}" for name in _DRAW if getattr(self, name) is not None]
        stated += [f"seeds={self.seeds}"] * (self.seeds > 1) + ["ceiling"] * self.ceiling
        stated += [f"recalibrated_on={self.recalibrated_on}"] * (self.recalibrated_on is not None)
        stated += [f"without={part}" for part in self.without]
        options = "".join(f"+{option}" for option in stated)
        return (self.method if self.backend == "auto" else f"{self.method}@{self.backend}") + options

    @property
    def is_interpolation(self) -> bool:
        return self.method in INTERPOLATIONS

    def bundle(self) -> Bundle | None:
        """The bundle of the row, less what it is measured without; None for an interpolation.

        Raises:
            BundleError: as `find_bundle`, or a bundle that does not have what it is to be measured without.
        """
        if self.is_interpolation:
            return None
        bundle = find_bundle(self.method)
        facts = bundle.facts
        definition = facts.get("network_def") or {}
        has = {
            "consistency": bundle.family.consistency,
            "mirror": definition.get("mirror") is True,
        }
        for part in self.without:
            if not has[part]:
                raise BundleError(f"{self.key}: bundle {bundle.name} has no {part}. Take it out of `without`.")
        if "consistency" in self.without:
            facts = {**facts, "consistency": False}
        if "mirror" in self.without:
            facts = {**facts, "network_def": {**definition, "mirror": False}}
        return replace(bundle, facts=facts, family=open_family(facts, bundle.name))


@dataclass(frozen=True)
class Protocol:
    """A comparison, fully stated: same images, same degradation, same metric code for every row.

    Attributes:
        name: of the text it was read from.
        title, about: what it shows, one line and a few.
        modality: "CXR" or "CT".
        sets: folders of the data; all of them if empty.
        split: "train", "val" or "test".
        operator: name of the degradation.
        reduce: reduction of the stored image to the target.
        window, levels: as in a bundle's model.yaml.
        artifacts: draw letters, digits, circles and lines into the input.
        validation_share: as in a bundle's model.yaml.
        reference: key of the row that the others are compared with.
        rows: the methods.
        limit: take at most this many images, evenly spread; for methods that take long.
        only_boxes: take only images with boxes of findings.
        processes: keys of rows whose diffusion process is drawn, step by step.
        trust: also measure consistency, error bars, agreement by frequency, and nodules.
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

    @property
    def scale(self) -> int:
        return Degradation.parse(self.operator).scale

    @property
    def along_slices(self) -> bool:
        """Whether thick slices are made of thin ones, and images are the thin slices of whole volumes."""
        return Degradation.parse(self.operator).slab

    def only(self, methods: Iterable[str]) -> Protocol:
        """The same protocol for some of its methods, named with or without their backend, and its reference.

        Raises:
            InputError: a method that the protocol does not have.
        """
        wanted = set(methods)
        unknown = wanted - {name for row in self.rows for name in (row.method, row.key)}
        if unknown:
            there = ", ".join(row.key for row in self.rows)
            raise InputError(f"protocol {self.name} has no {', '.join(sorted(unknown))}; it has {there}.")
        kept = tuple(row for row in self.rows if wanted & {row.method, row.key} or row.key == self.reference)
        keys = {row.key for row in kept}
        return replace(self, rows=kept, processes=tuple(key for key in self.processes if key in keys))


def protocol_names() -> list[str]:
    """Of the shipped protocols, in alphabetical order."""
    return sorted(path.stem for path in (configs_dir() / "protocols").glob("*.yaml"))


def all_protocols() -> Iterator[Protocol]:
    """The shipped protocols, by name."""
    for name in protocol_names():
        yield read_protocol(name)


def choose_protocols(
    names: Iterable[str] | None = None, methods: Iterable[str] | None = None, *, trust: bool = False
) -> list[Protocol]:
    """Protocols with some of their methods.

    Args:
        names: of the protocols; if None, all shipped ones that measure trust, or all others.
        trust: whether they measure trust.
        methods: to keep, in the protocols that have them; all if None. A protocol with none of them is left out.

    Raises:
        InputError: as `read_protocol`, a method that no protocol has, or nothing but the reference.
    """
    if names is None:
        protocols = [protocol for protocol in all_protocols() if protocol.trust == trust]
    else:
        protocols = [read_protocol(name) for name in names]
    if methods is None:
        return protocols
    wanted, known = set(methods), {}
    for protocol in protocols:
        known[protocol.name] = {name for row in protocol.rows for name in (row.method, row.key)}
    unknown = wanted.difference(*known.values())
    if unknown:
        there = ", ".join(sorted(set().union(*known.values())))
        raise InputError(f"no protocol asked for has {', '.join(sorted(unknown))}; there is {there}.")
    shared = [(protocol, wanted & known[protocol.name]) for protocol in protocols]
    chosen = [protocol.only(here) for protocol, here in shared if here - {protocol.reference}]
    if not chosen:
        raise InputError(f"of the methods {', '.join(sorted(wanted))} only the reference is left. Name another one.")
    return chosen


def read_protocol(name_or_path: str | Path) -> Protocol:
    """A shipped protocol by name, or any by the path of its YAML text.

    Raises:
        InputError: no such protocol; a text that is no YAML; a key that is missing, unknown or of another type; an
            unknown operator; a reference that is no row, or the same row twice.
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
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: is no YAML ({' '.join(str(error).split())}). Correct the text.") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds no keys, expected those of a protocol. Copy a shipped one and change it.")
    protocol = _protocol(path, content)
    _check_text(path, protocol)
    return protocol


_KINDS: dict[str, tuple[type, ...]] = {
    "title": (str,), "about": (str,), "modality": (str,), "sets": (list,), "operator": (str,), "window": (list,),
    "levels": (int,), "rows": (list,), "reference": (str,), "split": (str,), "reduce": (int,), "artifacts": (bool,),
    "validation_share": (int, float), "limit": (int,), "only_boxes": (bool,), "processes": (list,),
    "trust": (bool,),
}  # fmt: skip


def _protocol(path: Path, content: dict[str, Any]) -> Protocol:
    required = {field.name for field in fields(Protocol) if field.default is MISSING} - {"name"}
    for problem, keys in (("lacks", required - set(content)), ("has the unknown", set(content) - set(_KINDS))):
        if keys:
            raise InputError(
                f"{path}: {problem} {', '.join(sorted(map(str, keys)))}; a protocol states {', '.join(_KINDS)}."
            )
    for key, value in content.items():
        if not isinstance(value, _KINDS[key]):
            expected = " or ".join(kind.__name__ for kind in _KINDS[key])
            raise InputError(f"{path}: {key} is {value!r}, expected {expected}. Correct the text.")
    rows = tuple(_row(path, row) for row in content["rows"])
    lists: dict[str, Any] = {key: tuple(map(str, content.get(key, ()))) for key in ("sets", "processes")}
    lists |= {"window": tuple(content["window"]), "rows": rows}
    about = " ".join(content["about"].split())
    return Protocol(**{**content, **lists, "name": path.stem, "about": about})


def _row(path: Path, row: object) -> Row:
    known = {field.name: field.type for field in fields(Row)}
    if not isinstance(row, dict) or not {"method", "label"} <= set(row) <= set(known):
        raise InputError(
            f"{path}: the row {row!r} is none, expected method, label and perhaps {', '.join(list(known)[2:])}. "
            "Correct it."
        )
    without = row.get("without", [])
    if not isinstance(without, list) or any(part not in PARTS or without.count(part) > 1 for part in without):
        raise InputError(
            f"{path}: {row['method']} has without {without!r}, expected a list of {', '.join(PARTS[:-1])} and "
            f"{PARTS[-1]}. Correct it."
        )
    row = {**row, "without": tuple(sorted(without))} if without else row
    for key, value in row.items():
        if key == "without":
            continue
        kind = _kind_of(str(known[key]))
        wrong = type(value) not in ((float, int) if kind is float else (kind,))
        if wrong or (kind is int and value < 1) or (kind is float and not 0 <= value <= 1):
            expected = {int: "a number of at least 1", float: "a number from 0 to 1"}.get(kind, kind.__name__)
            raise InputError(f"{path}: {row['method']} has {key} {value!r}, expected {expected}. Correct it.")
    found = Row(**row)
    idle = [name for name in (*_DRAW, "seeds") if name in row]
    if idle and (found.ceiling or found.is_interpolation):
        what = "a ceiling" if found.ceiling else "an interpolation"
        raise InputError(f"{path}: {found.method} has {', '.join(idle)}, but {what} draws nothing. Leave it out.")
    if without and found.is_interpolation:
        raise InputError(f"{path}: {found.method} has without, but an interpolation has no parts. Leave it out.")
    if "mirror" in without and found.backend != "torch":
        raise InputError(
            f"{path}: {found.method} is to be measured without mirror on the backend {found.backend}, but an ONNX "
            "graph holds the mirror image. Write backend: torch."
        )
    if found.backend not in ("auto", "torch", "onnx"):
        raise InputError(f"{path}: {found.method} has backend {found.backend!r}, expected auto, torch or onnx.")
    if found.sampler not in (None, *SAMPLERS):
        raise InputError(f"{path}: {found.method} has sampler {found.sampler!r}, expected {' or '.join(SAMPLERS)}.")
    return found


def _kind_of(annotation: str) -> type:
    return {"int": int, "float": float, "bool": bool}.get(annotation.split(" ")[0], str)


def _check_text(path: Path, protocol: Protocol) -> None:
    try:
        scale = protocol.scale
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
    for key, allowed in (("modality", ("CXR", "CT")), ("split", ("train", "val", "test"))):
        if getattr(protocol, key) not in allowed:
            raise InputError(
                f"{path}: {key} is {getattr(protocol, key)!r}, expected {', '.join(allowed[:-1])} or {allowed[-1]}."
            )
    window = protocol.window
    if len(window) != 2 or not all(isinstance(end, int | float) for end in window) or not window[0] < window[1]:
        raise InputError(f"{path}: window is {list(window)}, expected two rising numbers.")
    for key, value, least in (
        ("scale", scale, 2), ("levels", protocol.levels, 1), ("reduce", protocol.reduce, 1),
        ("limit", 1 if protocol.limit is None else protocol.limit, 1),
    ):  # fmt: skip
        if value < least:
            raise InputError(f"{path}: {key} is {value}, expected at least {least}.")
    if protocol.along_slices:
        stated = [key for key in ("artifacts", "trust", "processes") if getattr(protocol, key)]
        stated += [key for key in ("reduce",) if protocol.reduce != 1]
        if protocol.modality != "CT" or stated:
            wrong = ", ".join(stated) or f"modality {protocol.modality}"
            raise InputError(
                f"{path}: {protocol.operator} averages the slices of a CT, for which there is no {wrong}. Take it out, "
                "or name an operator of the plane."
            )
    keys = [row.key for row in protocol.rows]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise InputError(f"{path}: {', '.join(twice)} stands in more than one row. Keep one, or name other backends.")
    if protocol.reference not in keys:
        raise InputError(
            f"{path}: the reference {protocol.reference} is not among the rows {', '.join(keys)}. Add it, or name one "
            "of them."
        )
    strangers = [key for key in protocol.processes if key not in keys]
    if strangers:
        raise InputError(
            f"{path}: processes names {', '.join(strangers)}, which is no row. There is {', '.join(keys)}."
        )


def check_bundles(protocol: Protocol) -> None:
    """Refuse rows that do not belong into one table: every bundle was made for the protocol's degradation.

    Raises:
        BundleError: an unknown bundle, or one made for another modality, operator, scale or intensities.
    """
    for row in protocol.rows:
        bundle = row.bundle()
        if bundle is None:
            continue
        stated: list[tuple[str, object, object]] = [
            ("operator", bundle.operator, protocol.operator),
            ("scale", bundle.scale, protocol.scale),
        ]
        if bundle.modality != "any":
            stated += [
                ("modality", bundle.modality, protocol.modality),
                ("window", bundle.window, tuple(map(float, protocol.window))),
                ("levels", bundle.facts["levels"], protocol.levels),
            ]
        for key, found, expected in stated:
            if found != expected:
                raise BundleError(
                    f"protocol {protocol.name}: bundle {row.method} has {key} {found}, the protocol {expected}. "
                    "Degradation operators are never mixed in one table, nor are modalities or intensities; "
                    "take the row out, or name a protocol of its own."
                )
