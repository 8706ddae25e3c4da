"""The parts of a bundle from its ONNX files, whatever runtime runs them."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import psutil
from monai_sr_bundle.backends.backend import ERROR_BARS_PART, DeviceName
from monai_sr_bundle.bundles import ERROR_BARS, ERROR_BARS_DEF, Bundle, combined_sha256
from monai_sr_bundle.errors import BundleError, quote
from monai_sr_bundle.families.family import ModelFamily, Part
from monai_sr_bundle.images.memory import free_memory

PROCESS = "process"
"""Key of metadata.json with the fingerprint of the process that the ONNX files are for."""
_ERROR_SCALE = Part(ERROR_BARS_PART, "forward", ("cells",), "scale", lambda network: (1,))


def onnx_file(family: ModelFamily, part: Part) -> str:
    """Return the name of a part's ONNX file; each scale of a family that has several has files of its own."""
    return f"{part.name}_x{family.scale}.onnx" if len(family.scales) > 1 else f"{part.name}.onnx"


def onnx_files(bundle: Bundle) -> tuple[str, ...]:
    """Return the names of the ONNX files of a bundle's network at its scale, whether or not the bundle has them."""
    return tuple(onnx_file(bundle.family, part) for part in bundle.family.parts)


def error_bars_onnx(bundle: Bundle) -> str:
    """Return the name of the ONNX file of a bundle's error bars at its scale, whether or not the bundle has it."""
    stem = Path(ERROR_BARS).stem
    return f"{stem}_x{bundle.scale}.onnx" if ERROR_BARS_DEF in bundle.facts else f"{stem}.onnx"


def require_onnx(bundle: Bundle) -> None:
    """Raise BundleError for a bundle without the ONNX files of its network."""
    for name in onnx_files(bundle):
        _require_file(bundle, name)


def _require_file(bundle: Bundle, name: str) -> None:
    if bundle.has_file(name):
        return
    if bundle.is_variant:
        raise BundleError(f"bundle {bundle.name} has no {name}, as no variant has. Use --backend torch.")
    raise BundleError(
        f"bundle {bundle.name} has no {name}. Run `monai-sr export {bundle.name}`, or use --backend torch."
    )


def exported_process(bundle: Bundle) -> dict[str, list[float]]:
    """Return what metadata.json states beside ONNX files: `PROCESS`, of a bundle whose results are drawn step by step.

    In PyTorch the weights hold it.
    """
    process = getattr(bundle.family, "process", None)
    return {} if process is None else {PROCESS: [float(f"{number:.7g}") for number in process.fingerprint()]}


def _check_process(bundle: Bundle) -> None:
    """Refuse ONNX files that were exported for another process than the one that model.yaml states."""
    expected, exported = exported_process(bundle).get(PROCESS), bundle.metadata.get(PROCESS)
    if expected is None:
        return
    if not (
        isinstance(exported, list)
        and len(exported) == len(expected)
        and all(isinstance(number, int | float) for number in exported)
    ):
        raise BundleError(
            f"bundle {bundle.name}: metadata.json has {PROCESS} {quote(exported)}, expected the {len(expected)} "
            f"numbers of the process that the ONNX files are for. Make them again with `monai-sr export {bundle.name}`."
        )
    try:
        bundle.family.process.check_fingerprint(np.array(exported, dtype=np.float32))  # type: ignore[attr-defined]
    except BundleError as error:
        raise BundleError(f"bundle {bundle.name}: {error}") from error


class OnnxModel(Protocol):
    """One ONNX file in a runtime.

    Attributes:
        input_channels: for each input, by its name: its channels; None where it is one number per image of the batch.
        outputs: for each output: its names, of which a runtime may add some.
    """

    @property
    def input_channels(self) -> Mapping[str, int | None]: ...

    @property
    def outputs(self) -> Sequence[Collection[str]]: ...

    def __call__(self, feeds: dict[str, np.ndarray]) -> np.ndarray:
        """Return the first output for one array an input.

        Raises:
            MemoryError: the arrays do not fit.
        """
        ...


