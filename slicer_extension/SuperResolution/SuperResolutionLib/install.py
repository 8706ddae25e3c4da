"""Install monai-sr-bundle into Slicer's Python: what is missing; then by pip, beside Slicer.

    plan = planInstallation("base")
    print(plan.summary)                     # ask before going on
    installation = Installation(plan)
    ...                                     # every 100 ms or so, for example by a timer
    for event in installation.poll(): show(event)

Nothing that is there is ever replaced: every installed package is a constraint at its version, what would replace one
is refused in words, and what Slicer brings without telling pip is left out. pip runs as a process of its own, in four
steps that can be cancelled: resolve, download, install, check. The base needs no PyTorch; the full one adds it.

Not by slicer.packaging (Slicer 5.11 and newer): it asks in windows of its own and cannot be cancelled, knows what
Slicer needs but not what the user's other extensions need, and Slicer 5.10 lacks it. Standard library alone, Python 3.9
or newer; neither Qt nor Slicer.
"""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import machinery, metadata
from typing import Any

from .child_process import Process, discard, environmentFor, pythonOfSlicer

PACKAGE, VERSION = "monai-sr-bundle", "0.2.0"
PYTHONS = ((3, 11), (3, 12))
FIRST_SLICER = "5.10"
"""The first Slicer with one of `PYTHONS`."""
LEAST_PIP = (22, 2)
"""`pip install --dry-run --report`."""
SPACE_GB = {"base": 1, "full": 3}
"""Free space that an installation has to find, for the wheels and what is unpacked of them, rounded up."""
SPACE_GB_WITH_CUDA = 10
"""On Linux the package index gives PyTorch with CUDA."""

_BASE = {
    PACKAGE: f"=={VERSION}", "highdicom": ">=0.27", "nibabel": ">=5.2", "numpy": ">=1.26", "onnxruntime": ">=1.20",
    "pillow": ">=10.3", "psutil": ">=5.9", "pydicom": ">=3.0.1,<4", "pylibjpeg": ">=2.0.1",
    "pylibjpeg-openjpeg": ">=2.3", "python-gdcm": ">=3.0.24", "pyyaml": ">=6.0", "tqdm": ">=4.66",
}  # fmt: skip
_TORCH = {"SimpleITK": ">=2.4", "monai": ">=1.6.1,<1.7", "onnx": ">=1.17", "onnxscript": ">=0.5", "torch": ">=2.11"}
PACKAGES = {"base": _BASE, "full": {**_BASE, **_TORCH}}
"""Packages and their versions, as the package names them; those that they need in turn are pip's matter."""
REQUIREMENTS = {
    "base": f"{PACKAGE}[dicom]=={VERSION}",
    "full": f"{PACKAGE}[dicom,torch]==={VERSION}",  # three: not the wheel for viewers, which has nothing for PyTorch
}
FILL = {
    "base": 'MONAI_SR_WHEEL=viewer python3.12 -m pip wheel --only-binary :all: -w FOLDER ".[dicom]"',
    "full": 'python3.12 -m pip wheel --only-binary :all: -w FOLDER ".[dicom,torch]"',
}
"""How a folder of wheels is made, until an index has the package too."""
OF_SLICER = {"simpleitk": "SimpleITK", "vtk": "vtk", "numpy": "numpy", "requests": "requests", "pydicom": "pydicom"}
"""What Slicer may bring without a record that pip could read; another copy over it makes Slicer crash."""
NETWORK = re.compile(
    r"ProxyError|NewConnectionError|ConnectTimeout|ReadTimeout|SSLError|CERTIFICATE_VERIFY|Name or service not known|"
    r"Temporary failure in name resolution|getaddrinfo failed|Connection refused|Connection reset|Max retries exceeded|"
    r"Network is unreachable|RemoteDisconnected|Could not fetch URL|IncompleteRead|HTTP error"
)
NOTHING_CHANGED = "Nothing was changed."
WORTH_SHOWING = (
    "Collecting", "Downloading", "Using cached", "Processing", "Saved", "Installing", "Successfully", "Uninstalling",
)  # fmt: skip
"""Beginnings of the lines of pip that a reader wants to see."""


