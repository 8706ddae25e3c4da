"""Installation of monai-sr-bundle into a Python, by its pip in its own process.

    installation = Installation("base", source="/media/stick/wheels")
    ...                                     # by a timer, about every 100 ms
    for event in installation.poll():
        if event["event"] == "planned" and ask(event["text"]): installation.confirm()

pip says what it would install, from where and with which hash (`pip install --dry-run --report`); exactly these files
are downloaded and installed, after the user has agreed. An installed package is never replaced but our own: each one is
a constraint at its version, and packages that Slicer brings unknown to pip are left out.

slicer.packaging (Slicer 5.11 and newer) is not used: it cannot be cancelled, it knows nothing of hashes, and Slicer
5.10 does not have it. This module needs only the standard library; neither Qt nor Slicer.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .child_process import PATIENCE, ChildProcess, discard, environmentFor, makeFolder, pythonOfSlicer
from .translation import _

PACKAGE, VERSION = "monai-sr-bundle", "0.2.0"
RELEASE = f"https://example.org/monai-sr-bundle/releases/download/v{VERSION}"
"""Address of a release to come, with the wheels `WHEELS`. The names of the index are never asked for our package."""
WHEELS = {
    "base": f"monai_sr_bundle-{VERSION}+viewer-py3-none-any.whl", "full": f"monai_sr_bundle-{VERSION}-py3-none-any.whl",
}  # fmt: skip
REQUIREMENTS = {"base": f"{PACKAGE}[dicom]=={VERSION}", "full": f"{PACKAGE}[dicom,torch]==={VERSION}"}
"""What is asked of a folder; three "=" exclude the wheel for viewers, which has no code for PyTorch."""
SUMS = "SHA256SUMS"
"""File in a folder of wheels with their hashes, as `sha256sum *.whl` prints them."""
UNPACKED = 4
"""Free space that is needed, in sizes of the download: the wheels and what they unpack to."""
BUNDLED_WITH_SLICER = ("SimpleITK", "vtk", "numpy", "requests", "pydicom")
"""Modules of packages that Slicer may bring without a record for pip; a second copy makes Slicer crash."""
NETWORK = re.compile(
    r"ProxyError|NewConnectionError|ConnectTimeout|ReadTimeout|SSLError|CERTIFICATE_VERIFY|Name or service not known|"
    r"Temporary failure in name resolution|getaddrinfo failed|Connection refused|Connection reset|Max retries exceeded|"
    r"Network is unreachable|RemoteDisconnected|Could not fetch URL|IncompleteRead|HTTP error"
)
_PIP = ("-m", "pip", "--disable-pip-version-check", "--no-input", "--no-color")
_INSPECT = f"""
import importlib.metadata, importlib.util, json, os, shutil, sys, sysconfig
folder = sysconfig.get_path("purelib")
print(json.dumps({{
    "version": sys.version_info[:2], "folder": folder, "free": shutil.disk_usage(folder).free,
    "isWritable": os.access(folder, os.W_OK),
    "packages": {{d.metadata["Name"]: d.version for d in importlib.metadata.distributions() if d.metadata["Name"]}},
    "modules": [name for name in {BUNDLED_WITH_SLICER!r} if importlib.util.find_spec(name)],
}}))
"""
_SIZES = """
import json, sys, urllib.request
total = 0
for entry in json.load(open(sys.argv[1]))["install"]:
    request = urllib.request.Request(entry["download_info"]["url"], method="HEAD")
    with urllib.request.urlopen(request, timeout=30) as answer:
        total += int(answer.headers["Content-Length"])
