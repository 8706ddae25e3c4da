"""The decisions of the panel, without Qt and without a scene: what it shows and what it asks the worker next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from SuperResolutionLib.errors import _

GREEN, AMBER, RED = "green", "amber", "red"
COLORS = {GREEN: "#1e7d32", AMBER: "#b36b00", RED: "#c22f1d"}  # of trust, readable on a light ground


@dataclass(frozen=True)
class Subject:
    """A region of a volume that is to be enhanced."""

    name: str  # of the volume
    shape: tuple  # slices, rows, columns of the volume
    extent: tuple  # region, (k0, k1, r0, r1, c0, c1), stops excluded
    modality: str = "unknown"  # or "CXR" or "CT"
    spacingZyx: tuple | None = None  # in millimetres, or None if it is unknown
    spacingSource: str = ""  # in words; may be empty
    note: str = ""  # sentence for the user about the spacing; may be empty
    storedRange: tuple | None = None  # lowest and highest number that the voxels' file can hold
    blackIsHigh: bool = False  # True for a radiograph in which high is black
    itemBytes: int = 2  # of one voxel
    state: Any = None  # key that changes when the voxels or their position change
    question: str = ""  # why the user is to say what the image is; empty if that is known
    kernel: str = ""  # convolution kernel of a CT; empty if it is not known


@dataclass(frozen=True)
class Choice:
    """The user's choice besides the region. `bundle` "" means automatic; `steps` 0 means the model's default."""

    bundle: str = ""
    texture: float = 0.0
    steps: int = 0
    seed: int = 0
    errorBars: bool = True


@dataclass(frozen=True)
class Enhancement:
    """An enhancement that the worker plans or runs; in `choice`, options that the model does not have are 0."""

    subject: Subject
    choice: Choice

    def fields(self) -> dict:
        """Return the fields of the worker's requests "plan" and "enhance"."""
        return {
            "region": self.subject.extent,
            "modality": self.subject.modality,
            "bundle": self.choice.bundle or None,
            "spacingZYX": self.subject.spacingZyx,
            "texture": self.choice.texture,
            "steps": self.choice.steps or None,
            "seed": self.choice.seed,
            "errorBars": self.choice.errorBars,
            "kernel": self.subject.kernel or None,
        }


@dataclass(frozen=True)
class Panel:
    """Everything that a panel shows, except the user's own choices."""

    absence: str = ""
    bundles: tuple = ()
    bundleText: str = ""
    textureEnabled: bool = False
    stepsEnabled: bool = False
    modality: str = ""
    subjectText: str = ""
    estimateText: str = ""
    message: str = ""
    messageIsError: bool = False
    canRun: bool = False
    canCancel: bool = False
    progress: float | None = None
    progressText: str = ""


