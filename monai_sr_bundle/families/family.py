"""The base of all model families, of those that enlarge in the plane, and of those that draw step by step."""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, NamedTuple, Protocol

import monai_sr_bundle.families
import numpy as np
from monai_sr_bundle.degradation import Degradation
from monai_sr_bundle.errors import BundleError, InputError
from monai_sr_bundle.images.geometry import Region
from monai_sr_bundle.images.image import Image
from monai_sr_bundle.images.input_checks import crop_measured, measure_sharpness_and_noise
from monai_sr_bundle.images.provenance import Sampling
from monai_sr_bundle.images.unit import FilledSlices, fill_padding, from_stored
from monai_sr_bundle.inferers.data_consistency import DataConsistency
from monai_sr_bundle.inferers.postprocessing import BICUBIC_REACH, PostprocessingRecord, enlarge_bicubic
from monai_sr_bundle.inferers.processes import DiffusionProcess, RectifiedFlow
from monai_sr_bundle.inferers.sampler import Denoiser, sample
from monai_sr_bundle.inferers.sampler_options import SamplerOptions
from monai_sr_bundle.inferers.tiling import fitting_tile, infer_tiled, middle, neighbours, stacked

Progress = Callable[[float], None]


@dataclass(frozen=True)
class Part:
    """A function of a bundle's network: a method in PyTorch, a file in ONNX.

    Attributes:
        name: name of the part, and of its ONNX file.
        method: method of the PyTorch network.
        inputs: names of the inputs, in order.
        output: name of the output.
        channels: gives the channels of each input of a network; None stands for one number per image of the batch.
        multiple: gives the number that rows and columns of the inputs are multiples of.
        optional: inputs that an exporter leaves out where the network does not use them.
    """

    name: str
    method: str
    inputs: tuple[str, ...]
    output: str
    channels: Callable[[Any], tuple[int | None, ...]]
    multiple: Callable[[Any], int] = lambda network: 1
    optional: frozenset[str] = frozenset()


ARTIFACTS = Part("artifacts", "artifacts", ("image",), "artifacts", lambda network: (1,))
"""The part that finds artifacts, of a network that removes them."""


class Networks(Protocol):
    """The loaded networks of a bundle on some runtime.

    Attributes:
        batch_size: samples of a diffusion model that are best drawn together.
    """

    batch_size: int

    def run(self, part: str, *inputs: np.ndarray) -> np.ndarray:
        """Run a part of the network.

        Args:
            part: name of a `Part` of the bundle's family.
            inputs: float32 arrays, in the part's order.

        Raises:
            MemoryError: the inputs do not fit; the caller may try smaller ones.
        """
        ...

    def input_channels(self, part: str) -> tuple[int, ...]:
        """Return the channels of the inputs of a part, without those that are one number per image."""
        ...

    def free_bytes(self) -> int:
        """Return the memory that is free on the device."""
        ...


@dataclass
class Inference:
    """The networks and options that slices are enlarged with, and the size of the tiles.

    Attributes:
        networks: loaded networks of the bundle.
        options: from `ModelFamily.resolve`.
        tile: side of a tile in input pixels (cells of a diffusion model) that fitted so far. Default: what fits into
            free memory.
        progress: called with the fraction that is done. Default: nothing is.
    """

    networks: Networks
    options: SamplerOptions
    tile: int | None = None
    progress: Progress | None = None

    def of_slice(self, index: int, done: int, count: int) -> Inference:
        """Return that of a slice, which has its own noise, where `done` of `count` slices are complete."""
        progress = progress_of_part(self.progress, done, count)
        return replace(self, options=self.options.of_stream(index), progress=progress)


def progress_of_part(progress: Progress | None, done: int, count: int) -> Progress | None:
    """Return the progress function of one of `count` equal parts, of which `done` are complete."""
    if progress is None:
        return None
    return lambda fraction: progress((done + fraction) / count)


