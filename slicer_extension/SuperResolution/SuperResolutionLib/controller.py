"""What the panel shows and which request goes to the worker next, decided without Qt and without a scene.

A shell (the Qt panel, a browser page) tells a `Controller` what the user chose and what the worker said, sends what
`nextRequest` asks for, and shows what `panel` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

LIVE_SECONDS = 3.0
"""Longest estimate with which a moving region is followed."""

_ABSENT, _STARTING, _READY, _RUNNING = "absent", "starting", "ready", "running"
_OF_MODALITY = {"CXR": "chest radiographs", "CT": "chest CT", "any": "any image"}


@dataclass(frozen=True)
class Subject:
    """What is to be enhanced: a region of a volume.

    Attributes:
        name: of the volume.
        shape: slices, rows, columns of the volume.
        extent: ``(k0, k1, r0, r1, c0, c1)``, stops excluded.
        modality: "CXR", "CT" or "unknown".
        spacingZyx: millimetres, or None where they are unknown.
        spacingSource: in words, where the spacing comes from; empty where it is not told.
        note: about the spacing, for the user; empty where there is none.
        storedRange: lowest and highest number that the voxels' file can hold, or None.
        blackIsHigh: a radiograph in which high is black.
        itemBytes: of one voxel.
        state: changes when the voxels or their place do.
        isRead: False while its file is being looked into; nothing is asked before.
    """

    name: str
    shape: tuple
    extent: tuple
    modality: str = "unknown"
    spacingZyx: tuple | None = None
    spacingSource: str = ""
    note: str = ""
    storedRange: tuple | None = None
    blackIsHigh: bool = False
    itemBytes: int = 2
    state: Any = None
    isRead: bool = True


@dataclass(frozen=True)
class Choice:
    """What the user chose beside the region. `bundle` is "" for automatic; `steps` 0 for the model's own number."""

    bundle: str = ""
    texture: float = 0.0
    steps: int = 0
    seed: int = 0
    errorBars: bool = True
    live: bool = False


@dataclass(frozen=True)
class Question:
    """One request: what is to be enhanced, and how."""

    subject: Subject
    bundle: str
    texture: float
    steps: int
    seed: int
    errorBars: bool

    def options(self) -> dict:
        """As the worker's requests "plan" and "enhance" name them."""
        return {
            "bundle": self.bundle or None,
            "spacingZYX": list(self.subject.spacingZyx) if self.subject.spacingZyx else None,
            "texture": self.texture,
            "steps": self.steps or None,
            "seed": self.seed,
            "errorBars": self.errorBars,
        }


