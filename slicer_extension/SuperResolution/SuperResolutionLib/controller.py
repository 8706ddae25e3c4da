"""The decisions of the panel, without Qt and without a scene: what it shows and what it asks the worker next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from SuperResolutionLib.errors import _

GREEN, AMBER, RED = "green", "amber", "red"
COLORS = {GREEN: "#2fa04a", AMBER: "#c98000", RED: "#ec5a44"}  # of dots and lines, not of texts, on any ground


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
    volume: Any = None  # node of the volume
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
            "shape": self.subject.shape,
            "itemsize": self.subject.itemBytes,
            "region": self.subject.extent,
            "modality": self.subject.modality,
            "spacingZYX": self.subject.spacingZyx,
            "storedRange": self.subject.storedRange,
            "blackIsHigh": self.subject.blackIsHigh,
            "kernel": self.subject.kernel or None,
            **vars(self.choice),
            "bundle": self.choice.bundle or None,
            "steps": self.choice.steps or None,
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
    _pending: tuple | None = None  # kind of the request that is not answered yet, and its enhancement
    _plan: tuple | None = None  # enhancement and the worker's answer
    _progress: tuple = (0.0, None)
    _notice: tuple = ("", False)  # message, and whether it is an error

    def setAbsent(self, reason: str) -> None:
        """Record why there is no worker. An empty reason means that there may be one again, with other models."""
        self._absence = reason
        self._bundles = self._plan = None

    def setStopped(self, message: str) -> None:
        """Record why there is no worker until `retry`; the one after it may have other models."""
        self._bundles = self._plan = None
        self.notify(message, isError=True)

    def notify(self, message: str, isError: bool = False) -> None:
        """Show a message until the choice changes or `retry` is called; after an error nothing is requested."""
        self._notice = message, isError

    def retry(self) -> None:
        """Allow requests again after an error."""
        self.notify("")

    def choose(self, subject: Subject | None, problem: str, choice: Choice) -> None:
        """Set the user's current choice; `problem` says why it cannot be enhanced, or is empty."""
        before = self.enhancement
        self._subject, self._problem, self._choice = subject, problem, choice
        if self.enhancement != before:
            self._plan = None  # it holds its volume
            self.retry()

    def setCanceled(self) -> None:
        """Record that the user canceled and that the worker was ended."""
        if self._pending is not None:
            self.notify(_("Canceled. The scene was not changed."))
        self._pending = None

    def setSent(self, do: str, enhancement: Enhancement | None = None) -> None:
        """Record that a request was sent: that of `nextRequest`, or "enhance"."""
        self._pending, self._progress = (do, enhancement), (0.0, None)

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
            self._bundles = [bundle for bundle in event["bundles"] if not bundle["lacks"]]
        elif kind == "planned":
            self._plan = (enhancement, event)
        elif event["kind"] == "installation":
            self.setAbsent(event["message"])
        elif enhancement in (None, self.enhancement):
            self.notify(event["message"], isError=True)
        return None

    @property
    def enhancement(self) -> Enhancement | None:
        """The enhancement for the current choice; None if there is none, or the models are not known yet."""
        if self._bundles is None or self._subject is None or self._problem or self._objection():
            return None
        choice = self._choice
        texture = round(choice.texture, 3) if self._bundle()["textures"] else 0.0
        steps = choice.steps if self._hasSteps() else 0
        return Enhancement(self._subject, replace(choice, texture=texture, steps=steps))

    @property
    def isBusy(self) -> bool:
        """True while a request runs or is to be sent."""
        return self._pending is not None or self.nextRequest() is not None

    def nextRequest(self) -> tuple | None:
        """Return ``("bundles", None)``, ``("plan", enhancement)``, or None if there is nothing to ask.

        Requests are sent one at a time, so positions that a moving region has left are never requested.
        """
        _text, isError = self._notice
        if self._absence or self._pending is not None or isError:
            return None
        if self._bundles is None:
            return ("bundles", None)
        enhancement = self.enhancement
        return ("plan", enhancement) if enhancement is not None and self._currentPlan() is None else None

    def panel(self) -> Panel:
        subject, bundle = self._subject, self._bundle()
        message, isError = self._message()
        pending = self._pending[0] if self._pending else ""
        fraction, left = self._progress
        text = _("{share:.0%}, {time} left") if left is not None else "{share:.0%}"
        return Panel(
            absence=self._absence,
            bundles=self._choices(),
            bundleText=_describeBundle(bundle) if bundle else "",
            textureEnabled=bool(bundle and bundle["textures"]),
            stepsEnabled=self._hasSteps(),
            modality="" if subject is None or subject.question else subject.modality,
            subjectText=_describeSubject(subject, bundle) if subject and not self._problem else "",
            estimateText=self._estimate(),
            message=message,
            messageIsError=isError,
            canRun=self._currentPlan() is not None and self._pending is None and not self._tooLarge(),
            canCancel=pending in ("plan", "enhance"),
            progress=fraction if pending == "enhance" else None,
            progressText=text.format(share=fraction, time=inSeconds(left or 0)),
        )

    def _currentPlan(self) -> dict | None:
        """Return the worker's plan for the current choice; None if there is none yet."""
        return self._plan[1] if self._plan and self._plan[0] == self.enhancement else None

    def _message(self) -> tuple:
        """Return the message and whether it is an error."""
        text, isError = self._notice
        if self._absence:
            return ("", False)
        if self._bundles is None:
            return (text or _("Starting. The first time takes some seconds."), isError)
        if self._subject is None or self._problem:
            return (f"{text} {self._problem}".strip(), True)
        objection = self._objection() or self._tooLarge()
        if objection:
            return (objection, True)
        plan = self._currentPlan() or {}
        return (text or " ".join(plan.get("warnings", ())), isError)

    def _objection(self) -> str:
        """Return why the chosen model does not suit the subject; empty if it does."""
        subject, bundle = self._subject, self._bundle()
        if bundle is None:
            text = _("The model {name} is not installed, or cannot run here. Choose another one, or install it.")
            forImages = _("for {images}").format(images=_imagesOf(subject.modality))
            return text.format(name=self._choice.bundle or forImages)
        if not _fits(bundle, subject.modality):
            text = _("'{name}' is {modality}, and {model} is made for {images}. Choose another model, or Automatic.")
            images = _imagesOf(bundle["modality"])
            return text.format(name=subject.name, modality=subject.modality, model=bundle["name"], images=images)
        return ""

    def _tooLarge(self) -> str:
        plan = self._currentPlan()
        if plan is None or plan["bytes"] <= plan["freeBytes"]:
            return ""
        text = _("This takes {needed} of memory, and {free} are free. Choose a smaller region, or close programs.")
        return text.format(needed=inBytes(plan["bytes"]), free=inBytes(plan["freeBytes"]))

    def _estimate(self) -> str:
        plan = self._currentPlan()
        if plan is None:
            return _("Estimating…") if self._pending and self._pending[0] == "plan" else ""
        text = _("About {time} and {memory} of memory ({free} are free)")
        if self._choice.errorBars and not plan["errorBars"]:
            text = _("About {time} and {memory} of memory ({free} are free); without error bars")
        memory, free = inBytes(plan["bytes"]), inBytes(plan["freeBytes"])
        return text.format(time=inSeconds(plan["seconds"]), memory=memory, free=free)

    def _choices(self) -> tuple:
        """Return ``(name, title, description)`` of each choice: automatic, the fitting models, and the chosen one."""
        if self._bundles is None:
            return ()
        modality = self._subject.modality if self._subject else "unknown"
        fitting = [each for each in self._bundles if _fits(each, modality) or each["name"] == self._choice.bundle]
        fitting.sort(key=lambda bundle: (not bundle["default"], bundle["modality"] == "any", bundle["name"]))
        models = tuple((bundle["name"], bundle["title"], bundle["description"]) for bundle in fitting)
        return (("", _("Automatic"), _("The recommended model for this kind of image.")), *models)

    def _bundle(self) -> dict | None:
        """Return the chosen model, or the automatic one; None if there is none or the models are not known yet."""
        name, modality = self._choice.bundle, self._subject.modality if self._subject else "CXR"
        for bundle in self._bundles or ():
            isDefault = bundle["default"] and bundle["modality"] == modality
            if bundle["name"] == name or (not name and isDefault):
                return bundle
        return None

    def _hasSteps(self) -> bool:
        """Return True if the model draws step by step; one that takes a texture does so above texture 0."""
        bundle = self._bundle()
        return bool(bundle and bundle["steps"]) and (not bundle["textures"] or self._choice.texture > 0)