@dataclass(frozen=True)
class Volume:
    """Stored pixels, and how they become numbers in units of the model's window.

    Attributes:
        pixels: ``[slices, rows, columns]`` as stored.
        to_unit: turns stored numbers of any shape into float32, 0 and 1 at the ends of the window.
        limits: smallest and largest number that the storage can hold, in units of the window; None for any.
        slices_touch: whether slices are as thick as they are apart, so that each is the mean over its own step.
    """

    pixels: np.ndarray | FilledSlices
    to_unit: Callable[[np.ndarray], np.ndarray] = np.asarray
    limits: tuple[float, float] | None = None
    slices_touch: bool = True


class Block(NamedTuple):
    """A finished piece of an enlarged volume.

    Attributes:
        slice_index: slice of the result, counted from the first one that was asked for.
        high_res: ``[rows, columns]`` float32 in units of the window.
        low_res: ``[rows, columns]`` float32, what it was made from; None where no slice of the input corresponds.
    """

    slice_index: int
    high_res: np.ndarray
    low_res: np.ndarray | None


class Extent(NamedTuple):
    """The part of an image that is to be enlarged.

    Attributes:
        shape: slices, rows and columns of the image.
        slices: first slice, and the one after the last.
        region: rows and columns.
        context: low-resolution pixels around the region to enlarge too, as far as the image reaches. Default 0.
    """

    shape: tuple[int, int, int]
    slices: tuple[int, int]
    region: Region
    context: int = 0

    @property
    def slice_count(self) -> int:
        return self.slices[1] - self.slices[0]

    @property
    def region_with_context(self) -> Region:
        return self.region.grown(self.context, *self.shape[1:])


