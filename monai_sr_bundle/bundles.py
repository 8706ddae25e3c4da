"""Read what is special about a bundle, and check its weights before anything is loaded.

A bundle is a folder. In this project's `configs/` it holds `model.yaml`, `metadata.json`, `card.md` and the weights;
packed for MONAI it holds `configs/inference.yaml`, `configs/metadata.json`, `docs/README.md` and `models/`. Both read
the same. Discovery is by folder; nothing is registered anywhere.

A bundle may have variants: other weights, sizes or training stages of the same method, kept for comparison. The variant
`NAME:VARIANT` is the folder `NAME/variants/VARIANT`, whose `model.yaml` says only what differs from the bundle's.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import monai_sr_bundle
import yaml
from monai_sr_bundle.degradation import Degradation, along_slices, at_scale
from monai_sr_bundle.errors import BundleError, InputError, quote
from monai_sr_bundle.families.family import ModelFamily, open_family
from monai_sr_bundle.images.provenance import Provenance
from monai_sr_bundle.images.unit import LARGEST_VALUE, SMALLEST_RANGE
from monai_sr_bundle.inferers.sampler_options import SamplerOptions

_FACTS = {
    "family": str, "modality": str, "scale": int, "operator": str, "window": list, "levels": int, "halo": int,
    "memory_per_pixel": int,
}  # fmt: skip
ERROR_BARS = "error_bars.pt"
"""The weights of a bundle's scale of errors."""
ERROR_BARS_FOLDER = "error_bars"
"""Folder in `models` of a packed bundle for them; MONAI Label offers every .pt in `models` itself as the network."""
ERROR_BARS_DEF = "error_bars_def"
"""Key of model.yaml with the network of the error bars, where that is one for images as they are and for all scales."""
LARGEST_SCALE = 64
"""Output pixels per input pixel; beyond all use, and small enough that networks are made at once."""
LEARNT_FROM = "learnt_from.txt"
"""File by which the images and patients that a bundle was trained on are recognised: `calibrate.training_inputs`."""
_OF_ITS_WEIGHTS = {
    "weights_sha256", "weights_url", "parameters", "eval_metrics", "training", "error_bars_training", "process",
}  # fmt: skip
"""Keys of the metadata that are never those of another variant."""
_OF_ITS_SCALE = {"eval_metrics", "input_range", "error_bars_training"}
"""Keys of the metadata that hold for the scale that model.yaml states, and for no other."""
_OF_ITS_INPUTS = ("sets", "modality", "scale", "operator", "window", "levels", "reduce", "mixture", "films", "scans")
"""Keys of the facts that make the training inputs; their range and limits are those of every variant with the same."""
_METADATA = {"version": str, "authors": str, "copyright": str, "task": str, "parameters": int, "weights_sha256": dict}


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def combined_sha256(hashes: Mapping[str, str]) -> str:
    """One SHA-256 for several files, by name: of the lines that `LC_ALL=C sha256sum *` prints."""
    lines = "".join(f"{hashes[name]}  {name}\n" for name in sorted(hashes))
    return hashlib.sha256(lines.encode("utf-8", "replace")).hexdigest()


