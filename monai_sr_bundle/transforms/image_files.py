"""Image files in and out of MONAI's dictionaries, by the readers and writers that the engine uses.

MONAI's own loaders lose the spacing and the polarity of radiographs, and its saver writes a DICOM of another class.
Arrays are ``[1, rows, columns]``, or ``[1, rows, columns, slices]`` for a volume; the affine of the MetaTensor maps
``(row, column, slice)`` to RAS millimetres.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms.io.dictionary import SaveImaged
from monai.transforms.transform import MapTransform
from monai.utils import MetaKeys, SpaceKeys
from monai_sr_bundle.bundles import open_bundle, sha256_of
from monai_sr_bundle.degradation import Degradation, along_slices
from monai_sr_bundle.errors import InputError, OutOfMemoryError, UsageError, require_bool
from monai_sr_bundle.images import files, input_checks, unit
from monai_sr_bundle.images.geometry import ras_from_lps
from monai_sr_bundle.images.image import Image
from monai_sr_bundle.images.staging import require_free
from monai_sr_bundle.images.unit import fill_padding, restore_padding
from monai_sr_bundle.inferers.sampler_options import SamplerOptions

logger = logging.getLogger(__name__)

ROW_COLUMN_SLICE = (1, 0, 2, 3)
"""Columns of an affine of ``(x, y, z)`` in the axis order of the tensors."""
NAME = "filename_or_obj"
"""Metadata key of the path of an image, as MONAI names it."""
LIMITS = "stored_limits"
"""Metadata key of the smallest and largest number that the image's storage can hold."""
SLICES_TOUCH = "slices_touch"
"""Metadata key of whether the slices are as thick as they are apart; the means of thin ones are set only then."""
WRITTEN = "written"
"""Ending of the key of an image as it is to be written."""


def image_items(
    dataset_dir: str, output_dir: str, *, overwrite: bool = False, reader: ReadImaged | None = None
) -> list[dict[str, Any]]:
    """Return one item for each image in a file or folder, with the path of its result.

    What the reader refuses is left out of a folder with a warning, before anything is computed.

    Args:
        dataset_dir: DICOM, NIfTI, PNG, JPEG or TIFF file, or a folder of these.
        output_dir: folder for the results; made when the first is written.
        overwrite: allow older results to be replaced. Default False.
        reader: first step of the workflow. Default: an image that it refuses stops the workflow.

    Returns:
        Dictionaries for `ReadImaged` and `WriteImaged`, with `image` (a path, or the paths of a series) and `result`.

    Raises:
        InputError: no image, or none that the reader takes; an image in a zip.
        OutputError: a result exists and `overwrite` is not set; a result would replace or lie in an input.
        UsageError: `dataset_dir` is empty.
    """
    if not dataset_dir:
        raise UsageError("dataset_dir is empty, expected an image or a folder of images. Name one with --dataset_dir.")
    with files.discover([Path(dataset_dir)], zips=False) as sources:
        results = files.output_paths(sources, output_dir + os.sep)
    for source, result in zip(sources, results, strict=True):
        require_free(result, overwrite=overwrite)
        for note in source.notes:
            logger.warning("%s: %s", source.name, note)
    items = [
        {
            "image": [str(file) for file in source.files] if source.in_folder else str(source.files[0]),
            "result": str(result),
        }
        for source, result in zip(sources, results, strict=True)
        if reader is None or len(sources) == 1 or reader.takes(source)
    ]
    if not items:
        raise InputError(f"{dataset_dir}: none of its {len(sources)} images can be enlarged, as the warnings say.")
    return items