def resultText(done: dict) -> str:
    """Describe a result: how it was made, how much it differs from the input, what its error bars hold.

    `done` is the worker's event "done", or the report of `result_nodes.reportOf`.
    """
    consistency, coverage = done["consistency"], done["coverage"]
    scale, time = describeScale(done["scaleZYX"]), inSeconds(done["seconds"])
    text = _("Enlarged {scale} by {bundle} {version} in {time}.")
    lines = [text.format(scale=scale, bundle=done["bundle"], version=done["version"], time=time)]
    if consistency["rms"] is not None:
        text = _("Reduced to the input's size again it differs by {rms} {unit} (root mean square; at most {largest}).")
        rms, largest = inNumbers(consistency["rms"]), inNumbers(consistency["max"])
        lines.append(text.format(rms=rms, unit=consistency["unit"], largest=largest))
    if coverage:
        text = _("Error bars hold the truth of {promised:.0%} of the pixels, on average over images like those they "
                 "were calibrated on: {calibratedOn}.")  # fmt: skip
        lines.append(text.format(promised=coverage["promised"], calibratedOn=coverage["calibratedOn"]))
    else:
        lines.append(_("This result has no error bars."))
    if done["synthetic"]:
        lines.append(_("Its texture is generated: it is one of many that would fit."))
    notes = [_("Note: {text}").format(text=warning) for warning in done["warnings"]]
    return "\n".join([" ".join(lines), *notes])