@dataclass(frozen=True)
class Panel:
    """All that a panel shows and that is not the user's own choice."""

    installed: bool = False
    absence: str = ""
    bundles: tuple = ()
    bundleText: str = ""
    textureEnabled: bool = False
    stepsEnabled: bool = False
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
    """See the module. Times come from the worker; nothing here waits."""

    _phase: str = _STARTING
    _absence: str = ""
    _bundles: list | None = None
    _subject: Subject | None = None
    _problem: str = ""
    _choice: Choice = field(default_factory=Choice)
    _wanted: bool = False
    _pending: tuple | None = None
    _plan: tuple | None = None
    _refused: tuple | None = None
    _failure: tuple | None = None
    _answered: Question | None = None
    _progress: tuple = (0.0, None)
    _note: str = ""

    # What happened.

    def absent(self, why: str) -> None:
        """There is no worker to ask: what is missing, in words. An empty text takes it back."""
        if why:
            self._phase, self._absence, self._bundles = _ABSENT, why, None
            self._drop()
        elif self._phase == _ABSENT:
            self._phase, self._absence = _STARTING, ""

    def choose(self, subject: Subject | None, problem: str, choice: Choice) -> None:
        """The user's present choice.

        Args:
            subject: None where there is no volume that can be enhanced.
            problem: why it cannot be enhanced as chosen; empty where it can.
            choice: beside the region.
        """
        before = self.question
        self._subject, self._problem, self._choice = subject, problem, choice
        if self.question != before:
            self._note = ""

    def run(self) -> None:
        """The user asked for the result."""
        if self.panel().canRun:
            self._wanted, self._failure, self._note = True, None, ""

    def canceled(self) -> None:
        """The user canceled, and the worker was ended."""
        self._drop()
        self._note = "Canceled. The scene was not changed."

    def sent(self, identity: Any, do: str, question: Question | None = None) -> None:
        """The request that `nextRequest` asked for went out."""
        self._pending = (identity, do, question)
        if do == "enhance":
            self._wanted, self._phase, self._progress = False, _RUNNING, (0.0, None)

    def failedToSend(self, message: str) -> None:
        """The request that `nextRequest` asked for could not be made."""
        self._failure, self._wanted = (self.question, message), False

    def heard(self, event: dict) -> Question | None:
        """What the worker said. Returns the question a result belongs to, for the event "done", else None."""
        kind = event.get("event")
        if self._pending is None or event.get("id") not in (self._pending[0], None):
            return None  # an answer to what was given up
        _, do, question = self._pending
        if kind == "progress":
            self._progress = (float(event["fraction"]), event.get("secondsLeft"))
            return None
        if kind == "bundles" and do == "bundles":
            self._bundles, self._phase = list(event["bundles"]), _READY
        elif kind == "planned" and do == "plan":
            self._plan = (question, event)
        elif kind == "done" and do == "enhance":
            self._answered, self._phase = question, _READY
        elif kind == "failed" and event.get("kind") == "installation":
            self.absent(str(event["message"]))
        elif kind in ("failed", "cancelled"):
            self._fail(do, question, str(event.get("message") or "The worker gave this up. Press Run again."))
        else:
            return None
        self._pending = None
        return question if kind == "done" else None

    # What to do.

    @property
    def question(self) -> Question | None:
        """What would be asked for now; None without a subject or with a choice that cannot be."""
        if self._subject is None or not self._subject.isRead or self._problem or self._objection():
            return None
        choice = self._choice
        bundle = self._bundle() or {}
        return Question(
            self._subject, choice.bundle, round(choice.texture, 3) if bundle.get("textures") else 0.0,
            choice.steps if self._hasSteps(bundle) else 0, choice.seed, choice.errorBars,
        )  # fmt: skip

    @property
    def isLive(self) -> bool:
        """The result follows the region."""
        return self._choice.live

    def nextRequest(self) -> tuple | None:
        """``("bundles" | "plan" | "enhance", Question or None)``; None while nothing is to be asked.

        One is asked at a time, so a region that has moved on meanwhile is never asked for. What is being worked on is
        not given up for a newer region: the worker could only be ended, and a fresh one takes longer to start than the
        rest of what Live follows.
        """
        if self._phase == _ABSENT or self._pending is not None:
            return None
        if self._bundles is None:
            return None if self._refused and self._refused[0] is None else ("bundles", None)
        question = self.question
        if question is None or self._gaveUp(question):
            return None
        if self._wanted:
            return ("enhance", question)
        if self._plan is None or self._plan[0] != question:
            return ("plan", question)
        follows = self._choice.live and self._plan[1]["seconds"] <= LIVE_SECONDS and not self._tooLarge()
        return ("enhance", question) if follows and self._answered != question else None

    def retry(self) -> None:
        """Ask again for what was refused or has failed, for instance after an installation."""
        self._refused = self._failure = None

    def forget(self, question: Question | None = None) -> None:
        """The result of a question was removed: live mode makes it again only when something changes."""
        self._answered = question or self.question

    # What to show.

    def panel(self) -> Panel:
        bundle = self._bundle()
        if bundle and bundle.get("lacks"):
            bundle = None  # nothing more is known of it
        message, isError = self._message()
        running = self._phase == _RUNNING
        fraction, left = self._progress
        return Panel(
            installed=self._phase != _ABSENT,
            absence=self._absence,
            bundles=self._choices(),
            bundleText=_described(bundle, automatic=not self._choice.bundle) if bundle else "",
            textureEnabled=bool(bundle and bundle.get("textures")),
            stepsEnabled=self._hasSteps(bundle or {}),
            subjectText=_aboutSubject(self._subject, bundle) if self._subject and not self._problem else "",
            estimateText=self._estimate(),
            message=message,
            messageIsError=isError,
            canRun=self._canRun(),
            canCancel=running or (self._pending is not None and self._pending[1] == "plan"),
            progress=fraction if running else None,
            progressText=_progressText(fraction, left) if running else "",
        )

    def _canRun(self) -> bool:
        """What is planned and fits into memory; what has failed may go better the next time."""
        planned = self._plan is not None and self._plan[0] == self.question
        return self._phase == _READY and planned and not (self._wanted or self._tooLarge())

    def _drop(self) -> None:
        self._pending, self._wanted = None, False
        if self._phase == _RUNNING:
            self._phase = _READY if self._bundles is not None else _STARTING
        self._answered = self.question  # live mode goes on when something changes, not at once

    def _fail(self, do: str, question: Question | None, message: str) -> None:
        if do == "enhance":
            self._phase, self._failure = _READY, (question, message)
        else:
            self._refused = (question, message)

    def _gaveUp(self, question: Question) -> bool:
        """A question that was refused is not asked again by itself, nor followed where it has failed."""
        return any(one is not None and one[0] == question for one in (self._refused, self._failure))

    def _message(self) -> tuple:
        """The message, and whether it is an error."""
        if self._phase == _ABSENT:
            return ("", False)
        if self._bundles is None:
            if self._refused and self._refused[0] is None:
                return (self._refused[1], True)
            return ("Starting. The first time takes some seconds.", False)
        if self._problem:
            return (self._problem, True)
        if self._subject is None:
            return ("", False)
        objection = self._objection() or self._tooLarge()
        if objection:
            return (objection, True)
        if not self._subject.isRead:
            return (f"Reading the file of '{self._subject.name}'…", False)
        question = self.question
        for one in (self._refused, self._failure):
            if one is not None and one[0] == question and self._phase == _READY and not self._wanted:
                return (one[1], True)
        if self._note:
            return (self._note, False)
        if self._plan and self._plan[0] == question:
            seconds, warnings = self._plan[1]["seconds"], list(self._plan[1].get("warnings") or ())
            if self._choice.live and seconds > LIVE_SECONDS:
                warnings.insert(0, f"Live follows regions that take up to {LIVE_SECONDS:g} s. Press Run, or shrink it.")
            return (" ".join(warnings), False)
        return ("", False)

    def _objection(self) -> str:
        """Why the chosen model does not go with the subject; empty where it does."""
        if self._bundles is None or self._subject is None:
            return ""
        name, chosen = self._choice.bundle, self._bundle()
        subject = self._subject
        if name and chosen is None:
            return f"The model '{name}' is not installed. Choose another one, or Automatic."
        if not name and subject.modality == "unknown" and subject.shape[0] > 1:
            return f"'{subject.name}' does not say whether it is CT. Choose a model instead of Automatic."
        if chosen is None:
            return (
                f"No model for {_OF_MODALITY.get(subject.modality, subject.modality)} is installed. Install the models "
                "again, or choose one instead of Automatic."
            )
        if chosen.get("lacks"):
            return f"{chosen['name']} cannot run here: {chosen['lacks']}"
        if "unknown" not in (subject.modality, chosen["modality"]) and chosen["modality"] not in (
            "any",
            subject.modality,
        ):
            return (
                f"'{subject.name}' is {subject.modality}, and {chosen['name']} is made for "
                f"{_OF_MODALITY[chosen['modality']]}. Choose another model, or Automatic."
            )
        return ""

    def _tooLarge(self) -> str:
        if not self._plan or self._plan[0] != self.question:
            return ""
        needed, free = self._plan[1]["bytes"], self._plan[1]["freeBytes"]
        if needed <= free:
            return ""
        return (
            f"This takes {inBytes(needed)} of memory, and {inBytes(free)} are free. "
            "Choose a smaller region, or close other programs."
        )

    def _estimate(self) -> str:
        if not self._plan or self._plan[0] != self.question:
            return "Estimating…" if self._pending and self._pending[1] == "plan" else ""
        told = self._plan[1]
        bars = "" if told.get("errorBars") or not self._choice.errorBars else "; without error bars"
        return (
            f"About {inSeconds(told['seconds'])} and {inBytes(told['bytes'])} of memory "
            f"({inBytes(told['freeBytes'])} are free){bars}"
        )

    def _choices(self) -> tuple:
        """``(name, shown, explained)`` of every model that fits the subject, and of the chosen one; automatic first."""
        if self._bundles is None:
            return ()
        modality = self._subject.modality if self._subject else "unknown"
        fitting = [
            bundle for bundle in self._bundles
            if not bundle.get("lacks")
            and ("unknown" in (modality, bundle["modality"]) or bundle["modality"] in ("any", modality)
                 or bundle["name"] == self._choice.bundle)
        ]  # fmt: skip
        fitting.sort(key=lambda bundle: (not bundle["default"], bundle["modality"] == "any", bundle["name"]))
        named = tuple((bundle["name"], bundle["title"], bundle["description"]) for bundle in fitting)
        return (("", "Automatic", "The recommended model for this kind of image."), *named)

    def _bundle(self) -> dict | None:
        """The chosen model, or the one that automatic means; None where there is none, or it is not known yet."""
        if self._bundles is None:
            return None
        if self._choice.bundle:
            return next((one for one in self._bundles if one["name"] == self._choice.bundle), None)
        modality = self._subject.modality if self._subject else "unknown"
        if modality == "unknown" and self._subject and self._subject.shape[0] > 1:
            return None
        wanted = "CXR" if modality == "unknown" else modality
        usable = [one for one in self._bundles if one.get("modality") == wanted and one.get("default")]
        return usable[0] if usable else None

    def _hasSteps(self, bundle: dict) -> bool:
        return bool(bundle.get("steps")) and (not bundle.get("textures") or self._choice.texture > 0)


