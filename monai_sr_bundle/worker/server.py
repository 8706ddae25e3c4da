"""Answer the requests of a viewer, with the pixels, error bars, measurements and warnings of the engine.

Arrays are .npy files. Files are written into the folder that a request names and nowhere else, complete or not at all.
"""

from __future__ import annotations

import logging
import math
import re
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tokenize import TokenError
from typing import Any, BinaryIO

import numpy as np
from monai_sr_bundle.backends.onnx_files import require_onnx
from monai_sr_bundle.bundles import Bundle, open_bundle
from monai_sr_bundle.cli.enlarging import check_tolerance, remove_on_error
from monai_sr_bundle.engine.estimate import Speed, needed_bytes
from monai_sr_bundle.engine.result import Result
from monai_sr_bundle.engine.session import (
    BackendName,
    CheckedOptions,
    DeviceName,
    EnhanceOptions,
    Session,
    SessionCache,
    choose_bundle,
)
from monai_sr_bundle.errors import (
    BundleError,
    InputError,
    OutOfMemoryError,
    OutputError,
    SuperResolutionError,
    quote,
)
from monai_sr_bundle.images.from_array import image_from_array
from monai_sr_bundle.images.geometry import Grid, Region
from monai_sr_bundle.images.image import Image
from monai_sr_bundle.images.memory import free_memory
from monai_sr_bundle.images.staging import staged
from monai_sr_bundle.inferers.sampler_options import SamplerOptions
from monai_sr_bundle.shipped_bundles import configs_dir, is_default
from monai_sr_bundle.uncertainty.error_bars import has_error_bars
from monai_sr_bundle.worker.messages import Events, Request, RequestError

logger = logging.getLogger(__name__)

LONGEST_LINE = 1024 * 1024
"""Bytes of a request at most."""
LARGEST_IMAGE = 4 * 10**9
"""Pixels of an image at most, ten times those of a whole body; numpy looks at all of them, also of an empty one."""
PROGRESS_INTERVAL = 0.05
"""Seconds between two events of progress at least."""
KINDS = (
    (InputError, "input"), (BundleError, "bundle"), (OutputError, "output"), (OutOfMemoryError, "memory"),
)  # fmt: skip
"""Classes of errors, and the kind of failure that is reported to a viewer."""
MODALITIES = ("CXR", "CT", "unknown")


