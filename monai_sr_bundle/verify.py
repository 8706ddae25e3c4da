"""Check a packed bundle as the model zoo's CI does, without a network, and a little more."""

from __future__ import annotations

import ast
import hashlib
import json
import logging
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from monai_sr_bundle.bundles import LARGEST_BYTES, Bundle, open_bundle
from monai_sr_bundle.errors import BundleError
from monai_sr_bundle.metadata_schema import SCHEMA
from monai_sr_bundle.pack import PACKAGE, duplicate_keys, imports, needed_modules

TOLERANCE = 1e-4
"""Largest difference of a pixel, in units of the window, between two forms of the same network."""
_TEXT_SUFFIXES = (".json", ".yaml", ".yml", ".md", ".txt", ".py", ".conf", "")
_HOME = re.compile(
    r"(?<![\w.:/~-])(?:/(?:home|root|Users|tmp|mnt|media|private|work)/[\w.-]+|[A-Za-z]:\\\\?Users\\\\?\w+)"
)
_OTHER_NAMES = {"PIL": "pillow", "yaml": "PyYAML", "ignite": "pytorch-ignite"}
_STATED_APART = {"monai": "monai_version", "torch": "pytorch_version", "numpy": "numpy_version"}


@dataclass(frozen=True)
class Check:
    """One thing that was checked.

    Attributes:
        name: what, in a few words.
        passed: whether it is as it should be.
        message: what was found, what was expected, what to do; empty if it passed.
    """

    name: str
    passed: bool
    message: str