@dataclass(frozen=True)
class Target:
    """The Python that is installed into.

    Attributes:
        python: path of its executable.
        version: as (3, 12).
        packages: normalised name to version, of all that pip knows there.
        withoutRecord: names of `OF_SLICER` that are there though pip does not know them.
        folder: where packages go.
    """

    python: str
    version: tuple[int, int]
    packages: Mapping[str, str]
    withoutRecord: tuple[str, ...]
    folder: str

    @classmethod
    def here(cls) -> Target:
        """Slicer's own Python, from within Slicer."""
        return cls._of(pythonOfSlicer(), sys.version_info[:2], sys.path, _sitePackages(sys.path))

    @classmethod
    def of(cls, python: str) -> Target:
        """Another Python; it is started, which takes a moment.

        Raises:
            OSError, subprocess.SubprocessError: it does not run.
        """
        facts = "sys.version_info[:2], sys.path, sysconfig.get_path('purelib')"
        code = f"import json, sys, sysconfig; print(json.dumps([{facts}]))"
        told = subprocess.run(
            [python, "-I", "-c", code], env=environmentFor(python), cwd=tempfile.gettempdir(), capture_output=True,
            timeout=60, check=True,
        )  # fmt: skip
        version, path, folder = json.loads(told.stdout)
        return cls._of(python, version, path, folder)

    @classmethod
    def _of(cls, python: str, version: Any, path: Sequence[str], folder: str) -> Target:
        packages: dict[str, str] = {}
        for distribution in metadata.distributions(path=[entry for entry in path if entry]):
            name = distribution.metadata["Name"]
            if name:  # a folder that a failed uninstallation has left has none
                packages.setdefault(normal(name), distribution.version)
        places = [entry for entry in path if entry]
        hidden = [
            name
            for name, module in OF_SLICER.items()
            if name not in packages and machinery.PathFinder.find_spec(module, places) is not None
        ]
        return cls(python, tuple(version), packages, tuple(hidden), folder)


@dataclass(frozen=True)
class Plan:
    """What an installation would do.

    Attributes:
        kind: "base" or "full".
        target: where.
        missing: names of packages that would come; pip adds those that they need.
        problems: sentences that say why it cannot be done, and what to do; with any of them, `Installation` refuses.
        wheelFolder: packages are taken from there and from nowhere else; None for the package index that pip is set to.
    """

    kind: str
    target: Target
    missing: tuple[str, ...]
    problems: tuple[str, ...]
    wheelFolder: str | None

    @property
    def isInstalled(self) -> bool:
        """Whether nothing is missing."""
        return not self.missing and not self.problems

    @property
    def gigabytes(self) -> int:
        """Free space that is needed."""
        withCuda = self.kind == "full" and self.wheelFolder is None and sys.platform == "linux"
        return SPACE_GB_WITH_CUDA if withCuda else SPACE_GB[self.kind]

    @property
    def summary(self) -> str:
        """What to ask before it is done, in a few lines."""
        if self.problems:
            return "\n".join(self.problems)
        if not self.missing:
            return f"{PACKAGE} {self.target.packages[PACKAGE]} is installed. Nothing is missing."
        source = f"from the folder {self.wheelFolder}" if self.wheelFolder else "from the package index"
        return (
            f"{len(self.missing)} packages would be installed {source}, with those that they need: "
            f"{', '.join(self.missing)}.\n"
            f"This takes up to {self.gigabytes} GB and some minutes. Nothing that Slicer or another extension has "
            "installed is replaced."
        )