class Worker:
    """A worker that answers the requests of one viewer.

    Args:
        events: stream of the answers.
        backend, device: the same as in `monai-sr enhance`.
        speed: the speed by which the seconds of a plan are estimated. Default: measured on this machine.

    Attributes:
        backend: the runtime, as "torch" or "onnx".
    """

    def __init__(self, events: Events, backend: BackendName, device: DeviceName, speed: Speed | None = None) -> None:
        self._events = events
        self._sessions = SessionCache(backend, device)
        self.backend = self._sessions.backend
        self._speed = speed or Speed()
        self._current: Request | None = None
        self._answers: dict[str, Callable[[Request], None]] = {
            "bundles": self._list_bundles, "plan": self._plan, "enhance": self._enhance,
        }  # fmt: skip

    def serve(self, requests: BinaryIO) -> int:
        """Answer until the viewer quits or closes its end, and return the exit code 0.

        Raises:
            KeyboardInterrupt: the process was interrupted by a signal.
            BrokenPipeError: the viewer has gone.
        """
        while line := requests.readline(LONGEST_LINE + 1):
            if len(line) > LONGEST_LINE:
                while line and not line.endswith(b"\n"):
                    line = requests.readline(LONGEST_LINE)
                message = f"the line is longer than {LONGEST_LINE:,} bytes. Send arrays as files."
                self._events.fail(None, "protocol", message)
            elif line.strip() and not self._answer(line):
                break
        return 0

    def report_end(self, reason: str) -> None:
        """Report "interrupted" or "stopped" to a viewer that waits for an answer."""
        if self._current is None:
            return
        try:
            message = f"{reason}; no partial files remain. Start the worker again."
            self._events.fail(self._current.identity, "interrupted", message)
        except OSError:
            logger.warning("%s, and the viewer has gone", reason)

    def _answer(self, line: bytes) -> bool:
        """Answer a request, and return whether others may follow."""
        identity = None
        try:
            self._current = request = Request.parse(line)
            identity = request.identity
            name = request.text("do", (*self._answers, "quit"))
            if name == "quit":
                return False
            self._answers[name](request)
        except RequestError as error:
            self._events.fail(identity, "protocol", str(error))
        except SuperResolutionError as error:
            kind = next((kind for error_class, kind in KINDS if isinstance(error, error_class)), "internal")
            self._events.fail(identity, kind, for_viewers(str(error)))
        except MemoryError:
            message = "not enough memory. Choose a smaller region, or close other programs."
            self._events.fail(identity, "memory", message)
        except BrokenPipeError:
            raise
        except Exception as error:  # a bug of ours must not end the viewer
            _log_traceback(error)
            message = f"an error inside the worker ({type(error).__name__}). Please report it, with the worker's log."
            self._events.fail(identity, "internal", message)
        self._current = None  # not after a signal: `report_end` needs it
        return True

    def _list_bundles(self, request: Request) -> None:
        bundles: list[dict[str, Any]] = []
        for text in sorted(configs_dir().glob("*/model.yaml")):
            try:
                bundles.append(describe_bundle(open_bundle(text.parent), self.backend))
            except BundleError as error:  # the others can be used
                bundles.append({"name": text.parent.name, "lacks": for_viewers(str(error))})
        self._events.write("bundles", id=request.identity, bundles=bundles)

    def _plan(self, request: Request) -> None:
        shape = request.wholes("shape", 3)
        if min(shape) < 1:
            raise RequestError(f"shape is {quote(list(shape))}, expected three numbers above 0.")
        if math.prod(shape) > LARGEST_IMAGE:
            raise RequestError(f"shape is {quote(list(shape))}, expected {LARGEST_IMAGE:,} pixels at most.")
        # One number, repeated for every pixel: the plan needs no pixels.
        image = _build_image(request, np.broadcast_to(np.zeros((), np.int16), shape))
        session, _, checked = self._check(request, image, has_pixels=False)
        itemsize = request.whole_or_none("itemsize") or 2
        error_bars = checked.calibration is not None
        _, upper_bound = needed_bytes(checked.extent, itemsize, session, error_bars=error_bars)
        seconds = self._speed.seconds(checked.extent, session, checked.sampler, error_bars=error_bars)
        self._events.write(
            "planned", id=request.identity, bundle=session.bundle.name, scaleZYX=session.bundle.scale_zyx,
            seconds=round(seconds, 3), bytes=upper_bound, freeBytes=free_memory(),
            errorBars=error_bars, warnings=checked.warnings,
        )  # fmt: skip

    def _enhance(self, request: Request) -> None:
        start = time.perf_counter()
        out = _require_folder(request.text("out"))
        tolerance = request.number_or_none("tolerance")
        check_tolerance(tolerance)
        image = _with_stored_range(request, _build_image(request, read_array(request.text("array"))))
        session, options, checked = self._check(request, image)
        progress = Progress(self._events, request.identity)
        result = session.enhance(image, options, checked.extent.region, progress)
        description = _describe_result(result, tolerance)
        warnings = (*dict.fromkeys((*checked.warnings, *result.warnings, *result.grain_warnings)),)
        written = _write_arrays(result, out)
        self._events.write(
            "done", id=request.identity, **written, **description, warnings=warnings,
            seconds=round(time.perf_counter() - start, 3), networkSeconds=round(result.seconds, 3),
        )  # fmt: skip

    def _check(
        self, request: Request, image: Image, has_pixels: bool = True
    ) -> tuple[Session, EnhanceOptions, CheckedOptions]:
        """Return the opened bundle and the options of a request, before and after all checks.

        Raises:
            RequestError, InputError, BundleError: the request cannot be fulfilled.
        """
        bundle = choose_bundle(image, request.text_or_none("bundle"), request.whole_or_auto("scale"))
        first, last, *region = request.wholes("region", 6)
        # A slider at 0 means the default for every bundle.
        texture = request.number_or_none("texture")
        texture = texture if texture or _draws_texture(bundle) else None
        sampler = SamplerOptions(
            request.whole_or_none("seed") or 0,
            request.whole_or_none("steps"),
            texture=texture,
            strength=request.number_or_none("strength"),
        )
        calibration, error_bars = request.text_or_none("calibration"), request.flag("errorBars")
        session = self._sessions.open(bundle)
        if calibration:
            session = session.with_calibration(Path(calibration))
        options = EnhanceOptions(
            sampler,
            slices=(first, last),
            error_bars=(True if calibration else None) if error_bars else False,
            force=request.flag("force"),
            force_model=request.flag("forceModel"),
        )
        checked = session.check(image, options, Region(*region), has_pixels)
        if error_bars and not has_error_bars(bundle) and not calibration:
            warning = f"No error bars: {bundle.name} has none that are calibrated."
            checked = replace(checked, warnings=(*checked.warnings, warning))
        return session, options, checked