class OnnxFilesBackend(ABC):
    """The parts of a bundle, one ONNX file each; a subclass loads a file into its runtime.

    Args:
        bundle: the bundle to load; the hashes of its models are checked.
        device: see the subclass.

    Raises:
        BundleError: a model is missing, damaged, for another process, or has other inputs and outputs than it should; a
            device that is not there.
    """

    name: str
    runtime: str
    """Name of the runtime, for messages."""
    batch_size = 1
    device = "cpu"

    def __init__(self, bundle: Bundle, device: DeviceName = "auto") -> None:
        _check_process(bundle)
        # Such a runtime has threads of its own; they follow the settings of everyone else's.
        chosen = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # a list is for nested loops
        self.threads = int(chosen) if chosen.isdecimal() and int(chosen) else psutil.cpu_count(logical=False) or 1
        self._device_choice = device
        parts, names = bundle.family.parts, onnx_files(bundle)
        self._models = {part.name: self._open(bundle, part, name) for part, name in zip(parts, names, strict=True)}
        self._input_names = {part.name: part.inputs for part in (*parts, _ERROR_SCALE)}
        hashes = {name: str(bundle.metadata["weights_sha256"][name]) for name in names}
        sha256 = next(iter(hashes.values())) if len(hashes) == 1 else combined_sha256(hashes)
        self.weights_sha256 = sha256 if bundle.parameters else ""  # the file of an interpolation holds a formula
        # Listed, not there: a file that is missing is told, and not taken for a bundle without error bars.
        self.has_error_bars = error_bars_onnx(bundle) in bundle.metadata["weights_sha256"]
        if self.has_error_bars:
            self._models[ERROR_BARS_PART] = self._open(bundle, _ERROR_SCALE, error_bars_onnx(bundle))

    @abstractmethod
    def _load(self, path: Path) -> OnnxModel:
        """Load a file whose hash was checked; every exception of the runtime may leave it."""

    def run(self, part: str, *inputs: np.ndarray) -> np.ndarray:
        model, names = self._models[part], self._input_names[part]
        # The exporter leaves out inputs that a network does not use.
        feeds = {name: array for name, array in zip(names, inputs, strict=True) if name in model.input_channels}
        return model(feeds)

    def input_channels(self, part: str) -> tuple[int, ...]:
        channels = self._models[part].input_channels.values()
        return tuple(number for number in channels if number is not None)

    def free_bytes(self) -> int:
        """Return the free memory of the host; these runtimes do not tell that of a GPU."""
        return free_memory()

    def _open(self, bundle: Bundle, part: Part, name: str) -> OnnxModel:
        _require_file(bundle, name)
        path, _ = bundle.weights(name)
        # Of external data an ONNX file states the location in another file, which no hash covers; nothing else in it
        # says this word.
        if b"location" in path.read_bytes():
            raise BundleError(
                f"bundle {bundle.name}: {name} takes its weights from another file, expected them inside. Make it "
                f"again with `monai-sr export {bundle.name}`."
            )
        try:
            model = self._load(path)
        except (BundleError, MemoryError):
            raise
        except Exception as error:  # a runtime raises classes that derive from Exception alone
            raise BundleError(
                f"bundle {bundle.name}: {self.runtime} cannot load {name} ({quote(error)}). "
                f"Install the bundle again, or update {self.runtime}."
            ) from error
        outputs = [part.output if part.output in names else min(names) for names in model.outputs]
        ends = list(model.input_channels), outputs
        unused = part.optional - set(ends[0])
        expected_ends = [end for end in part.inputs if end not in unused], [part.output]
        if ends != expected_ends:
            actual, expected = (
                f"from {' and '.join(one)} to {' and '.join(other)}" for one, other in (ends, expected_ends)
            )
            raise BundleError(
                f"bundle {bundle.name}: {name} goes {actual}, expected a network {expected}. "
                f"Make it again with `monai-sr export {bundle.name}`."
            )
        channels = next(iter(model.input_channels.values()))
        if part.name == "model" and channels != bundle.family.slices:
            raise BundleError(
                f"bundle {bundle.name}: {name} sees {channels} slices, but model.yaml states {bundle.family.slices}. "
                f"Make it again with `monai-sr export {bundle.name}`."
            )
        return model
