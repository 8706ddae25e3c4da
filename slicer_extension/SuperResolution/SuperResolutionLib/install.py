"""Installation of monai-sr-bundle into a Python, by its pip in its own process.

pip says what it would install, from where and with which hash (`pip install --dry-run --report`); exactly these files
are downloaded and installed, after the user has agreed. An installed package is never replaced but our own: each one is
a constraint at its version, and packages that Slicer brings unknown to pip are left out. While pip installs, the file
`MARKER` names the packages; what an interrupted pip has left half installed is installed again.

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
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from .child_process import PATIENCE, ChildProcess, discard, environmentFor, makeFolder, pythonOfSlicer
from .errors import InputError, _

PACKAGE, VERSION = "monai-sr-bundle", "0.2.0"
RELEASE = f"https://example.org/monai-sr-bundle/releases/v{VERSION}"  # to come; no package index is asked
REQUIREMENTS = {"base": f"{PACKAGE}[dicom]=={VERSION}", "full": f"{PACKAGE}[dicom,torch]==={VERSION}"}
"""What is installed; three "=" exclude the wheel for viewers, which has no code for PyTorch."""
SUMS = "SHA256SUMS"  # file in a folder of wheels with their hashes, as `sha256sum *.whl` prints them
MARKER = f"{PACKAGE}.installing"  # file beside the packages, which names those that pip is installing
UNPACKED = 4  # free space that is needed, in sizes of the download: the wheels and what they unpack to
BUNDLED_WITH_SLICER = ("SimpleITK", "vtk", "numpy", "requests", "pydicom")
"""Modules of packages that Slicer may bring without a record for pip; a second copy makes Slicer crash."""
_PIP = ("-m", "pip", "--disable-pip-version-check", "--no-input", "--no-color")
_INSPECT = f"""
import importlib.metadata, importlib.util, json, os, pathlib, re, shutil, sys, sysconfig
folder = pathlib.Path(sysconfig.get_path("purelib"))
marker, packages, halves = folder / {MARKER!r}, {{}}, []
begun = marker.read_text().split() if marker.exists() else []
for info in (info for entry in sys.path for info in pathlib.Path(entry).glob("[!~]*.*-info")):  # pip renames to ~
    metadata = importlib.metadata.Distribution.at(info).metadata
    name = re.sub("[-_.]+", "-", metadata["Name"] or info.name.split("-")[0]).lower()
    if name in begun and not (info / "INSTALLER").exists():  # which pip writes after the package's own files
        halves.append(str(info))
    elif metadata["Version"]:
        packages.setdefault(name, metadata["Version"])
