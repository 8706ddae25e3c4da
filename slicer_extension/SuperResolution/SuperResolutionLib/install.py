"""Installation of monai-sr-bundle for a Python, by its pip in its own process, into a folder of its own.

pip says what it would install, from where and with which hash (`pip install --dry-run --report`). After the user has
agreed, exactly these files are installed into a new folder, which comes into its place once the worker runs from it.
Packages of Slicer or another extension are never touched, and an older installation stays until then.

slicer.packaging (Slicer 5.11 and newer) is not used: it cannot be cancelled, it knows nothing of hashes, and Slicer
5.10 does not have it.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import time
from collections.abc import Generator, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from . import child_process
from .child_process import ChildProcess, commandOf, discard, environmentFor, makeFolder, pythonOfSlicer
from .errors import InputError, _

PACKAGE, VERSION = "monai-sr-bundle", "0.2.0"
RELEASE = f"https://example.org/monai-sr-bundle/releases/v{VERSION}"  # to come; no package index is asked
REQUIREMENTS = {"base": f"{PACKAGE}[dicom]=={VERSION}", "full": f"{PACKAGE}[dicom,torch]==={VERSION}"}
"""What is installed; three "=" exclude the wheel for viewers, which has no code for PyTorch."""
SUMS = "SHA256SUMS"  # file in a folder of wheels with their hashes, as `sha256sum *.whl` prints them
SCANNED_WITHIN = 20.0  # seconds for which a virus scanner may keep new files open
_INSPECT = f"""
import importlib.metadata, json, sys
sys.path.insert(0, sys.argv[1])
print(json.dumps([next((info.version for info in importlib.metadata.Distribution.discover(name=name)), "")
                  for name in ({PACKAGE!r}, "torch")]))