def trustOf(done: dict) -> tuple[str, str]:
    """Return `GREEN`, `AMBER` or `RED` for a result, and the most serious reason in one sentence; see `resultText`."""
    if done["provenance"].get("instead_of"):
        return RED, _("Nothing was added: the image is too unlike those the model knows, so it was only interpolated.")
    if done["synthetic"]:
        return RED, _("The texture is generated: it is one of many that would fit, so do not diagnose from it.")
    if done["warnings"]:
        return AMBER, done["warnings"][0]
    if not done["coverage"]:
        return AMBER, _("There are no error bars: how far off a pixel may be is unknown.")
    text = _("On average over images like those of the tests, {share:.0%} of the pixels lie within their error bars.")
    return GREEN, text.format(share=done["coverage"]["promised"])


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


def _describeBundle(bundle: dict) -> str:
    sentences = [f"{bundle['title']}.", bundle["description"]]
    sentences.append(_("For {images}.").format(images=_imagesOf(bundle["modality"])))
    if bundle["generative"] and not bundle["textures"]:
        sentences.append(_("It generates texture: one of many that would fit."))
    if not bundle["hasErrorBars"]:
        sentences.append(_("Without error bars."))
    return " ".join(sentences)


def _describeSubject(subject: Subject, bundle: dict | None) -> str:
    k0, k1, r0, r1, c0, c1 = subject.extent
    shape = (k1 - k0, r1 - r0, c1 - c0)
    text = _describeSize(shape)
    if bundle:
        text += f" → {_describeSize([count * factor for count, factor in zip(shape, bundle['scaleZYX'])])}"
    pixels = _("The spacing is unknown: nothing can be measured in millimetres.")
    if subject.spacingZyx is not None:
        between, row, column = subject.spacingZyx
        spacing = _("{row:.3g} x {column:.3g} mm")
        if subject.shape[0] > 1:
            spacing = _("{row:.3g} x {column:.3g} mm, slices {between:.3g} mm apart")
        spacing = spacing.format(row=row, column=column, between=between)
        sources = {
            "detector plane": _("detector plane"), "calibrated": _("calibrated"), "film plane": _("film plane"),
            "Pixel Spacing, detector plane or calibrated": _("Pixel Spacing, detector plane or calibrated"),
            "set in Slicer": _("set in Slicer"),
        }  # as `headers` names them  # fmt: skip
        pixels = _("Pixels of {spacing} ({source}).") if subject.spacingSource else _("Pixels of {spacing}.")
        pixels = pixels.format(spacing=spacing, source=sources.get(subject.spacingSource, subject.spacingSource))
    return f"{text}. {pixels} {subject.note}".strip()


def _describeSize(shapeZyx: Sequence[int]) -> str:
    slices, rows, columns = shapeZyx
    text = _("{columns} x {rows} pixels in {slices} slices") if slices > 1 else _("{columns} x {rows} pixels")
    return text.format(columns=columns, rows=rows, slices=slices)