@dataclass(frozen=True)
class _Subject:
    """The packed bundle, and a folder for what the checks write."""

    folder: Path
    scratch: Path

    @property
    def metadata_file(self) -> Path:
        return self.folder / "configs" / "metadata.json"

    @property
    def metadata(self) -> dict[str, Any]:
        return dict(json.loads(self.metadata_file.read_text(encoding="utf-8")))

    @property
    def bundle(self) -> Bundle:
        return open_bundle(self.folder)

    @property
    def inference(self) -> Path:
        names = ("inference.yaml", "inference.yml", "inference.json")
        found = next((path for name in names if (path := self.folder / "configs" / name).is_file()), None)
        if found is None:
            raise BundleError("configs/ has no inference.yaml, inference.yml or inference.json. Pack the bundle again.")
        return found

    @property
    def large(self) -> list[dict[str, str]]:
        file = self.folder / "large_files.yml"
        return list(yaml.safe_load(file.read_text(encoding="utf-8"))["large_files"]) if file.is_file() else []

    def files(self) -> list[Path]:
        return sorted(path for path in self.folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def verify(folder: Path, only: Collection[str] | None = None) -> Iterator[Check]:
    """Run every check; one that fails, or cannot even be made, does not stop the others.

    Args:
        folder: a packed bundle. Its configs are run in this process, on images drawn here: verify what you trust.
        only: names of the checks to run; all of them if None.

    Yields:
        The checks, in order, each as soon as it is done.

    Raises:
        BundleError: `folder` is no folder.
    """
    if not folder.is_dir():
        raise BundleError(f"{folder} is not a folder. Name a bundle made by `monai-sr pack`.")
    with tempfile.TemporaryDirectory(prefix="monai-sr-verify-") as scratch:
        subject = _Subject(folder.resolve(), Path(scratch))
        for name, check in _CHECKS.items():
            if only is not None and name not in only:
                continue
            try:
                with _quiet():
                    problem = check(subject)
            except Exception as error:  # whatever a broken bundle makes MONAI raise is the result of this check
                problem = _explained(error)
            yield Check(name, not problem, problem)


def _necessary_files(subject: _Subject) -> str:
    missing = [name for name in ("configs/metadata.json", "LICENSE") if not (subject.folder / name).is_file()]
    return f"missing: {', '.join(missing)}. Pack the bundle again." if missing else ""


def _preferred_files(subject: _Subject) -> str:
    wanted = [subject.inference, subject.folder / "docs" / "README.md"]
    if subject.metadata.get("parameters", 1):
        wanted += [subject.folder / "models" / "model.pt", subject.folder / "docs" / "data_license.txt"]
    at_hand = {subject.folder / entry["path"] for entry in subject.large}
    missing = [str(path.relative_to(subject.folder)) for path in wanted if not path.is_file() and path not in at_hand]
    return f"missing: {', '.join(missing)}. Pack the bundle again." if missing else ""


def _version_in_changelog(subject: _Subject) -> str:
    version, changes = subject.metadata["version"], subject.metadata["changelog"]
    return "" if version in changes else f"version {version} is not in the changelog ({', '.join(changes)}). Add it."


def _metadata_schema(subject: _Subject) -> str:
    from jsonschema import Draft201909Validator

    errors = sorted(Draft201909Validator(SCHEMA).iter_errors(subject.metadata), key=lambda error: error.json_path)
    return "; ".join(f"{error.json_path}: {error.message}" for error in errors[:3])


def _weights_hashes(subject: _Subject) -> str:
    stated = subject.metadata["weights_sha256"]
    large = {Path(entry["path"]).name for entry in subject.large}
    for name in stated:
        if name not in large or (subject.folder / "models" / name).is_file():
            subject.bundle.weights(name)
    unlisted = sorted(path.name for path in (subject.folder / "models").iterdir() if path.name not in stated)
    return f"models/ holds {', '.join(unlisted)}, which metadata.json does not list. Remove it." if unlisted else ""


def _large_files(subject: _Subject) -> str:
    for entry in subject.large:
        path = subject.folder / entry["path"]
        if not path.is_file():
            return f"{entry['path']} is not here. Get it from {entry['url']} before verifying."
        with path.open("rb") as file:
            found = hashlib.file_digest(file, entry["hash_type"]).hexdigest()
        if found != entry["hash_val"]:
            stated = entry["hash_val"]
            return f"{entry['path']} has {entry['hash_type']} {found[:12]}..., expected {stated[:12]}.... Get it again."
    return ""


def _file_sizes(subject: _Subject) -> str:
    named = {subject.folder / entry["path"] for entry in subject.large}
    heavy = [path for path in subject.files() if path.stat().st_size > LARGEST_BYTES and path not in named]
    return f"above 25 MiB and not in large_files.yml: {', '.join(path.name for path in heavy)}." if heavy else ""


def _no_duplicate_keys(subject: _Subject) -> str:
    for path in sorted((subject.folder / "configs").glob("*.y*ml")):
        keys = duplicate_keys(path.read_text(encoding="utf-8"))
        if keys:
            return f"{path.name} has {', '.join(keys)} twice. Remove one of them."
    return ""


def _no_machine_paths(subject: _Subject) -> str:
    here = (str(Path.home()), str(subject.folder.parent), str(Path(__file__).parent.parent), tempfile.gettempdir())
    for path in subject.files():
        text = path.read_bytes().decode("utf-8" if path.suffix in _TEXT_SUFFIXES else "latin-1", errors="replace")
        found = next((place for place in here if len(place) > 4 and f"{place}/" in text), None)
        if found is None and path.suffix in _TEXT_SUFFIXES:
            match = _HOME.search(text)
            found = match.group() if match else None
        if found:
            name = path.relative_to(subject.folder)
            return f"{name} names {found}, a place of one machine. Write it relative to @bundle_root."
    return ""


def _modules(subject: _Subject) -> str:
    needed = needed_modules(_config_texts(subject), subject.folder / PACKAGE)
    return "" if needed else f"no config names {PACKAGE}, so nothing shows that the bundle's code is there."


def _packages(subject: _Subject) -> str:
    package = subject.folder / PACKAGE
    used: set[str] = set()
    for module in needed_modules(_config_texts(subject), package, lazy=False):
        tree = ast.parse((package / module).read_text(encoding="utf-8"))
        used |= {name.split(".")[0] for name in imports(tree, lazy=False)}
    metadata = subject.metadata
    stated = {name.lower() for name in metadata["required_packages_version"]}
    stated |= {name for name, key in _STATED_APART.items() if key in metadata}
    foreign = {_OTHER_NAMES.get(name, name) for name in used - {PACKAGE} - set(sys.stdlib_module_names)}
    missing = sorted(name for name in foreign if name.lower() not in stated)
    return f"the code imports {', '.join(missing)}, which required_packages_version does not list." if missing else ""


def _config_texts(subject: _Subject) -> list[str]:
    return [path.read_text(encoding="utf-8") for path in sorted((subject.folder / "configs").glob("*.y*ml"))]


def _inference_properties(subject: _Subject) -> str:
    from monai.bundle import ConfigWorkflow

    from monai_sr_bundle.phantom import write_phantom_png

    picture = subject.scratch / "phantom.png"
    write_phantom_png(picture, 64)
    workflow = ConfigWorkflow(
        config_file=str(subject.inference),
        workflow_type="inference",
        logging_file=False,
        bundle_root=str(subject.folder),
        dataset_dir=str(picture),
        output_dir=str(subject.scratch / "results"),
    )
    workflow.initialize()
    missing = workflow.check_properties()
    return f"missing or misnamed: {', '.join(missing)}." if missing else ""


def _train_properties(subject: _Subject) -> str:
    config = subject.folder / "configs" / "train.yaml"
    if not config.is_file():
        return f"{subject.bundle.name} has parameters but no configs/train.yaml." if subject.bundle.parameters else ""
    from monai.bundle import ConfigWorkflow

    from monai_sr_bundle.datasets.phantom_set import write_phantom_set

    facts = subject.bundle.facts
    for name in facts["sets"]:
        write_phantom_set(subject.scratch / "data" / name, facts["modality"])
    workflow = ConfigWorkflow(
        config_file=str(config),
        workflow_type="train",
        logging_file=False,
        bundle_root=str(subject.folder),
        dataset_dir=str(subject.scratch / "data"),
        output_dir=str(subject.scratch / "runs"),
        progress=False,
    )
    workflow.initialize()
    missing = workflow.check_properties()
    return f"missing or misnamed: {', '.join(missing)}." if missing else ""


def _network_in_out(subject: _Subject) -> str:
    import torch
    from monai.bundle import verify_net_in_out

    side, times = 8, 4  # the metadata says "8*n"
    beside = {}
    if subject.bundle.diffusion is not None and not subject.bundle.is_flow:
        channels = _network(subject).condition_channels
        beside = {"condition": torch.zeros(1, channels, side * times, side * times), "level": torch.ones(1)}
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(subject.metadata_file),
        config_file=str(subject.inference),
        device="cpu",
        n=times,
        extra_forward_args=beside,
    )
    return ""


