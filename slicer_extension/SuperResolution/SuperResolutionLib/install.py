"""Installation of monai-sr-bundle into Slicer's Python, by pip in its own process.

    plan = planInstallation("base")
    print(plan.summary)                     # ask the user
    installation = Installation(plan)
    ...                                     # by a timer, about every 100 ms
    for event in installation.poll(): show(event)

An installed package is never replaced: each one is a constraint at its version, a plan that would replace one is
refused with a message, and packages that Slicer brings unknown to pip are left out. The four steps (resolve, download,
install, check) can be cancelled. The base needs no PyTorch; the full installation adds it.

slicer.packaging (Slicer 5.11 and newer) is not used: it opens its own windows and cannot be cancelled, it knows the
needs of Slicer but not those of the user's other extensions, and Slicer 5.10 does not have it. This module needs only
the standard library, Python 3.9 or newer; neither Qt nor Slicer.
"""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import machinery, metadata
from typing import Any

from .child_process import PATIENCE, ChildProcess, discard, environmentFor, makeFolder, pythonOfSlicer

PACKAGE, VERSION = "monai-sr-bundle", "0.2.0"
PYTHONS = ((3, 11), (3, 12))
FIRST_SLICER = "5.10"
"""The first Slicer version with one of `PYTHONS`."""
LEAST_PIP = (22, 2)
"""The first pip version with `pip install --dry-run --report`."""
SPACE_GB = {"base": 1, "full": 3}
"""Free space that an installation needs, for the wheels and the unpacked packages, rounded up."""
SPACE_GB_WITH_CUDA = 10
"""Free space with CUDA: on Linux the package index offers PyTorch with CUDA."""

_BASE = {
    PACKAGE: f"=={VERSION}", "highdicom": ">=0.27", "nibabel": ">=5.2", "numpy": ">=1.26", "onnxruntime": ">=1.20",
    "pillow": ">=10.3", "psutil": ">=5.9", "pydicom": ">=3.0.1,<4", "pylibjpeg": ">=2.0.1",
    "pylibjpeg-openjpeg": ">=2.3", "python-gdcm": ">=3.0.24", "pyyaml": ">=6.0", "tqdm": ">=4.66",
}  # fmt: skip
_TORCH = {"SimpleITK": ">=2.4", "monai": ">=1.6.1,<1.7", "onnx": ">=1.17", "onnxscript": ">=0.5", "torch": ">=2.11"}
PACKAGES = {"base": _BASE, "full": {**_BASE, **_TORCH}}
"""Required packages and versions, as in the package's metadata; pip adds their own requirements."""
REQUIREMENTS = {
    "base": f"{PACKAGE}[dicom]=={VERSION}",
    "full": f"{PACKAGE}[dicom,torch]==={VERSION}",  # three "=": not the viewer wheel, which has no code for PyTorch
}
FILL_COMMANDS = {
    "base": 'MONAI_SR_WHEEL=viewer python3.12 -m pip wheel --only-binary :all: -w FOLDER ".[dicom]"',
    "full": 'python3.12 -m pip wheel --only-binary :all: -w FOLDER ".[dicom,torch]"',
}
"""Commands that fill a folder of wheels, until an index has the package."""
BUNDLED_WITH_SLICER = ("SimpleITK", "vtk", "numpy", "requests", "pydicom")
"""Modules of packages that Slicer may bring without a record for pip; a second copy makes Slicer crash."""
NETWORK = re.compile(
    r"ProxyError|NewConnectionError|ConnectTimeout|ReadTimeout|SSLError|CERTIFICATE_VERIFY|Name or service not known|"
    r"Temporary failure in name resolution|getaddrinfo failed|Connection refused|Connection reset|Max retries exceeded|"
    r"Network is unreachable|RemoteDisconnected|Could not fetch URL|IncompleteRead|HTTP error"
)
NOTHING_CHANGED = "Nothing was changed."
SHOWN_LINES = (
    "Collecting", "Downloading", "Using cached", "Processing", "Saved", "Installing", "Successfully", "Uninstalling",
)  # fmt: skip
"""Beginnings of the lines of pip that are shown to the user."""