class ReadImaged(MapTransform):
    """Read an image in units of the bundle's window; the padding of a CT becomes air.

    Args:
        keys: keys of the path of an image or of a folder with one series, or of the list of the paths of a series.
        modality: modality of the bundle: "CXR", "CT" or "any".
        window: values that become 0 and 1; see `images.unit.value_window`.
        force: accept an image of another modality. Default False.
        operator: name of the degradation that the bundle undoes, for its scale.
        bundle_root: folder of the bundle, whose family must be able to enlarge the image, and whose limits it must lie
            within; a warning says where it is unlike the training inputs. Default: any image.
        force_model: accept an image outside the limits. Default False.

    Returns:
        The item with a float32 MetaTensor under each key.

    Raises:
        InputError: the image cannot be read, is too small, is not finite, is of another modality or outside the
            bundle's limits, or its slices cannot be enlarged (see `check_slices`).
    """

    def __init__(
        self,
        keys: Hashable | Sequence[Hashable],
        *,
        modality: str,
        window: Sequence[float],
        force: bool = False,
        operator: str = "",
        bundle_root: str = "",
        force_model: bool = False,
    ) -> None:
        super().__init__(keys)
        scale = Degradation.parse(operator).scale if operator else None
        self.bundle = open_bundle(Path(bundle_root)).at_scale(scale) if bundle_root else None
        self.modality, self.window = modality, unit.check_window(window)
        self.force, self.force_model = require_bool("force", force), require_bool("force_model", force_model)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        changed = dict(data)
        for key in self.key_iterator(data):
            source = find_source(data[key])
            image, sentences = self._read(source)
            for sentence in sentences:
                logger.warning("%s: %s", source.name, sentence)
            changed[key] = self._tensor(image, source)
        return changed

    def takes(self, source: files.Source) -> bool:
        """Return whether an image is read without an error, which is told in a warning."""
        try:
            self._read(source)
        except (InputError, OutOfMemoryError) as error:
            logger.warning("%s It is left out of the folder.", error)
            return False
        return True

    def _read(self, source: files.Source) -> tuple[Image, tuple[str, ...]]:
        image = files.read(source)
        remarks = unit.check_modality(image, self.modality, "of this config", force=self.force)
        of_slices = self.bundle.family.check_image(image) if self.bundle else ()
        unit.check_pixels(image)
        content = input_checks.check_content(image, self.modality)
        return image, (*image.notes, *content, *remarks, *of_slices, *self._compare(image, source))

    def _compare(self, image: Image, source: files.Source) -> list[str]:
        """Return how an image differs from the training inputs of the bundle, if it has one, in sentences."""
        if self.bundle is None:
            return []
        limits = self.bundle.metadata.get("input_limits", {})
        window = unit.value_window(image, self.modality, self.window)
        measured = self.bundle.family.measure_input(image, window)
        if (outside := input_checks.describe_outside(measured, limits)) and not self.force_model:
            raise InputError(
                f"{source.name}: {outside}. `monai-sr enhance` interpolates such an image; --force_model True enlarges "
                "it by the model nevertheless."
            )
        ranges = limits or self.bundle.metadata.get("input_range", {})
        return input_checks.describe_differences(input_checks.compare_input(measured, ranges))

    def _tensor(self, image: Image, source: files.Source) -> MetaTensor:
        window = unit.value_window(image, self.modality, self.window)  # as found again by `StoredNumbersd`
        image, _ = fill_padding(image, self.modality)
        slices = np.stack([unit.from_stored(image, pixels, window) for pixels in image.pixels], axis=-1)
        affine = torch.from_numpy(ras_from_lps(image.grid.affine)[:, ROW_COLUMN_SLICE])
        meta = {
            MetaKeys.SPACE: SpaceKeys.RAS,
            NAME: str(source.path),
            "files": [str(file) for file in source.files],
            "spacing_source": image.grid.spacing_source,
            LIMITS: list(unit.stored_limits(image, window) or (-math.inf, math.inf)),
            SLICES_TOUCH: input_checks.slices_touch(image),
        }
        pixels = slices if slices.shape[-1] > 1 else slices[..., 0]
        return MetaTensor(torch.from_numpy(pixels)[None], affine=affine, meta=meta)


