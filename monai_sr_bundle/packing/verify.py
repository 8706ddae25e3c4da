"""Check a packed bundle as the model zoo's CI does, in its order and with its calls, and what users would miss.

The zoo's is `ci/verify_bundle.py`. Two things differ, because no connection is needed here: the rules for metadata.json
are those of `metadata_schema`, our stand-in for the zoo's schema, which is not ours to ship; large files must lie in
the bundle. Where the zoo excuses a kind of bundle, by a list in its `ci/bundle_custom_data.py`, the list is named.
tests/packing/test_zoo_ci.py runs the zoo's script on the same bundles and compares.
"""

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
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from monai_sr_bundle.backends.onnx_files import onnx_file
from monai_sr_bundle.bundles import ERROR_BARS_DEF, Bundle, open_bundle
from monai_sr_bundle.errors import BundleError
from monai_sr_bundle.images.working_folders import working_folder
from monai_sr_bundle.packing.metadata_schema import SCHEMA
from monai_sr_bundle.packing.pack import (
    LARGEST_BYTES,
    PACKAGE,
    duplicate_keys,
    imports,
    json_overlays,
    lay_over,
    needed_modules,
)

LARGEST_BUNDLE_BYTES = 16 * 1024**2
"""Largest size of a packed bundle, without its large files."""
PUBLISHED = "model_info.json"
"""File beside the bundles of a checkout of the zoo, with the versions that are published."""
_TEXT_SUFFIXES = (".json", ".yaml", ".yml", ".md", ".txt", ".py", ".conf", "")
_HOME = re.compile(
    r"(?<![\w.:/~-])(?:/(?:home|root|Users|tmp|mnt|media|private|work)/[\w.-]+|[A-Za-z]:\\\\?Users\\\\?\w+)"
)
_NOT_SCRIPTED = "TorchScript cannot compile the denoiser of a diffusion bundle; models/*.onnx hold its parts."
"""Note on bundles that the zoo excuses: the compiler knows no `reversed` of the layers of `NoiseUNet`."""
_DISTRIBUTIONS = {"PIL": "pillow", "yaml": "PyYAML", "ignite": "pytorch-ignite"}
_OWN_KEYS = {"monai": "monai_version", "torch": "pytorch_version", "numpy": "numpy_version"}


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
        name: name of the check, in a few words.
        passed: whether the bundle passed, or belongs on the list of the zoo's that excuses it.
        message: the value found, the value expected and what to do; empty if the bundle passed by itself.
        exclusion: list of the zoo's `ci/bundle_custom_data.py` that the bundle must stand in; empty if in none.
    """

    name: str
    passed: bool
    message: str
    exclusion: str = ""

    def __str__(self) -> str:
        if self.exclusion:
            return f"ok   {self.name} (needs the zoo's {self.exclusion})"
        return f"ok   {self.name}" if self.passed else f"FAIL {self.name}: {self.message}"


@dataclass(frozen=True)
class _Subject:
    """A packed bundle, and a temporary folder for the checks."""

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
        path = self.folder / "configs" / "inference.yaml"
        if not path.is_file():
            raise BundleError("configs/ has no inference.yaml. Pack the bundle again.")
        return path

    @property
    def large_files(self) -> list[dict[str, str]]:
        file = self.folder / "large_files.yml"
        return list(yaml.safe_load(file.read_text(encoding="utf-8"))["large_files"]) if file.is_file() else []

    def files(self) -> list[Path]:
        return sorted(path for path in self.folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def verify(folder: Path, only: Collection[str] | None = None) -> Iterator[Check]:
    """Run every check; one that fails does not stop the others.

    Args:
        folder: folder of a packed bundle. Its configs are run in this process, so verify only bundles that you trust.
        only: names of the checks to run. Default None: all of them.

    Yields:
        The results in order, each as soon as it is known.

    Raises:
        BundleError: `folder` is not a folder, or holds nothing of a bundle.
    """
    if not folder.is_dir():
        raise BundleError(f"{folder} is not a folder. Name a bundle made by `monai-sr pack`.")
    if not any((folder / "configs").glob("inference.*")) and not (folder / "configs" / "metadata.json").is_file():
        raise BundleError(
            f"{folder} is not a packed bundle: it has neither configs/metadata.json nor configs/inference.yaml. Name a "
            "folder made by `monai-sr pack`."
        )
    with working_folder(Path(tempfile.gettempdir())) as scratch:
        subject = _Subject(folder.resolve(), scratch)
        for name, check in _CHECKS.items():
            if only is not None and name not in only:
                continue
            try:
                with _quiet():
                    problem = check(subject)
            except Exception as error:  # any error that a broken bundle raises in MONAI is the result of this check
                problem = _explain(error)
            exclusion = _exclusion(subject, name, problem) if problem else ""
            yield Check(name, not problem or bool(exclusion), problem, exclusion)


def _exclusion(subject: _Subject, name: str, problem: str) -> str:
    """Return the list of the zoo's that excuses this kind of bundle from a problem; empty if none does."""
    try:
        if subject.metadata.get("parameters") == 0 and name in ("preferred files", "TorchScript"):
            kind = "preferred_files" if name == "preferred files" else "torchscript"  # there is no models/model.pt
            return f"exclude_verify_{kind}_list"
        return "exclude_verify_torchscript_list" if problem == _NOT_SCRIPTED else ""
    except (OSError, ValueError, BundleError):  # of which another check tells
        return ""