print(total)
"""


class Installation:
    """An installation that proceeds while `poll` is called, and waits for `confirm` once it is planned.

    Args:
        kind: "base", with ONNX Runtime, or "full", with PyTorch too.
        python: path of the Python to install into. Default None: Slicer's own.
        source: folder of wheels, whose hashes its file `SUMS` gives where there is one; or a file with the SHA-256 of
            each wheel beside it. Default None: the release and the package index that pip is set to.
        environment: environment variables of pip, with its settings. Default None: `environmentFor` the Python.
        temporaryFolder: parent of a private folder for downloads. Default None: the system's.
    """

    def __init__(
        self,
        kind: str = "base",
        python: str | None = None,
        source: str | None = None,
        environment: Mapping[str, str] | None = None,
        temporaryFolder: str | None = None,
    ) -> None:
        self._kind, self._python = kind, python or pythonOfSlicer()
        self._source = Path(source).absolute() if source else None
        self._environment = dict(environment) if environment is not None else environmentFor(self._python)
        self._folder = makeFolder(temporaryFolder)
        self._isCancelled = self._isConfirmed = False
        self._step, self._count = "", 0
        self._lines: list[str] = []
        self._events: list[dict[str, Any]] = []
        self._processes = self._steps()
        self._process = next(self._processes, None)

    def poll(self) -> list[dict[str, Any]]:
        """Return the events since the last call; this never waits.

        Returns:
            "step" with `step` and `text`, "progress" with `text`; "planned" with `text`, the question to the user,
            unless nothing is missing; at last one of "done" with `text`, "failed" with `kind` and `message`, and
            "cancelled" with `text`.
        """
        process = self._process
        if process is not None:
            isOver = process.pursue()  # checked before the lines are read, so that no line is missed
            for line in process.lines():
                self._handleLine(line)
            if isOver:
                self._lines += process.lastLines
                self._process = next(self._processes, None)
        elif self._isConfirmed or self._isCancelled:
            self._process = next(self._processes, None)
        events, self._events = self._events, []
        return events

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
        limit = time.monotonic() + 2 * PATIENCE  # after `PATIENCE`, `poll` kills a pip that does not end
        while self._process is not None and time.monotonic() < limit:
            self.poll()
            time.sleep(0.01)
        if self._process is None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _steps(self) -> Generator[ChildProcess | None, None, None]:
        """Yield the process of each step, and None while the user is asked."""
        try:
            yield from self._run("inspect", _("Looking at what is installed…"), "-c", _INSPECT)
            target = json.loads(self._lines[0])
            entries = []
            if not self._isInstalled(target):
                self._check(target)
                entries = yield from self._resolve(target)
            if entries:
                yield from self._ask(target, entries)
                yield from self._install(entries)
            yield from self._run("check", _("Trying it"), "-m", "monai_sr_bundle.worker", "--backend", "onnx")
        except _Stop as stop:
            event = {"event": "failed", "kind": stop.kind, "message": stop.message}
            if not stop.kind:
                event = {"event": "cancelled", "text": stop.message}
        else:
            names = ", ".join(f"{entry['name']} {entry['version']}" for entry in entries)
            text = _("The models are installed: {names}.")
            if not names:
                text = _("The models are installed. Nothing is missing.")
            event = {"event": "done", "text": text.format(names=names)}
        self._events.append(event)
        discard(self._folder)

    def _run(self, step: str, text: str, *words: str) -> Generator[ChildProcess, None, None]:
        """Run Python with some arguments.

        Raises:
            _Stop: the step failed, or the user cancelled.
        """
        self._step, self._lines, self._count = step, [], 0
        self._events.append({"event": "step", "step": step, "text": text})
        process = ChildProcess([self._python, *words], self._environment, self._folder)
        process.closeInput()  # the worker gets ready and ends, because there is no request
        yield process
        if self._isCancelled and step != "install":
            raise _Stop()
        if process.returnCode == 0 or step == "sizes":
            return
        if step == "inspect":
            text = _(
                "{python} does not run as Python ({reason}). Nothing was changed. Correct the entry "
                "SuperResolution/Python of Slicer's settings, or remove it to use Slicer's own Python."
            )
            reason = process.error or (self._lines or [str(process.returnCode)])[-1]
            raise _Stop("python", text.format(python=self._python, reason=reason))
        if step == "check":
            text = _("The installed packages do not run ({lines}). Update Slicer, or report this.")
            raise _Stop("check", text.format(lines=" ".join(self._lines[-2:]) or process.returnCode))
        raise _Stop(*explainFailure(self._lines, self._source))

    def _isInstalled(self, target: dict[str, Any]) -> bool:
        """Return whether our own package has the version of this extension, with PyTorch where it is asked for."""
        packages = {normalizeName(name): version for name, version in target["packages"].items()}
        return packages.get(PACKAGE, "").split("+")[0] == VERSION and (self._kind == "base" or "torch" in packages)

    def _check(self, target: dict[str, Any]) -> None:
        """Refuse what cannot work, before pip is asked."""
        if tuple(target["version"]) not in ((3, 11), (3, 12)):
            text = _("Slicer's Python is {version}, and the models run on 3.11 and 3.12. Use Slicer 5.10 or newer.")
            raise _Stop("python", text.format(version=".".join(map(str, target["version"]))))
        if not target["isWritable"]:
            text = _(
                "{folder} cannot be written to. Install Slicer into a folder of your own, or start it once with the "
                "rights to write there."
            )
            raise _Stop("rights", text.format(folder=target["folder"]))
        if self._source is None and RELEASE.startswith("https://example.org/"):
            text = _(
                "There is no release to download yet. Choose a folder of wheels; the user page says how to fill it."
            )
            raise _Stop("release", text)

    def _wheelFolder(self) -> Path:
        return self._source.parent if self._source.is_file() else self._source  # type: ignore[union-attr]

    def _resolve(self, target: dict[str, Any]) -> Generator[ChildProcess, None, list[dict[str, str]]]:
        """Ask pip what it would install. Return name, version, url and sha256 of each file.

        Raises:
            _Stop: a package would be replaced, or a file has no hash or another one than it should have.
        """
        known = {normalizeName(name): version for name, version in target["packages"].items()}
        constraints, report = (os.path.join(self._folder, name) for name in ("constraints.txt", "report.json"))
        with open(constraints, "w", encoding="utf-8") as file:
            file.writelines(f"{name}=={version}\n" for name, version in sorted(known.items()) if name != PACKAGE)
        words = ["install", "--dry-run", "--report", report, "-c", constraints, "--only-binary", ":all:"]
        if self._source is None:
            words.append(f"{REQUIREMENTS[self._kind].split('=')[0]} @ {RELEASE}/{WHEELS[self._kind]}")
        else:
            words += ["--no-index", "--find-links", str(self._wheelFolder()), REQUIREMENTS[self._kind]]
        yield from self._run("resolve", _("Looking for what is needed"), *_PIP, *words)
        with open(report, encoding="utf-8") as file:
            installs = json.load(file)["install"]
        entries = []
        for item in installs:
            name, info = normalizeName(item["metadata"]["name"]), item["download_info"]
            if name in known and name != PACKAGE:
                text = _("pip would replace {name} {old} by {new}. Nothing was changed. Update Slicer.")
                new = item["metadata"]["version"]
                raise _Stop("conflict", text.format(name=name, old=known[name], new=new))
            if name in known or name not in map(normalizeName, target["modules"]):  # Slicer's own without a record stay
                hashes = info.get("archive_info", {}).get("hashes", {})
                entries.append({"name": name, "version": item["metadata"]["version"], "url": info["url"],
                                "sha256": hashes.get("sha256", "")})  # fmt: skip
        entries.sort(key=lambda entry: (entry["name"] != PACKAGE, entry["name"]))
        self._checkHashes(entries)
        with open(report, "w", encoding="utf-8") as file:
            json.dump({"install": [{"download_info": {"url": entry["url"]}} for entry in entries]}, file)
        return entries

    def _checkHashes(self, entries: Sequence[dict[str, str]]) -> None:
        """Compare the hashes of a folder's wheels with those that were given for them."""
        sums = self._source
        if sums is not None and sums.is_dir():
            sums = sums / SUMS
        given = None
        if sums is not None and sums.is_file():
            text = sums.read_bytes().replace(b"\0", b"").decode("ascii", "replace")  # PowerShell writes UTF-16
            given = set(re.findall(r"\b[0-9a-f]{64}\b", text.lower()))
        for entry in entries:
            if not entry["sha256"] or (given is not None and entry["sha256"] not in given):
                text = _(
                    "The wheel of {name} {version} has the SHA-256 {hash}, which {file} does not give. Nothing was "
                    "changed. Copy the folder again from where it was made."
                )
                raise _Stop("hash", text.format(name=entry["name"], version=entry["version"],
                                                hash=entry["sha256"] or "?", file=sums))  # fmt: skip

    def _ask(self, target: dict[str, Any], entries: Sequence[dict[str, str]]) -> Generator[Any, None, None]:
        """Tell the user what would be installed, and wait for the answer."""
        yield from self._run(
            "sizes", _("Asking for the sizes"), "-c", _SIZES, os.path.join(self._folder, "report.json")
        )
        size = int(self._lines[0]) if self._lines and self._lines[0].isdigit() else 0
        if target["free"] < UNPACKED * size:
            text = _("{free:.1f} GB are free in {folder}, and about {need:.1f} GB are needed. Make room there.")
            need = UNPACKED * size / 1e9
            raise _Stop("disk", text.format(free=target["free"] / 1e9, folder=target["folder"], need=need))
        text = _(
            "{count} packages would be installed from {source}, {size:.0f} MB: {names}.\nNothing that Slicer or "
            "another extension has installed is replaced."
        )
        if not size:  # a proxy may answer no question for it
            text = _(
                "{count} packages of unknown size would be installed from {source}: {names}.\nNothing that Slicer or "
                "another extension has installed is replaced."
            )
        names = ", ".join(f"{entry['name']} {entry['version']}" for entry in entries)
        source = self._wheelFolder() if self._source else _("the release and the package index")
        self._step = "ask"
        text = text.format(count=len(entries), source=source, size=size / 1e6, names=names)
        self._events.append({"event": "planned", "text": text})
        while not self._isConfirmed:
            if self._isCancelled:
                raise _Stop()
            yield None

    def _install(self, entries: Sequence[dict[str, str]]) -> Generator[ChildProcess, None, None]:
        """Download the files that pip has named, by their hashes, and install them."""
        lock, wheels = os.path.join(self._folder, "lock.txt"), os.path.join(self._folder, "wheels")
        with open(lock, "w", encoding="utf-8") as file:
            file.writelines(f"{e['name']} @ {e['url'].split('#')[0]} --hash=sha256:{e['sha256']}\n" for e in entries)
        words = ("download", "--no-deps", "--require-hashes", "-d", wheels, "-r", lock)
        self._total = len(entries)
        yield from self._run("download", _("Downloading {count} packages").format(count=len(entries)), *_PIP, *words)
        files = sorted(str(path) for path in Path(wheels).glob("*.whl"))
        text = _("Installing {count} packages").format(count=len(files))
        yield from self._run("install", text, *_PIP, "install", "--no-deps", "--no-index", *files)

    def _handleLine(self, line: str) -> None:
        """Keep a line of a step's stdout, and tell how far the download is."""
        self._lines.append(line.strip())
        if self._step == "download" and line.strip().startswith(("Collecting", "Processing")):
            self._count += 1
            text = f"{line.strip()} ({self._count}/{self._total})"
            self._events.append({"event": "progress", "text": text})