@dataclass(frozen=True)
class Target:
    """The Python to install into.

    Attributes:
        python: path of its executable.
        version: version of Python, for instance (3, 12).
        packages: normalised name to version of all packages that pip knows.
        withoutRecord: normalised names of installed packages of `BUNDLED_WITH_SLICER` that pip does not know.
        folder: folder for packages.
    """

    python: str
    version: tuple[int, int]
    packages: Mapping[str, str]
    withoutRecord: tuple[str, ...]
    folder: str

    @classmethod
    def here(cls) -> Target:
        """Return Slicer's own Python, from within Slicer."""
        return cls._of(pythonOfSlicer(), sys.version_info[:2], sys.path, _sitePackages(sys.path))

    @classmethod
    def of(cls, python: str) -> Target:
        """Return another Python; starting it takes a moment.

        Raises:
            OSError, subprocess.SubprocessError: it does not run.
        """
        facts = "sys.version_info[:2], sys.path, sysconfig.get_path('purelib')"
        code = f"import json, sys, sysconfig; print(json.dumps([{facts}]))"
        process = subprocess.run(
            [python, "-I", "-c", code], env=environmentFor(python), cwd=tempfile.gettempdir(), capture_output=True,
            timeout=60, check=True,
        )  # fmt: skip
        version, path, folder = json.loads(process.stdout)
        return cls._of(python, version, path, folder)

    @classmethod
    def _of(cls, python: str, version: Any, path: Sequence[str], folder: str) -> Target:
        packages: dict[str, str] = {}
        folders = [entry for entry in path if entry]
        for distribution in metadata.distributions(path=folders):
            name = distribution.metadata["Name"]
            if name:  # the remains of a failed uninstallation have no name
                packages.setdefault(normalizeName(name), distribution.version)
        present = [name for name in BUNDLED_WITH_SLICER if machinery.PathFinder.find_spec(name, folders) is not None]
        withoutRecord = [normalizeName(name) for name in present if normalizeName(name) not in packages]
        return cls(python, tuple(version), packages, tuple(withoutRecord), folder)


@dataclass(frozen=True)
class Plan:
    """A plan of an installation.

    Attributes:
        kind: "base" or "full".
        target: Python to install into.
        missing: names of the packages to install; pip adds their requirements.
        problems: sentences that say why it is not possible and what to do. `Installation` refuses a plan with problems.
        wheelFolder: only source of packages; None for the package index that pip is set to.
    """

    kind: str
    target: Target
    missing: tuple[str, ...]
    problems: tuple[str, ...]
    wheelFolder: str | None

    @property
    def isInstalled(self) -> bool:
        """True if nothing is missing."""
        return not self.missing and not self.problems

    @property
    def gigabytes(self) -> int:
        """The free space that is needed."""
        withCuda = self.kind == "full" and self.wheelFolder is None and sys.platform == "linux"
        return SPACE_GB_WITH_CUDA if withCuda else SPACE_GB[self.kind]

    @property
    def summary(self) -> str:
        """The text that asks the user for confirmation, in a few lines."""
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
    """Plan an installation, without the network.

    Args:
        kind: "base" (default), with ONNX Runtime, or "full", with PyTorch too.
        target: Python to install into, or its path. Default None: Slicer's own.
        wheelFolder: folder of wheels, for machines without network. Default None: the package index.

    Raises:
        OSError, subprocess.SubprocessError: the target does not run.
    """
    target = Target.of(target) if isinstance(target, str) else target or Target.here()
    missing, problems = [], []
    if target.version not in PYTHONS:
        problems.append(
            f"Slicer's Python is {'.'.join(map(str, target.version))}, and {PACKAGE} runs on 3.11 and 3.12. Use Slicer "
            f"{FIRST_SLICER} or newer."
        )
    for name, needs in PACKAGES[kind].items():
        version = target.packages.get(normalizeName(name))
        if version is None and normalizeName(name) not in target.withoutRecord:
            missing.append(name)
        elif version is not None and not satisfies(version, needs):
            if name == PACKAGE:
                missing.append(name)  # our own package alone is replaced, by the version of this extension
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
    if missing and wheelFolder is not None and not glob.glob(os.path.join(glob.escape(wheelFolder), "*.whl")):
        problems.append(f"{wheelFolder} holds no wheels (*.whl). Choose the folder that they were downloaded to.")
    plan = Plan(kind, target, tuple(missing), tuple(problems), wheelFolder)
    free = shutil.disk_usage(target.folder).free / 1e9 if os.path.isdir(target.folder) else 0.0
    if not missing or free >= plan.gigabytes:
        return plan
    space = f"{free:.1f} GB are free in {target.folder}, and {plan.gigabytes} GB are needed. Make room there."
    return replace(plan, problems=(*plan.problems, space))