def _necessary_files(subject: _Subject) -> str:
    missing = [name for name in ("configs/metadata.json", "LICENSE") if not (subject.folder / name).is_file()]
    return f"missing: {', '.join(missing)}. Pack the bundle again." if missing else ""


def _preferred_files(subject: _Subject) -> str:
    expected = [subject.inference, subject.folder / "models" / "model.pt"]
    missing = [str(path.relative_to(subject.folder)) for path in expected if not path.is_file()]
    return f"missing: {', '.join(missing)}. Pack the bundle again." if missing else ""


def _version_in_changelog(subject: _Subject) -> str:
    version, changes = subject.metadata["version"], subject.metadata["changelog"]
    if version not in changes:
        return f"version {version} is not in the changelog ({', '.join(changes)}). Add it."
    published = subject.folder.parent / PUBLISHED
    if published.is_file() and f"{subject.folder.name}_v{version}" in json.loads(published.read_text(encoding="utf-8")):
        return (
            f"version {version} is published already. Raise it in metadata.json, and say in the changelog what is new."
        )
    return ""


def _metadata_schema(subject: _Subject) -> str:
    from jsonschema import Draft201909Validator

    errors = sorted(Draft201909Validator(SCHEMA).iter_errors(subject.metadata), key=lambda error: error.json_path)
    return "; ".join(f"{error.json_path}: {error.message}" for error in errors[:3])


def _weights_hashes(subject: _Subject) -> str:
    hashes = subject.metadata["weights_sha256"]
    large = {Path(entry["path"]).name for entry in subject.large_files}
    for name in hashes:
        if name not in large or (subject.folder / "models" / name).is_file():
            subject.bundle.weights(name)
    files = [path for path in (subject.folder / "models").rglob("*") if path.is_file()]
    unlisted = sorted(path.name for path in files if path.name not in hashes)
    return f"models/ holds {', '.join(unlisted)}, which metadata.json does not list. Remove it." if unlisted else ""


def _large_files(subject: _Subject) -> str:
    for entry in subject.large_files:
        path = subject.folder / entry["path"]
        if not path.is_file():
            return f"{entry['path']} is not here. Get it from {entry['url']} before verifying."
        with path.open("rb") as file:
            actual = hashlib.file_digest(file, entry["hash_type"]).hexdigest()
        expected = entry["hash_val"]
        if actual != expected:
            return (
                f"{entry['path']} has {entry['hash_type']} {actual[:12]}..., expected {expected[:12]}.... Get it again."
            )
    return ""