def resultText(done: dict) -> str:
    """A result in words: how it was made, how far it is from the input, what its error bars promise.

    Args:
        done: the worker's event "done", or what `result_nodes.reportOf` gives back.
    """
    unit = done["consistency"]["unit"]
    lines = [f"{inWords(done['scaleZYX'])} by {done['bundle']} {done['version']} in {inSeconds(done['seconds'])}."]
    rms, largest = done["consistency"]["rms"], done["consistency"]["max"]
    if rms is not None:
        rmsBefore, largestBefore = done["consistency"]["rmsBefore"], done["consistency"]["maxBefore"]
        was = (
            f" Before data consistency: {inNumbers(rmsBefore)} {unit}, at most {inNumbers(largestBefore)}."
            if rmsBefore is not None
            else ""
        )
        lines.append(
            f"Reduced to the input's size again it differs by {inNumbers(rms)} {unit} "
            f"(root mean square; at most {inNumbers(largest)}).{was}"
        )
    coverage = done.get("coverage")
    if coverage:
        lines.append(
            f"Error bars hold the truth of {coverage['promised']:.0%} of the pixels, on average over images like "
            f"those they were calibrated on: {coverage['calibratedOn']}."
        )
    else:
        lines.append("This result has no error bars.")
    if done.get("synthetic"):
        lines.append("Its texture is generated: it is one of many that would fit.")
    notes = [f"Note: {warning}" for warning in done.get("warnings") or ()]
    return "\n".join([" ".join(lines), *notes])


