"""What the worker does with a request. Pixels, error bars, figures and warnings are those of the engine and its jobs.

Arrays are .npy files. Nothing is written but into the folder that a request names, each file complete or not at all.
"""

from __future__ import annotations

import logging
import math
import re
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from monai_sr_bundle.backends.backend import BackendName, DeviceName
from monai_sr_bundle.bundles import Bundle, configs_dir, open_bundle
from monai_sr_bundle.cli.jobs import check_tolerance, together
from monai_sr_bundle.engine.result import Result
from monai_sr_bundle.engine.session import EnhanceOptions, Session, SessionCache, choose_bundle
from monai_sr_bundle.errors import (
    BundleError,
    InputError,
    OutOfMemoryError,
    OutputError,
    SuperResolutionError,
)
from monai_sr_bundle.families.family import Extent
from monai_sr_bundle.images.geometry import Grid, Region
from monai_sr_bundle.images.image import Image, image_from_array
from monai_sr_bundle.images.staging import staged
from monai_sr_bundle.inferers.sampler_options import SamplerOptions
from monai_sr_bundle.report.build import describe_error_bars
from monai_sr_bundle.uncertainty.error_bars import has_error_bars
from monai_sr_bundle.worker.estimate import Speed, needed_bytes
from monai_sr_bundle.worker.messages import Events, Request, RequestError

logger = logging.getLogger(__name__)

LONGEST_LINE = 1024 * 1024
"""Bytes of a request."""
MOST_LOADED = 3
"""Bundles that stay in memory."""
BETWEEN_PROGRESS = 0.05
"""Seconds."""
KINDS = (
    (InputError, "input"), (BundleError, "bundle"), (OutputError, "output"), (OutOfMemoryError, "memory"),
)  # fmt: skip
MODALITIES = ("CXR", "CT", "unknown")