class Progress:
    """A listener that writes events of progress, no more often than a viewer shows them.

    Args:
        events: stream of events.
        identity: id of the request.
    """

    def __init__(self, events: Events, identity: int | str | None) -> None:
        self._events, self._identity = events, identity
        self._start = self._last_event = time.monotonic()

    def __call__(self, fraction: float) -> None:
        now = time.monotonic()
        if now - self._last_event < PROGRESS_INTERVAL and fraction < 1:
            return
        self._last_event = now
        left = round((now - self._start) * (1 - fraction) / fraction, 2) if fraction > 0 else None
        self._events.write("progress", id=self._identity, fraction=round(fraction, 4), secondsLeft=left)


def describe_bundle(bundle: Bundle, backend: str) -> dict[str, Any]:
    """Return the facts of a bundle that a viewer shows; `lacks` says why the backend cannot run it, None if it can."""
    lacks = None
    try:
        bundle.family.check_installed()
        if backend != "torch":
            require_onnx(bundle)
    except BundleError as error:
        lacks = for_viewers(str(error))
    return {
        "name": bundle.name,
        "title": str(bundle.metadata.get("name") or bundle.name),
        "description": str(bundle.metadata.get("description") or ""),
        "version": bundle.version,
        "modality": bundle.modality,
        "scale": bundle.scale,
        "scales": bundle.scales,
        "scaleZYX": bundle.scale_zyx,
        "generative": bundle.family.generative,
        "hasErrorBars": has_error_bars(bundle),
        "default": is_default(bundle),
        "textures": _draws_texture(bundle),
        "steps": (bundle.facts.get("diffusion") or {}).get("steps"),
        "slices": bundle.family.slices,
        "operator": bundle.operator,
        "lacks": lacks,
    }


def _draws_texture(bundle: Bundle) -> bool:
    """Return whether a viewer may choose how much texture is drawn."""
    return "texture" in (bundle.facts.get("diffusion") or {})


def read_array(path: str) -> np.ndarray:
    """Open the array of a .npy file without reading it into memory. Never unpickles.

    Raises:
        InputError: the file does not exist, or holds anything but numbers.
    """
    try:
        return np.asarray(np.lib.format.open_memmap(path, mode="r"))
    except FileNotFoundError as error:
        raise InputError("array: the file does not exist. Write the image before the request.") from error
    except (OSError, ValueError, EOFError, SyntaxError, TypeError, OverflowError, TokenError) as error:
        raise InputError(
            "array: the file is no .npy of numbers, or is not complete. Write it with numpy.save, without objects."
        ) from error


def _build_image(request: Request, pixels: np.ndarray) -> Image:
    """Return the image of a request, after checking its pixels, modality and spacing.

    Raises:
        RequestError, InputError: the values make no image.
    """
    if pixels.ndim != 3 or pixels.size == 0:
        raise InputError(f"array: has the shape {list(pixels.shape)}, expected [slices, rows, columns], all above 0.")
    modality = request.text("modality", MODALITIES)
    image = replace(
        image_from_array(pixels, modality=modality),
        path=Path("the image"),
        black_is_high=request.flag("blackIsHigh"),
        kernel=request.text_or_none("kernel") or "",
    )
    spacing = request.numbers_or_none("spacingZYX", 3)
    if spacing is not None:
        if min(spacing) <= 0:
            raise RequestError(f"spacingZYX is {list(spacing)}, expected millimetres above 0, or null if unknown.")
        z, y, x = spacing
        grid = Grid(image.grid.shape_zyx, np.diag([x, y, z, 1.0]), "given by the viewer")
        image = replace(image, grid=grid)
    return image


