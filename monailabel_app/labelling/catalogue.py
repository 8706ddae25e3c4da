"""The images of a server: files below a folder, or series of a PACS over DICOMweb. Neither is ever changed.

An image has a name that is safe in a URL and as a file name. Only names that the catalogue lists are ever looked up, so
no request reaches another file. Results of this package are never offered as input.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import requests
from monai_sr_bundle.boxes.box_files import identify_image
from monai_sr_bundle.boxes.readings import ImageIdentity
from monai_sr_bundle.errors import InputError, OutOfMemoryError
from monai_sr_bundle.images import files
from monai_sr_bundle.images.dicom_file import open_header
from monai_sr_bundle.images.dicom_read import read_headers
from monai_sr_bundle.images.files import Source, UnreadableFile
from monai_sr_bundle.images.provenance import describes_result
from pydicom.dataset import Dataset

from labelling.errors import NotFoundError, PacsError, RefusedError

logger = logging.getLogger(__name__)

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
"""Names of images, readers, bundles and jobs in requests."""
MODALITIES = ("CT", "CR", "DX")
PACS_SECONDS = 20
"""Longest time of a PACS for one answer."""
RETRY_SECONDS = 60
"""Time after which an image that could not be read is read again, although its files have not changed."""


class Catalogue(ABC):
    """The images of a server."""

    def __init__(self) -> None:
        self._identities: dict[str, tuple[object, _ImageRecord]] = {}
        self._failures: dict[str, tuple[object, float, type[Exception], str]] = {}
        self._sources: dict[str, Source] = {}
        self._lock = threading.RLock()

    @abstractmethod
    def names(self) -> list[str]:
        """Return the names of all images, sorted.

        Raises:
            PacsError: the PACS does not answer.
        """

    @abstractmethod
    def source(self, name: str) -> Source:
        """Return the files of an image.

        Raises:
            NotFoundError: no such image.
            PacsError: the PACS does not answer.
        """

    @abstractmethod
    def find_instance(self, uid: str) -> str:
        """Return the name of the image that a DICOM instance belongs to.

        Raises:
            NotFoundError: no such image.
            PacsError: the PACS does not answer.
        """

    @abstractmethod
    def find_file(self, sha256: str, size: int) -> str:
        """Return the name of the image that is one file with a SHA-256 and a size in bytes.

        Raises:
            NotFoundError: no such image, or the images of this server are not files.
        """

    def identity(self, name: str) -> ImageIdentity:
        """Return the identity of an image, with its name on this server as `id`.

        Raises:
            NotFoundError, PacsError: see `source`.
            InputError, OutOfMemoryError: the image cannot be read.
        """
        return self._identify(name).identity

    def patient(self, name: str) -> str:
        """Return a pseudonym of the patient: a hash of the Patient ID, or of the image's name where there is none."""
        return self._identify(name).patient

    def modality(self, name: str) -> str:
        """Return "CT" for a volume or a slice of CT, else "CXR"."""
        return self._identify(name).modality

    def uids(self, name: str) -> tuple[str, ...]:
        """Return the SOP Instance UID of each slice of an image; none of an image that is no DICOM."""
        return self._identify(name).uids

    def headers(self, name: str) -> list[Dataset]:
        """Return the DICOM headers of an image in the order of its slices; none of an image that is no DICOM."""
        source = self.source(name)
        return read_headers(source.files, source.path)[0] if source.format == "dicom" else []

    def _identify(self, name: str) -> _ImageRecord:
        source = self.source(name)
        state = [(file, *_state_of(file.stat())) for file in source.files]
        with self._lock:
            cached, failure = self._identities.get(name), self._failures.get(name)
        if cached and cached[0] == state:
            return cached[1]
        if failure and failure[0] == state and time.monotonic() - failure[1] < RETRY_SECONDS:
            raise failure[2](failure[3])
        try:
            identified = self._read_record(name, source)
        except (InputError, OutOfMemoryError) as error:
            with self._lock:
                kind = OutOfMemoryError if isinstance(error, OutOfMemoryError) else InputError
                self._failures[name] = state, time.monotonic(), kind, str(error)
            raise
        with self._lock:
            self._identities[name] = state, identified
        return identified

    @staticmethod
    def _read_record(name: str, source: Source) -> _ImageRecord:
        patient, uids, is_ct = name, (), False
        if source.format == "dicom":
            headers, _ = read_headers(source.files, source.path)
            identity = replace(identify_image(source, headers), id=name)
            patient = str(headers[0].get("PatientID") or name)
            is_ct = headers[0].get("Modality") == "CT"
            uids = tuple(str(header.SOPInstanceUID) for header in headers)
            if len(uids) == 1:  # one file, perhaps of several frames
                uids *= identity.slices or 1
        else:
            image = files.read(source)
            is_ct = image.modality == "CT"
            slices, rows, columns = image.pixels.shape
            sha256 = hashlib.sha256(source.files[0].read_bytes()).hexdigest()
            identity = ImageIdentity(name, sha256, columns=columns, rows=rows, slices=slices)
        modality = "CT" if is_ct or (identity.slices or 1) > 1 else "CXR"
        return _ImageRecord(identity, hashlib.sha256(patient.encode()).hexdigest()[:16], uids, modality)