class Worker:
    """Answers the requests of one viewer.

    Args:
        events: where the answers go.
        backend, device: as of `monai-sr enhance`.

    Attributes:
        backend: "torch" or "onnx".
    """

    def __init__(self, events: Events, backend: BackendName, device: DeviceName) -> None:
        self._events = events
        self._sessions = SessionCache(backend, device, size=MOST_LOADED)
        self.backend = self._sessions.backend
        self._speed = Speed()
        self._present: Request | None = None
        self._answers: dict[str, Callable[[Request], None]] = {
            "bundles": self._bundles, "plan": self._plan, "enhance": self._enhance,
        }  # fmt: skip

    def serve(self, requests: BinaryIO) -> int:
        """Answer until the viewer quits or closes its end; then 0, the exit code.

        Raises:
            KeyboardInterrupt: a signal.
            BrokenPipeError: the viewer has gone.
        """
        while line := requests.readline(LONGEST_LINE + 1):
            if len(line) > LONGEST_LINE:
                while line and not line.endswith(b"\n"):
                    line = requests.readline(LONGEST_LINE)
                message = f"the line is longer than {LONGEST_LINE:,} bytes. Send arrays as files."
                self._events.fail(None, "protocol", message)
            elif line.strip() and not self._goes_on_after(line):
                break
        return 0

    def tell_end(self, how: str) -> None:
        """Say "interrupted" or "stopped" to whoever waits for an answer, if anybody does."""
        if self._present is None:
            return
        try:
            message = f"{how}; no partial files remain. Start the worker again."
            self._events.fail(self._present.identity, "interrupted", message)
        except OSError:
            logger.warning("%s, and nobody was left to be told", how)

    def _goes_on_after(self, line: bytes) -> bool:
        """Answer a request; False if it is the last."""
        identity = None
        try:
            self._present = request = Request.of(line)
            identity = request.identity
            do = request.text("do", (*self._answers, "quit"))
            if do == "quit":
                return False
            self._answers[do](request)
        except RequestError as error:
            self._events.fail(identity, "protocol", str(error))
        except SuperResolutionError as error:
            kind = next((name for known, name in KINDS if isinstance(error, known)), "internal")
            self._events.fail(identity, kind, for_viewers(str(error)))
        except MemoryError:
            message = "not enough memory. Choose a smaller region, or close other programs."
            self._events.fail(identity, "memory", message)
        except BrokenPipeError:
            raise
        except Exception as error:  # a mistake of ours must not take the viewer with it
            _log_place(error)
            message = f"a mistake in the worker ({type(error).__name__}). Please report it, with the worker's log."
            self._events.fail(identity, "internal", message)
        self._present = None  # but not where a signal has ended the work: then it is told
        return True

    def _bundles(self, request: Request) -> None:
        found: list[dict[str, Any]] = []
        for text in sorted(configs_dir().glob("*/model.yaml")):
            try:
                found.append(describe_bundle(open_bundle(text.parent)))
            except BundleError as error:  # the others can be used all the same
                found.append({"name": text.parent.name, "lacks": for_viewers(str(error))})
        self._events.tell("bundles", id=request.identity, bundles=found)

    def _plan(self, request: Request) -> None:
        shape = request.wholes("shape", 3)
        if min(shape) < 1:
            raise RequestError(f"shape is {list(shape)}, expected three numbers above 0.")
        # One number, seen as often as the image has pixels.
        image = _image(request, np.broadcast_to(np.zeros((), np.int16), shape))
        task = self._task(request, image)
        itemsize = request.whole_or_none("itemsize") or 2
        _, most = needed_bytes(task.extent, itemsize, task.session, error_bars=task.has_error_bars)
        seconds = self._speed.seconds(task.extent, task.session, task.sampler, error_bars=task.has_error_bars)
        self._events.tell(
            "planned", id=request.identity, bundle=task.session.bundle.name, scaleZYX=task.session.bundle.scale_zyx,
            seconds=round(seconds, 3), bytes=most, freeBytes=task.session.backend.free_bytes(),
            errorBars=task.has_error_bars, warnings=task.warnings,
        )  # fmt: skip

    def _enhance(self, request: Request) -> None:
        began = time.perf_counter()
        out = _folder(request.text("out"))
        tolerance = request.number_or_none("tolerance")
        check_tolerance(tolerance)
        image = _with_stored_range(request, _image(request, read_array(request.text("array"))))
        task = self._task(request, image)
        _refuse_what_cannot_fit(image, task)
        progress = Progress(self._events, request.identity)
        result = task.session.enhance(image, task.options, task.extent.region, progress)
        description = _describe_result(result, tolerance)
        warnings = (*dict.fromkeys((*task.warnings, *result.warnings)),)
        written = _written(result, out)
        self._events.tell(
            "done", id=request.identity, **written, **description, warnings=warnings,
            seconds=round(time.perf_counter() - began, 3), networkSeconds=round(result.seconds, 3),
        )  # fmt: skip

    def _task(self, request: Request, image: Image) -> _Task:
        """Check a request.

        Raises:
            RequestError, InputError, BundleError: it cannot be done.
        """
        bundle = choose_bundle(image, request.text_or_none("bundle"))
        first, last, *region = request.wholes("region", 6)
        # A slider at 0 asks for nothing, whatever the bundle.
        texture = request.number_or_none("texture")
        texture = texture if texture or bundle.family.describe()["textures"] else None
        sampler = SamplerOptions(request.whole_or_none("seed") or 0, request.whole_or_none("steps"), None, texture)
        calibration, error_bars = request.text_or_none("calibration"), request.flag("errorBars")
        session = self._sessions.open(bundle)
        if calibration:
            session = session.calibrated(Path(calibration))
        options = EnhanceOptions(
            sampler,
            slices=(first, last),
            error_bars=(True if calibration else None) if error_bars else False,
            force=request.flag("force"),
        )
        checked = session.check(image, options, Region(*region))
        warnings = checked.warnings
        if error_bars and not has_error_bars(bundle) and not calibration:
            warnings = (*warnings, f"No error bars: {bundle.name} has none that are calibrated.")
        slices, rows, columns = image.pixels.shape
        extent = Extent((slices, rows, columns), (first, last), Region(*region))
        return _Task(session, options, checked.sampler, checked.calibration is not None, warnings, extent)


