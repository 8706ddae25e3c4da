"""Put trained weights into a bundle's folder: PyTorch and ONNX of the same numbers, their hashes and their training."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from monai_sr_bundle.backends.onnx_files import error_bars_onnx, exported_process
from monai_sr_bundle.backends.torch_backend import build_error_scale, build_network
from monai_sr_bundle.bundles import ERROR_BARS, ERROR_BARS_DEF, LEARNT_FROM, Bundle, sha256_of
from monai_sr_bundle.calibrate.training_inputs import (
    measure_training_range,
    read_training_fingerprints,
    training_fingerprints,
)
from monai_sr_bundle.errors import BundleError, OutputError
from monai_sr_bundle.images.staging import write_file
from monai_sr_bundle.images.working_folders import working_folder
from monai_sr_bundle.packing.card import CURVE
from monai_sr_bundle.packing.onnx_export import export_bundle, export_error_bars, export_parts
from monai_sr_bundle.packing.pack import LARGEST_BYTES
from monai_sr_bundle.shipped_bundles import find_bundle
from monai_sr_bundle.training.weights import load_state, read_weights
from monai_sr_bundle.uncertainty.calibration import FILE as CALIBRATION_FILE

_OF_FORMER_WEIGHTS = {
    "eval_metrics": "the figures of the former weights. Remove them, or write down what `monai-sr evaluate` measures.",
    "input_limits": "of the inputs that the former weights were trained on. If these weights have learnt from other "
    "images, measure theirs with `monai-sr export NAME --learnt-from DIR`.",
}
"""What the metadata keep where new weights are put into a bundle, and what to say of it."""


def release_error_bars(name: str, weights: Path) -> list[str]:
    """Write `error_bars.pt` and `error_bars.onnx` of a bundle and their SHA-256 into its metadata.

    The calibration of earlier error bars is removed.

    Args:
        name: name of a shipped bundle, or its folder.
        weights: file of `monai-sr train NAME --stage error_bars`.

    Returns:
        One line per file with name, size and SHA-256, one with the calibration if it was removed, and one with the
        largest difference from PyTorch.

    Raises:
        InputError: the weights cannot be read.
        BundleError: the weights belong to another network; the bundle is packed or a variant.
    """
    bundle = find_bundle(name)
    _require_source(bundle, "error bars belong")
    network = _load_weights(build_error_scale(bundle), weights, f"the error bars of {bundle.name}")
    record = weights.with_name("error_bars.json")
    training = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    if training.get("bundle", bundle.folder.name) != bundle.folder.name:
        raise BundleError(
            f"{weights}: was trained on the errors of {training['bundle']}, not of {bundle.name}. Train error bars of "
            f"its own with `monai-sr train {bundle.name} --stage error_bars`."
        )
    with working_folder(Path(tempfile.gettempdir())) as folder:
        _save_weights(network, folder / ERROR_BARS)
        differences: dict[str, float] = {}
        for scaled in map(bundle.at_scale, bundle.scales if ERROR_BARS_DEF in bundle.facts else [bundle.scale]):
            scaled_network = _load_weights(build_error_scale(scaled), weights, f"the error bars of {bundle.name}")
            differences |= export_error_bars(scaled_network, scaled, folder)
        hashes, lines = _write_weights(folder, bundle.folder, [ERROR_BARS, *differences])
    metadata = _read_metadata(bundle)
    metadata["weights_sha256"] |= hashes
    if training:
        metadata |= {key: training.pop(key) for key in ("input_range", "input_limits") if key in training}
        metadata["error_bars_training"] = training
    _write_metadata(bundle, metadata)
    lines += _describe_removed(_remove(bundle, CALIBRATION_FILE))
    return [*lines, _describe_difference(differences)]


def keep_error_bars(name: str, earlier: str) -> None:
    """Give new weights of a bundle the scale of errors of its earlier ones, which a calibration must follow.

    The scale says where errors are large, and a calibration on other images how large those of the new weights are.

    Args:
        name: folder of the bundle with the new weights.
        earlier: name or folder of the bundle with the weights that they were trained from, with error bars.
    """
    bundle, before = find_bundle(name), find_bundle(earlier)
    names = [file for file in _error_bar_files(before) if before.has_file(file)]
    for file in names:
        shutil.copyfile(before.weights(file)[0], bundle.folder / file)
    metadata = _read_metadata(bundle)
    metadata["weights_sha256"] |= {file: before.metadata["weights_sha256"][file] for file in names}
    keys = ("input_range", "input_limits", "error_bars_training")
    metadata |= {key: before.metadata[key] for key in keys if key in before.metadata}
    _write_metadata(bundle, metadata)


def add_learnt_from(name: str, earlier: str, data: Path, sets: Sequence[str]) -> None:
    """Record in `learnt_from.txt` what the new weights of a bundle have learnt from, and those before them.

    Args:
        name: folder of the bundle with the new weights.
        earlier: name or folder of the bundle with the weights that they were trained from.
        data, sets: folder of the image sets of this training, and their names.
    """
    bundle, before = find_bundle(name), find_bundle(earlier)
    fingerprints = {*read_training_fingerprints(before), *training_fingerprints(bundle.with_facts(sets=sets), data)}
    _write_fingerprints(bundle, fingerprints)


def remove_error_bars(name: str) -> None:
    """Remove the error bars of a bundle, and their calibration.

    Args:
        name: folder of the bundle.
    """
    bundle = find_bundle(name)
    metadata = _read_metadata(bundle)
    for file in _error_bar_files(bundle):
        metadata["weights_sha256"].pop(file, None)
    _remove_error_bars(bundle, metadata)
    _write_metadata(bundle, metadata)


def release_learnt_from(name: str, data: Path) -> list[str]:
    """Record the training inputs of a bundle: in its metadata, the limits between which they lie; for a bundle with
    error bars, in `learnt_from.txt`, the fingerprints by which a calibration recognises training images and patients.

    Args:
        name: name of a shipped bundle, or its folder.
        data: folder with a manifest, or of such folders.

    Returns:
        One line per measure, and one for the list.

    Raises:
        InputError: see `measure_training_range`.
        BundleError: the bundle is packed, a variant, or enlarges along the slices.
    """
    bundle = find_bundle(name)
    _require_source(bundle, "what it has learnt from belongs")
    ranges = measure_training_range(bundle, data)
    _write_metadata(bundle, _read_metadata(bundle) | ranges)
    lines = [
        f"{measure}{' at most' if key == 'input_limits' else ''}: {low:g} to {high:g}"
        for key, measures in ranges.items()
        for measure, (low, high) in measures.items()
    ]
    if bundle.has_file(ERROR_BARS):
        fingerprints = training_fingerprints(bundle, data)
        _write_fingerprints(bundle, fingerprints)
        lines.append(f"{LEARNT_FROM}: {len(fingerprints)} fingerprints of images and patients")
    return lines


def release(name: str, weights: Path | None = None) -> list[str]:
    """Write the ONNX files of a bundle, after its `model.pt` where weights are given, and their SHA-256.

    There is one ONNX file for each part of the network and each scale: `model.onnx`, or those that the model's family
    names. A variant gets none: it is kept for comparison, which PyTorch does. `training.json` and `training_curve.csv`
    of `monai-sr train` beside the weights go into the metadata and the folder. Error bars of other weights, their
    calibration and `learnt_from.txt` are removed, and records of another training.

    Args:
        name: name of a shipped bundle, of a variant as `NAME:VARIANT`, or a source folder.
        weights: state dict saved by `monai-sr train`. Default None: the bundle's weights stay as they are.

    Returns:
        One line per file with name, size and SHA-256, one with what was removed, one with what was kept of the former
        weights, and one with the largest difference from PyTorch.

    Raises:
        InputError: the weights cannot be read.
        BundleError: the weights belong to another network or process; the bundle is packed, or has no weights and needs
            some; a variant without weights to release.
        OutputError: a file is above 25 MB.
    """
    bundle = find_bundle(name)
    if bundle.is_packed:
        raise BundleError(f"{bundle.folder} is packed; export works on the bundle's source folder in configs/.")
    metadata = _read_metadata(bundle)
    if weights is None:
        if bundle.is_variant:
            raise BundleError(
                f"{bundle.name} is a variant, which has no ONNX files. Name weights to put into it with --weights."
            )
        with working_folder(Path(tempfile.gettempdir())) as folder:
            differences = export_bundle(bundle, folder)
            hashes, lines = _write_weights(folder, bundle.folder, list(differences))
        hashes = metadata["weights_sha256"] | hashes
        _write_metadata(bundle, metadata | {"weights_sha256": hashes} | exported_process(bundle))
        return [*lines, _describe_difference(differences)]
    network = _load_weights(build_network(bundle), weights, f"the network of {bundle.name}")
    try:
        bundle.family.check_weights(network)
    except BundleError as error:
        raise BundleError(f"{weights}: {error}") from error
    with working_folder(Path(tempfile.gettempdir())) as folder:
        _save_weights(network, folder / "model.pt")
        differences = {}
        for scaled in () if bundle.is_variant else map(bundle.at_scale, bundle.scales):
            scaled_network = _load_weights(build_network(scaled), weights, f"the network of {bundle.name}")
            differences |= export_parts(scaled_network, scaled.family, folder)
        hashes, lines = _write_weights(folder, bundle.folder, ["model.pt", *differences])
    old_hashes, record = metadata["weights_sha256"], weights.with_name("training.json")
    if old_hashes.get("model.pt") == hashes["model.pt"]:
        hashes |= {file: old_hashes[file] for file in _error_bar_files(bundle) if file in old_hashes}
    else:
        removed = [*_remove(bundle, LEARNT_FROM), *_remove_error_bars(bundle, metadata)]
        if not record.is_file():
            removed += [*_remove(bundle, CURVE), *(["training"] if metadata.pop("training", None) else [])]
        lines += _describe_removed(removed)
        former = _OF_FORMER_WEIGHTS if "model.pt" in old_hashes else {}
        lines += [f"kept: {key} in metadata.json, {advice}" for key, advice in former.items() if key in metadata]
    metadata |= {"weights_sha256": hashes, "parameters": sum(p.numel() for p in network.parameters())}
    metadata |= exported_process(bundle)
    if record.is_file():
        metadata["training"] = json.loads(record.read_text(encoding="utf-8"))
        write_file(bundle.folder / CURVE, record.with_name(CURVE).read_bytes())
    _write_metadata(bundle, metadata)
    return [*lines, _describe_difference(differences)] if differences else lines


def _require_source(bundle: Bundle, subject: str) -> None:
    if bundle.is_packed or bundle.is_variant:
        raise BundleError(
            f"{bundle.name} is {'packed' if bundle.is_packed else 'a variant'}; {subject} into a bundle's source "
            "folder in configs/."
        )


def _save_weights(network: torch.nn.Module, out: Path) -> None:
    torch.save({key: value.contiguous() for key, value in network.state_dict().items()}, out)


def _write_weights(folder: Path, target: Path, files: list[str]) -> tuple[dict[str, str], list[str]]:
    """Copy finished weights files into a bundle's folder.

    Returns:
        Their SHA-256 by name, and one line for each.

    Raises:
        OutputError: a file is above 25 MB, and none was copied; the folder cannot be written.
    """
    contents = {file: (folder / file).read_bytes() for file in files}
    for file, content in contents.items():
        if len(content) > LARGEST_BYTES:
            raise OutputError(f"{file} has {len(content) / 1e6:.1f} MB, more than the 25 MB a zoo file may have.")
    hashes, lines = {}, []
    for file, content in contents.items():
        hashes[file] = sha256_of(write_file(target / file, content))
        lines.append(f"{file}  {len(content) / 1e6:.2f} MB  sha256 {hashes[file]}")
    return hashes, lines


def _describe_difference(differences: dict[str, float]) -> str:
    return f"largest difference between PyTorch and ONNX Runtime: {max(differences.values()):.1e}"


def _error_bar_files(bundle: Bundle) -> list[str]:
    """Return the names of the weights of a bundle's error bars, whether or not it has them."""
    return [ERROR_BARS, *(error_bars_onnx(bundle.at_scale(scale)) for scale in bundle.scales)]