def planInstallation(kind: str = "base", target: Target | str | None = None, wheelFolder: str | None = None) -> Plan:
    """What an installation would do; nothing is asked of the network.

    Args:
        kind: "base", by ONNX Runtime, or "full", with PyTorch.
        target: the Python to install into, or its path; Slicer's own if None.
        wheelFolder: a folder of wheels, for machines without network.

    Raises:
        OSError, subprocess.SubprocessError: as `Target.of`.
    """
    target = Target.of(target) if isinstance(target, str) else target or Target.here()
    missing, problems = [], []
    if target.version not in PYTHONS:
        problems.append(
            f"Slicer's Python is {'.'.join(map(str, target.version))}, and {PACKAGE} runs on 3.11 and 3.12. Use Slicer "
            f"{FIRST_SLICER} or newer."
        )
    for name, needs in PACKAGES[kind].items():
        version = target.packages.get(normal(name))
        if version is None and normal(name) not in target.withoutRecord:
            missing.append(name)
        elif version is not None and not satisfies(version, needs):
            if name == PACKAGE:
                missing.append(name)  # ours alone is replaced, by the version that this extension was made for
            else:
                problems.append(_tooOld(name, version, f"{PACKAGE} needs {name}{needs}"))
    pip = target.packages.get("pip")
    if pip is None or _numbers(pip) < LEAST_PIP:
        problems.append(
            f"pip {pip or 'is not there'} in {target.python}, expected 22.2 or newer. Run once: {target.python} -m "
            "ensurepip --upgrade"
        )
    if missing and not os.access(target.folder, os.W_OK):
        problems.append(
            f"{target.folder} cannot be written to. Install Slicer into a folder of your own, or start it once with "
            "the rights to write there."
        )
    if missing and wheelFolder is not None and not _holds(wheelFolder, "*.whl"):
        problems.append(f"{wheelFolder} holds no wheels (*.whl). Choose the folder that they were downloaded to.")
    plan = Plan(kind, target, tuple(missing), tuple(problems), wheelFolder)
    free = shutil.disk_usage(target.folder).free / 1e9 if os.path.isdir(target.folder) else 0.0
    if not missing or free >= plan.gigabytes:
        return plan
    space = f"{free:.1f} GB are free in {target.folder}, and {plan.gigabytes} GB are needed. Make room there."
    return replace(plan, problems=(*plan.problems, space))


class Planning:
    """A plan that is made in a thread, which reads what every package says of itself, and may start another Python.

    Args:
        kind: as `planInstallation`, which is asked.
        python: path of the Python to install into; Slicer's own if None.
        wheelFolder: as `planInstallation`.
    """

    def __init__(self, kind: str, python: str | None, wheelFolder: str | None) -> None:
        self._events: list[dict[str, Any]] = []
        self._isCancelled = False
        threading.Thread(target=self._plan, args=(kind, python, wheelFolder), daemon=True).start()

    def poll(self) -> list[dict[str, Any]]:
        """What has happened since the last call; never waits.

        Returns:
            Nothing, then once one of "planned" with `plan`, "failed" with `kind` and `message`, and "cancelled" with
            `text`.
        """
        if self._isCancelled:
            return [{"event": "cancelled", "text": NOTHING_CHANGED}]
        events, self._events = self._events, []
        return events

    def cancel(self) -> None:
        """Give it up; returns at once."""
        self._isCancelled = True

    def _plan(self, kind: str, python: str | None, wheelFolder: str | None) -> None:
        try:
            event = {"event": "planned", "plan": planInstallation(kind, python, wheelFolder)}
        except (OSError, subprocess.SubprocessError) as error:
            why = getattr(error, "strerror", None) or f"{type(error).__name__}"
            message = (
                f"{python or pythonOfSlicer()} does not run as Python ({why}). {NOTHING_CHANGED} Correct the entry "
                "SuperResolution/Python of Slicer's settings, or remove it to use Slicer's own Python."
            )
            event = {"event": "failed", "kind": "python", "message": message}
        self._events = [event]