print(json.dumps({{
    "folder": str(folder), "free": shutil.disk_usage(folder).free, "isWritable": os.access(folder, os.W_OK),
    "packages": packages, "begun": begun, "halves": halves,
    "modules": [name.lower() for name in {BUNDLED_WITH_SLICER!r} if importlib.util.find_spec(name)],
}}))
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
        self._source = Path(source).absolute() if source else None
        self._wheels = self._source.parent if self._source and self._source.is_file() else self._source
        self._isCancelled = self._isConfirmed = False
        self._state = _("Nothing was changed.")
        self._folder, self._step, self._lines = "", "", []
        self._process: ChildProcess | None = None
        self._processes = self._perform()

    def step(self) -> bool:
        """Proceed; this never waits and never raises. Return True until it is over."""
        try:
            isOver = self._process is None or self._process.pursue()  # before the lines, so that none is missed
            for line in self._process.lines() if self._process else ():
                self._lines.append(line.strip())
                if self._step == "download" and line.startswith(("Collecting", "Processing")):
                    self._count += 1
                    self.text = f"{line.strip()} ({self._count}/{self._total})"
            if isOver:
                self._process = next(self._processes)
            return True
        except StopIteration:
            pass
        except InputError as error:
            self.text = f"{error} {self._state}".strip()
        except Exception as error:  # the panel must not wait for an end that does not come
            logging.exception("An error of the installation that was not expected")
            text = _("The installation has failed ({error}).").format(error=str(error) or type(error).__name__)
            self.text = f"{text} {self._state}"
        self._process = None
        discard(self._folder)
        return False

    def confirm(self) -> None:
        """Install what was planned."""
        self._isConfirmed = True

    def cancel(self) -> None:
        """Cancel the installation, and return at once. What pip has begun to install it finishes, within seconds."""
        self._isCancelled = True
        if self._process is not None and self._step != "install":
            self._process.end()

    def close(self) -> None:
        """Cancel the installation and remove the downloads. pip gets a moment to end by itself.

        A pip that still installs keeps them; `removeStaleFolders` removes them at the next start.
        """
        self.cancel()
        limit = time.monotonic() + 2 * PATIENCE  # after `PATIENCE`, `step` kills a pip that does not end
        while self._process is not None and time.monotonic() < limit:
            self.step()
            time.sleep(0.01)
        if self._process is None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _perform(self) -> Generator[ChildProcess | None, None, None]:
        """Yield the process of each step, and None while the user is asked."""
        self._folder = makeFolder()
        yield from self._run("inspect", _("Looking at what is installed…"), "-c", _INSPECT)
        target, names = json.loads(self._lines[0]), ""
        packages, begun, marker = target["packages"], target["begun"], Path(target["folder"], MARKER)
        isOurs = packages.get(PACKAGE, "").split("+")[0] == VERSION and (self._kind == "base" or "torch" in packages)
        if begun or not isOurs:
            half = _("Packages may be half installed. Press Install… again, which repairs them.")
            self._state = half if begun else self._state
            self._check(target)
            for info in target["halves"]:  # without it pip takes the package for missing, and overwrites its files
                shutil.rmtree(info)
            entries = yield from self._resolve(target)
            if entries:
                names = ", ".join(f"{entry['name']} {entry['version']}" for entry in entries)
                yield from self._ask(target, entries, names)
                files = yield from self._download(entries)
                marker.write_text("\n".join({*begun, *(entry["name"] for entry in entries)}))
                text, self._state = _("Installing {count} packages").format(count=len(files)), half
                yield from self._run("install", text, *_PIP, "install", "--no-deps", "--no-index", *files)
                self._state = _("The packages are installed. Press Install… again to try them.")
            marker.unlink(missing_ok=True)
        yield from self._run("check", _("Trying it"), "-m", "monai_sr_bundle.worker", "--backend", "onnx")
        text = _("The models are installed: {names}.") if names else _("The models are installed. Nothing is missing.")
        self.text, self.isInstalled = text.format(names=names), True

    def _run(self, step: str, text: str, *words: str) -> Generator[ChildProcess, None, None]:
        """Run Python with some arguments, and raise `InputError` if that fails, or the user cancels."""
        if self._isCancelled:
            raise InputError("")
        self._step, self._lines, self.text = step, [], text
        process = ChildProcess([self._python, *words], environmentFor(self._python), self._folder)
        process.closeInput()  # the worker gets ready and ends, because there is no request
        yield process
        self._lines += process.lastLines
        if self._isCancelled and step != "install":
            raise InputError("")
        if process.returnCode == 0:
            return
        if step == "inspect":
            text = _("{python} does not run as Python ({reason}). Correct the entry SuperResolution/Python of Slicer's "
                     "settings, or remove it to use Slicer's own Python.")  # fmt: skip
            reason = process.error or (self._lines or [str(process.returnCode)])[-1]
            raise InputError(text.format(python=self._python, reason=reason))
        if step == "check":
            self._state, text = "", _("The installed packages do not run ({lines}). Update Slicer, or report this.")
            raise InputError(text.format(lines=" ".join(self._lines[-2:]) or process.returnCode))
        raise InputError(explainFailure(self._lines, self._wheels or RELEASE))

    def _check(self, target: dict[str, Any]) -> None:
        """Refuse what cannot work, before pip is asked."""
        if not target["isWritable"]:  # pip would install into the user's home
            text = _("{folder} cannot be written to. Install Slicer into a folder of your own, or start it once with "
                     "the rights to write there.")  # fmt: skip
            raise InputError(text.format(folder=target["folder"]))
        if self._source is None and RELEASE.startswith("https://example.org/"):
            raise InputError(_("There is no release to download yet. Choose a folder of wheels; the user page says how "
                               "to fill it."))  # fmt: skip

    def _resolve(self, target: dict[str, Any]) -> Generator[ChildProcess, None, list[dict[str, str]]]:
        """Ask pip what it would install. Return name, version, url and sha256 of each file."""
        installed = target["packages"]
        bundled = set(target["modules"]) - set(target["begun"])  # Slicer's own, which may have no record
        constraints, report = Path(self._folder, "constraints.txt"), Path(self._folder, "report.json")
        constraints.write_text("".join(f"{name}=={installed[name]}\n" for name in sorted(installed) if name != PACKAGE))
        words = ["install", "--dry-run", "--report", str(report), "-c", str(constraints), "--only-binary", ":all:",
                 "--no-index", "--find-links", str(self._wheels or RELEASE), REQUIREMENTS[self._kind]]  # fmt: skip
        yield from self._run("resolve", _("Looking for what is needed"), *_PIP, *words)
        entries = []
        for item in json.loads(report.read_text("utf-8"))["install"]:
            name = re.sub(r"[-_.]+", "-", item["metadata"]["name"]).lower()
            hashes = item["download_info"].get("archive_info", {}).get("hashes", {})
            entry = {"name": name, "version": item["metadata"]["version"], "sha256": hashes.get("sha256", "?"),
                     "url": item["download_info"]["url"].split("#")[0]}  # fmt: skip
            if name in installed and name != PACKAGE:
                text = _("pip would replace {name} {old} by {version}. Update Slicer.")
                raise InputError(text.format(old=installed[name], **entry))
            if name not in bundled:
                entries.append(entry)
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

    def _ask(self, target: dict[str, Any], entries: Sequence[dict[str, str]], names: str) -> Generator[Any, None, None]:
        """Tell the user what would be installed, and wait for the answer."""
        files = [url2pathname(urlsplit(entry["url"]).path) for entry in entries]
        size = sum(os.path.getsize(file) for file in files if os.path.isfile(file))  # those of a release are not here
        if target["free"] < UNPACKED * size:
            text = _("{free:.1f} GB are free in {folder}, and about {need:.1f} GB are needed. Make room there.")
            need = UNPACKED * size / 1e9
            raise InputError(text.format(free=target["free"] / 1e9, folder=target["folder"], need=need))
        text = _("{count} packages would be installed from {source}, {size}: {names}.\nNothing that Slicer or another "
                 "extension has installed is replaced.")  # fmt: skip
        sizeText = _("{size:.0f} MB").format(size=size / 1e6) if size else _("of unknown size")
        self._step = "ask"
        source = self._wheels or RELEASE
        self.question = text.format(count=len(entries), source=source, size=sizeText, names=names)
        while not self._isConfirmed:
            if self._isCancelled:
                raise InputError("")
            yield None

    def _download(self, entries: Sequence[dict[str, str]]) -> Generator[ChildProcess, None, list[str]]:
        """Download the files that pip has named, by their hashes. Return their paths."""
        lock, wheels = Path(self._folder, "lock.txt"), Path(self._folder, "wheels")
        lock.write_text("".join("{name} @ {url} --hash=sha256:{sha256}\n".format(**entry) for entry in entries))
        self._count, self._total = 0, len(entries)
        words = ("download", "--no-deps", "--require-hashes", "-d", str(wheels), "-r", str(lock))
        yield from self._run("download", _("Downloading {count} packages").format(count=len(entries)), *_PIP, *words)
        return sorted(map(str, wheels.glob("*.whl")))


def explainFailure(lines: Sequence[str], source: Path | str) -> str:
    """Return why pip has failed, and what to do, from its output and the folder or address of the wheels."""
    text = "\n".join(lines)
    for pattern, message in (
        (re.compile(r"^\s*(?P<package>\S+ \S+) depends on (?P<needs>.+)$(?s:.*?)"
                    r"^\s*The user requested \(constraint\) (?P<name>\S+?)===?(?P<version>\S+)$", re.MULTILINE),
         _("{package} needs {needs}, but {name} {version} is installed, which is not replaced: Slicer or another "
           "extension needs it. Use a newer Slicer (5.10 or later); if you have installed {name} yourself, update it "
           "first.")),
        (re.compile(r"No matching distribution found for (?P<name>[^\s,]+)"),
         _("{source} has no wheel of {name} for this Python, or cannot be read. Use Slicer 5.10 or newer, and fill a "
           "folder as the user page says.")),
    ):  # fmt: skip
        match = pattern.search(text)
        if match:
            return message.format(source=source, **match.groupdict())
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR")] or list(lines)[-1:]
    return _("pip has failed: {lines}.").format(lines=" ".join(errors).rstrip(".") or "?")