class ModelFamily(ABC):
    """A kind of model. A subclass registers itself under its `name`.

    Args:
        facts: the keys of model.yaml.
        bundle: name of the bundle, for messages.

    Attributes:
        name: value of the key `family` in model.yaml.
        error_bars: whether error bars can be trained for this family.
        is_blind: whether a bundle was trained on films or scans as they are, single slices among them, with losses of
            resolution drawn at random.

    Raises:
        BundleError: a key that does not fit the family.
    """

    name: ClassVar[str] = ""
    error_bars: ClassVar[bool] = True
    registered: ClassVar[dict[str, type[ModelFamily]]] = {}

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if cls.name:
            # The packer finds the module of a family by the name.
            assert cls.name == cls.__module__.rpartition(".")[2], f"{cls.__name__} belongs into families/{cls.name}.py"
            ModelFamily.registered[cls.name] = cls

    def __init__(self, facts: Mapping[str, Any], bundle: str = "this bundle") -> None:
        self.bundle = bundle
        self.scale, self.halo = int(facts["scale"]), int(facts["halo"])
        self.scales = tuple(sorted(facts.get("scales") or [self.scale]))
        self.grid, self.memory_per_pixel = int(facts.get("grid", 1)), int(facts["memory_per_pixel"])
        self.slices = facts.get("slices", 1)
        self.is_blind = "films" in facts or "scans" in facts
        self.modality, self.operator = str(facts.get("modality", "any")), str(facts["operator"])
        self.consistency, self.generative = bool(facts.get("consistency")), bool(facts.get("generative"))
        definition = facts.get("network_def")
        self.strength = None if facts.get("strength") is None else float(facts["strength"])
        self.finds_artifacts = isinstance(definition, dict) and definition.get("mask") is True
        self._check_slices(facts)

    # What the family is

    @property
    def parts(self) -> tuple[Part, ...]:
        """The functions that a backend must be able to run: here the network, and its detector of artifacts, if any."""
        model = Part("model", "forward", ("image",), "pred", lambda network: (self.slices,))
        return (model, ARTIFACTS) if self.finds_artifacts else (model,)

    @property
    @abstractmethod
    def scale_zyx(self) -> tuple[int, int, int]:
        """Output samples per input sample along slices, rows and columns."""

    def check_installed(self) -> None:
        """Refuse to go on without a package that the family needs.

        Raises:
            BundleError: a package is not installed.
        """
        return

    def check_weights(self, network: Any) -> None:
        """Refuse weights that were trained for another process.

        Raises:
            BundleError: they were.
        """
        return

    def check_image(self, image: Image) -> tuple[str, ...]:
        """Refuse an image that the family cannot enlarge; return one sentence for each thing a reader must know.

        Raises:
            InputError: it cannot be enlarged.
        """
        if len(image.pixels) == 1 < self.slices and not self.is_blind:
            return (f"A single slice: {self.bundle} sees {self.slices}, and took it for its own neighbours.",)
        return ()

    @abstractmethod
    def measure_input(self, image: Image, window: tuple[float, float]) -> dict[str, float]:
        """Measure an input, to compare it with the images that a bundle was trained on; see `images.input_checks`.

        Of a volume it is the middle slice, with air in place of padding.
        """

    # Sampler options

    def resolve(self, options: SamplerOptions) -> SamplerOptions:
        """Return the options with the bundle's own where none was chosen.

        Raises:
            InputError: an option out of range, or one that the family does not have.
        """
        if options.chosen:
            raise InputError(
                f"{options.flags}: bundle {self.bundle} is no diffusion model, it makes its result in one pass. "
                "Leave the option out, or name a diffusion bundle with --bundle."
            )
        return self.resolve_strength(options)

    def resolve_strength(self, options: SamplerOptions) -> SamplerOptions:
        """Return the options with the bundle's own strength where none was chosen.

        Raises:
            InputError: a strength was chosen, and the bundle does not reduce noise.
        """
        if options.strength is not None and self.strength is None:
            raise InputError(
                f"--strength {options.strength:g}: bundle {self.bundle} is not made to reduce noise. Leave the option "
                "out, or name a bundle that is with --bundle (chest_ct_blind)."
            )
        return options if options.strength is not None else replace(options, strength=self.strength)

    def sampling(self, options: SamplerOptions) -> Sampling | None:
        """Return the sampling of a result, for its provenance; None where nothing is drawn."""
        return None

    def generates(self, options: SamplerOptions) -> bool:
        """Return whether a result holds generated texture (DICOM Synthetic Data)."""
        return self.generative

    # Prediction

    @abstractmethod
    def enlarge(
        self, volume: Volume, inference: Inference, extent: Extent, record: PostprocessingRecord | None = None
    ) -> Iterator[Block]:
        """Enlarge a part of a volume, piece by piece, postprocessing included.

        Args:
            volume: the whole volume; slices beside those asked for are seen as neighbours.
            inference: the networks, and options from `resolve`.
            extent: slices and region to enlarge; `record` is about the region without its context.
            record: receives what postprocessing measures.

        Raises:
            InputError: see `resolve`.
            OutOfMemoryError: even the smallest tile does not fit.
        """

    def enlarge_array(
        self, volume: Volume, inference: Inference, record: PostprocessingRecord | None = None
    ) -> np.ndarray:
        """Enlarge a whole volume to ``[slices, rows, columns]`` float32 in units of the window; see `enlarge`."""
        slices, (rows, columns) = len(volume.pixels), volume.pixels[0].shape
        scale_z, scale_y, scale_x = self.scale_zyx
        enlarged = np.empty((scale_z * slices, scale_y * rows, scale_x * columns), dtype=np.float32)
        extent = Extent((slices, rows, columns), (0, slices), Region.whole(rows, columns))
        for block in self.enlarge(volume, inference, extent, record):
            enlarged[block.slice_index] = block.high_res
        return enlarged

    def run_tiled(
        self,
        part: str,
        image: np.ndarray,
        inference: Inference,
        *,
        scale: int = 1,
        channels: int = 1,
        region: Region | None = None,
        progress: Progress | None = None,
    ) -> np.ndarray:
        """Run a part of the network on an image, tile by tile; `inference` keeps the side of a tile that fitted.

        The other arguments are those of `infer_tiled`.

        Returns:
            ``[channels, scale * rows, scale * columns]`` float32.
        """
        result, inference.tile = infer_tiled(
            image,
            partial(inference.networks.run, part),
            scale=scale,
            halo=self.halo,
            grid=self.grid,
            tile=inference.tile or self.fitting_tile(inference.networks),
            region=region,
            progress=progress,
            channels=channels,
        )
        return result

    def fitting_tile(self, networks: Networks) -> int:
        """Return the largest side of a tile that fits into free memory."""
        return fitting_tile(networks.free_bytes(), self.memory_per_pixel, self.halo)

    def _check_slices(self, facts: Mapping[str, Any]) -> None:
        slices, definition = self.slices, facts.get("network_def")
        if not isinstance(slices, int) or slices < 1 or slices % 2 == 0:
            raise BundleError(f"slices is {slices}, expected an odd number above 0: one amid its neighbours.")
        network_slices = definition.get("slices", 1) if isinstance(definition, dict) else slices
        if network_slices not in ("@slices", slices):
            raise BundleError(
                f"slices is {slices}, but its network_def sees {network_slices}; expected the same. "
                'Write `slices: "@slices"` into the network_def of a network that takes several.'
            )
        if slices > 1 and (facts.get("artifacts") or self.finds_artifacts):
            key = "a network_def with a mask" if self.finds_artifacts else "artifacts"
            raise BundleError(
                f"slices is {slices} beside {key}: artifacts are drawn into and found in single images. "
                "Write artifacts: false and mask: false, or slices: 1."
            )