def _with_stored_range(request: Request, image: Image) -> Image:
    """Return the image with the range of stored values that the viewer states, if it does.

    Raises:
        RequestError: the range does not include all pixels.
    """
    stored = request.wholes_or_none("storedRange", 2)
    if stored is None:
        return image
    if image.stored_range is None:
        raise RequestError(f"storedRange is {list(stored)}, but the array is float32, which has none. Leave it out.")
    low, high = int(image.pixels.min()), int(image.pixels.max())
    if not stored[0] <= low <= high <= stored[1] or stored[0] == stored[1]:
        raise RequestError(f"storedRange is {list(stored)}, but the array holds {low} to {high}. Widen it.")
    stored_range = max(stored[0], image.stored_range[0]), min(stored[1], image.stored_range[1])
    return replace(image, stored_range=stored_range, bits=int(stored_range[1] - stored_range[0]).bit_length())


def _require_folder(name: str) -> Path:
    folder = Path(name)
    if not folder.is_absolute() or not folder.is_dir():
        raise OutputError("out: the folder does not exist. Make it, and name its absolute path.")
    older_files = [name for name in ("result.npy", "error_bars.npy") if (folder / name).exists()]
    if older_files:
        raise OutputError(f"out: {older_files[0]} exists already in the folder. Name an empty folder.")
    return folder


def _describe_result(result: Result, tolerance: float | None) -> dict[str, Any]:
    """Return all that a reader must know of a result, except the warnings, as JSON."""
    unit, consistency, provenance = result.unit, result.consistency, result.described_provenance
    before = result.before_consistency or (math.nan, math.nan)
    coverage = None
    bars = result.describe_error_bars(tolerance)
    if bars is not None:
        images = bars["calibrated_on"]
        guaranteed = images["guaranteed_percent"]
        few = "" if guaranteed is None else f"; so few guarantee only {guaranteed:g} % on average over further patients"
        coverage = {
            "promised": bars["percent"] / 100,
            "calibratedOn": f"{images['images']} images of {images['patients']} patients ({images['data']}, "
            f"{images['split']} split, {images['created']}{few})",
            "meanHalfWidth": bars["mean"],
            "tolerance": bars["tolerance"],
            "shareAboveTolerance": bars["share_above_tolerance"],
            "unit": unit,
        }
    removed = result.removed
    return {
        "bundle": provenance.bundle,
        "version": provenance.version,
        "sha256": provenance.weights_sha256,
        "scaleZYX": provenance.scale_zyx,
        "generative": result.bundle.family.generative,
        "synthetic": provenance.generative,
        "consistency": {
            "rms": _finite_or_none(consistency.rms),
            "max": _finite_or_none(consistency.maximum),
            "rmsBefore": _finite_or_none(before[0]),
            "maxBefore": _finite_or_none(before[1]),
            "unit": unit,
            "share": removed.agreement_share if removed else 1.0,
        },
        "coverage": coverage,
        "removed": {"places": removed.count, "share": removed.share} if removed else None,
        "sentence": provenance.sentence,
        "provenance": {
            **vars(provenance),
            "created": provenance.created.isoformat(),
            "sampling": provenance.sampling._asdict() if provenance.sampling else None,
        },
    }


def _write_arrays(result: Result, out: Path) -> dict[str, str | None]:
    """Write the arrays of a result, all or none, and return their paths."""
    arrays = {"result": (out / "result.npy", result.image.pixels)}
    if result.error_bars is not None:
        arrays["errorBars"] = (out / "error_bars.npy", result.error_bars.half_width)
    with remove_on_error([path for path, _ in arrays.values()]) as written:
        for path, array in arrays.values():
            with staged(path, overwrite=False, needed_bytes=array.nbytes) as temporary:
                np.save(temporary, array, allow_pickle=False)
            written.append(path)
    return {name: str(arrays[name][0]) if name in arrays else None for name in ("result", "errorBars")}


def _finite_or_none(number: float) -> float | None:
    return number if math.isfinite(number) else None


def for_viewers(message: str) -> str:
    """Rewrite a message of the command line for a panel, which has no command-line options.

    Whole commands, which stand in backticks, keep their options.
    """
    parts = message.split("`")
    for number in range(0, len(parts), 2):
        part = parts[number].replace(" with --roi", "").replace("--error-bars", "error bars")
        parts[number] = re.sub(r"(?<![\w-])--([a-z]+)", r"\1", part)
    return "`".join(parts)


def _log_traceback(error: BaseException) -> None:
    """Log where an error happened, without its message, which may repeat values of an image's header or file name."""
    logger.error("%s", type(error).__name__)
    for frame in traceback.extract_tb(error.__traceback__):
        logger.error("  %s, line %d, in %s", Path(frame.filename).name, frame.lineno or 0, frame.name)
    sys.stderr.flush()