def _file_sizes(subject: _Subject) -> str:
    listed = {subject.folder / entry["path"] for entry in subject.large_files}
    sizes = {path: path.stat().st_size for path in subject.files() if path not in listed}
    unlisted = [path.name for path, size in sizes.items() if size > LARGEST_BYTES]
    if unlisted:
        return f"above 25 MiB and not in large_files.yml: {', '.join(unlisted)}."
    if sum(sizes.values()) > LARGEST_BUNDLE_BYTES:
        return (
            f"the bundle has {sum(sizes.values()) / 1024**2:.1f} MiB, expected at most {LARGEST_BUNDLE_BYTES >> 20}. "
            "Make its weights smaller, or put them into large_files.yml."
        )
    return ""


def _no_duplicate_keys(subject: _Subject) -> str:
    for path in sorted((subject.folder / "configs").glob("*.yaml")):
        keys = duplicate_keys(path.read_text(encoding="utf-8"))
        if keys:
            return f"{path.name} has {', '.join(keys)} twice. Remove one of them."
    return ""


def _json_as_yaml(subject: _Subject) -> str:
    for path in sorted((subject.folder / "configs").glob("*.yaml")):
        twin = path.with_suffix(".json")
        if not twin.is_file():
            continue
        expected = yaml.safe_load(path.read_text(encoding="utf-8"))
        for overlay in json_overlays(subject.bundle) if path.stem == "train" else ():
            lay_over(expected, yaml.safe_load(path.with_stem(overlay).read_text(encoding="utf-8")))
        if json.loads(twin.read_text(encoding="utf-8")) != expected:
            return f"{twin.name} differs from {path.name}. Make the same change in both, or pack the bundle again."
    return ""


def _no_machine_paths(subject: _Subject) -> str:
    folders = (str(Path.home()), str(subject.folder.parent), str(Path(__file__).parents[2]), tempfile.gettempdir())
    for path in subject.files():
        text = path.read_bytes().decode("utf-8" if path.suffix in _TEXT_SUFFIXES else "latin-1", errors="replace")
        machine_path = next((folder for folder in folders if len(folder) > 4 and f"{folder}/" in text), None)
        if machine_path is None and path.suffix in _TEXT_SUFFIXES:
            match = _HOME.search(text)
            machine_path = match.group() if match else None
        if machine_path:
            name = path.relative_to(subject.folder)
            return f"{name} names {machine_path}, a path of one machine. Write it relative to @bundle_root."
    return ""


def _code_and_packages(subject: _Subject) -> str:
    package = subject.folder / PACKAGE
    texts = [path.read_text(encoding="utf-8") for path in sorted((subject.folder / "configs").glob("*.yaml"))]
    # The network of the error bars is for those who have the package.
    texts = [re.sub(rf"(?m)^{ERROR_BARS_DEF}:.*\n(?:[ \t]+.*\n)*", "", text) for text in texts]
    imported: set[str] = set()
    for module in needed_modules(texts, package):
        tree = ast.parse((package / module).read_text(encoding="utf-8"))
        imported |= {name.split(".")[0] for name in imports(tree)}
    metadata = subject.metadata
    listed = {name.lower() for name in metadata["required_packages_version"]}
    listed |= {name for name, key in _OWN_KEYS.items() if key in metadata}
    foreign = {_DISTRIBUTIONS.get(name, name) for name in imported - {PACKAGE} - set(sys.stdlib_module_names)}
    missing = sorted(name for name in foreign if name.lower() not in listed)
    return f"the code imports {', '.join(missing)}, which required_packages_version does not list." if missing else ""


def _inference_properties(subject: _Subject) -> str:
    from monai_sr_bundle.datasets.phantom import write_phantom_png

    picture = subject.scratch / "phantom.png"
    write_phantom_png(picture, 64)
    return _missing_properties(subject, subject.inference, "inference", picture)


def _train_properties(subject: _Subject) -> str:
    config = subject.folder / "configs" / "train.yaml"
    if not config.is_file():
        return f"{subject.bundle.name} has parameters but no configs/train.yaml." if subject.bundle.parameters else ""
    from monai_sr_bundle.datasets.phantom_set import write_phantom_set

    facts = subject.bundle.facts
    for name in facts["sets"]:
        write_phantom_set(subject.scratch / "data" / name, facts["modality"])
    return _missing_properties(subject, config, "train", subject.scratch / "data", progress=False)