def _remove_error_bars(bundle: Bundle, metadata: dict[str, Any]) -> list[str]:
    """Remove the error bars of other weights, and return the names of what was there."""
    keys = [key for key in ("error_bars_training", "input_range") if metadata.pop(key, None) is not None]
    return [*_remove(bundle, *_error_bar_files(bundle), CALIBRATION_FILE), *keys]


def _remove(bundle: Bundle, *files: str) -> list[str]:
    """Remove files of a bundle, as far as they exist, and return their names."""
    removed = [file for file in dict.fromkeys(files) if (bundle.folder / file).is_file()]
    for file in removed:
        (bundle.folder / file).unlink()
    return removed


def _describe_removed(files: list[str]) -> list[str]:
    return [f"removed: {', '.join(files)} (of the former weights)"] if files else []


def _write_fingerprints(bundle: Bundle, fingerprints: Iterable[str]) -> None:
    write_file(bundle.folder / LEARNT_FROM, ("\n".join(sorted(fingerprints)) + "\n").encode())


def _read_metadata(bundle: Bundle) -> dict[str, Any]:
    """Return the content of the bundle's own metadata.json, a variant's without that of its bundle."""
    return dict(json.loads((bundle.folder / "metadata.json").read_text(encoding="utf-8")))


def _write_metadata(bundle: Bundle, content: dict[str, Any]) -> None:
    write_file(bundle.folder / "metadata.json", f"{json.dumps(content, indent=4)}\n".encode())


def _load_weights(network: torch.nn.Module, path: Path, name: str) -> torch.nn.Module:
    """Return the network with the weights in a file, all of them and no others."""
    return load_state(network, read_weights(path), f"{path}:", name)
