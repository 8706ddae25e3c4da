"""Put trained weights into a bundle's folder: PyTorch and ONNX of the same numbers, their hashes and their training."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from monai_sr_bundle.backends.torch_backend import build_network
from monai_sr_bundle.bundles import ERROR_BARS, LARGEST_BYTES, LEARNT_FROM, Bundle, find_bundle, sha256_of
from monai_sr_bundle.calibrate.training_inputs import measure_training_range, training_fingerprints
from monai_sr_bundle.errors import BundleError, OutputError
from monai_sr_bundle.images.staging import staged, write_file
from monai_sr_bundle.networks.error_scale import ErrorScale
from monai_sr_bundle.packing.onnx_export import End, export_onnx, export_parts
from monai_sr_bundle.training.start import load_weights
from monai_sr_bundle.uncertainty.calibration import FILE

_ERROR_BARS = (ERROR_BARS, "error_bars.onnx")


def release_error_bars(name: str, weights: Path) -> list[str]:
    """Write `error_bars.pt` and `error_bars.onnx` of a bundle and their SHA-256 into its metadata.

    Its old calibration, which belonged to other weights, is taken away.

    Args:
        name: a shipped bundle, or its folder.
        weights: a file of `monai-sr train NAME --stage error_bars`.

    Returns:
        One line per file: name, size, SHA-256; and the largest difference between the two.

    Raises:
        InputError, BundleError: weights that cannot be read, or of another network; a packed bundle or a variant.
    """
    bundle = find_bundle(name)
    _require_source(bundle, "error bars belong")
    network = ErrorScale(bundle.scale)
    load_weights(network, weights, f"the error bars of {bundle.name}")
    record = weights.with_name("error_bars.json")
    training = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    if training.get("bundle", bundle.folder.name) != bundle.folder.name:
        raise BundleError(
            f"{weights}: was trained on the errors of {training['bundle']}, not of {bundle.name}. Train error bars of "
            f"its own with `monai-sr train {bundle.name} --stage error_bars`."
        )
    own = json.loads((bundle.folder / "metadata.json").read_text(encoding="utf-8"))
    lines = []
    with TemporaryDirectory(dir=bundle.folder) as temporary:
        made = Path(temporary)
        torch.save({key: value.contiguous() for key, value in network.state_dict().items()}, made / "error_bars.pt")
        cells = End("cells", bundle.scale**2 + 1)
        worst = export_onnx(network, made / "error_bars.onnx", [cells], "scale")
        for file in _ERROR_BARS:
            os.replace(made / file, bundle.folder / file)
            own["weights_sha256"][file] = sha256_of(bundle.folder / file)
            size = (bundle.folder / file).stat().st_size
            lines.append(f"{file}  {size / 1e6:.2f} MB  sha256 {own['weights_sha256'][file]}")
    if training:
        own["input_range"] = training.pop("input_range", {})
        own["error_bars_training"] = training
    _write_metadata(bundle.folder, own)
    (bundle.folder / FILE).unlink(missing_ok=True)
    return [*lines, f"largest difference between PyTorch and ONNX Runtime: {worst:.1e}"]


def release_learnt_from(name: str, data: Path) -> list[str]:
    """State what a bundle has learnt from: in its metadata, between which limits its training inputs lie; of a bundle
    with error bars in `learnt_from.txt`, too, by what a calibration recognises the training images and their patients.

    Args:
        name: a shipped bundle, or its folder.
        data: folder with a manifest, or of such folders.

    Returns:
        One line per measure, and one for the list.

    Raises:
        InputError: as `training_range`.
        BundleError: a packed bundle, a variant, or one that enlarges along the slices.
    """
    bundle = find_bundle(name)
    _require_source(bundle, "what it has learnt from belongs")
    found = measure_training_range(bundle, data)
    own = json.loads((bundle.folder / "metadata.json").read_text(encoding="utf-8"))
    _write_metadata(bundle.folder, own | {"input_range": found})
    lines = [f"{measure}: {low:g} to {high:g}" for measure, (low, high) in found.items()]
    if bundle.has_file(ERROR_BARS):
        words = training_fingerprints(bundle, data)
        write_file(bundle.folder / LEARNT_FROM, ("\n".join(words) + "\n").encode())
        lines.append(f"{LEARNT_FROM}: {len(words)} fingerprints of images and patients")
    return lines


def release(name: str, weights: Path | None = None) -> list[str]:
    """Write `model.pt` and `model.onnx` of a bundle and their SHA-256 into its metadata.

    A diffusion model's `encoder.onnx`, `denoiser.onnx` and `decoder.onnx` stand for `model.onnx`, to which a flow adds
    `velocity.onnx` and a network that finds artifacts `artifacts.onnx`. A variant gets none: it is kept for comparison,
    which PyTorch does. What `monai-sr train` wrote beside the weights, `training.json` and `training_curve.csv`, goes
    into the metadata and the folder. Error bars of the weights before are no longer the bundle's.

    Args:
        name: a shipped bundle, a variant as `NAME:VARIANT`, or its folder.
        weights: a state dict saved by `monai-sr train`; the bundle's own `model.pt` if None.

    Returns:
        One line per file: name, size, SHA-256; and the largest difference between the two.

    Raises:
        InputError: weights that cannot be read.
        BundleError: weights of another network; a bundle that needs weights and has none.
        OutputError: a file above 25 MB.
    """
    bundle = find_bundle(name)
    if bundle.is_packed:
        raise BundleError(f"{bundle.folder} is packed; export works on the bundle's source folder in configs/.")
    network = build_network(bundle)
    written: list[str] = []
    lines = []
    if any(True for _ in network.parameters()):
        load_weights(network, weights or bundle.folder / "model.pt", f"the network of {bundle.name}")
        with staged(bundle.folder / "model.pt", overwrite=True) as unfinished:
            torch.save({key: value.contiguous() for key, value in network.state_dict().items()}, unfinished)
        written.append("model.pt")
    if not bundle.is_variant:
        with TemporaryDirectory(dir=bundle.folder) as temporary:
            made = Path(temporary)
            worst = export_parts(network, bundle.family, made)
            for name in worst:
                os.replace(made / name, bundle.folder / name)
        written += worst
        lines.append(f"largest difference between PyTorch and ONNX Runtime: {max(worst.values()):.1e}")
    hashes: dict[str, str] = {}
    for file in written:
        path = bundle.folder / file
        if path.stat().st_size > LARGEST_BYTES:
            raise OutputError(
                f"{path} has {path.stat().st_size / 1e6:.1f} MB, more than the 25 MB a zoo file may have."
            )
        hashes[file] = sha256_of(path)
        lines.insert(len(hashes) - 1, f"{file}  {path.stat().st_size / 1e6:.2f} MB  sha256 {hashes[file]}")
    own = json.loads((bundle.folder / "metadata.json").read_text(encoding="utf-8"))
    before = own["weights_sha256"]
    if before.get("model.pt") == hashes.get("model.pt"):
        hashes |= {file: before[file] for file in _ERROR_BARS if file in before}
    else:
        _remove_error_bars(bundle.folder, own)
    own |= {"weights_sha256": hashes, "parameters": sum(p.numel() for p in network.parameters())}
    record = weights.with_name("training.json") if weights else None
    if record is not None and record.is_file():
        own["training"] = json.loads(record.read_text(encoding="utf-8"))
        shutil.copyfile(record.with_name("training_curve.csv"), bundle.folder / "training_curve.csv")
    _write_metadata(bundle.folder, own)
    return lines


def _require_source(bundle: Bundle, what: str) -> None:
    if bundle.is_packed or bundle.is_variant:
        raise BundleError(
            f"{bundle.name} is {'packed' if bundle.is_packed else 'a variant'}; {what} into a bundle's source folder "
            "in configs/."
        )


def _remove_error_bars(folder: Path, metadata: dict[str, Any]) -> None:
    """They belonged to other weights."""
    for file in (*_ERROR_BARS, FILE, LEARNT_FROM):
        (folder / file).unlink(missing_ok=True)
    for key in ("error_bars_training", "input_range"):
        metadata.pop(key, None)


def _write_metadata(folder: Path, content: dict[str, Any]) -> None:
    write_file(folder / "metadata.json", f"{json.dumps(content, indent=4)}\n".encode())