class Planning:
    """A thread that calls `planInstallation`, which reads the metadata of all packages and may start another Python.

    Args:
        kind: "base" or "full".
        python: path of the Python to install into; None for Slicer's own.
        wheelFolder: folder of wheels; None for the package index.
    """

    def __init__(self, kind: str, python: str | None, wheelFolder: str | None) -> None:
        self._events: list[dict[str, Any]] = []
        self._isCancelled = False
        threading.Thread(target=self._plan, args=(kind, python, wheelFolder), daemon=True).start()

    def poll(self) -> list[dict[str, Any]]:
        """Return the events since the last call; this never waits.

        Returns:
            No event at first, then "planned" with `plan`, "failed" with `kind`, `message`, or "cancelled" with `text`.
        """
        if self._isCancelled:
            return [{"event": "cancelled", "text": NOTHING_CHANGED}]
        events, self._events = self._events, []
        return events

    def cancel(self) -> None:
        """Cancel the planning, and return at once."""
        self._isCancelled = True

    def close(self) -> None:
        """Cancel the planning; there is nothing to remove."""
        self.cancel()

    def _plan(self, kind: str, python: str | None, wheelFolder: str | None) -> None:
        try:
            event = {"event": "planned", "plan": planInstallation(kind, python, wheelFolder)}
        except (OSError, subprocess.SubprocessError) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            message = (
                f"{python or pythonOfSlicer()} does not run as Python ({reason}). {NOTHING_CHANGED} Correct the entry "
                "SuperResolution/Python of Slicer's settings, or remove it to use Slicer's own Python."
            )
            event = {"event": "failed", "kind": "python", "message": message}
        self._events = [event]