@dataclass
class Controller:
    """The controller of a panel. Times come from the worker; nothing here waits."""

    _absence: str = ""
    _bundles: list | None = None
    _subject: Subject | None = None
    _problem: str = ""
    _choice: Choice = field(default_factory=Choice)
    _isRunRequested: bool = False
    _pending: tuple | None = None
    _plan: tuple | None = None
    _failure: tuple | None = None
    _progress: tuple = (0.0, None)
    _note: str = ""

    # Events.

    def setAbsent(self, reason: str) -> None:
        """Record why there is no worker. An empty reason means that there may be one again."""
        self._absence = reason
        if reason:
            self._bundles = self._plan = None
            self._drop()

    def choose(self, subject: Subject | None, problem: str, choice: Choice) -> None:
        """Set the user's current choice; `problem` says why there is no subject that can be enhanced, or is empty."""
        before = self.enhancement
        self._subject, self._problem, self._choice = subject, problem, choice
        if self.enhancement != before:
            self._note = ""

    def requestRun(self) -> None:
        """Record that the user pressed Run; `nextRequest` then returns the request, if the panel allows it."""
        if self.panel().canRun:
            self._isRunRequested, self._failure, self._note = True, None, ""

    def setCanceled(self) -> None:
        """Record that the user canceled and that the worker was ended."""
        if self._pending is not None or self._isRunRequested:
            self._note = _("Canceled. The scene was not changed.")
        self._drop()

    def setStopped(self, message: str) -> None:
        """Record why there is no worker until `retry`; the one after it may have other models."""
        self._bundles = self._plan = None
        self._failure = None, message

    def setSent(self, do: str, enhancement: Enhancement | None = None) -> None:
        """Record that the request of `nextRequest` was sent."""
        self._pending = (do, enhancement)
        if do == "enhance":
            self._isRunRequested, self._progress = False, (0.0, None)

    def setSendFailed(self, message: str) -> None:
        """Record why the request of `nextRequest` could not be sent."""
        self._failure, self._isRunRequested = (self.enhancement, message), False

    def setDropped(self, message: str) -> None:
        """Record why a result did not come into the scene."""
        self._note = message

    def handleEvent(self, event: dict) -> Enhancement | None:
        """Handle an answer to the request. Return the enhancement that it completes if it is "done", else None."""
        kind, (_do, enhancement) = event["event"], self._pending
        if kind == "progress":
            self._progress = (float(event["fraction"]), event.get("secondsLeft"))
            return None
        self._pending = None
        if kind == "done":
            return enhancement
        if kind == "bundles":
            self._bundles = list(event["bundles"])
        elif kind == "planned":
            self._plan = (enhancement, event)
        elif event["kind"] == "installation":
            self.setAbsent(event["message"])
        else:
            self._failure = enhancement, event["message"]
        return None

    # Requests.

    @property
    def enhancement(self) -> Enhancement | None:
        """The enhancement for the current choice; None without a subject or if the choice is not possible."""
        if self._subject is None or self._problem or self._objection():
            return None
        choice, bundle = self._choice, self._bundle() or {}
        texture = round(choice.texture, 3) if bundle.get("textures") else 0.0
        steps = choice.steps if self._hasSteps(bundle) else 0
        return Enhancement(self._subject, replace(choice, texture=texture, steps=steps))

    @property
    def isBusy(self) -> bool:
        """True while a request runs or is to be sent."""
        return self._pending is not None or self.nextRequest() is not None

    def nextRequest(self) -> tuple | None:
        """Return ``("bundles" | "plan" | "enhance", Enhancement or None)``, or None if there is nothing to ask.

        Requests are sent one at a time, so positions that a moving region has left are never requested.
        """
        if self._absence or self._pending is not None:
            return None
        if self._bundles is None:
            return None if self._problemOf(None) else ("bundles", None)
        enhancement = self.enhancement
        if enhancement is None or self._problemOf(enhancement):
            return None
        if self._isRunRequested:
            return ("enhance", enhancement)
        return ("plan", enhancement) if self._currentPlan() is None else None

    def retry(self) -> None:
        """Allow a request again that has failed."""
        self._failure = None

    # The panel.

    def panel(self) -> Panel:
        bundle = self._bundle()
        if bundle and bundle.get("lacks"):
            bundle = None  # its properties are not known
        message, isError = self._message()
        subject = self._subject
        fraction, left = self._progress if self._isPending("enhance") else (None, None)
        progressText = "" if fraction is None else f"{fraction:.0%}"
        if left is not None:
            progressText = _("{share:.0%}, {time} left").format(share=fraction, time=inSeconds(left))
        return Panel(
            absence=self._absence,
            bundles=self._choices(),
            bundleText=_describeBundle(bundle, automatic=not self._choice.bundle) if bundle else "",
            textureEnabled=bool(bundle and bundle.get("textures")),
            stepsEnabled=self._hasSteps(bundle or {}),
            modality="" if subject is None or subject.question else subject.modality,
            subjectText=_describeSubject(subject, bundle) if subject and not self._problem else "",
            estimateText=self._estimate(),
            message=message,
            messageIsError=isError,
            canRun=self._canRun(),
            canCancel=self._isPending("enhance") or self._isPending("plan"),
            progress=fraction,
            progressText=progressText,
        )

    def _canRun(self) -> bool:
        """Return True if the choice is planned and fits into memory. A failed request may be repeated."""
        isPlanned, isRunning = self._currentPlan() is not None, self._isRunRequested or self._isPending("enhance")
        return isPlanned and not (isRunning or self._absence or self._tooLarge())

    def _isPending(self, do: str) -> bool:
        return self._pending is not None and self._pending[0] == do

    def _currentPlan(self) -> dict | None:
        """Return the worker's plan for the current choice; None if there is none yet."""
        return self._plan[1] if self._plan and self._plan[0] == self.enhancement else None

    def _drop(self) -> None:
        self._pending, self._isRunRequested = None, False

    def _problemOf(self, enhancement: Enhancement | None) -> str:
        """Return why an enhancement, or for None the list of models, failed: it is not requested again by itself."""
        return self._failure[1] if self._failure and self._failure[0] == enhancement else ""

    def _message(self) -> tuple:
        """Return the message and whether it is an error."""
        if self._absence:
            return ("", False)
        if self._bundles is None:
            problem = self._problemOf(None)
            return (problem or _("Starting. The first time takes some seconds."), bool(problem))
        if self._problem:
            return (" ".join(filter(None, (self._note, self._problem))), True)
        if self._subject is None:
            return ("", False)
        objection = self._objection() or self._tooLarge()
        if objection:
            return (objection, True)
        problem = self._problemOf(self.enhancement)
        if problem and not (self._isPending("enhance") or self._isRunRequested):
            return (problem, True)
        if self._note:
            return (self._note, False)
        plan = self._currentPlan() or {}
        return (" ".join(plan.get("warnings") or ()), False)

    def _objection(self) -> str:
        """Return why the chosen model does not suit the subject; empty if it does."""
        if self._bundles is None or self._subject is None:
            return ""
        name, bundle = self._choice.bundle, self._bundle()
        subject = self._subject
        if name and bundle is None:
            return _("The model '{name}' is not installed. Choose another one, or Automatic.").format(name=name)
        if subject.question:
            return subject.question
        if bundle is None:
            text = _(
                "No model for {images} is installed. Install the models again, or choose one instead of Automatic."
            )
            return text.format(images=_imagesOf(subject.modality))
        if bundle.get("lacks"):
            return _("{name} cannot run here: {lacks}").format(name=bundle["name"], lacks=bundle["lacks"])
        if not _fits(bundle, subject.modality):
            text = _("'{name}' is {modality}, and {model} is made for {images}. Choose another model, or Automatic.")
            images = _imagesOf(bundle["modality"])
            return text.format(name=subject.name, modality=subject.modality, model=bundle["name"], images=images)
        return ""

    def _tooLarge(self) -> str:
        plan = self._currentPlan()
        if plan is None or plan["bytes"] <= plan["freeBytes"]:
            return ""
        text = _(
            "This takes {needed} of memory, and {free} are free. Choose a smaller region, or close other programs."
        )
        return text.format(needed=inBytes(plan["bytes"]), free=inBytes(plan["freeBytes"]))

    def _estimate(self) -> str:
        plan = self._currentPlan()
        if plan is None:
            return _("Estimating…") if self._isPending("plan") else ""
        text = _("About {time} and {memory} of memory ({free} are free)")
        if self._choice.errorBars and not plan.get("errorBars"):
            text = _("About {time} and {memory} of memory ({free} are free); without error bars")
        memory, free = inBytes(plan["bytes"]), inBytes(plan["freeBytes"])
        return text.format(time=inSeconds(plan["seconds"]), memory=memory, free=free)

    def _choices(self) -> tuple:
        """Return ``(name, title, description)`` of each choice: automatic, the fitting models, and the chosen one."""
        if self._bundles is None:
            return ()
        modality = self._subject.modality if self._subject else "unknown"
        fitting = [
            bundle for bundle in self._bundles
            if not bundle.get("lacks") and (_fits(bundle, modality) or bundle["name"] == self._choice.bundle)
        ]  # fmt: skip
        fitting.sort(key=lambda bundle: (not bundle["default"], bundle["modality"] == "any", bundle["name"]))
        models = tuple((bundle["name"], bundle["title"], bundle["description"]) for bundle in fitting)
        return (("", _("Automatic"), _("The recommended model for this kind of image.")), *models)

    def _bundle(self) -> dict | None:
        """Return the chosen model, or the automatic one; None if there is none or the models are not known yet."""
        if self._bundles is None:
            return None
        if self._choice.bundle:
            return next((bundle for bundle in self._bundles if bundle["name"] == self._choice.bundle), None)
        modality = self._subject.modality if self._subject else "CXR"
        defaults = [b for b in self._bundles if b.get("modality") == modality and b.get("default")]
        return defaults[0] if defaults else None

    def _hasSteps(self, bundle: dict) -> bool:
        return bool(bundle.get("steps")) and (not bundle.get("textures") or self._choice.texture > 0)


