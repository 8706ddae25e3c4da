"""The interface of every runtime: the parts of a bundle's network, numpy in and numpy out."""

from __future__ import annotations

from typing import Literal, Protocol, get_args

from monai_sr_bundle.families.family import Networks

RuntimeName = Literal["torch", "onnx", "openvino", "openvino-bf16"]
BackendName = Literal["auto", RuntimeName]
BACKENDS: tuple[BackendName, ...] = get_args(BackendName)
DeviceName = Literal["auto", "cpu", "cuda"]
ERROR_BARS_PART = "error_bars"
"""The part behind the error bars of a bundle; it belongs to no family."""


class Backend(Networks, Protocol):
    """The loaded networks of a bundle, `ERROR_BARS_PART` among their parts.

    Attributes:
        name: a `RuntimeName`.
        device: "cpu" or "cuda:0".
        weights_sha256: SHA-256 of the file that was loaded, `combined_sha256` of several; empty for a method without
            weights.
        threads: number of CPU threads; OMP_NUM_THREADS sets it for every backend.
        has_error_bars: whether the bundle has the part `ERROR_BARS_PART`.
    """

    name: str
    device: str
    weights_sha256: str
    threads: int
    has_error_bars: bool