class Installation:
    """An installation that proceeds while `poll` is called.

    Args:
        plan: plan without problems.
        environment: environment variables of pip, with its settings. Default None: `environmentFor` the target.
        temporaryFolder: parent of a private folder for downloads. Default None: the system's.

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
        self._folder = makeFolder(temporaryFolder)
        self._packages: dict[str, str] = {}  # name to version of the new ones, known after the first step
        self._isCancelled = False
        self._step = ""
        self._lines: list[str] = []
        self._collected = 0
        self._events: list[dict[str, Any]] = []
        self._processes = self._steps()
        self._process = next(self._processes, None)

    def poll(self) -> list[dict[str, Any]]:
        """Return the events since the last call; this never waits.

        Returns:
            "step" with `step` and `text`, "progress" and "log" with `text`; at last one of "done" with `text`, "failed"
            with `kind` and `message`, and "cancelled" with `text`.
        """
        process = self._process
        if process is not None:
            isOver = process.pursue()  # checked before the lines are read, so that no line is missed
            for line in process.lines():
                self._handleLine(line)
            if isOver:
                self._lines += process.lastLines
                self._process = next(self._processes, None)
        events, self._events = self._events, []
        return events

    def cancel(self) -> None:
        """Cancel the installation, and return at once.

        Downloads are deleted. Once packages are being installed, pip finishes and the new packages are uninstalled
        again, so that no package is left half installed.
        """
        self._isCancelled = True
        if self._process is not None and self._step in ("resolve", "download"):
            self._process.end()

    def close(self) -> None:
        """Cancel the installation and remove the downloads. pip gets a moment to end by itself.

        A pip that still installs keeps them; `removeStaleFolders` removes them at the next start.
        """
        self.cancel()
        limit = time.monotonic() + 2 * PATIENCE  # after `PATIENCE`, `poll` kills a pip that does not end
        while self._process is not None and time.monotonic() < limit:
            self.poll()
            time.sleep(0.01)
        if self._process is None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _steps(self) -> Generator[ChildProcess, None, None]:
        """Yield the process of each step: resolve, download, install and check, or what undoes them."""
        try:
            yield from self._resolve()
            if self._packages:
                requirements = [f"{name}=={version}" for name, version in self._packages.items()]
                folder = os.path.join(self._folder, "wheels")
                text = f"Downloading {len(requirements)} packages"
                words = ("--no-deps", "-d", folder, *self._source(), *requirements)
                yield from self._pip("download", text, "download", *words)
                wheels = sorted(glob.glob(os.path.join(glob.escape(folder), "*.whl")))
                megabytes = sum(os.path.getsize(wheel) for wheel in wheels) / 1e6
                text = f"Installing {len(wheels)} packages, {megabytes:.0f} MB"
                yield from self._pip("install", text, "install", "--no-deps", "--no-index", *wheels)
            yield from self._run("check", "Trying it", "-m", "monai_sr_bundle.worker", "--backend", "onnx")
        except _Stop as stop:
            message = stop.message
            # Of packages that were replaced, only this one would be left behind not running.
            newPackages = [name for name in self._packages if name == PACKAGE or name not in self._plan.target.packages]
            if newPackages and self._step in ("install", "check") and stop.kind != "python":
                text = "Removing what was installed"
                isUndone = yield from self._pip("undo", text, "uninstall", "-y", *newPackages)
                state = "The new packages have been removed again."
                if not isUndone:
                    state = "Some packages are left; see pip list."
                message = f"{message.replace(NOTHING_CHANGED, '').strip()} {state}".strip()
            event = {"event": "failed", "kind": stop.kind, "message": message}
            if not stop.kind:
                event = {"event": "cancelled", "text": message}
        else:
            names = ", ".join(f"{name} {version}" for name, version in sorted(self._packages.items())) or "nothing new"
            text = f"{PACKAGE} is installed: {names}."
            event = {"event": "done", "text": text}
        self._events.append(event)
        discard(self._folder)

    def _run(self, step: str, text: str, *words: str) -> Generator[ChildProcess, None, bool]:
        """Run Python with some arguments. Return whether it succeeded; only "undo" may fail.

        Raises:
            _Stop: the step failed, or the user cancelled.
        """
        self._step, self._lines, self._collected = step, [], 0
        self._events.append({"event": "step", "step": step, "text": text})
        process = ChildProcess([self._python, *words], self._environment, self._folder)
        if step == "check":
            process.closeInput()  # the worker gets ready and ends, because there is no request
        yield process
        isSuccess = process.returnCode == 0
        if step == "undo":
            return isSuccess
        if process.error:
            raise _Stop("python", f"{self._python} cannot be started ({process.error}). Restart Slicer.")
        if self._isCancelled:
            raise _Stop()
        if not isSuccess and step == "check":
            lastLines = " ".join(self._lines[-2:]) or process.returnCode
            raise _Stop("check", f"The installed packages do not run ({lastLines}). Update Slicer, or report this.")
        if not isSuccess:
            raise _Stop(*explainFailure(self._lines, self._plan))
        return True

    def _pip(self, step: str, text: str, command: str, *words: str) -> Generator[ChildProcess, None, bool]:
        options = ("--disable-pip-version-check", "--no-input", "--no-color")
        return self._run(step, text, "-m", "pip", command, *options, *words)

    def _source(self) -> list[str]:
        words = ["--only-binary", ":all:"]
        if self._plan.wheelFolder:
            words += ["--no-index", "--find-links", os.path.abspath(self._plan.wheelFolder)]
        return words

    def _resolve(self) -> Generator[ChildProcess, None, None]:
        """Ask pip what would be installed: refuse replacements, and leave out packages that Slicer has."""
        target = self._plan.target
        constraints, report = (os.path.join(self._folder, name) for name in ("constraints.txt", "report.json"))
        with open(constraints, "w", encoding="utf-8") as file:
            for name, version in sorted(target.packages.items()):
                if name != PACKAGE:
                    file.write(f"{name}=={version}\n")
        yield from self._pip(
            "resolve", "Looking for what is needed", "install", "--dry-run", "--report", report,
            "-c", constraints, *self._source(), REQUIREMENTS[self._plan.kind],
        )  # fmt: skip
        with open(report, encoding="utf-8") as file:
            entries = [entry["metadata"] for entry in json.load(file)["install"]]
        resolved = {normalizeName(entry["name"]): entry["version"] for entry in entries}
        self._packages = {name: version for name, version in resolved.items() if name not in target.withoutRecord}
        replaced = [name for name in self._packages if name in target.packages and name != PACKAGE]
        if replaced:
            text = ", ".join(f"{name} {target.packages[name]} by {self._packages[name]}" for name in replaced)
            raise _Stop("conflict", f"pip would replace {text}. {NOTHING_CHANGED} Update Slicer.")
        if self._packages:
            for name in sorted(set(resolved) - set(self._packages)):
                self._events.append({"event": "log", "text": f"{name}: Slicer's own version is kept"})

    def _handleLine(self, line: str) -> None:
        """Handle a line of pip's stdout."""
        line = line.strip()
        self._lines.append(line)
        if self._step == "download" and line.startswith(("Collecting", "Processing")):
            total = len(self._packages)
            text = f"{line} ({self._collected + 1} of {total})"
            self._events.append({"event": "progress", "text": text})
            self._collected += 1
        elif line.startswith(SHOWN_LINES):
            self._events.append({"event": "log", "text": line})