@dataclass(frozen=True)
class Bundle:
    """A bundle's folder and what its texts say. Nothing of it is executed.

    Attributes:
        folder: folder of the checkout or packed form; of a variant, its own.
        facts: the plain keys of `model.yaml` (or of the packed `inference.yaml`), a variant's over its bundle's.
        metadata: `metadata.json`, a variant's over its bundle's.
        texts: the YAML files of `facts`, a later one over an earlier one.
        family: the kind of model, with its part of `facts` read and checked.
    """

    folder: Path
    facts: dict[str, Any]
    metadata: dict[str, Any]
    texts: tuple[Path, ...]
    family: ModelFamily

    @property
    def name(self) -> str:
        """The name, such as `chest_xray_srgan_x4`, or `chest_xray_srgan_x4:regression` for a variant."""
        return f"{self.folder.parents[1].name}:{self.folder.name}" if self.is_variant else self.folder.name

    @property
    def is_variant(self) -> bool:
        return len(self.texts) > 1

    @property
    def version(self) -> str:
        return str(self.metadata["version"])

    @property
    def modality(self) -> str:
        """ "CXR", "CT", or "any"."""
        return str(self.facts["modality"])

    @property
    def scale(self) -> int:
        return int(self.facts["scale"])

    @property
    def scales(self) -> tuple[int, ...]:
        """Every scale that its weights serve, from the smallest; most bundles have one."""
        return self.family.scales

    def with_facts(self, **changes: Any) -> Bundle:
        """Return the bundle with other keys of model.yaml.

        Raises:
            BundleError: see `families.family.open_family`.
        """
        facts = {**self.facts, **changes}
        return replace(self, facts=facts, family=open_family(facts, self.name))

    def at_scale(self, scale: int | None) -> Bundle:
        """Return the bundle that enlarges by another of its `scales`, with the same weights.

        Released figures, the range of inputs and error bars hold for the scale that model.yaml states; the bundle at
        another scale has none.

        Args:
            scale: output pixels per input pixel; None for the scale that the bundle has.

        Raises:
            InputError: the bundle does not enlarge by it.
        """
        if scale is None or scale == self.scale:
            return self
        if scale not in self.scales:
            raise InputError(
                f"--scale {scale}: bundle {self.name} enlarges by {' or '.join(map(str, self.scales))}. Choose such a "
                "scale, or name another bundle."
            )
        return open_bundle(self.folder, scale)

    @property
    def scale_zyx(self) -> tuple[int, int, int]:
        """Output samples per input sample along slices, rows and columns."""
        return self.family.scale_zyx

    @property
    def operator(self) -> str:
        """Name of the degradation the model undoes."""
        return str(self.facts["operator"])

    @property
    def window(self) -> tuple[float, float]:
        """Values that are 0 and 1 inside the model: grey levels of 8 bits, or HU."""
        low, high = self.facts["window"]
        return float(low), float(high)

    @property
    def degradation(self) -> Degradation:
        """The degradation that `operator` names."""
        return Degradation.parse(self.operator)

    @property
    def is_packed(self) -> bool:
        """True where `monai-sr pack` made it."""
        return self.texts[0].name != "model.yaml"

    @property
    def parameters(self) -> int:
        return int(self.metadata["parameters"])

    def provenance(self, options: SamplerOptions, *, weights_sha256: str, backend: str, device: str) -> Provenance:
        """Return the provenance of a whole image that is enlarged now.

        Args:
            options: sampler options, resolved by the family.
            weights_sha256, backend, device: see `Provenance`.
        """
        return Provenance(
            bundle=self.name,
            version=self.version,
            weights_sha256=weights_sha256,
            manufacturer=str(self.metadata["authors"]).partition(" (")[0],
            scale_zyx=self.scale_zyx,
            operator=self.operator,
            generative=self.family.generates(options),
            backend=backend,
            device=device,
            seed=options.seed,
            roi_xyxy=None,
            created=datetime.now().astimezone(),
            sampling=self.family.sampling(options),
            strength=options.strength,
        )

    def has_file(self, name: str) -> bool:
        """Return whether the bundle has a weights file `name`, as "model.pt"; a wheel goes without some as ONNX."""
        return name in self.metadata["weights_sha256"] and (name.endswith(".pt") or self._path_of(name) is not None)

    def _path_of(self, name: str) -> Path | None:
        paths = (self.folder / "models" / name, self.folder / "models" / ERROR_BARS_FOLDER / name, self.folder / name)
        return next((path for path in paths if path.is_file()), None)

    def weights(self, name: str) -> tuple[Path, str]:
        """Path and SHA-256 of a weights file, after checking that the file is the one that was released.

        Args:
            name: file name, such as "model.pt" or "model.onnx".

        Raises:
            BundleError: the bundle has no such file, it is missing, or its hash is not the one in the metadata.
        """
        expected, path = self.metadata["weights_sha256"].get(name), self._path_of(name)
        if expected is None or path is None:
            raise BundleError(
                f"bundle {self.name}: {name} is missing in {self.folder} or its metadata. Install the bundle again."
            )
        try:
            sha256 = sha256_of(path)
        except OSError as error:
            raise BundleError(
                f"bundle {self.name}: {path} cannot be read ({error.strerror}). Check that you may read it."
            ) from error
        if sha256 != expected:
            raise BundleError(
                f"bundle {self.name}: {name} has SHA-256 {sha256[:12]}..., expected {str(expected)[:12]}.... The file "
                "is damaged or was replaced; it was not loaded. Install the bundle again."
            )
        return path, sha256


def _text_of(folder: Path) -> Path:
    for text in (folder / "model.yaml", folder / "configs" / "inference.yaml"):
        if text.is_file():
            return text
    raise BundleError(
        f"{folder} is not a bundle: found neither model.yaml nor configs/inference.yaml. "
        "Name a folder made by `monai-sr pack`."
    )


