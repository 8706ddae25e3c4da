"""The methods of a protocol: interpolations, bundles, and the autoencoder of a latent diffusion model as a ceiling."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai_sr_bundle.backends.backend import Backend, DeviceName
from monai_sr_bundle.backends.opening import open_backend
from monai_sr_bundle.backends.torch_backend import load_network
from monai_sr_bundle.benchmark.film_protocol import FilmProtocol
from monai_sr_bundle.benchmark.originals import ORIGINALS
from monai_sr_bundle.benchmark.protocol import Protocol, Row
from monai_sr_bundle.benchmark.slice_pairs import interpolate_slices
from monai_sr_bundle.bundles import Bundle
from monai_sr_bundle.errors import BundleError, InputError
from monai_sr_bundle.families.diffusion import Diffusion
from monai_sr_bundle.families.family import Inference, InPlaneFamily, Volume
from monai_sr_bundle.images.input_checks import describe_outside, measure_sharpness_and_noise
from monai_sr_bundle.inferers.sampler_options import SamplerOptions
from monai_sr_bundle.inferers.tiling import middle
from monai_sr_bundle.metrics.fidelity import level_limits
from monai_sr_bundle.networks.bicubic import Bicubic
from monai_sr_bundle.uncertainty.calibration import CalibrationEntry
from monai_sr_bundle.uncertainty.error_bars import error_scale, find_bundle_calibration, find_calibration
from torch.nn.functional import interpolate, pad


class Method(ABC):
    """A row of a protocol, ready to run."""

    def __init__(self, row: Row) -> None:
        self.row = row

    @abstractmethod
    def enlarge(self, low_res: np.ndarray, high_res: torch.Tensor, seed: int) -> np.ndarray:
        """Enlarge the middle slice of ``[slices, rows, columns]`` to ``[scale * rows, scale * columns]`` float32.

        Args:
            low_res: input with its neighbouring slices; a method uses as many as it needs.
            high_res: the original, ``[1, 1, rows, columns]``, which only a ceiling uses.
            seed: seed of the noise.
        """

    def interpolates(self, image: np.ndarray) -> bool:
        """Return whether the engine interpolates an image ``[rows, columns]``, as one outside the bundle's limits."""
        return False

    def half_width(self, super_res: np.ndarray, low_res: np.ndarray) -> np.ndarray | None:
        """Return the half-widths of a stored result's error bars, in units of the window; None without error bars."""
        return None

    def warm_up(self, low_res: np.ndarray, high_res: torch.Tensor) -> None:
        """Run once untimed: the first call of a network is slower than all others."""
        self.enlarge(low_res, high_res, 0)

    @abstractmethod
    def enlarge_slices(self, thick: np.ndarray, scale: int) -> np.ndarray:
        """Enlarge ``[slices, rows, columns]`` to ``[scale * slices, rows, columns]`` float32."""


class InterpolationMethod(Method):
    """Nearest, bilinear or bicubic interpolation; along slices also `BICUBIC_MEANS`."""

    def __init__(self, row: Row, scale: int) -> None:
        super().__init__(row)
        self._enlarge = interpolator(row.method, scale)

    def enlarge(self, low_res: np.ndarray, high_res: torch.Tensor, seed: int) -> np.ndarray:
        return self._enlarge(middle(low_res))

    def enlarge_slices(self, thick: np.ndarray, scale: int) -> np.ndarray:
        return interpolate_slices(self.row.method, thick, scale)


class NetworkMethod(Method):
    """A method with a bundle and its open backend."""

    def __init__(self, row: Row, bundle: Bundle, backend: Backend) -> None:
        super().__init__(row)
        self.bundle, self.backend = bundle, backend


class BundleMethod(NetworkMethod):
    """A bundle as the engine runs it.

    Attributes:
        options: sampler options, resolved by the bundle's family.
        calibration_entry: calibration of its error bars; None to measure none.
    """

    def __init__(self, row: Row, bundle: Bundle, backend: Backend) -> None:
        super().__init__(row, bundle, backend)
        self.tile = bundle.family.fitting_tile(backend)
        self.limits = level_limits(int(bundle.facts["levels"]))
        self.options = sampler_options(row, bundle)
        self.calibration_entry: CalibrationEntry | None = None
        if row.seeds > 1 and bundle.family.sampling(self.options) is None:
            raise InputError(f"{row.key}: bundle {bundle.name} draws nothing. Leave seeds out of the protocol's row.")

    def enlarge(self, low_res: np.ndarray, high_res: torch.Tensor, seed: int) -> np.ndarray:
        return self._enlarge(low_res, replace(self.options, seed=seed))

    def enlarge_slices(self, thick: np.ndarray, scale: int) -> np.ndarray:
        return self.bundle.family.enlarge_array(Volume(thick), Inference(self.backend, self.options, self.tile))

    def interpolates(self, image: np.ndarray) -> bool:
        limits = self.bundle.metadata.get("input_limits", {})
        return bool(limits and describe_outside(measure_sharpness_and_noise(image), limits))

    def half_width(self, super_res: np.ndarray, low_res: np.ndarray) -> np.ndarray | None:
        if self.calibration_entry is None:
            return None
        return self.calibration_entry.factor * error_scale(super_res, low_res, self.bundle, self.backend)

    def warm_up(self, low_res: np.ndarray, high_res: torch.Tensor) -> None:
        self._enlarge(low_res, replace(self.options, steps=1))

    def _enlarge(self, low_res: np.ndarray, options: SamplerOptions) -> np.ndarray:
        family = self.bundle.family
        assert isinstance(family, InPlaneFamily), "open_method refuses bundles of another axis"
        return family.enlarge_slice(low_res, Inference(self.backend, options, self.tile), limits=self.limits)