class _Stop(Exception):
    """The end of an installation before its last step: it failed, or, without `kind`, was cancelled."""

    def __init__(self, kind: str = "", message: str = NOTHING_CHANGED) -> None:
        super().__init__(message)
        self.kind, self.message = kind, message


def explainFailure(lines: Sequence[str], plan: Plan) -> tuple[str, str]:
    """Return why pip has failed, and what to do.

    Args:
        lines: output of pip.
        plan: plan of the installation.

    Returns:
        "conflict", "network", "missing", "disk", "rights" or "pip", and the message.
    """
    text = "\n".join(lines)
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
    missing = re.search(r"No matching distribution found for ([\w.-]+)(\S*)", text)
    if missing:
        source = f"The folder {plan.wheelFolder}" if plan.wheelFolder else "The package index does not answer, or it"
        version = ".".join(map(str, plan.target.version))
        requirement = f"{missing[1]}{missing[2].rstrip(',')}"
        return "missing", (
            f"{source} has no wheel of {requirement} for Python {version} on {sys.platform}. {NOTHING_CHANGED} Fill a "
            f"folder from a checkout of {PACKAGE}, on a machine with network: {FILL_COMMANDS[plan.kind]}"
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
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR")] or list(lines)[-1:]
    return "pip", f"pip has failed: {' '.join(errors) or 'without a message'}. {NOTHING_CHANGED}"


def normalizeName(name: str) -> str:
    """Return a package's name as pip compares names (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def satisfies(version: str, requirement: str) -> bool:
    """Return True if a version meets a requirement such as ">=3.0.1,<4"; a local part such as "+cpu" is ignored."""
    for clause in filter(None, requirement.split(",")):
        relation, limit = re.fullmatch(r"(>=|<=|==|<|>)(.+)", clause).groups()  # type: ignore[union-attr]
        left, right = _numbers(version), _numbers(limit)
        length = max(len(left), len(right))
        left, right = (numbers + (0,) * (length - len(numbers)) for numbers in (left, right))
        holds = {">=": left >= right, "<=": left <= right, "==": left == right, "<": left < right, ">": left > right}
        if not holds[relation]:
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(map(int, match[0].split("."))) if match else ()


def _tooOld(name: str, version: str, needs: str) -> str:
    return (
        f"{needs}, but {name} {version} is installed, which is not replaced: Slicer or another extension needs it. Use "
        f"a newer Slicer ({FIRST_SLICER} or later); if you have installed {name} yourself, update it first."
    )


def _sitePackages(path: Sequence[str]) -> str:
    folder = sysconfig.get_path("purelib")
    return folder if folder in path or not path else next((e for e in path if e.endswith("site-packages")), folder)