class Progress:
    """Tells how far an enlargement is, no more often than anybody sees.

    Args:
        events: where to tell it.
        identity: of the request.
    """

    def __init__(self, events: Events, identity: int | str | None) -> None:
        self._events, self._identity = events, identity
        self._began = self._told = time.monotonic()

    def __call__(self, fraction: float) -> None:
        now = time.monotonic()
        if now - self._told < BETWEEN_PROGRESS and fraction < 1:
            return
        self._told = now
        left = round((now - self._began) * (1 - fraction) / fraction, 2) if fraction > 0 else None
        self._events.tell("progress", id=self._identity, fraction=round(fraction, 4), secondsLeft=left)


@dataclass(frozen=True)
class _Task:
    """What a request asks for, known to be possible.

    Attributes:
        session: the opened bundle.
        options: what is asked of the image.
        sampler: resolved sampler options.
        has_error_bars: whether the result will have error bars.
        warnings: one sentence each.
        extent: what of the image.
    """

    session: Session
    options: EnhanceOptions
    sampler: SamplerOptions
    has_error_bars: bool
    warnings: tuple[str, ...]
    extent: Extent


def describe_bundle(bundle: Bundle) -> dict[str, Any]:
    """What a viewer shows of a bundle; `lacks` says why it cannot be run here, None where it can."""
    lacks = None
    try:
        bundle.family.check_installed()
    except BundleError as error:
        lacks = for_viewers(str(error))
    return {
        "name": bundle.name,
        "title": str(bundle.metadata.get("name") or bundle.name),
        "description": str(bundle.metadata.get("description") or ""),
        "version": bundle.version,
        "modality": bundle.modality,
        "scale": bundle.scale,
        "scaleZYX": bundle.scale_zyx,
        "generative": bundle.family.generative,
        "hasErrorBars": has_error_bars(bundle),
        "default": bundle.is_default,
        **bundle.family.describe(),
        "slices": bundle.family.slices,
        "operator": bundle.operator,
        "lacks": lacks,
    }


def read_array(path: str) -> np.ndarray:
    """The array of a .npy file, without reading it into memory. Never unpickles.

    Raises:
        InputError: no such file, or none that holds plain numbers.
    """
    try:
        return np.asarray(np.lib.format.open_memmap(path, mode="r"))
    except FileNotFoundError as error:
        raise InputError("array: there is no such file. Write the image before asking for it.") from error
    except (OSError, ValueError, EOFError, SyntaxError, TypeError) as error:
        raise InputError(
            "array: the file is no .npy of plain numbers, or not a whole one. Write it with numpy.save, complete, and "
            "without objects."
        ) from error


def _image(request: Request, pixels: np.ndarray) -> Image:
    """The image of a request; whatever it is made of is checked.

    Raises:
        RequestError, InputError: it cannot be one.
    """
    if pixels.ndim != 3 or pixels.size == 0:
        raise InputError(f"array: has the shape {list(pixels.shape)}, expected [slices, rows, columns], all above 0.")
    modality = request.text("modality", MODALITIES)
    image = replace(
        image_from_array(pixels, modality=modality),
        path=Path("the image"),
        black_is_high=request.flag("blackIsHigh"),
    )
    spacing = request.numbers_or_none("spacingZYX", 3)
    if spacing is not None:
        if min(spacing) <= 0:
            raise RequestError(f"spacingZYX is {list(spacing)}, expected millimetres above 0, or null where unknown.")
        z, y, x = spacing
        grid = Grid(image.grid.shape_zyx, np.diag([x, y, z, 1.0]), "given by the viewer")
        image = replace(image, grid=grid)
    return image