def resultText(done: dict) -> str:
    """Describe a result: how it was made, how much it differs from the input, what its error bars hold.

    `done` is the worker's event "done", or the report of `result_nodes.reportOf`.
    """
    unit = done["consistency"]["unit"]
    rms, largest = done["consistency"]["rms"], done["consistency"]["max"]
    scale, time = describeScale(done["scaleZYX"]), inSeconds(done["seconds"])
    text = _("Enlarged {scale} by {bundle} {version} in {time}.")
    lines = [text.format(scale=scale, bundle=done["bundle"], version=done["version"], time=time)]
    if rms is not None:
        rmsBefore, largestBefore = done["consistency"]["rmsBefore"], done["consistency"]["maxBefore"]
        text = _("Reduced to the input's size again it differs by {rms} {unit} (root mean square; at most {largest}).")
        lines.append(text.format(rms=inNumbers(rms), unit=unit, largest=inNumbers(largest)))
        if rmsBefore is not None:
            text = _("Before data consistency: {rms} {unit}, at most {largest}.")
            lines.append(text.format(rms=inNumbers(rmsBefore), unit=unit, largest=inNumbers(largestBefore)))
    coverage = done.get("coverage")
    if coverage:
        text = _("Error bars hold the truth of {promised:.0%} of the pixels, on average over images like those they "
                 "were calibrated on: {calibratedOn}.")  # fmt: skip
        lines.append(text.format(promised=coverage["promised"], calibratedOn=coverage["calibratedOn"]))
    else:
        lines.append(_("This result has no error bars."))
    if done.get("synthetic"):
        lines.append(_("Its texture is generated: it is one of many that would fit."))
    notes = [_("Note: {text}").format(text=warning) for warning in done.get("warnings") or ()]
    return "\n".join([" ".join(lines), *notes])