def _missing_properties(subject: _Subject, config: Path, kind: str, data: Path, **keys: Any) -> str:
    """Start MONAI's workflow of a kind, and name the properties that its config lacks."""
    from monai.bundle import ConfigWorkflow

    workflow = ConfigWorkflow(
        config_file=str(config),
        workflow_type=kind,
        logging_file=False,
        bundle_root=str(subject.folder),
        dataset_dir=str(data),
        output_dir=str(subject.scratch / "results"),
        **keys,
    )
    workflow.initialize()
    missing = workflow.check_properties()
    return f"missing or misnamed: {', '.join(missing)}." if missing else ""


def _network_in_out(subject: _Subject) -> str:
    from monai.bundle import verify_net_in_out

    verify_net_in_out(
        net_id="network_def",
        meta_file=str(subject.metadata_file),
        config_file=str(subject.inference),
        bundle_root=str(subject.folder),
    )
    return ""


def _torchscript(subject: _Subject) -> str:
    import torch
    from monai.bundle import ckpt_export

    try:
        ckpt_export(
            net_id="network_def",
            filepath=str(subject.scratch / "verify_model.ts"),
            ckpt_file=str(subject.folder / "models" / "model.pt"),
            meta_file=str(subject.metadata_file),
            config_file=str(subject.inference),
            bundle_root=str(subject.folder),
        )
    except RuntimeError as error:
        # Asked again in one process, it says that the class is known already.
        if subject.bundle.family.name == "diffusion" and "NoiseUNet" in str(error):
            return _NOT_SCRIPTED
        raise
    if (subject.folder / "models" / "model.ts").is_file():
        torch.jit.load(subject.folder / "models" / "model.ts")
    return ""


def _onnx(subject: _Subject) -> str:
    from monai_sr_bundle.backends.onnx_backend import OnnxBackend
    from monai_sr_bundle.backends.torch_backend import load_network
    from monai_sr_bundle.backends.torch_networks import PartNetwork
    from monai_sr_bundle.packing.onnx_export import TOLERANCE, inputs_of, largest_difference

    for bundle in map(subject.bundle.at_scale, subject.bundle.scales):
        backend, network = OnnxBackend(bundle, "cpu"), load_network(bundle)[0]
        for part in bundle.family.parts:
            run, inputs = partial(backend.run, part.name), inputs_of(part, network)
            difference = largest_difference(PartNetwork(network, part), run, inputs, part.multiple(network))
            if not difference <= TOLERANCE:
                return (
                    f"models/{onnx_file(bundle.family, part)} differs from PyTorch by {difference:.1e}, expected at "
                    f"most {TOLERANCE:g}. Export it again."
                )
    return ""


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the warnings of MONAI, so that checks print nothing but their results."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _explain(error: Exception) -> str:
    """Return the message of the innermost BundleError, else of the error: MONAI wraps errors inside a config."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, BundleError):
        cause = cause.__cause__ or cause.__context__
    lines = str(cause or error).splitlines() or [""]
    return f"{type(cause or error).__name__}: {lines[0]}"


_ZOO_CHECKS: dict[str, Callable[[_Subject], str]] = {
    "large files": _large_files,
    "necessary files": _necessary_files,
    "preferred files": _preferred_files,
    "version in the changelog": _version_in_changelog,
    "metadata format": _metadata_schema,
    "shapes in and out": _network_in_out,
    "TorchScript": _torchscript,
}
ZOO_CHECKS = tuple(_ZOO_CHECKS)
"""Names of the checks of the zoo's CI, in its order."""
_CHECKS: dict[str, Callable[[_Subject], str]] = {
    **_ZOO_CHECKS,
    # What users would miss
    "properties for inference": _inference_properties,
    "properties for training": _train_properties,
    "hashes of the weights": _weights_hashes,
    "sizes": _file_sizes,
    "no key twice": _no_duplicate_keys,
    "JSON as YAML": _json_as_yaml,
    "no path of one machine": _no_machine_paths,
    "code and packages": _code_and_packages,
    "ONNX equals PyTorch": _onnx,
}