"""


class Installation:
    """An installation that proceeds while a timer calls `step`.

    `kind` is "base", with ONNX Runtime, or "full", with PyTorch too, and `source` a folder of wheels, whose hashes its
    file `SUMS` gives where there is one, or a file with the SHA-256 of each wheel beside it; None means the release.
    `text` says what it does, and at last how it has ended. `question` names what would be installed, else it is empty:
    empty it, ask the user, and call `confirm` or `cancel`. `isInstalled` is True once the models are installed and run.
    """

    def __init__(self, kind: str = "base", python: str | None = None, source: str | None = None) -> None:
        self.text, self.question, self.isInstalled = "", "", False
        self._kind, self._python = kind, python or pythonOfSlicer()
        self._packages = Path(child_process.packagesOf(self._python))
        self._wheels, self._sums = RELEASE, None
        if source:
            path = Path(source).absolute()
            self._wheels, self._sums = (path.parent, path) if path.is_file() else (path, path / SUMS)
        self._isCanceled = self._isConfirmed = False
        self._folder, self._lines = "", []
        self._process: ChildProcess | None = None
        self._processes = self._perform()

    def step(self) -> bool:
        """Proceed; this never waits and never raises. Return True until it is over."""
        try:
            isOver = self._process is None or self._process.pursue()  # before the lines, so that none is missed
            for line in self._process.lines() if self._process else ():
                self._lines.append(line.strip())
                if line.startswith(("Collecting", "Processing")):
                    self.text = line.strip()
            if isOver and self._isCanceled:
                raise InputError("")
            if isOver:
                self._process = next(self._processes)
            return True
        except StopIteration:
            pass
        except InputError as error:
            text = _("{reason} Nothing was changed.")
            if self._isHolding:
                text = _("{reason} That puts back what was installed.")
            self.text = text.format(reason=error).strip()
        except Exception as error:  # the panel must not wait for an end that does not come
            logging.exception("An error of the installation that was not expected")
            self.text = _("The installation has failed ({error}). Nothing was changed.").format(error=error)
        self._process = None
        if not self._isHolding:
            discard(self._folder)
        return False

    @property
    def _isHolding(self) -> bool:
        """True while its folder holds the packages that an exchange has taken from their place; see `_restore`."""
        return Path(self._folder, self._packages.name).exists() and not self._packages.exists()

    def confirm(self) -> None:
        """Install what was planned."""
        self._isConfirmed = True

    def cancel(self) -> None:
        """Cancel the installation, and return at once."""
        self._isCanceled = True
        if self._process is not None:
            self._process.end()

    def close(self) -> None:
        """Cancel the installation and remove its folder. pip gets a moment to end by itself."""
        self.cancel()
        if self._process is not None:
            self._process.endAndWait()
        if not self._isHolding:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _perform(self) -> Generator[ChildProcess | None, None, None]:
        """Yield the process of each step, and None while the user is asked."""
        self._packages.parent.mkdir(parents=True, exist_ok=True)
        self._restore()
        child_process.removeStaleFolders(str(self._packages.parent))
        self._folder = makeFolder(str(self._packages.parent))  # on the same disk, to be renamed
        command = [self._python, "-c", _INSPECT, str(self._packages)]
        process = yield from self._run(_("Looking at what is installed…"), command)
        if process.returnCode != 0:
            text = _("{python} does not run as Python ({reason}). Correct the entry SuperResolution/Python of Slicer's "
                     "settings, or remove it to use Slicer's own Python.")  # fmt: skip
            raise InputError(text, python=self._python, reason=process.error or " ".join(self._lines[-1:]))
        version, torch = json.loads(self._lines[0])
        if (version.split("+")[0] == VERSION and self._kind == "base") or (version == VERSION and torch):  # no viewer's
            process = yield from self._try(self._packages)
            if process.returnCode == 0:
                self.text, self.isInstalled = _("The models are installed. Nothing is missing."), True
                return
        entries = yield from self._resolve()
        names = ", ".join(f"{entry['name']} {entry['version']}" for entry in entries)
        self.question = self._describe(entries, names)
        while not self._isConfirmed:
            yield None
        new = Path(self._folder, "packages")
        lock = Path(self._folder, "lock.txt")
        lock.write_text("".join("{name} @ {url} --hash=sha256:{sha256}\n".format(**entry) for entry in entries))
        text = _("Installing {count} packages").format(count=len(entries))
        yield from self._runPip(text, "--no-deps", "--require-hashes", "--target", str(new), "-r", str(lock))
        process = yield from self._try(new)
        if process.returnCode != 0:
            lines = " ".join(self._lines[-2:]) or process.returnCode
            raise InputError(_("The packages do not run ({lines}). Update Slicer, or report this."), lines=lines)
        yield from self._exchange(new)
        self.text, self.isInstalled = _("The models are installed: {names}.").format(names=names), True

    def _restore(self) -> None:
        """Put back packages that an exchange has left in its folder: it was killed, or could not be undone."""
        for old in self._packages.parent.glob(f"sr-*/{self._packages.name}"):
            if not self._packages.exists():
                old.rename(self._packages)

    def _run(self, text: str, command: Sequence[str]) -> Generator[ChildProcess, None, ChildProcess]:
        """Run a command while `text` is shown, and return its process, which has ended."""
        self._lines, self.text = [], text
        environment = {name: value for name, value in environmentFor(self._python).items() if name[:4] != "PIP_"}
        environment["PIP_CONFIG_FILE"] = os.devnull  # the user's settings may send packages elsewhere, or none
        environment.update(dict.fromkeys(("TMPDIR", "TEMP", "TMP"), self._folder))  # an ended pip leaves files there
        process = ChildProcess(command, environment, self._folder)
        process.closeInput()  # the worker gets ready and ends, because there is no request
        yield process
        self._lines += process.lastLines
        return process

    def _runPip(self, text: str, *words: str) -> Generator[ChildProcess, None, None]:
        """Run pip, without a package index. Raise an InputError if it fails."""
        options = ("--disable-pip-version-check", "--no-input", "--no-color", "--no-index")
        process = yield from self._run(text, [self._python, "-m", "pip", "install", *options, *words])
        if process.returnCode == 0:
            return
        missing = re.search(r"No matching distribution found for (\S+)", "\n".join(self._lines))
        if missing:
            text = _("{source} has no wheel of {name} for this Python, or cannot be read. Use Slicer 5.10 or newer, "
                     "and fill a folder as the user page says.")  # fmt: skip
            raise InputError(text, source=self._wheels, name=missing[1])
        errors = [line.removeprefix("ERROR: ") for line in self._lines if line.startswith("ERROR")]
        raise InputError(_("pip has failed: {lines}."), lines=" ".join(errors or self._lines[-1:]).rstrip("."))

    def _try(self, packages: Path) -> Generator[ChildProcess, None, ChildProcess]:
        command = commandOf(self._python, "monai_sr_bundle.worker", "--backend", "onnx", packages=str(packages))
        return (yield from self._run(_("Trying it"), command))

    def _resolve(self) -> Generator[ChildProcess, None, list[dict[str, str]]]:
        """Ask pip what it would install. Return name, version, url and sha256 of each file, our package first."""
        if str(self._wheels).startswith("https://example.org/"):
            raise InputError(_("There is no release to download yet. Choose a folder of wheels; the user page says how "
                               "to fill it."))  # fmt: skip
        report = Path(self._folder, "report.json")
        yield from self._runPip(
            _("Looking for what is needed"), "--dry-run", "--ignore-installed", "--report", str(report),
            "--only-binary", ":all:", "--find-links", str(self._wheels), REQUIREMENTS[self._kind],
        )  # fmt: skip
        entries = [
            {
                "name": item["metadata"]["name"],
                "version": item["metadata"]["version"],
                "url": item["download_info"]["url"].split("#")[0],
                "sha256": item["download_info"]["archive_info"]["hashes"]["sha256"],
            }
            for item in json.loads(report.read_text("utf-8"))["install"]
        ]
        isGiven = self._sums is not None and self._sums.is_file()
        given = self._sums.read_bytes().replace(b"\0", b"").lower() if isGiven else b""  # PowerShell writes UTF-16
        for entry in entries:
            if isGiven and entry["sha256"].encode() not in given:
                text = _("The wheel of {name} {version} has the SHA-256 {sha256}, which {file} does not give. Copy the "
                         "folder again from where it was made.")  # fmt: skip
                raise InputError(text, file=self._sums, **entry)
        return sorted(entries, key=lambda entry: (entry["name"] != PACKAGE, entry["name"].lower()))

    def _describe(self, entries: Sequence[dict[str, str]], names: str) -> str:
        """Return the question whether these files are to be installed."""
        files = [url2pathname(urlsplit(entry["url"]).path) for entry in entries]
        megabytes = sum(os.path.getsize(file) for file in files if os.path.isfile(file)) / 1e6  # a release is not here
        size = _("{size:.0f} MB").format(size=megabytes) if megabytes else _("of unknown size")
        text = _("{count} packages would be installed from {source} into {folder}, {size}: {names}.\nWhat Slicer or "
                 "another extension has installed is not touched. Until it is over nothing can be enlarged, and what "
                 "is being enlarged now is canceled.")  # fmt: skip
        return text.format(count=len(entries), source=self._wheels, folder=self._packages, size=size, names=names)

    def _exchange(self, new: Path) -> Generator[None, None, None]:
        """Put a new folder into the place of the packages. Windows renames nothing that a process has open."""
        old, limit = Path(self._folder, self._packages.name), time.monotonic() + SCANNED_WITHIN
        while True:
            try:
                if self._packages.exists() and not old.exists():
                    self._packages.rename(old)
                new.rename(self._packages)
                return
            except OSError as error:
                with suppress(OSError):
                    if old.exists():
                        old.rename(self._packages)
                if time.monotonic() > limit:
                    text = _("{folder} is in use ({reason}). Close every other Slicer, and press Install… again.")
                    raise InputError(text, folder=self._packages, reason=error.strerror) from error
            yield None