class _Stop(Exception):
    """The end of an installation before its last step: it failed, or, without `kind`, was cancelled."""

    def __init__(self, kind: str = "", message: str = "") -> None:
        self.kind, self.message = kind, message or _("Nothing was changed.")
        super().__init__(self.message)


def explainFailure(lines: Sequence[str], source: Path | None) -> tuple[str, str]:
    """Return why pip has failed, and what to do.

    Args:
        lines: output of pip.
        source: folder or file of wheels, or None.

    Returns:
        "conflict", "network", "missing" or "pip", and the message.
    """
    text = "\n".join(lines)
    needs = re.search(r"^\s*(\S+ \S+) depends on (.+)$", text, re.MULTILINE)
    pinned = re.search(r"^\s*The user requested \(constraint\) (\S+?)===?(\S+)$", text, re.MULTILINE)
    missing = re.search(r"No matching distribution found for (\S+)", text)
    if needs and pinned:
        message = _(
            "{package} needs {needs}, but {name} {version} is installed, which is not replaced: Slicer or another "
            "extension needs it. Nothing was changed. Use a newer Slicer (5.10 or later); if you have installed {name} "
            "yourself, update it first."
        )
        return "conflict", message.format(package=needs[1], needs=needs[2], name=pinned[1], version=pinned[2])
    if source is None and NETWORK.search(text):
        message = _(
            "The release or the package index cannot be reached ({reason}). Nothing was changed. Check the network; "
            "behind a proxy, set HTTPS_PROXY=http://host:port before Slicer starts; without network, choose a folder "
            "of wheels."
        )
        return "network", message.format(reason=NETWORK.search(text)[0])  # type: ignore[index]
    if missing:
        message = _(
            "{source} has no wheel of {name} for this Python. Nothing was changed. Fill a folder as the user page says."
        )
        return "missing", message.format(source=source or _("The package index"), name=missing[1].rstrip(","))
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR")] or list(lines)[-1:]
    return "pip", _("pip has failed: {lines}. Nothing was changed.").format(lines=" ".join(errors) or "?")


def normalizeName(name: str) -> str:
    """Return a package's name as pip compares names (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