class StoredNumbersd(MapTransform):
    """Turn an enlarged image into numbers as its source stores them: HU or grey levels, rounded, with its padding.

    The axes become ``(column, row)`` or ``(column, row, slice)``, in which MONAI's own writers and applications expect
    an image, and the affine maps them to RAS millimetres: the box of the source, in more samples.

    Args:
        keys: keys of enlarged images, ``[1, rows, columns]`` or ``[1, rows, columns, slices]``.
        ref_key: key of the source, a MetaTensor of `ReadImaged`.
        scale: output pixels per input pixel along rows and columns, or thin slices per slice.
        modality, window, operator: see `ReadImaged`.
        consistency: whether the images were made consistent with their inputs, which bounds them near padding. Default
            False.

    Returns:
        The item with a MetaTensor under each key, and the image to write, in its source's storage, under `WRITTEN`.

    Raises:
        InputError: the source has changed since it was read.
    """

    def __init__(
        self,
        keys: Hashable | Sequence[Hashable],
        *,
        ref_key: Hashable = "image",
        scale: int,
        modality: str,
        window: Sequence[float],
        operator: str = "",
        consistency: bool = False,
    ) -> None:
        super().__init__(keys)
        self.ref_key, self.consistency = ref_key, require_bool("consistency", consistency)
        self.scale_zyx = (scale, 1, 1) if along_slices(operator) else (1, scale, scale)
        self.modality, self.window = modality, unit.check_window(window)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        changed, meta = dict(data), data[self.ref_key].meta
        for key in self.key_iterator(data):
            written = self._to_storage(torch.as_tensor(data[key]), list(meta["files"]))
            stored, affine = written.pixels, torch.from_numpy(ras_from_lps(written.grid.affine))
            values = stored if (written.slope, written.intercept) == (1, 0) else _to_values(written)
            axes = np.moveaxis(values, 0, -1).swapaxes(0, 1)  # column, row, slice
            axes = np.ascontiguousarray(axes if data[key].ndim > 3 else axes[..., 0])
            changed[key] = MetaTensor(torch.from_numpy(axes), meta={**meta, "affine": affine})
            changed[f"{key}_{WRITTEN}"] = written
        return changed

    def _to_storage(self, enlarged: torch.Tensor, files_of_source: list[str]) -> Image:
        source = find_source(files_of_source)
        # The source is read twice, because the header that a writer needs does not survive MONAI's batches.
        image = files.read(source)
        slices, rows, columns = (scale * side for scale, side in zip(self.scale_zyx, image.pixels.shape, strict=True))
        pixels = enlarged[0].cpu().numpy().reshape(enlarged.shape[1], enlarged.shape[2], -1)
        if pixels.shape != (rows, columns, slices):
            times = " x ".join(map(str, self.scale_zyx[::-1]))
            raise InputError(
                f"{source.name}: has {'x'.join(map(str, image.pixels.shape[::-1]))} pixels, but the result is "
                f"{pixels.shape[1]}x{pixels.shape[0]}x{pixels.shape[2]}, expected {times} times the columns, rows "
                "and slices. The file may have changed meanwhile; run it again."
            )
        window = unit.value_window(image, self.modality, self.window)
        stored = np.stack([unit.to_stored(image, pixels[..., index], window) for index in range(slices)])
        _, padding = fill_padding(image, self.modality)
        restore_padding(stored, image.pixels, padding, bounded=not self.consistency)
        return replace(image, pixels=stored, grid=image.grid.scaled(self.scale_zyx))


def _to_values(image: Image) -> np.ndarray:
    """Return the modality values of an image: whole numbers where its slope and intercept are whole."""
    values = image.pixels * np.float64(image.slope) + image.intercept
    if image.pixels.dtype.kind == "f" or not (image.slope.is_integer() and image.intercept.is_integer()):
        return values.astype(np.float32)
    return values.astype(np.int16 if np.abs(values).max() < 2**15 else np.int32)