def _torchscript(subject: _Subject) -> str:
    import torch
    from monai.bundle import ckpt_export

    network = _network(subject)
    if subject.bundle.diffusion is not None and not subject.bundle.is_flow:
        # MONAI exports what takes an image; the denoiser takes three things, and is traced.
        return _worst("TorchScript", network, torch.jit.trace(network, _noisy(network, 1, 40, 24), check_trace=False))
    checkpoint, script = subject.scratch / "model.pt", subject.scratch / "model.ts"
    torch.save(network.state_dict(), checkpoint)
    ckpt_export(
        net_id="network_def",
        filepath=str(script),
        ckpt_file=str(checkpoint),
        meta_file=str(subject.metadata_file),
        config_file=str(subject.inference),
    )
    return _difference("TorchScript", network, torch.jit.load(script), subject.bundle.slices)


def _onnx(subject: _Subject) -> str:
    import torch

    from monai_sr_bundle.backends.onnx_backend import OnnxBackend

    onnx, network = OnnxBackend(subject.bundle, "cpu"), _network(subject)
    slices = subject.bundle.slices
    if onnx.denoiser is None:
        return _difference("models/model.onnx", network, lambda image: torch.from_numpy(onnx(image.numpy())), slices)
    denoiser = onnx.denoiser

    def denoise(*inputs: Any) -> Any:
        noisy, condition, level = (value.numpy() for value in inputs)
        return torch.from_numpy(denoiser.denoise(noisy, condition, float(level[0])))

    def encode(pixels: Any) -> Any:
        return torch.from_numpy(denoiser.encode(pixels.numpy()))

    def decode(cells: Any, condition: Any) -> Any:
        return torch.from_numpy(denoiser.decode(cells.numpy(), condition.numpy()))

    if subject.bundle.is_flow:
        return _difference(
            "models/model.onnx", network, lambda image: torch.from_numpy(onnx(image.numpy())), slices
        ) or _worst("models/velocity.onnx", network.velocity, denoise, *_noisy(network, 1, 40, 24))
    noisy, condition, _ = _noisy(network, 1, 40, 24)
    pixels = torch.rand(1, network.cell**2, 40, 24, generator=torch.Generator().manual_seed(0))
    return (
        _worst("models/encoder.onnx", network.encode, encode, pixels)
        or _worst("models/denoiser.onnx", network, denoise)
        or _worst("models/decoder.onnx", network.decode, decode, noisy, condition)
    )


