"""Installation of monai-sr-bundle for a Python, by its pip in its own process, into a folder of its own.

pip says what it would install, from where and with which hash (`pip install --dry-run --report`). After the user has
agreed, exactly these files are installed into a new folder, which comes into its place once all of it is there and the
worker runs. Packages of Slicer or another extension are never touched, an older installation stays until then, and
Slicer itself may lie where the user cannot write.

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
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from . import child_process
from .child_process import PATIENCE, ChildProcess, discard, environmentFor, makeFolder, pythonOfSlicer
from .errors import InputError, _

PACKAGE, VERSION = "monai-sr-bundle", "0.2.0"
RELEASE = f"https://example.org/monai-sr-bundle/releases/v{VERSION}"  # to come; no package index is asked
REQUIREMENTS = {"base": f"{PACKAGE}[dicom]=={VERSION}", "full": f"{PACKAGE}[dicom,torch]==={VERSION}"}
"""What is installed; three "=" exclude the wheel for viewers, which has no code for PyTorch."""
SUMS = "SHA256SUMS"  # file in a folder of wheels with their hashes, as `sha256sum *.whl` prints them
UNPACKED = 4  # free space that is needed, in sizes of the download: the wheels and what they unpack to
SCANNED_WITHIN = 20.0  # seconds for which a virus scanner may keep new files open
_PIP = ("-m", "pip", "--disable-pip-version-check", "--no-input", "--no-color")
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
        self._source = Path(source).absolute() if source else None
        self._wheels = self._source.parent if self._source and self._source.is_file() else self._source
        self._isCancelled = self._isConfirmed = False
        self._folder, self._step, self._lines = "", "", []
        self._process: ChildProcess | None = None
        self._processes = self._perform()

    def step(self) -> bool:
        """Proceed; this never waits and never raises. Return True until it is over."""
        try:
            isOver = self._process is None or self._process.pursue()  # before the lines, so that none is missed
            for line in self._process.lines() if self._process else ():
                self._lines.append(line.strip())
                if self._step == "install" and line.startswith(("Collecting", "Processing")):
                    self._count += 1
                    self.text = f"{line.strip()} ({self._count}/{self._total})"
            if isOver:
                self._process = next(self._processes)
            return True
        except StopIteration:
            pass
        except InputError as error:
            self.text = " ".join(filter(None, (str(error), _("Nothing was changed."))))
        except Exception as error:  # the panel must not wait for an end that does not come
            logging.exception("An error of the installation that was not expected")
            text = _("The installation has failed ({error}). Nothing was changed.")
            self.text = text.format(error=str(error) or type(error).__name__)
        self._process = None
        discard(self._folder)
        return False

    def confirm(self) -> None:
        """Install what was planned."""
        self._isConfirmed = True

    def cancel(self) -> None:
        """Cancel the installation, and return at once."""
        self._isCancelled = True
        if self._process is not None:
            self._process.end()

    def close(self) -> None:
        """Cancel the installation and remove its folder. pip gets a moment to end by itself."""
        self.cancel()
        limit = time.monotonic() + 2 * PATIENCE  # after `PATIENCE`, `step` kills a pip that does not end
        while self._process is not None and time.monotonic() < limit:
            self.step()
            time.sleep(0.01)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _perform(self) -> Generator[ChildProcess | None, None, None]:
        """Yield the process of each step, and None while the user is asked."""
        try:
            self._packages.parent.mkdir(parents=True, exist_ok=True)
            child_process.removeStaleFolders(str(self._packages.parent))
            self._folder = makeFolder(str(self._packages.parent))  # on the same disk, to be renamed
        except OSError as error:
            text = _("{folder} cannot be written to ({reason}). Make room there, or give yourself the rights.")
            raise InputError(text.format(folder=self._packages.parent, reason=error.strerror)) from error
        yield from self._run("inspect", _("Looking at what is installed…"), "-c", _INSPECT, str(self._packages))
        version, torch = json.loads(self._lines[0])
        if (version.split("+")[0] == VERSION and self._kind == "base") or (version == VERSION and torch):  # no viewer's
            process = yield from self._try(self._packages)
            if process.returnCode == 0:
                self.text, self.isInstalled = _("The models are installed. Nothing is missing."), True
                return
        entries = yield from self._resolve()
        names = ", ".join(f"{entry['name']} {entry['version']}" for entry in entries)
        yield from self._ask(entries, names)
        new = Path(self._folder, "packages")
        yield from self._install(entries, new)
        process = yield from self._try(new)
        if process.returnCode:
            text = _("The packages do not run ({lines}). Update Slicer, or report this.")
            raise InputError(text.format(lines=" ".join(self._lines[-2:]) or process.returnCode))
        yield from self._exchange(new)
        self.text, self.isInstalled = _("The models are installed: {names}.").format(names=names), True

    def _run(self, step: str, text: str, *words: str) -> Generator[ChildProcess, None, ChildProcess]:
        """Run Python with some arguments. Raise `InputError` if the user cancels, or if any but "try" fails."""
        if self._isCancelled:
            raise InputError("")
        self._step, self._lines, self.text = step, [], text
        environment = {name: value for name, value in environmentFor(self._python).items() if name[:4] != "PIP_"}
        environment["PIP_CONFIG_FILE"] = os.devnull  # the user's settings may send packages elsewhere, or none
        environment.update(dict.fromkeys(("TMPDIR", "TEMP", "TMP"), self._folder))  # an ended pip leaves files there
        process = ChildProcess([self._python, *words], environment, self._folder)
        process.closeInput()  # the worker gets ready and ends, because there is no request
        yield process
        self._lines += process.lastLines
        if self._isCancelled:
            raise InputError("")
        if process.returnCode != 0 and step == "inspect":
            text = _("{python} does not run as Python ({reason}). Correct the entry SuperResolution/Python of Slicer's "
                     "settings, or remove it to use Slicer's own Python.")  # fmt: skip
            reason = process.error or (self._lines or [str(process.returnCode)])[-1]
            raise InputError(text.format(python=self._python, reason=reason))
        if process.returnCode != 0 and step != "try":
            raise InputError(explainFailure(self._lines, self._wheels or RELEASE))
        return process

    def _try(self, packages: Path) -> Generator[ChildProcess, None, ChildProcess]:
        """Run the worker of a folder of packages."""
        command = child_process.commandOf(
            self._python, "monai_sr_bundle.worker", "--backend", "onnx", packages=str(packages)
        )
        return (yield from self._run("try", _("Trying it"), *command[1:]))

    def _resolve(self) -> Generator[ChildProcess, None, list[dict[str, str]]]:
        """Ask pip what it would install. Return name, version, url and sha256 of each file."""
        if self._source is None and RELEASE.startswith("https://example.org/"):
            raise InputError(_("There is no release to download yet. Choose a folder of wheels; the user page says how "
                               "to fill it."))  # fmt: skip
        report = Path(self._folder, "report.json")
        words = ["install", "--dry-run", "--ignore-installed", "--report", str(report), "--only-binary", ":all:",
                 "--no-index", "--find-links", str(self._wheels or RELEASE), REQUIREMENTS[self._kind]]  # fmt: skip
        yield from self._run("resolve", _("Looking for what is needed"), *_PIP, *words)
        entries = []
        for item in json.loads(report.read_text("utf-8"))["install"]:
            hashes = item["download_info"].get("archive_info", {}).get("hashes", {})
            entries.append({
                "name": re.sub(r"[-_.]+", "-", item["metadata"]["name"]).lower(),
                "version": item["metadata"]["version"], "sha256": hashes.get("sha256", "?"),
                "url": item["download_info"]["url"].split("#")[0],
            })  # fmt: skip
        self._checkHashes(entries)
        return sorted(entries, key=lambda entry: (entry["name"] != PACKAGE, entry["name"]))

    def _checkHashes(self, entries: Sequence[dict[str, str]]) -> None:
        """Compare the hashes of a folder's wheels with those that were given for them."""
        sums, given = self._source, None
        if sums is not None and sums.is_dir():
            sums = sums / SUMS
        if sums is not None and sums.is_file():
            text = sums.read_bytes().replace(b"\0", b"").decode("ascii", "replace")  # PowerShell writes UTF-16
            given = set(re.findall(r"\b[0-9a-f]{64}\b", text.lower()))
        for entry in entries:
            if entry["sha256"] == "?" or (given is not None and entry["sha256"] not in given):
                text = _("The wheel of {name} {version} has the SHA-256 {sha256}, which {file} does not give. Copy the "
                         "folder again from where it was made.")  # fmt: skip
                raise InputError(text.format(file=sums, **entry))

    def _exchange(self, new: Path) -> Generator[None, None, None]:
        """Put a new folder into the place of the packages. Windows renames nothing that a process has open."""
        old, limit = Path(self._folder, "old"), time.monotonic() + SCANNED_WITHIN
        while True:
            try:
                if self._packages.exists():
                    self._packages.rename(old)
                new.rename(self._packages)
                return
            except OSError as error:
                if old.exists():
                    old.rename(self._packages)
                if self._isCancelled or time.monotonic() > limit:
                    text = _("{folder} is in use ({reason}). Close every other Slicer, and press Install… again.")
                    raise InputError(text.format(folder=self._packages, reason=error.strerror)) from error
            yield None

    def _ask(self, entries: Sequence[dict[str, str]], names: str) -> Generator[None, None, None]:
        """Tell the user what would be installed, and wait for the answer."""
        files = [url2pathname(urlsplit(entry["url"]).path) for entry in entries]
        size = sum(os.path.getsize(file) for file in files if os.path.isfile(file))  # those of a release are not here
        need, free = UNPACKED * size / 1e9, shutil.disk_usage(self._folder).free / 1e9
        if free < need:
            text = _("{free:.1f} GB are free in {folder}, and about {need:.1f} GB are needed. Make room there.")
            raise InputError(text.format(free=free, folder=self._packages.parent, need=need))
        text = _("{count} packages would be installed from {source} into {folder}, {size}: {names}.\nWhat Slicer or "
                 "another extension has installed is not touched. Until it is over nothing can be enlarged, and what "
                 "is being enlarged now is canceled.")  # fmt: skip
        sizeText = _("{size:.0f} MB").format(size=size / 1e6) if size else _("of unknown size")
        facts = {"source": self._wheels or RELEASE, "folder": self._packages, "size": sizeText, "names": names}
        self._step, self.question = "ask", text.format(count=len(entries), **facts)
        while not self._isConfirmed:
            if self._isCancelled:
                raise InputError("")
            yield None

    def _install(self, entries: Sequence[dict[str, str]], new: Path) -> Generator[ChildProcess, None, None]:
        """Install the files that pip has named, by their hashes, into a new folder."""
        lock = Path(self._folder, "lock.txt")
        lock.write_text("".join("{name} @ {url} --hash=sha256:{sha256}\n".format(**entry) for entry in entries))
        self._count, self._total = 0, len(entries)
        words = ("install", "--no-deps", "--no-index", "--require-hashes", "--target", str(new), "-r", str(lock))
        text = _("Installing {count} packages").format(count=len(entries))
        yield from self._run("install", text, *_PIP, *words)


def explainFailure(lines: Sequence[str], source: Path | str) -> str:
    """Return why pip has failed, and what to do, from its output and the folder or address of the wheels."""
    missing = re.search(r"No matching distribution found for (\S+)", "\n".join(lines))
    if missing:
        text = _("{source} has no wheel of {name} for this Python, or cannot be read. Use Slicer 5.10 or newer, and "
                 "fill a folder as the user page says.")  # fmt: skip
        return text.format(source=source, name=missing[1])
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR")] or list(lines)[-1:]
    return _("pip has failed: {lines}.").format(lines=" ".join(errors).rstrip(".") or "?")