def inWords(scaleZyx: Sequence[int]) -> str:
    """ "4 times finer in plane"."""
    z, y, x = scaleZyx
    if z == 1 and y == x:
        return f"{y} times finer in plane"
    if y == x == 1:
        return f"{z} times finer along the slices"
    return f"{z} x {y} x {x} times finer"


def inSeconds(seconds: float) -> str:
    if seconds < 10:
        return f"{max(seconds, 0.1):.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def inBytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(count / 1e6, 1):.0f} MB"


def inNumbers(number: float) -> str:
    """Three digits that count, without an exponent."""
    return f"{number:.0f}" if abs(number) >= 100 else f"{number:.3g}"


def _progressText(fraction: float, left: float | None) -> str:
    return f"{fraction:.0%}" if left is None else f"{fraction:.0%}, {inSeconds(left)} left"


def _described(bundle: dict, automatic: bool) -> str:
    words = [f"{bundle['title']}."] if automatic else []
    words += [bundle["description"], f"For {_OF_MODALITY.get(bundle['modality'], bundle['modality'])}."]
    if bundle["generative"] and not bundle.get("textures"):
        words.append("It generates texture: one of many that would fit.")
    if not bundle["hasErrorBars"]:
        words.append("Without error bars.")
    return " ".join(word for word in words if word)


def _aboutSubject(subject: Subject, bundle: dict | None) -> str:
    k0, k1, r0, r1, c0, c1 = subject.extent
    shape = (k1 - k0, r1 - r0, c1 - c0)
    text = _size(shape)
    if bundle:
        text += f" → {_size([count * factor for count, factor in zip(shape, bundle['scaleZYX'])])}"
    if not subject.isRead:
        return f"{text}."
    if subject.spacingZyx is None:
        return f"{text}. The spacing is unknown: nothing can be measured in millimetres. {subject.note}".rstrip()
    z, y, x = subject.spacingZyx
    spacing = f"{y:.3g} x {x:.3g} mm" + (f", slices {z:.3g} mm apart" if subject.shape[0] > 1 else "")
    source = f" ({subject.spacingSource})" if subject.spacingSource else ""
    return f"{text}. Pixels of {spacing}{source}." + (f" {subject.note}" if subject.note else "")


def _size(shapeZyx: Sequence[int]) -> str:
    slices, rows, columns = shapeZyx
    return f"{columns} x {rows} pixels" + (f" in {slices} slices" if slices > 1 else "")