class WriteImaged(SaveImaged):
    """Write the image that `StoredNumbersd` has made, as the same kind of file as its source.

    It is one of MONAI's `SaveImaged` because applications that save results by themselves, as MONAI Label does, leave
    those out.

    Args:
        keys: keys of enlarged MetaTensors with the metadata of `ReadImaged`.
        output_dir: folder for results whose item does not name a `result`.
        bundle_root: folder of the bundle, whose name and version the result states.
        scale: scale of the bundle. Default: its own.
        checkpoint: weights file; empty for a method without weights.
        device: device of the network.
        seed: seed of the noise of a diffusion model. Default 0.
        strength: how much of the input's noise the inferer takes away. Default: for a network not made to.
        diffusion: process and sampling, as in model.yaml; None for one pass through the network.
        overwrite: replace an older result. Default False.
        inferer: the `TiledInferer` that has enlarged the images; it knows which artifacts were removed. Default: none
            were.

    Raises:
        InputError: the bundle does not have the scale.
        OutputError: the result exists or cannot be written.
        UsageError: no file of weights for a network; an option that is neither True nor False.
    """

    def __init__(
        self,
        keys: Hashable | Sequence[Hashable],
        *,
        output_dir: str,
        bundle_root: str,
        scale: int | None = None,
        checkpoint: str,
        device: torch.device,
        seed: int = 0,
        strength: float | None = None,
        diffusion: dict[str, Any] | None = None,
        overwrite: bool = False,
        inferer: Any = None,
    ) -> None:
        MapTransform.__init__(self, keys)
        self.output_dir, self.overwrite, self.inferer = output_dir, require_bool("overwrite", overwrite), inferer
        bundle = open_bundle(Path(bundle_root)).at_scale(scale).with_facts(diffusion=diffusion, strength=strength)
        if bundle.parameters and not Path(checkpoint).is_file():
            raise UsageError(
                f"checkpoint is {checkpoint or 'empty'}, expected a file with weights of {bundle.name}. Leave it out "
                "for the bundle's own."
            )
        options = bundle.family.resolve(SamplerOptions(seed=seed))
        sha256 = sha256_of(Path(checkpoint)) if checkpoint else ""
        self._provenance = bundle.provenance(options, weights_sha256=sha256, backend="torch", device=str(device))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        for key in self.key_iterator(data):
            self._write(data[f"{key}_{WRITTEN}"], data[key].meta, data.get("result"))
        return dict(data)

    def _write(self, written: Image, meta: Mapping[str, Any], result: str | None) -> None:
        source = find_source(list(meta["files"]))
        target = Path(result) if result else files.output_paths([source], self.output_dir + os.sep)[0]
        removed = self.inferer.removed.get(meta[NAME]) if self.inferer else None
        count = removed.count if removed else 0
        provenance = replace(self._provenance, created=datetime.now().astimezone(), removed_places=count)
        files.write(written, provenance, target, overwrite=self.overwrite)
        if removed and removed.sentence:
            logger.warning("%s: %s", source.name, removed.sentence)
        logger.info("wrote %s", target)


def find_source(value: str | os.PathLike[str] | Sequence[str]) -> files.Source:
    """Find the one image at a path, or of the paths of a series.

    Raises:
        InputError: no image, or several.
    """
    if isinstance(value, str | os.PathLike):
        with files.discover([Path(value)], zips=False) as sources:
            if len(sources) == 1:
                return sources[0]
            raise InputError(
                f"{value}: holds {len(sources)} images, expected one image file or one series. Name one image, or list "
                "the files of one series."
            )
    paths = [Path(file) for file in value]
    if len(paths) == 1:
        return find_source(paths[0])
    folder = Path(os.path.commonpath([path.parent.resolve() for path in paths]))
    return files.Source("dicom", tuple(paths), folder, folder.name)