class InPlaneFamily(ModelFamily):
    """A family that enlarges rows and columns, slice by slice."""

    def __init__(self, facts: Mapping[str, Any], bundle: str = "this bundle") -> None:
        super().__init__(facts, bundle)
        degradation = Degradation.parse(self.operator)
        if degradation.slab:
            raise BundleError(
                f"operator is {self.operator}, which reduces along the slices, but family {self.name} enlarges in the "
                "plane. Write family: through_plane, or name an operator of the plane."
            )
        if degradation.scale != self.scale:
            raise BundleError(
                f"operator is {self.operator}, but scale is {self.scale}. Write the same factor into both."
            )
        self.data_consistency = DataConsistency(degradation)

    @property
    def scale_zyx(self) -> tuple[int, int, int]:
        return 1, self.scale, self.scale

    @property
    def margin(self) -> int:
        """Low-resolution pixels around a region that postprocessing depends on."""
        around_artifacts = self.data_consistency.spread if self.finds_artifacts else 0
        around_noise = self.data_consistency.spread + BICUBIC_REACH if self.strength is not None else 0
        return (self.data_consistency.margin if self.consistency else 0) + around_artifacts + around_noise

    def measure_input(self, image: Image, window: tuple[float, float]) -> dict[str, float]:
        index = len(image.pixels) // 2
        filled, _ = fill_padding(replace(image, pixels=image.pixels[index : index + 1]), self.modality)
        return measure_sharpness_and_noise(from_stored(image, crop_measured(filled.pixels[0]), window))

    def predict(self, stack: np.ndarray, inference: Inference, region: Region | None = None) -> np.ndarray:
        """Enlarge one slice, without postprocessing: here by one pass through the part "model".

        Args:
            stack: ``[slices, rows, columns]`` float32 in units of the window, around the slice to enlarge.
            inference: the networks, and options from `resolve`.
            region: rows and columns to enlarge. Default: all.

        Returns:
            ``[scale * rows, scale * columns]`` float32.
        """
        progress = inference.progress
        return self.run_tiled("model", stack, inference, scale=self.scale, region=region, progress=progress)[0]

    def find_artifacts(self, low_res: np.ndarray, inference: Inference, region: Region | None = None) -> np.ndarray:
        """Return the probability of an artifact in each pixel of a region, 0 to 1.

        It is a pass of its own; the arguments are those of `predict`, with a single slice ``[rows, columns]``.
        """
        return self.run_tiled(ARTIFACTS.name, low_res, inference, region=region)[0]

    def enlarge_slice(
        self,
        stack: np.ndarray,
        inference: Inference,
        *,
        region: Region | None = None,
        recorded: Region | None = None,
        limits: tuple[float, float] | None = None,
        record: PostprocessingRecord | None = None,
    ) -> np.ndarray:
        """Enlarge one slice, add some of its noise again, and make it consistent with the input, but not at artifacts.

        Args:
            stack: see `predict`; or the slice alone, ``[rows, columns]``, for its own neighbours too.
            inference, region: see `predict`.
            recorded: part of the region that `record` is about. Default: all of it.
            limits: smallest and largest number that the storage can hold. Default: any.
            record: receives what postprocessing measures.

        Returns:
            As `predict`.
        """
        stack = stacked(stack, self.slices)
        low_res = middle(stack)
        region = region or Region.whole(*low_res.shape)
        widened = region.grown(self.margin, *low_res.shape)
        high_res = self.predict(stack, inference, widened)
        strength, of_record = inference.options.strength, (recorded or region).relative_to(widened).as_slices
        if strength is not None and strength < 1:
            # The noise is what the result, reduced again, lacks of the input.
            noise = self.data_consistency.residual(high_res, low_res, widened)
            high_res += np.float32(1 - strength) * enlarge_bicubic(noise, self.scale)
        weight = None
        if self.finds_artifacts:
            probability = self.find_artifacts(low_res, inference, widened)
            weight = self.data_consistency.input_weight(probability)
            if record is not None:
                record.add_artifacts(probability[of_record], weight[of_record])
        if self.consistency:
            if record is not None:
                clipped = high_res if limits is None else high_res.clip(*limits)
                residual = self.data_consistency.residual(clipped, low_res, widened)[of_record]
                record.residuals.add(residual if weight is None else residual[weight[of_record] == 1])
            self.data_consistency(high_res, low_res, widened, limits, weight)
        inner = region.relative_to(widened).scaled(self.scale).as_slices
        return np.ascontiguousarray(high_res[inner])

    def enlarge(
        self, volume: Volume, inference: Inference, extent: Extent, record: PostprocessingRecord | None = None
    ) -> Iterator[Block]:
        widened = extent.region_with_context
        for done, index in enumerate(range(*extent.slices)):
            indices = neighbours(index, len(volume.pixels), self.slices)
            stack = np.stack([volume.to_unit(volume.pixels[each]) for each in indices])
            of_slice = inference.of_slice(index, done, extent.slice_count)
            high_res = self.enlarge_slice(
                stack, of_slice, region=widened, recorded=extent.region, limits=volume.limits, record=record
            )
            inference.tile = of_slice.tile
            yield Block(done, high_res, middle(stack)[widened.as_slices])


