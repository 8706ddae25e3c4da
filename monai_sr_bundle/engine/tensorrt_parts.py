"""TensorRT in place of PyTorch for every part of a bundle's network, through MONAI's `trt_compile`.

**Not run on a GPU yet.** What needs no GPU is tested: which windows the engines are built for, and the ONNX graphs that
MONAI makes of the parts.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from monai.networks import trt_compiler
from monai_sr_bundle.backends.torch_networks import PartNetwork, TorchNetworks
from monai_sr_bundle.bundles import sha256_of
from monai_sr_bundle.errors import BundleError
from monai_sr_bundle.families.family import Part
from monai_sr_bundle.images.unit import SMALLEST_SIDE
from monai_sr_bundle.inferers.tiling import LARGEST_TILE, window_ranges

Profile = dict[str, list[list[int]]]
"""For each input: its smallest, its most frequent and its largest shape."""


def compile_parts(network: Any, inferer: Any, engine_dir: str, checkpoint: str, trt_args: Mapping[str, Any]) -> Any:
    """Have TensorRT run every part of a network; where it cannot, warn once and return the network as it is.

    An engine is built at the first window of its kind and kept under the names of the GPU, the version of TensorRT and
    the hash of the weights, so that none of them meets an engine of another. Processes that build the same one at the
    same time each move theirs to its place when it is whole.

    Args:
        network: the bundle's network, on the GPU.
        inferer: the `TiledInferer` that will call it; it knows the parts and their windows.
        engine_dir: folder of the engines.
        checkpoint: weights that the network will have; empty for a method without any.
        trt_args: arguments of MONAI's `trt_compile` beside the profiles: `precision`, `build_args`, `export_args`.

    Raises:
        BundleError: half precision of TensorRT 11, which has it only where the graph states it.
    """
    if not (trt_compiler.trt_imported and trt_compiler.polygraphy_imported and torch.cuda.is_available()):
        return trt_compiler.trt_compile(network, engine_dir)  # says that it has no effect
    version = str(trt_compiler.trt.__version__)
    check_precision(version, str(trt_args["precision"]))
    for part in inferer.family.parts:
        arguments = part_arguments(network, part, inferer, trt_args)
        folder = Path(engine_dir, engine_key(torch.cuda.get_device_name(), version, checkpoint, arguments))
        folder.mkdir(parents=True, exist_ok=True)
        engines: list[tuple[Profile, torch.nn.Module]] = []
        for kind, each in arguments.items():
            module = PartNetwork(network, part)
            path = folder / f"{part.name}_x{inferer.family.scale}_{kind}"
            trt_compiler.trt_compile(module, str(path), args=each)
            write_whole(module._trt_compiler)
            engines.append((each["input_profiles"][0], module))
        replace_method(network, part, engines)
    return network


def write_whole(compiler: Any) -> None:
    """Have a `TrtCompiler` write its engine beside its plan and move it there, so that nobody reads a part of it."""
    build, plan = compiler._build_and_save, Path(compiler.plan_path)

    def build_and_move(model: torch.nn.Module, example: dict[str, Any]) -> None:
        with tempfile.TemporaryDirectory(prefix=".monai-sr-", dir=plan.parent) as folder:
            compiler.plan_path = str(Path(folder, plan.name))
            try:
                build(model, example)
                os.replace(compiler.plan_path, plan)
            finally:
                compiler.plan_path = str(plan)

    compiler._build_and_save = build_and_move


def check_precision(version: str, precision: str) -> None:
    """Refuse a precision that a version of TensorRT cannot be asked for.

    Raises:
        BundleError: it cannot.
    """
    if int(version.split(".")[0]) > 10 and precision in ("fp16", "bf16"):
        raise BundleError(
            f"trt_args#precision is {precision}, but TensorRT {version} takes the precision from the graph alone. "
            "Install tensorrt>=10.8,<11, or leave fp32."
        )


def part_arguments(network: Any, part: Part, inferer: Any, trt_args: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the arguments of `trt_compile` for a part: of one engine for each kind of window."""
    # What is decoded is the image itself where the network has no residual: it does not use the optional input.
    unused = () if getattr(network, "residual_std", None) is not None else part.optional
    return {
        kind: {
            **copy.deepcopy(dict(trt_args)),  # MONAI writes into them
            "input_names": list(part.inputs),
            "input_profiles": [{name: shapes for name, shapes in profile.items() if name not in unused}],
        }
        for kind, profile in profiles(network, part, inferer).items()
    }


def profiles(network: Any, part: Part, inferer: Any) -> dict[str, Profile]:
    """Return the shapes that a part is called with: in square windows, and in the wide and tall ones of thin images.

    One for all would have to hold windows as wide as they are tall of which none exists.
    """
    family = inferer.family
    halo = max(family.halo, getattr(getattr(family, "process", None), "halo", None) or 0)
    multiple = part.multiple(network)
    least = -(-SMALLEST_SIDE // getattr(network, "cell", 1))
    least += -least % multiple
    most_samples = min(TorchNetworks.GPU_BATCH_SIZE, inferer.options.samples or 1)
    tile = max(inferer.tile or 0, LARGEST_TILE)
    named = {}
    for kind, ranges in window_ranges(tile, halo, max(family.grid, multiple), least).items():
        # TensorRT tries the ends of a profile too, so they are sizes that the network takes.
        low, high = ([side + -side % multiple for side in ends] for ends in zip(*ranges, strict=True))
        usual = [sorted((first, 112 + -112 % multiple, last))[1] for first, last in zip(low, high, strict=True)]
        sides = (low, usual, high)
        batches = (1, 1, most_samples)
        named[kind] = {
            name: [
                [batch] if channels is None else [batch, channels, *size]
                for batch, size in zip(batches, sides, strict=True)
            ]
            for name, channels in zip(part.inputs, part.channels(network), strict=True)
        }
    return named


def engine_key(gpu: str, version: str, checkpoint: str, arguments: Mapping[str, Any]) -> str:
    """Return the name of a folder for engines of one GPU, TensorRT, set of weights and arguments."""
    weights = sha256_of(Path(checkpoint))[:12] if checkpoint else "none"
    settings = hashlib.sha256(json.dumps(arguments, sort_keys=True, default=str).encode()).hexdigest()[:8]
    return re.sub(r"[^\w.-]+", "-", f"{gpu}_tensorrt-{version}_{weights}_{settings}")


def replace_method(network: Any, part: Part, engines: list[tuple[Profile, torch.nn.Module]]) -> None:
    """Have the method of a part call the engine whose profile holds its inputs."""

    def call(*inputs: torch.Tensor) -> torch.Tensor:
        sides = tuple(inputs[0].shape[2:])
        for profile, engine in engines:
            smallest, _, largest = next(shapes for shapes in profile.values() if len(shapes[0]) == 4)
            if all(low <= side <= high for low, side, high in zip(smallest[2:], sides, largest[2:], strict=True)):
                result: torch.Tensor = engine(*inputs)
                return result
        raise AssertionError(f"a window of {sides} is outside the profiles of part {part.name}")

    setattr(network, part.method, call)