class Installation:
    """An installation that goes on while `poll` is called.

    Args:
        plan: without problems.
        environment: of pip, with its settings; `environmentFor` the target if None.
        temporaryFolder: for a private folder of what is downloaded; the system's if None.

    Attributes:
        isRunning: whether more events will come.
        packages: name to version of what is new, known after the first step.

    Raises:
        ValueError: the plan has problems.
    """

    def __init__(
        self, plan: Plan, environment: Mapping[str, str] | None = None, temporaryFolder: str | None = None
    ) -> None:
        if plan.problems:
            raise ValueError(plan.problems[0])
        self._plan, self._python = plan, plan.target.python
        self._environment = dict(environment) if environment is not None else environmentFor(self._python)
        self._folder = tempfile.mkdtemp(prefix="sr-pip-", dir=temporaryFolder)
        self.packages: dict[str, str] = {}
        self.isRunning = True
        self._isCancelled = False
        self._step = ""
        self._said: list[str] = []
        self._collected = 0
        self._events: list[dict[str, Any]] = []
        self._failure: dict[str, Any] | None = None
        self._process: Any = None
        self._resolve()

    def poll(self) -> list[dict[str, Any]]:
        """What has happened since the last call; never waits.

        Returns:
            "step" with `step` and `text`, "progress" with `fraction` and `text`, "log" with `text`; at last one of
            "done" with `text` and `packages`, "failed" with `kind` and `message`, and "cancelled" with `text`.
        """
        process = self._process
        if process is not None:
            isOver = process.pursue()  # asked before the lines are taken, so that none comes after the last look
            for line in process.lines():
                self._hear(line)
            if isOver:
                self._said += process.lastLines
                self._process = None
                self._next(process)
        events, self._events = self._events, []
        return events

    def cancel(self) -> None:
        """Give it up; returns at once.

        What is only downloaded is thrown away. Once packages are being installed, pip finishes, and what is new is
        uninstalled again: half a package would be worse than either.
        """
        self._isCancelled = True
        if self._process is not None and self._step in ("resolve", "download"):
            self._process.end()

    def _run(self, step: str, text: str, *words: str) -> None:
        self._step, self._said, self._collected = step, [], 0
        self._events.append({"event": "step", "step": step, "text": text})
        self._process = Process([self._python, *words], self._environment, self._folder)

    def _pip(self, step: str, text: str, command: str, *words: str) -> None:
        self._run(step, text, "-m", "pip", command, "--disable-pip-version-check", "--no-input", "--no-color", *words)

    def _source(self) -> list[str]:
        words = ["--only-binary", ":all:"]
        if self._plan.wheelFolder:
            words += ["--no-index", "--find-links", os.path.abspath(self._plan.wheelFolder)]
        return words

    def _resolve(self) -> None:
        constraints = os.path.join(self._folder, "constraints.txt")
        with open(constraints, "w", encoding="utf-8") as file:
            for name, version in sorted(self._plan.target.packages.items()):
                if name != PACKAGE:
                    file.write(f"{name}=={version}\n")
        report = os.path.join(self._folder, "report.json")
        self._pip(
            "resolve", "Looking for what is needed", "install", "--dry-run", "--report", report,
            "-c", constraints, *self._source(), REQUIREMENTS[self._plan.kind],
        )  # fmt: skip

    def _resolved(self) -> None:
        """What would be installed is known: refuse what would replace something, leave out what Slicer has."""
        with open(os.path.join(self._folder, "report.json"), encoding="utf-8") as file:
            described = [each["metadata"] for each in json.load(file)["install"]]
        found = {normal(each["name"]): each["version"] for each in described}
        target = self._plan.target
        self.packages = {name: version for name, version in found.items() if name not in target.withoutRecord}
        replaced = [name for name in self.packages if name in target.packages and name != PACKAGE]
        if replaced:
            text = ", ".join(f"{name} {target.packages[name]} by {self.packages[name]}" for name in replaced)
            self._fail("conflict", f"pip would replace {text}. {NOTHING_CHANGED} Update Slicer.")
        elif not self.packages:
            self._check()
        else:
            for name in sorted(set(found) - set(self.packages)):
                self._events.append({"event": "log", "text": f"{name}: that of Slicer is kept"})
            self._download()

    def _download(self) -> None:
        wanted = [f"{name}=={version}" for name, version in self.packages.items()]
        folder = os.path.join(self._folder, "wheels")
        text = f"Downloading {len(wanted)} packages"
        self._pip("download", text, "download", "--no-deps", "-d", folder, *self._source(), *wanted)

    def _install(self) -> None:
        wheels = sorted(glob.glob(os.path.join(glob.escape(self._folder), "wheels", "*.whl")))
        megabytes = sum(os.path.getsize(wheel) for wheel in wheels) / 1e6
        text = f"Installing {len(wheels)} packages, {megabytes:.0f} MB"
        self._pip("install", text, "install", "--no-deps", "--no-index", *wheels)

    def _check(self) -> None:
        self._run("check", "Trying it", "-m", "monai_sr_bundle.worker", "--backend", "onnx")
        self._process.closeInput()  # it gets ready, sees that nothing is asked, and ends

    def _undo(self) -> None:
        there = [name for name in self.packages if name not in self._plan.target.packages] or [PACKAGE]
        self._pip("undo", "Removing what was installed", "uninstall", "-y", *there)

    def _next(self, process: Process) -> None:
        """A step has ended."""
        went = process.returnCode == 0
        if self._step == "undo":
            self._undone(went)
        elif self._isCancelled and self._step in ("resolve", "download"):
            self._finish({"event": "cancelled", "text": NOTHING_CHANGED})
        elif process.error:
            message = f"{self._python} cannot be started ({process.error}). Restart Slicer."
            self._finish({"event": "failed", "kind": "python", "message": message})
        elif self._step in ("resolve", "download") and not went:
            self._fail(*explain(self._said, self._plan))
        elif self._step == "resolve":
            self._resolved()
        elif self._step == "download":
            self._install()
        elif self._isCancelled or not went:
            if not self._isCancelled:
                self._failure = self._failureOf(process)
            self._undo()
        elif self._step == "install":
            self._check()
        else:
            names = ", ".join(f"{name} {version}" for name, version in sorted(self.packages.items())) or "nothing new"
            text = f"{PACKAGE} is installed: {names}."
            self._finish({"event": "done", "text": text, "packages": dict(self.packages)})

    def _failureOf(self, process: Process) -> dict[str, Any]:
        if self._step == "check":
            said = " ".join(self._said[-2:])
            message = f"What was installed does not run ({said or process.returnCode}). Update Slicer, or report this."
            return {"event": "failed", "kind": "check", "message": message}
        kind, message = explain(self._said, self._plan)
        return {"event": "failed", "kind": kind, "message": message}

    def _undone(self, went: bool) -> None:
        text = "What was new has been removed again." if went else "Some of it is left; pip list shows what."
        if self._failure is None:
            self._finish({"event": "cancelled", "text": text})
        else:
            message = self._failure["message"].replace(NOTHING_CHANGED, "").strip()
            self._finish({**self._failure, "message": f"{message} {text}"})

    def _fail(self, kind: str, message: str) -> None:
        self._finish({"event": "failed", "kind": kind, "message": message})

    def _finish(self, event: dict[str, Any]) -> None:
        self._events.append(event)
        self.isRunning = False
        discard(self._folder)

    def _hear(self, line: str) -> None:
        """A line of pip's stdout."""
        line = line.strip()
        self._said.append(line)
        if self._step == "download" and line.startswith(("Collecting", "Processing")):
            total = len(self.packages)
            text = f"{line} ({self._collected + 1} of {total})"
            self._events.append({"event": "progress", "fraction": round(self._collected / total, 3), "text": text})
            self._collected += 1
        elif line.startswith(WORTH_SHOWING):
            self._events.append({"event": "log", "text": line})