class SampledFamily(InPlaneFamily):
    """A family whose results are drawn by a sampler, step by step: diffusion models and flows.

    Attributes:
        process: the process that the network was trained for.
    """

    process: DiffusionProcess | RectifiedFlow

    def __init__(self, facts: Mapping[str, Any], bundle: str = "this bundle") -> None:
        super().__init__(facts, bundle)
        block = facts.get("diffusion")
        if not isinstance(block, dict):
            raise BundleError(f"there is no `diffusion` block, which family {self.name} needs. Write one.")
        self.defaults: dict[str, Any] = dict(block)

    @abstractmethod
    def denoiser(self, networks: Networks) -> Denoiser:
        """Return the loaded networks as the `Denoiser` that the sampler calls."""

    def check_weights(self, network: Any) -> None:
        self.process.check_fingerprint(network.get_buffer("process").cpu().numpy())

    def resolve(self, options: SamplerOptions) -> SamplerOptions:
        resolved = self.resolve_strength(options).with_defaults(self.defaults)
        self.process.check_steps(resolved.steps)
        return resolved

    def sampling(self, options: SamplerOptions) -> Sampling | None:
        return self.process.sampling(options)

    def predict(self, stack: np.ndarray, inference: Inference, region: Region | None = None) -> np.ndarray:
        high_res, inference.tile = sample(
            stack,
            self.denoiser(inference.networks),
            self.process,
            inference.options,
            scale=self.scale,
            halo=self.halo,
            grid=self.grid,
            tile=inference.tile or self.fitting_tile(inference.networks),
            region=region,
            progress=inference.progress,
        )
        return high_res


def open_family(facts: Mapping[str, Any], bundle: str = "this bundle") -> ModelFamily:
    """Return the family that model.yaml names, with its part of model.yaml read and checked.

    Args:
        facts: the keys of model.yaml.
        bundle: name of the bundle, for messages.

    Raises:
        BundleError: an unknown family, or a key that does not fit it.
    """
    for module in pkgutil.iter_modules(monai_sr_bundle.families.__path__):
        importlib.import_module(f"{monai_sr_bundle.families.__name__}.{module.name}")
    family = ModelFamily.registered.get(str(facts.get("family")))
    if family is None:
        names = ", ".join(sorted(ModelFamily.registered))
        raise BundleError(f"family is {facts.get('family')!r}, expected one of {names}.")
    return family(facts, bundle)