@dataclass(frozen=True)
class _ImageRecord:
    """The facts of an image without its pixels."""

    identity: ImageIdentity
    patient: str
    uids: tuple[str, ...]
    modality: str


class FolderCatalogue(Catalogue):
    """The images in a folder and the folders below it. They are listed anew when a file comes, goes or changes."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._state: dict[str, tuple[int, int, int]] | None = None
        self._instances: dict[Path, tuple[tuple[int, int, int], str]] = {}

    def names(self) -> list[str]:
        with self._lock:
            state = dict(_walk(self._folder))
            if state != self._state:
                self._sources = self._discover()
                self._state = state
            return sorted(self._sources)

    def source(self, name: str) -> Source:
        source = self._sources.get(name)
        if source is None or not all(file.is_file() for file in source.files):
            self.names()
            source = self._sources.get(name)
        if source is None:
            raise NotFoundError("there is no such image on this server.")
        return source

    def find_instance(self, uid: str) -> str:
        for name in self.names():
            source = self._sources[name]
            if source.format == "dicom" and any(self._instance(file) == uid for file in source.files):
                return name
        raise NotFoundError("this server has no image with that SOP Instance UID.")

    def find_file(self, sha256: str, size: int) -> str:
        for name in self.names():
            file, *others = self._sources[name].files
            if not others and file.stat().st_size == size and self.identity(name).sha256 == sha256:
                return name
        raise NotFoundError("this server has no image that is a file of that content.")

    def _instance(self, file: Path) -> str:
        """Return the SOP Instance UID of a file; it is read again only when the file has changed."""
        state = _state_of(file.stat())
        cached = self._instances.get(file)
        if cached is None or cached[0] != state:
            cached = state, str(open_header(file, ["SOPInstanceUID"]).get("SOPInstanceUID") or "")
            self._instances[file] = cached
        return cached[1]

    def _discover(self) -> dict[str, Source]:
        unreadable: list[UnreadableFile] = []
        try:
            with files.discover([self._folder], unreadable) as sources:
                # What was unpacked of a zip is gone as soon as the listing is over.
                listed = [source for source in sources if not source.zipped]
        except InputError:  # an empty folder
            return {}
        if zipped := len(sources) - len(listed):
            logger.warning("%d images in zips are not listed. Unpack the zips below --studies.", zipped)
        return {safe_name(source.name): source for source in listed}


class WebCatalogue(Catalogue):
    """The CT series and radiographs of a PACS. A CT series is an image, and so is every instance of a radiograph.

    Args:
        url: base address of DICOMweb.
        cache: folder for what was retrieved.
    """

    def __init__(self, url: str, cache: Path, client: Any = None) -> None:
        from dicomweb_client import DICOMwebClient

        super().__init__()
        self._client = client or DICOMwebClient(url.rstrip("/"), timeout=PACS_SECONDS)
        self._client.set_http_retry_params(retry=False)
        self._cache = cache
        self._is_ours: dict[str, bool] = {}
        self._uids: dict[str, tuple[str, str, str]] = {}
        self._counts: dict[str, int] = {}
        self._retrieved: dict[str, int] = {}

    def names(self) -> list[str]:
        uids: dict[str, tuple[str, str, str]] = {}
        counts: dict[str, int] = {}
        with explain_pacs_errors():
            for modality in MODALITIES:
                for entry in self._client.search_for_series(search_filters={"Modality": modality}):
                    series = Dataset.from_json(entry)
                    study_uid, series_uid = str(series.StudyInstanceUID), str(series.SeriesInstanceUID)
                    instances = None
                    counts[series_uid] = int(series.get("NumberOfSeriesRelatedInstances") or 0)
                    if modality != "CT" and counts[series_uid] != 1:
                        instances = self._instances(study_uid, series_uid)
                    if self._is_result(study_uid, series_uid):
                        continue
                    if instances is None:
                        uids[series_uid] = study_uid, series_uid, ""
                    else:
                        first = self._once_alone(series_uid)
                        uids |= {series_uid if uid == first else uid: (study_uid, series_uid, uid) for uid in instances}
        with self._lock:
            self._uids, self._counts = uids, counts
        return sorted(uids)

    def source(self, name: str) -> Source:
        if name not in self._uids:
            self.names()
        uids = self._uids.get(name)
        if uids is None:
            raise NotFoundError("there is no such image in the PACS.")
        folder = self._cache / name
        with self._lock:
            count = 1 if uids[2] else self._counts.get(uids[1], 0)
            # A series may have been on its way to the PACS when it was retrieved. Once for each number that the PACS
            # says, as it may say more than it gives.
            is_partial = self._retrieved.get(name) != count and folder.is_dir() and len(os.listdir(folder)) < count
            if is_partial or not folder.is_dir():
                self._retrieve(*uids, folder)
            self._retrieved[name] = count
        return Source("dicom", tuple(sorted(folder.iterdir())), folder, name)

    def find_instance(self, uid: str) -> str:
        names = self.names()
        with explain_pacs_errors():
            instances = self._client.search_for_instances(search_filters={"SOPInstanceUID": uid})
        series = [str(Dataset.from_json(each).get("SeriesInstanceUID") or "") for each in instances]
        name = next((name for name in (uid, *series) if name in names), None)
        if name is None:
            raise NotFoundError("the PACS has no image of this server with that SOP Instance UID.")
        return name

    def find_file(self, sha256: str, size: int) -> str:
        raise NotFoundError("the images of this server are in a PACS, and not files. Load the image from there.")

    def store(self, paths: Sequence[Path]) -> list[str]:
        """Store DICOM files in the PACS by STOW-RS, and return their SOP Instance UIDs.

        Raises:
            PacsError: the PACS does not answer, or does not take one of them.
        """
        import pydicom

        datasets = [pydicom.dcmread(path) for path in paths]
        with explain_pacs_errors():
            answer = self._client.store_instances(datasets)
        failed = answer.get("FailedSOPSequence") or ()
        if failed:
            raise PacsError(f"the PACS did not take {len(failed)} of {len(datasets)} files.")
        return [str(dataset.SOPInstanceUID) for dataset in datasets]

    def reports(self) -> Iterator[Dataset]:
        """Yield every Structured Report of the PACS.

        Raises:
            PacsError: the PACS does not answer.
        """
        with explain_pacs_errors():
            for entry in self._client.search_for_series(search_filters={"Modality": "SR"}):
                series = Dataset.from_json(entry)
                yield from self._client.retrieve_series(
                    str(series.StudyInstanceUID),
                    str(series.SeriesInstanceUID),
                    media_types=(("application/dicom", "*"),),
                )

    def _instances(self, study_uid: str, series_uid: str) -> list[str]:
        instances = self._client.search_for_instances(study_uid, series_uid)
        return [str(Dataset.from_json(each).SOPInstanceUID) for each in instances]

    def _once_alone(self, series_uid: str) -> str:
        """Return the instance of a radiograph that has the name of its series, as others have come after it; or ""."""
        files = sorted((self._cache / series_uid).glob("*.dcm"))
        return str(open_header(files[0], ["SOPInstanceUID"]).SOPInstanceUID) if len(files) == 1 else ""

    def _is_result(self, study_uid: str, series_uid: str) -> bool:
        """Return whether a series is a result of this package, by the header of one of its instances."""
        if series_uid not in self._is_ours:
            first = self._instances(study_uid, series_uid)[0]
            header = Dataset.from_json(self._client.retrieve_instance_metadata(study_uid, series_uid, first))
            self._is_ours[series_uid] = describes_result(str(header.get("DerivationDescription") or ""))
        return self._is_ours[series_uid]

    def _retrieve(self, study_uid: str, series_uid: str, instance_uid: str, folder: Path) -> None:
        media_types = (("application/dicom", "*"),)
        with explain_pacs_errors():
            if instance_uid:
                datasets = [
                    self._client.retrieve_instance(study_uid, series_uid, instance_uid, media_types=media_types)
                ]
            else:
                datasets = self._client.retrieve_series(study_uid, series_uid, media_types=media_types)
        self._cache.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=self._cache))
        try:
            for number, dataset in enumerate(datasets):
                dataset.save_as(partial / f"{number:05d}.dcm", enforce_file_format=True)
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(partial, folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def safe_name(text: str) -> str:
    """Return a name for a path below the folder: the path where it is safe, else its safe characters and a hash."""
    if re.fullmatch(NAME, text):
        return text
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", text).lstrip("._-")[-100:].lstrip("._-")
    return f"{plain or 'image'}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def check_identity(sent: ImageIdentity, expected: ImageIdentity) -> None:
    """Refuse a reading of another image, or of another state of this one.

    Raises:
        RefusedError: another name, hash, UID or size.
    """
    for field, words in (
        ("id", "name"), ("sha256", "SHA-256"), ("study_instance_uid", "study"), ("series_instance_uid", "series"),
        ("columns", "number of columns"), ("rows", "number of rows"), ("slices", "number of slices"),
    ):  # fmt: skip
        mine, theirs = getattr(expected, field), getattr(sent, field)
        if theirs and mine and theirs != mine:
            raise RefusedError(
                f"image.{field} is not that of the image on this server: the reading is of another {words}. Fetch the "
                "image again, and draw the boxes on that one."
            )


@contextmanager
def explain_pacs_errors() -> Iterator[None]:
    """Turn errors of HTTP into sentences; addresses and answers of the PACS stay out of them."""
    try:
        yield
    except requests.Timeout as error:
        raise PacsError(f"the PACS does not answer within {PACS_SECONDS} s. Try again later.") from error
    except requests.ConnectionError as error:
        raise PacsError("the PACS cannot be reached. Is it running?") from error
    except requests.HTTPError as error:
        status = error.response.status_code if error.response is not None else "an error"
        raise PacsError(f"the PACS answered with {status}.") from error


def _state_of(status: os.stat_result) -> tuple[int, int, int]:
    """Return what changes with the content of a file; a copy may keep the time of its original, but not the third."""
    return status.st_mtime_ns, status.st_size, status.st_ctime_ns


def _walk(folder: Path) -> Iterator[tuple[str, tuple[int, int, int]]]:
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = os.path.join(parent, name)
            if not name.startswith(".") and (state := _state_at(path)):
                yield path, state


def _state_at(path: str) -> tuple[int, int, int] | None:
    """Return the state of a file; None for a link to nothing, or a file that has gone meanwhile."""
    try:
        return _state_of(os.stat(path))
    except OSError:
        return None