def explain(said: Sequence[str], plan: Plan) -> tuple[str, str]:
    """Why pip has failed, and what to do.

    Args:
        said: its lines.
        plan: that it followed.

    Returns:
        "conflict", "network", "missing", "disk", "rights" or "pip", and the message.
    """
    text = "\n".join(said)
    needs = re.search(r"^\s*(\S+ \S+) depends on (.+)$", text, re.MULTILINE)
    pinned = re.search(r"^\s*The user requested \(constraint\) (\S+?)===?(\S+)$", text, re.MULTILINE)
    if needs and pinned:
        return "conflict", f"{_tooOld(pinned[1], pinned[2], f'{needs[1]} needs {needs[2]}')} {NOTHING_CHANGED}"
    if not plan.wheelFolder and NETWORK.search(text):
        reason = NETWORK.search(text)[0]  # type: ignore[index]
        return "network", (
            f"The package index cannot be reached ({reason}). {NOTHING_CHANGED} Check the network; behind a proxy, set "
            "HTTPS_PROXY=http://host:port before Slicer starts; without network, choose a folder of wheels."
        )
    lacking = re.search(r"No matching distribution found for ([\w.-]+)(\S*)", text)
    if lacking:
        place = f"The folder {plan.wheelFolder}" if plan.wheelFolder else "The package index does not answer, or it"
        version = ".".join(map(str, plan.target.version))
        wanted = f"{lacking[1]}{lacking[2].rstrip(',')}"
        return "missing", (
            f"{place} has no wheel of {wanted} for Python {version} on {sys.platform}. {NOTHING_CHANGED} Fill a folder "
            f"from a checkout of {PACKAGE}, on a machine with network: {FILL[plan.kind]}"
        )
    if "No space left on device" in text or "Disk quota exceeded" in text:
        return "disk", f"The disk is full. {NOTHING_CHANGED} Make room, and try again."
    if "Permission denied" in text or "Access is denied" in text:
        return "rights", (
            f"pip may not write to {plan.target.folder}. {NOTHING_CHANGED} Close other Slicers, or install Slicer into "
            "a folder of your own."
        )
    if "No module named pip" in text:
        return "pip", f"There is no pip in {plan.target.python}. Run once: {plan.target.python} -m ensurepip --upgrade"
    errors = [line.removeprefix("ERROR: ") for line in said if line.startswith("ERROR")] or list(said)[-1:]
    return "pip", f"pip has failed: {' '.join(errors) or 'without a word'}. {NOTHING_CHANGED}"


