"""OpenVINO: another runtime for the ONNX files, on the processor alone, in float32 or in bfloat16."""

from __future__ import annotations

import importlib
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import numpy as np
from monai_sr_bundle.backends.backend import DeviceName
from monai_sr_bundle.backends.onnx_files import OnnxFilesBackend
from monai_sr_bundle.bundles import Bundle
from monai_sr_bundle.errors import BundleError

# The last is said of a thread whose stack does not fit.
_NO_MEMORY = ("bad_alloc", "can't alloc", "allocate", "could not create a memory", "Resource temporarily unavailable")


class OpenVinoBackend(OnnxFilesBackend):
    """The parts of a bundle in OpenVINO, in float32.

    Args:
        bundle: the bundle to load; the hashes of its models are checked.
        device: "auto" and "cpu" are the processor.

    Raises:
        BundleError: see `OnnxFilesBackend`; "cuda".
    """

    name = "openvino"
    runtime = "OpenVINO"
    precision = "f32"

    def __init__(self, bundle: Bundle, device: DeviceName = "auto") -> None:
        if device == "cuda":
            raise BundleError(
                "--device cuda: OpenVINO runs on the processor here. Use --device auto or cpu, or --backend torch."
            )
        super().__init__(bundle, device)

    def _load(self, path: Path) -> _Compiled:
        # Without the hint it takes bfloat16 wherever the processor has it.
        settings = {"INFERENCE_PRECISION_HINT": self.precision, "INFERENCE_NUM_THREADS": self.threads}
        model = self._read(path)
        return _Compiled(lambda: open_core().compile_model(model, "CPU", {**settings, "NUM_STREAMS": 1}))

    def _read(self, path: Path) -> Any:
        return open_core().read_model(path)


class OpenVinoBfloat16Backend(OpenVinoBackend):
    """The same with bfloat16 between the first and the last convolutions, which see and make the image itself.

    These stay in float32: rounded to 8 bits of mantissa they alone would cost most of what bfloat16 costs.

    Raises:
        BundleError: see `OpenVinoBackend`; the processor has no bfloat16.
    """

    name = "openvino-bf16"
    precision = "bf16"

    def __init__(self, bundle: Bundle, device: DeviceName = "auto") -> None:
        if "BF16" not in open_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise BundleError(
                "--backend openvino-bf16: this processor has no bfloat16 arithmetic (AVX-512 BF16 or AMX). "
                "Use --backend openvino."
            )
        super().__init__(bundle, device)

    def _read(self, path: Path) -> Any:
        model = open_core().read_model(path)
        names = outer_convolutions(model)
        # Precision of a single layer is an attribute in OpenVINO's own format, and can be set in no other way.
        with TemporaryDirectory() as folder:
            text, weights = Path(folder, "model.xml"), Path(folder, "model.bin")
            import_openvino().serialize(model, text, weights)
            tree = ElementTree.parse(text).getroot()
            for layer in tree.iterfind("layers/layer"):
                if layer.get("name") in names and "Convolution" in layer.get("type", ""):
                    attributes = layer.find("rt_info")
                    if attributes is None:
                        attributes = ElementTree.SubElement(layer, "rt_info")
                    ElementTree.SubElement(attributes, "attribute", name="precise", version="0")
            return open_core().read_model(ElementTree.tostring(tree), weights.read_bytes())


def import_openvino() -> ModuleType:
    """Import OpenVINO without its telemetry package, through which the import reports itself to its makers.

    Nothing leaves a machine unless its user asks for it. Delete when the import of openvino sends nothing
    ("general_import" in openvino/tools/ovc/__init__.py).
    """
    if "openvino" not in sys.modules:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    return importlib.import_module("openvino")


@cache
def open_core() -> Any:
    """Return OpenVINO's core, one for the process.

    Each core gives the thread a stack for signals (2026.4). The end of one core would leave it with that of another one
    that has ended, on which the next signal, an interrupt among them, ends the process.
    """
    return import_openvino().Core()


def outer_convolutions(model: Any) -> set[str]:
    """Return the names of a model's convolutions that have no other convolution before them, or none behind them."""
    nodes = model.get_ordered_ops()
    convolutions = {node.get_friendly_name() for node in nodes if "Convolution" in node.get_type_name()}
    behind: set[str] = set()  # of any convolution
    for node in nodes:
        if any(_name(value) in behind | convolutions for value in node.input_values()):
            behind.add(node.get_friendly_name())
    before: set[str] = set()
    for node in reversed(nodes):
        if node.get_friendly_name() in before | convolutions:
            before |= {_name(value) for value in node.input_values()}
    return convolutions - (behind & before)


def _name(value: Any) -> str:
    return str(value.get_node().get_friendly_name())


class _Compiled:
    """One file as an `OnnxModel`.

    Args:
        compile_model: compiles it, now and again after memory ran out.
    """

    def __init__(self, compile_model: Callable[[], Any]) -> None:
        self._compile = compile_model
        compiled = compile_model()
        self._request = compiled.create_infer_request()
        shapes = {node.get_any_name(): node.get_partial_shape() for node in compiled.inputs}
        self.input_channels = {
            name: shape[1].get_length() if len(shape) > 1 else None for name, shape in shapes.items()
        }
        self.outputs = [set(node.get_names()) for node in compiled.outputs]

    def __call__(self, feeds: dict[str, np.ndarray]) -> np.ndarray:
        try:
            if self._request is None:
                self._request = self._compile().create_infer_request()
            # `infer`, which does not wait, returns the result of an earlier call where memory runs out.
            self._request.start_async({name: np.ascontiguousarray(array) for name, array in feeds.items()})
            self._request.wait()
            # The memory of an output is used again in the next call.
            return np.array(self._request.get_output_tensor(0).data)
        except RuntimeError as error:
            # Whatever failed, it leaves a graph behind that computes nothing any more.
            self._request = None
            if any(words in str(error) for words in _NO_MEMORY):
                raise MemoryError(str(error)) from error
            raise