def open_bundle(folder: Path, scale: int | None = None) -> Bundle:
    """Read a bundle's texts.

    Args:
        folder: folder of a bundle, or of a variant in a bundle's `variants`.
        scale: one of its scales, see `Bundle.at_scale`. Default: the one that model.yaml states.

    Raises:
        BundleError: a text is missing, cannot be read, or lacks what every bundle must say.
    """
    folder = folder.resolve()
    of_variant = folder.parent.name == "variants"
    texts = [_text_of(folder.parents[1])] if of_variant else []
    texts.append(_text_of(folder))
    facts: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    for text in texts:
        meta = text.with_name("metadata.json")
        if not meta.is_file():
            raise BundleError(
                f"bundle {folder.name}: metadata.json is missing in {meta.parent}. Install the bundle again."
            )
        # A viewer's worker asks for the default bundle at each move of a region; parsing them all takes 0.2 s.
        of_bundle = dict(facts)
        facts |= _mapping(folder.name, text, lambda content: copy.deepcopy(_parsed(content)))
        same_inputs = all(facts.get(key) == of_bundle.get(key) for key in _OF_ITS_INPUTS)
        its_own = _OF_ITS_WEIGHTS if same_inputs else {*_OF_ITS_WEIGHTS, "input_range", "input_limits"}
        metadata = {key: value for key, value in metadata.items() if key not in its_own}
        metadata |= _mapping(folder.name, meta, json.loads)
    for path, content, keys in ((texts[-1], facts, _FACTS), (meta, metadata, _METADATA)):
        for key, kind in keys.items():
            if not isinstance(content.get(key), kind):
                raise BundleError(
                    f"bundle {folder.name}: {path.name} has no {key} ({kind.__name__}), which every bundle of this "
                    "project states. Is it a bundle of another project?"
                )
    _check_ranges(folder.name, metadata)
    try:
        _check_packed(facts)
        _check_numbers(facts)
        Degradation.parse(facts["operator"])
        if scale is not None and scale != facts["scale"]:
            facts |= {"scale": scale, "operator": at_scale(facts["operator"], scale)}
            # Along the slices, the range is that of the new slices, which no scale changes.
            unchanged = {"input_range"} if along_slices(facts["operator"]) else set()
            metadata = {key: metadata[key] for key in metadata if key not in _OF_ITS_SCALE - unchanged}
            if ERROR_BARS_DEF not in facts:
                hashes = metadata["weights_sha256"]
                metadata["weights_sha256"] = {
                    name: hashes[name] for name in hashes if not name.startswith(Path(ERROR_BARS).stem)
                }
        family = open_family(facts, f"{folder.parents[1].name}:{folder.name}" if of_variant else folder.name)
        family.resolve(SamplerOptions())  # its defaults are checked as options are
    except (BundleError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        # The families check what they know of; a text may hold a value of any type in any place.
        raise BundleError(f"bundle {folder.name}: {texts[-1].name}: {error}") from error
    return Bundle(folder, facts, metadata, tuple(texts), family)


class _Loader(yaml.SafeLoader):
    """A loader that refuses aliases: a few lines of them describe more lists than any memory holds."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has aliases (*), which no bundle needs")
        node: yaml.Node | None = super().compose_node(parent, index)
        return node


@lru_cache(maxsize=128)
def _parsed(content: str) -> Any:
    """Parse a YAML text; the same object for the same text, so do not change it."""
    return yaml.load(content, _Loader)


def _mapping(name: str, path: Path, read: Callable[[str], Any]) -> dict[str, Any]:
    try:
        content = read(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, TypeError, OverflowError, RecursionError, OSError) as error:
        raise BundleError(
            f"bundle {name}: its texts cannot be read ({quote(error)}). Install the bundle again."
        ) from error
    if not isinstance(content, dict):
        raise BundleError(
            f"bundle {name}: {path.name} holds no keys, expected those that every bundle of this project states. "
            "Is it a bundle of another project?"
        )
    return content


def _check_packed(facts: dict[str, Any]) -> None:
    """Refuse a packed bundle of another version: its texts are for the code that they were packed with."""
    lines = facts.get("initialize")
    for line in lines if isinstance(lines, list) else []:
        if version := re.fullmatch(r"\$require_version\('(.+)'\)", str(line)):
            require_version(version[1])


def _check_numbers(facts: dict[str, Any]) -> None:
    for key in ("guard", "cascade"):  # without them, a bundle of version 0.1.0 would give other pixels
        if facts.get(key):
            raise BundleError(
                f"{key} is stated, which version 0.2.0 has no longer. Take {key} out, and calibrate error bars again; "
                "CHANGELOG.md says why."
            )
    window = facts["window"]
    ends = [end for end in window if isinstance(end, int | float)]
    if len(window) != 2 or len(ends) != 2 or not SMALLEST_RANGE < ends[1] - ends[0] < LARGEST_VALUE:
        raise BundleError(f"window is {quote(window)}, expected two rising numbers.")
    for key, least in (("scale", 2), ("halo", 0), ("memory_per_pixel", 1), ("grid", 1)):
        value = facts.get(key, least)
        if not isinstance(value, int) or value < least:
            raise BundleError(f"{key} is {quote(value)}, expected at least {least}.")
    if ERROR_BARS_DEF in facts and not isinstance(facts.get("error_bars_halo"), int):
        raise BundleError(
            f"error_bars_halo is {quote(facts.get('error_bars_halo'))}, expected the receptive radius of the network "
            f"that {ERROR_BARS_DEF} names."
        )
    scales = facts.get("scales", [facts["scale"]])
    whole = isinstance(scales, list) and all(isinstance(each, int) and 1 < each <= LARGEST_SCALE for each in scales)
    if not whole or len(set(scales)) < len(scales) or facts["scale"] not in scales:
        raise BundleError(
            f"scales is {quote(scales)}, expected different whole numbers from 2 to {LARGEST_SCALE}, among them the "
            f"scale {quote(facts['scale'])}."
        )


def _check_ranges(name: str, metadata: dict[str, Any]) -> None:
    for key in ("input_range", "input_limits"):
        ranges = metadata.get(key, {})
        for measure, ends in ranges.items() if isinstance(ranges, dict) else [("", ranges)]:
            numbers = isinstance(ends, list) and len(ends) == 2 and all(isinstance(end, int | float) for end in ends)
            if not numbers or not -math.inf < ends[0] <= ends[1] < math.inf:
                raise BundleError(
                    f"bundle {name}: metadata.json has {key} {quote(measure)} {quote(ends)}, expected two rising "
                    "numbers for each measure. Install the bundle again."
                )


def released_weights(bundle_root: str) -> str:
    """Path of a bundle's `model.pt`, after checking its hash; empty for a method without weights.

    Raises:
        BundleError: no bundle there, or its weights are missing or damaged.
    """
    bundle = open_bundle(Path(bundle_root))
    return "" if bundle.parameters == 0 else str(bundle.weights("model.pt")[0])


def require_version(version: str) -> str:
    """Refuse to run a packed bundle with another version of this package than the one it was packed with.

    Two versions of one package cannot live in one process; whichever was imported first would run the other's bundle.

    Raises:
        BundleError: another version is imported.
    """
    if monai_sr_bundle.__version__ != version:
        folder = Path(monai_sr_bundle.__file__).parent
        raise BundleError(
            f"this bundle was packed with monai_sr_bundle {version}, but {monai_sr_bundle.__version__} is imported "
            f"from {folder}; pack it again with `monai-sr pack NAME OUT`, or use version {version}."
        )
    return version


def require_same_code(bundle_root: str) -> str:
    """Refuse to run a packed bundle with other code than it carries, where the versions are equal.

    Returns:
        The SHA-256 of the code.

    Raises:
        BundleError: the imported package differs in one of the files that the bundle carries.
    """
    carried, imported = Path(bundle_root).resolve() / monai_sr_bundle.__name__, Path(monai_sr_bundle.__file__).parent
    names = code_files(carried)
    if not names:
        raise BundleError(f"{bundle_root} is no packed bundle: it has no code. Pass its folder by --bundle_root.")
    expected, actual = code_sha256(carried, names), code_sha256(imported, names)
    if actual != expected:
        raise BundleError(
            f"this bundle carries monai_sr_bundle {monai_sr_bundle.__version__} with SHA-256 {expected[:12]}..., but "
            f"{actual[:12]}... is imported from {imported}; pack the bundle again with that copy, or run it where no "
            "other copy is imported."
        )
    return expected


def code_files(package: Path) -> list[str]:
    """Return the names of a package's modules, relative to its folder."""
    return sorted(path.relative_to(package).as_posix() for path in package.rglob("*.py"))


def code_sha256(package: Path, names: Iterable[str]) -> str:
    """Return one SHA-256 of modules of a package, by their names relative to its folder; an absent one has none.

    Line ends count as LF, since a checkout may turn them into CRLF.
    """
    files = {name: package / name for name in names}
    contents = {name: file.read_bytes().replace(b"\r\n", b"\n") for name, file in files.items() if file.is_file()}
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    return combined_sha256(dict.fromkeys(files, "") | hashes)