def trustOf(done: dict) -> tuple[str, str]:
    """Return `GREEN`, `AMBER` or `RED` for a result, and the most serious reason in one sentence.

    `done` is the worker's event "done", or the report of `result_nodes.reportOf`.
    """
    if (done.get("provenance") or {}).get("instead_of"):
        return RED, _("Nothing was added: the image is too unlike those the model knows, so it was only interpolated.")
    if done.get("synthetic"):
        return RED, _("The texture is generated: it is one of many that would fit, so do not diagnose from it.")
    warnings = list(done.get("warnings") or ())
    if warnings:
        return AMBER, str(warnings[0])
    coverage = done.get("coverage")
    if not coverage:
        return AMBER, _("There are no error bars: how far off a pixel may be is unknown.")
    text = _("On average over images like those of the tests, {share:.0%} of the pixels lie within their error bars.")
    return GREEN, text.format(share=coverage["promised"])


def describeScale(scaleZyx: Sequence[int]) -> str:
    """Return "x4" if every enlarged axis is enlarged by four, otherwise the factors of slices, rows and columns."""
    enlarged = {factor for factor in scaleZyx if factor != 1}
    return f"x{enlarged.pop()}" if len(enlarged) == 1 else "x" + "x".join(map(str, scaleZyx))


def inSeconds(seconds: float) -> str:
    if seconds < 10:
        return f"{max(seconds, 0.1):.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def inBytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(count / 1e6, 1):.0f} MB"


def inNumbers(number: float) -> str:
    """Format a number with three significant digits, without an exponent."""
    return f"{number:.0f}" if abs(number) >= 100 else f"{number:.3g}"


def _imagesOf(modality: str) -> str:
    """Return the images of a modality, in words."""
    return {"CXR": _("chest radiographs"), "CT": _("chest CT"), "any": _("any image")}.get(modality, modality)


def _fits(bundle: dict, modality: str) -> bool:
    """Return True if a model is made for a modality, or either of the two is not specific."""
    return "unknown" in (modality, bundle["modality"]) or bundle["modality"] in ("any", modality)


def _describeBundle(bundle: dict, automatic: bool) -> str:
    words = [f"{bundle['title']}."] if automatic else []
    words += [bundle["description"], _("For {images}.").format(images=_imagesOf(bundle["modality"]))]
    if bundle["generative"] and not bundle.get("textures"):
        words.append(_("It generates texture: one of many that would fit."))
    if not bundle["hasErrorBars"]:
        words.append(_("Without error bars."))
    return " ".join(word for word in words if word)


def _describeSubject(subject: Subject, bundle: dict | None) -> str:
    k0, k1, r0, r1, c0, c1 = subject.extent
    shape = (k1 - k0, r1 - r0, c1 - c0)
    text = _describeSize(shape)
    if bundle:
        text += f" → {_describeSize([count * factor for count, factor in zip(shape, bundle['scaleZYX'])])}"
    if subject.spacingZyx is None:
        words = [f"{text}.", _("The spacing is unknown: nothing can be measured in millimetres."), subject.note]
        return " ".join(filter(None, words))
    between, row, column = subject.spacingZyx
    spacing = _("{row:.3g} x {column:.3g} mm")
    if subject.shape[0] > 1:
        spacing = _("{row:.3g} x {column:.3g} mm, slices {between:.3g} mm apart")
    pixels = _("Pixels of {spacing} ({source}).") if subject.spacingSource else _("Pixels of {spacing}.")
    spacing = spacing.format(row=row, column=column, between=between)
    words = [f"{text}.", pixels.format(spacing=spacing, source=_sourceInWords(subject.spacingSource)), subject.note]
    return " ".join(filter(None, words))


def _sourceInWords(source: str) -> str:
    """Return the source of a spacing, which `headers` names in English, in the user's language."""
    return {
        "detector plane": _("detector plane"), "calibrated": _("calibrated"), "film plane": _("film plane"),
        "Pixel Spacing, detector plane or calibrated": _("Pixel Spacing, detector plane or calibrated"),
        "set in Slicer": _("set in Slicer"),
    }.get(source, source)  # fmt: skip


def _describeSize(shapeZyx: Sequence[int]) -> str:
    slices, rows, columns = shapeZyx
    text = _("{columns} x {rows} pixels in {slices} slices") if slices > 1 else _("{columns} x {rows} pixels")
    return text.format(columns=columns, rows=rows, slices=slices)