def normal(name: str) -> str:
    """A package's name as pip compares names (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def satisfies(version: str, needs: str) -> bool:
    """Whether a version is one of those needed, as "3.0.2" of ">=3.0.1,<4"; a local part, as "+cpu", is left out."""
    for clause in filter(None, needs.split(",")):
        relation, wanted = re.fullmatch(r"(>=|<=|==|<|>)(.+)", clause).groups()  # type: ignore[union-attr]
        one, other = _numbers(version), _numbers(wanted)
        length = max(len(one), len(other))
        one, other = (each + (0,) * (length - len(each)) for each in (one, other))
        right = {">=": one >= other, "<=": one <= other, "==": one == other, "<": one < other, ">": one > other}
        if not right[relation]:
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    found = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()


def _holds(folder: str, pattern: str) -> bool:
    return bool(glob.glob(os.path.join(glob.escape(folder), pattern)))


def _tooOld(name: str, version: str, needs: str) -> str:
    return (
        f"{needs}, but {name} {version} is installed, which is not replaced: Slicer or another extension needs it. Use "
        f"a newer Slicer ({FIRST_SLICER} or later); if you have installed {name} yourself, update it first."
    )


def _sitePackages(path: Sequence[str]) -> str:
    import sysconfig

    folder = sysconfig.get_path("purelib")
    return folder if folder in path or not path else next((e for e in path if e.endswith("site-packages")), folder)
