"""Put trained weights into a bundle's folder: PyTorch and ONNX of the same numbers, their hashes and their training."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from monai_sr_bundle.backends.torch_backend import build_network
from monai_sr_bundle.bundles import find_bundle, sha256_of
from monai_sr_bundle.errors import BundleError, OutputError
from monai_sr_bundle.export.onnx import export_diffusion, export_onnx
from monai_sr_bundle.training.start import load_weights

LARGEST_BYTES = 25 * 1024**2
"""What the model zoo takes in one file."""


def release(name: str, weights: Path | None = None) -> list[str]:
    """Write `model.pt` and `model.onnx` of a bundle and their SHA-256 into its metadata.

    A diffusion model's `encoder.onnx`, `denoiser.onnx` and `decoder.onnx` stand for `model.onnx`. A variant gets none:
    it is kept for comparison, which PyTorch does. What `monai-sr train` wrote beside the weights, `training.json` and
    `training_curve.csv`, goes into the metadata and the folder.

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
    bundle.require_one_network()
    if bundle.is_packed:
        raise BundleError(f"{bundle.folder} is packed; export works on the bundle's source folder in configs/.")
    network = build_network(bundle)
    written: list[str] = []
    lines = []
    if any(True for _ in network.parameters()):
        load_weights(network, weights or bundle.folder / "model.pt", f"the network of {bundle.name}")
        unfinished = bundle.folder / ".model.pt"
        torch.save({key: value.contiguous() for key, value in network.state_dict().items()}, unfinished)
        os.replace(unfinished, bundle.folder / "model.pt")
        written.append("model.pt")
    if not bundle.is_variant:
        with TemporaryDirectory(dir=bundle.folder) as temporary:
            made = Path(temporary)
            if bundle.diffusion is None:
                worst = {"model.onnx": export_onnx(network, made / "model.onnx")}
            else:
                worst = export_diffusion(network, made)
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
    own |= {"weights_sha256": hashes, "parameters": sum(p.numel() for p in network.parameters())}
    record = weights.with_name("training.json") if weights else None
    if record is not None and record.is_file():
        own["training"] = json.loads(record.read_text(encoding="utf-8"))
        shutil.copyfile(record.with_name("training_curve.csv"), bundle.folder / "training_curve.csv")
    unfinished = bundle.folder / ".metadata.json"
    unfinished.write_text(json.dumps(own, indent=4) + "\n", encoding="utf-8")
    os.replace(unfinished, bundle.folder / "metadata.json")
    return lines