class AutoencoderCeiling(NetworkMethod):
    """The reconstruction of the original by an autoencoder, in PyTorch on the CPU; samples seldom come closer."""

    def __init__(self, row: Row, bundle: Bundle, backend: Backend) -> None:
        super().__init__(row, bundle, backend)
        self.network: Any = load_network(bundle)[0]
        if not hasattr(self.network, "reconstruct"):
            raise InputError(f"{row.key}: bundle {bundle.name} has no autoencoder. Leave ceiling out of the row.")

    def enlarge_slices(self, thick: np.ndarray, scale: int) -> np.ndarray:
        raise AssertionError("a through-plane bundle has no autoencoder")

    @torch.inference_mode()
    def enlarge(self, low_res: np.ndarray, high_res: torch.Tensor, seed: int) -> np.ndarray:
        cell, scale, (rows, columns) = self.network.cell, self.network.scale, low_res.shape[1:]
        padding = (0, -columns % cell, 0, -rows % cell)
        condition = pad(torch.from_numpy(middle(low_res))[None, None], padding, mode="replicate")
        target = pad(high_res, [scale * side for side in padding], mode="replicate")
        reconstructed = self.network.reconstruct(target, self.network.encode(condition))[0][0, 0]
        return np.asarray(reconstructed[: scale * rows, : scale * columns].numpy())


def open_methods(protocol: Protocol, device: DeviceName = "auto") -> list[Method]:
    """Load the network of every row.

    Raises:
        BundleError: see `open_backend`.
        InputError: a row has options that its method does not have.
    """
    methods = [open_method(row, protocol, device) for row in protocol.rows]
    for method in methods:
        is_diffusion = isinstance(method, NetworkMethod) and isinstance(method.bundle.family, Diffusion)
        if method.row.key in protocol.processes and not is_diffusion:
            raise InputError(
                f"protocol {protocol.name}: {method.row.key} is no diffusion model. Take it out of `processes`."
            )
    return methods


def open_method(row: Row, protocol: Protocol, device: DeviceName) -> Method:
    """Load the network of one row; see `open_methods`."""
    bundle = row.bundle(protocol.scale)
    if bundle is None:
        return InterpolationMethod(row, protocol.scale)
    backend = open_backend(bundle, row.backend, device)  # type: ignore[arg-type]  # checked by read_protocol
    return (AutoencoderCeiling if row.ceiling else BundleMethod)(row, bundle, backend)


def open_film_method(
    row: Row, scale: int, protocol: FilmProtocol, device: DeviceName, calibration: Path | None
) -> Method | None:
    """Load the network of a row for one factor; None if its bundle does not enlarge by it.

    Args:
        row, scale: row and factor of the protocol.
        protocol: images that it is measured on.
        device: device of the bundle.
        calibration: file of the calibration of the error bars; None for the bundle's own.

    Raises:
        BundleError: see `open_backend`; or the bundle is made for images of another modality, window or storage.
        InputError, BundleError: the calibration cannot be used; see `find_calibration`.
    """
    bundle = row.bundle(scale)
    if bundle is None:
        return InterpolationMethod(row, scale)
    modality, original = protocol.modality, ORIGINALS[protocol.modality]
    made_for = (bundle.modality, bundle.window, bundle.facts["levels"], bundle.degradation.slab)
    if bundle.modality != "any" and made_for != (modality, original.window, original.levels, protocol.along_slices):
        raise BundleError(
            f"bundle {row.method} is made for {bundle.modality} with window {list(bundle.window)} and "
            f"{bundle.facts['levels']} levels, but the images are {modality} with window {list(original.window)} and "
            f"{original.levels} levels, enlarged {'along the slices' if protocol.along_slices else 'in the plane'}. "
            "Take the row out."
        )
    if bundle.scale != scale:
        return None
    backend = open_backend(bundle, row.backend, device)  # type: ignore[arg-type]  # checked by parse_rows
    method = BundleMethod(row, bundle, backend)
    if calibration is not None:
        method.calibration_entry = find_calibration(bundle, method.options, calibration)[1]
    elif bundle_calibration := find_bundle_calibration(bundle, method.options):
        method.calibration_entry = bundle_calibration[1]
    return method


def sampler_options(row: Row, bundle: Bundle) -> SamplerOptions:
    """Return the sampler options of a row, resolved by its bundle's family."""
    return bundle.family.resolve(row.options)


def interpolator(name: str, scale: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function that interpolates ``[rows, columns]`` to ``[scale * rows, scale * columns]``.

    Args:
        name: "nearest", "bilinear" or "bicubic".
        scale: output pixels per input pixel along both axes.
    """
    bicubic = Bicubic(scale)

    @torch.inference_mode()
    def enlarge(low_res: np.ndarray) -> np.ndarray:
        image = torch.from_numpy(low_res)[None, None]
        if name == "bicubic":
            enlarged = bicubic(image)
        elif name == "bilinear":
            enlarged = interpolate(image, scale_factor=float(scale), mode="bilinear", align_corners=False)
        else:
            enlarged = interpolate(image, scale_factor=float(scale), mode="nearest")
        return np.asarray(enlarged[0, 0].numpy())

    return enlarge