def _with_stored_range(request: Request, image: Image) -> Image:
    """The image with the range that its storage may hold, where the viewer knows it better than the array's type tells.

    Raises:
        RequestError: a range that the pixels are not in.
    """
    stored = request.wholes_or_none("storedRange", 2)
    if stored is None:
        return image
    if image.stored_range is None:
        raise RequestError(f"storedRange is {list(stored)}, but the array is float32, which has none. Leave it out.")
    low, high = int(image.pixels.min()), int(image.pixels.max())
    if not stored[0] <= low <= high <= stored[1] or stored[0] == stored[1]:
        raise RequestError(f"storedRange is {list(stored)}, but the array holds {low} to {high}. Widen it.")
    kept = max(stored[0], image.stored_range[0]), min(stored[1], image.stored_range[1])
    return replace(image, stored_range=kept, bits=int(kept[1] - kept[0]).bit_length())


def _folder(name: str) -> Path:
    folder = Path(name)
    if not folder.is_absolute() or not folder.is_dir():
        raise OutputError("out: no such folder. Make it, and name it by its whole path.")
    taken = [name for name in ("result.npy", "error_bars.npy") if (folder / name).exists()]
    if taken:
        raise OutputError(f"out: there is a {taken[0]} in it. Name an empty folder.")
    return folder


def _refuse_what_cannot_fit(image: Image, task: _Task) -> None:
    """Refuse before hours of work, and before the system ends the process without a word.

    Raises:
        OutOfMemoryError: the result alone is larger than what is free.
    """
    least, _ = needed_bytes(task.extent, image.pixels.itemsize, task.session, error_bars=task.has_error_bars)
    free = task.session.backend.free_bytes()
    if least > free:
        raise OutOfMemoryError(
            f"the result takes {least / 1e9:.1f} GB, and {free / 1e9:.1f} GB of memory are free. Choose a smaller "
            "region, or close other programs."
        )


def _describe_result(result: Result, tolerance: float | None) -> dict[str, Any]:
    """Return all that the reader of a result must know, but for the warnings, as JSON has it."""
    unit, measured, provenance = result.unit, result.consistency, result.described_provenance
    before = result.before_consistency or (math.nan, math.nan)
    coverage = None
    if result.error_bars is not None:
        tolerance = result.tolerance(tolerance)
        bars = describe_error_bars(result.error_bars, tolerance, unit, result.window)
        on = bars["calibrated_on"]
        coverage = {
            "promised": bars["percent"] / 100,
            "calibratedOn": f"{on['images']} images of {on['patients']} patients ({on['data']}, {on['split']} split, "
            f"{on['created']})",
            "meanHalfWidth": bars["mean"],
            "tolerance": tolerance,
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
            "rms": _finite(measured.rms),
            "max": _finite(measured.maximum),
            "rmsBefore": _finite(before[0]),
            "maxBefore": _finite(before[1]),
            "unit": unit,
            "share": removed.followed_share if removed else 1.0,
        },
        "coverage": coverage,
        "removed": {"places": removed.places, "share": removed.share} if removed else None,
        "sentence": provenance.sentence,
        "provenance": provenance.as_dict(),
    }


def _written(result: Result, out: Path) -> dict[str, str | None]:
    """Write the arrays, all or none."""
    arrays = {"result": (out / "result.npy", result.image.pixels)}
    if result.error_bars is not None:
        arrays["errorBars"] = (out / "error_bars.npy", result.error_bars.half_width)
    with together([path for path, _ in arrays.values()]) as written:
        for path, array in arrays.values():
            with staged(path, overwrite=False, needed_bytes=array.nbytes) as unfinished:
                np.save(unfinished, array, allow_pickle=False)
            written.append(path)
    return {name: str(arrays[name][0]) if name in arrays else None for name in ("result", "errorBars")}


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def for_viewers(message: str) -> str:
    """A message of the command line in words of a panel, which has no options to pass."""
    message = message.replace(" with --roi", "").replace("--error-bars", "error bars")
    return re.sub(r"(?<![\w-])--([a-z]+)", r"\1", message)


def _log_place(error: BaseException) -> None:
    """Where a mistake happened, without its message, which may repeat what is in an image's header or file name."""
    logger.error("%s", type(error).__name__)
    for frame in traceback.extract_tb(error.__traceback__):
        logger.error("  %s, line %d, in %s", Path(frame.filename).name, frame.lineno or 0, frame.name)
    sys.stderr.flush()