def _noisy(network: Any, batch: int, rows: int, columns: int) -> tuple[Any, Any, Any]:
    """What a denoiser takes."""
    import torch

    generator = torch.Generator().manual_seed(rows)
    noisy = torch.randn(batch, network.channels, rows, columns, generator=generator)
    condition = torch.rand(batch, network.condition_channels, rows, columns, generator=generator)
    return noisy, condition, torch.full((batch,), 0.4)


def _worst(name: str, network: Any, other: Callable[..., Any], *inputs: Any) -> str:
    """Whether both make the same of what they take; of other sizes than the exported one for a denoiser."""
    import torch

    for given in [inputs] if inputs else [_noisy(network, 1, 24, 32), _noisy(network, 1, 40, 40)]:
        with torch.inference_mode():
            expected, found = network(*given), other(*given)
        worst = float((expected - found).abs().max())
        if not worst <= TOLERANCE:
            return f"{name} differs from PyTorch by {worst:.1e}, expected at most {TOLERANCE:g}. Export it again."
    return ""


def _network(subject: _Subject) -> Any:
    from monai_sr_bundle.backends.torch_backend import load_network

    return load_network(subject.bundle)[0]


def _difference(name: str, network: Any, other: Callable[[Any], Any], slices: int) -> str:
    import torch

    generator = torch.Generator().manual_seed(0)
    for shape in ((1, slices, 24, 33), (2, slices, 40, 40)):
        image = torch.rand(shape, generator=generator)
        with torch.inference_mode():
            expected, found = network(image).numpy(), other(image).numpy()
        if expected.shape != found.shape:
            return f"{name} gives {found.shape}, PyTorch {expected.shape}. Export it again."
        worst = float(np.abs(expected - found).max())
        if not worst <= TOLERANCE:
            return f"{name} differs from PyTorch by {worst:.1e}, expected at most {TOLERANCE:g}. Export it again."
    return ""


@contextmanager
def _quiet() -> Iterator[None]:
    """MONAI warns of everything it opens; what matters here is what a check returns."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _explained(error: Exception) -> str:
    """The message of the innermost error of ours, else of the outermost: MONAI wraps what happens inside a config."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, BundleError):
        cause = cause.__cause__ or cause.__context__
    lines = str(cause or error).splitlines() or [""]
    return f"{type(cause or error).__name__}: {lines[0]}"


_CHECKS: dict[str, Callable[[_Subject], str]] = {
    "necessary files": _necessary_files,
    "preferred files": _preferred_files,
    "version in the changelog": _version_in_changelog,
    "metadata format": _metadata_schema,
    "hashes of the weights": _weights_hashes,
    "hashes of large files": _large_files,
    "file sizes": _file_sizes,
    "no key twice": _no_duplicate_keys,
    "no path of one machine": _no_machine_paths,
    "modules complete": _modules,
    "packages stated": _packages,
    "properties for inference": _inference_properties,
    "properties for training": _train_properties,
    "shapes in and out": _network_in_out,
    "TorchScript": _torchscript,
    "ONNX equals PyTorch": _onnx,
}
