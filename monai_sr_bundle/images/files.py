"""Find images by their content, read them, and write each result as the same kind of file.

Each format has its own module (`dicom_*`, `nifti`, `picture`). This one groups files into images, names the results and
calls the reader or writer of the format.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePath
from typing import Literal

from monai_sr_bundle.errors import InputError, InternalError, OutputError, SuperResolutionError, quote
from monai_sr_bundle.images import nifti, picture
from monai_sr_bundle.images.dicom_file import derivation, is_dicom, is_localizer, open_header, series_ending, series_key
from monai_sr_bundle.images.dicom_read import read_dicom
from monai_sr_bundle.images.dicom_write import write_dicom
from monai_sr_bundle.images.file_state import FileState, file_states, require_unchanged
from monai_sr_bundle.images.image import Format, Image, Layout
from monai_sr_bundle.images.provenance import Provenance, describes_result
from monai_sr_bundle.images.staging import staged
from monai_sr_bundle.images.working_folders import working_folder

logger = logging.getLogger(__name__)


_READABLE = "DICOM, NIfTI, PNG, JPEG, TIFF or a zip of DICOM"
_ZIP_STARTS = (b"PK\x03\x04", b"PK\x05\x06")
_SUFFIXES: dict[Format, tuple[str, ...]] = {
    "dicom": (".dcm", ".dicom", ".ima"),
    "nifti": (".nii", ".nii.gz"),
    "png": (".png",),
    "jpeg": (".jpg", ".jpeg"),
    "tiff": (".tif", ".tiff"),
}
_RESULT, _LOCALIZER = "a result of an earlier run", "a localizer (scout) of a CT"
_OTHER_SUFFIXES = (".zip", *(suffix for kind in _SUFFIXES if kind != "dicom" for suffix in _SUFFIXES[kind]))
"""Suffixes of files that are no DICOM."""
_ALL_SUFFIXES = (".zip", ".nii.gz", *(suffix for suffixes in _SUFFIXES.values() for suffix in suffixes))


@dataclass(frozen=True)
class Source:
    """One image on disk.

    Attributes:
        format: format of the content.
        files: the file, or all files of one CT series; in a temporary folder for a zip.
        path: file, folder or zip that the user named, for messages.
        name: path of its result under an output folder, before "_sr" is added: "sub/case1.png", or the series folder.
        zipped: True if it came in a zip; its result is then a zip.
        zip_states: state of the zip when it was unpacked.
        notes: remarks for the user about files beside it, one sentence each.
    """

    format: Format
    files: tuple[Path, ...]
    path: Path
    name: str
    zipped: bool = False
    zip_states: tuple[FileState, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def layout(self) -> Layout:
        """Storage of the image and of its result."""
        return "zip" if self.zipped else "folder" if self.in_folder else "file"

    @property
    def in_folder(self) -> bool:
        """True if the result is a folder: the source is a series of several files, not in a zip."""
        return len(self.files) > 1 and not self.zipped


@dataclass(frozen=True)
class UnreadableFile:
    """A file that could not be opened or recognised, or a folder without images.

    Attributes:
        path: file or folder that the user named, for messages.
        name: path of the file in this folder, or its name.
        error: reason.
    """

    path: Path
    name: str
    error: SuperResolutionError


@dataclass(frozen=True)
class LeftOutFile:
    """A file of a folder that is not to be enlarged, such as a text.

    Attributes:
        path: folder that the user named, for messages.
        name: path of the file in this folder.
        reason: why, as the end of a sentence.
    """

    path: Path
    name: str
    reason: str


class _NoImages(InputError):
    """A zip without images."""


@contextmanager
def discover(
    paths: Sequence[Path],
    unreadable: list[UnreadableFile] | None = None,
    left_out: list[LeftOutFile] | None = None,
    *,
    zips: bool = True,
) -> Iterator[list[Source]]:
    """Find the images in files, zips and folders (recursively, sorted, without hidden files), by content.

    The CT slices of a folder or zip with one Series Instance UID are one source; any other file, and each file named by
    itself, is a source of its own. Files in a folder that are no images are left out with one warning, and so are
    results of this package and series of CT localizers, unless all images of the folder or zip are such. A file that is
    named like an image and is none is unreadable. Zips are unpacked to a temporary folder, which is deleted at the end
    of the `with` block.

    Args:
        paths: files, zips and folders.
        unreadable: list that receives the files and folders that raise the errors below, so that the others can be
            used. Default: the error is raised, or, of a file in a folder, told in a warning.
        left_out: list that receives what is left out of folders and zips.
        zips: whether to unpack zips; otherwise they are refused, and left out of folders.

    Yields:
        The sources, each file once; none only if all files were unreadable.

    Raises:
        InputError: a missing path; a named file that is no image; a folder or zip without images; a zip that is
            damaged, encrypted or too large.
        OutputError: no room for unpacking.
    """
    with ExitStack() as stack:
        sources: list[Source] = []
        room = stack if zips else None
        for path in paths:
            unopened: list[UnreadableFile] = []
            try:
                others = left_out if left_out is not None else []
                if path.is_dir():
                    sources += _in_folder(path, room, unopened, others)
                else:
                    sources += _leave_out(_in_file(path, room), path, others)
            except Exception as error:
                own_error = _explain_unreadable(str(path), error)
                if unreadable is None:
                    raise own_error from error.__cause__ if own_error is error else error
                unreadable.append(UnreadableFile(path, path.name, own_error))
            if unreadable is not None:
                unreadable += unopened
            else:
                for file in unopened:
                    logger.warning("%s It is left out of the folder.", file.error)
        once: dict[tuple[Path, ...], Source] = {}
        for source in sources:
            once.setdefault(tuple(file.resolve() for file in source.files), source)
        yield list(once.values())


def read(source: Source) -> Image:
    """Read one image with the reader of its format.

    Raises:
        InputError: the reader refuses the files, or they are changed meanwhile.
        OutOfMemoryError: the image does not fit into the memory.
    """
    states = file_states(source.files)
    if source.format == "dicom":
        alone = len(source.files) == 1 and not source.zipped
        with name_zip_in_errors(source):
            image = read_dicom(source.files, source.files[0] if alone else source.path)
    elif source.format == "nifti":
        image = nifti.read_nifti(source.files[0])
    else:
        image = picture.read_picture(source.files[0])
    derivation_text = _derivation(source)
    require_unchanged(states)
    return replace(
        image,
        files=source.files,
        file_states=source.zip_states or states,
        layout=source.layout,
        derivation=derivation_text,
        notes=image.notes + source.notes,
    )


@contextmanager
def name_zip_in_errors(source: Source) -> Iterator[None]:
    """Begin messages about a file that was unpacked with its zip, which alone the user knows."""
    try:
        yield
    except SuperResolutionError as error:
        if not source.zipped or source.path.name in str(error):
            raise
        raise type(error)(f"{source.path.name}: {error}") from error.__cause__


def write(result: Image, provenance: Provenance, out: Path, *, overwrite: bool = False) -> Path:
    """Write a result as the same kind of file or folder as its source, completely or not at all.

    Args:
        result: result of an image from `read`, header included.
        provenance: record of the bundle and settings that made the result.
        out: one of `output_paths`.
        overwrite: replace an older result; a folder only if it holds nothing but DICOM files.

    Returns:
        `out`.

    Raises:
        OutputError: `out` cannot be written (see `staged`), has a suffix of another kind of file, is a folder with
            other files, or cannot hold the result.
        InputError: the image was made from an array, which has no file format.
    """
    if result.format == "array":
        raise InputError(
            "the image was made from an array, which has no file format. Take the pixels of the result "
            "(`result.image.pixels`), or enhance a file."
        )
    _check_suffix(result, out)
    if overwrite and out.is_dir():
        _require_dicom_only(out)
    with staged(out, overwrite=overwrite, needed_bytes=result.pixels.nbytes) as temporary:
        if result.layout == "zip":
            from monai_sr_bundle.images.zipped import pack

            pack(partial(_write_dicom_folder, result, provenance), temporary)
        elif result.layout == "folder":
            _write_dicom_folder(result, provenance, temporary)
        elif result.format == "dicom":
            write_dicom(result, provenance, temporary)
        elif result.format == "nifti":
            nifti.write_nifti(result, provenance, temporary)
        else:
            picture.write_picture(result, provenance, temporary)
    return out


def output_paths(sources: Sequence[Source], out: str | os.PathLike[str]) -> list[Path]:
    """Return the path of each result: `out` itself, or `out/<name>_sr<suffix>` if `out` is a folder.

    `out` is the result of a single source when it is no existing folder, does not end in a separator (give it as a
    string to keep that), and has a suffix or the source is a series folder, or if it is the folder of an earlier result
    of a series. Results never share a path: equal names from different folders keep their folders, and names that are
    still equal are numbered.

    Raises:
        OutputError: a result would be, lie in, or contain an input; `out` has a suffix of another kind of file, or of
            any file that is read where several results need a folder.
    """
    text, path = os.fspath(out), Path(out)
    ends_as_folder = text.endswith((os.sep, "/"))
    if len(sources) > 1 and not ends_as_folder and not path.is_dir() and suffix_of(text):
        raise OutputError(
            f"{out}: the results of {len(sources)} images need a folder, and this is the name of one file. Name a "
            "folder as the last argument, or end the name with a slash to make a folder of it."
        )
    if len(sources) == 1 and not ends_as_folder and (not path.is_dir() or _is_series_result(sources[0], path)):
        source = sources[0]
        if source.in_folder or path.suffix:
            _check_suffix(source, path)
            check_apart([path], sources)
            return [path]
    names = [_result_name(source, source.name) for source in sources]
    shared = {name for name, count in Counter(map(_fold_case, names)).items() if count > 1}
    if shared:
        common = os.path.commonpath([_parent_folder(source) for source in sources])
        names = [
            (
                _result_name(source, os.path.relpath(_parent_folder(source) / PurePath(source.name).name, common))
                if _fold_case(name) in shared
                else name
            )
            for source, name in zip(sources, names, strict=True)
        ]
    results = [path / name for name in _number_names(names, sources)]
    check_apart(results, sources)
    return results


def _in_folder(
    folder: Path, stack: ExitStack | None, unreadable: list[UnreadableFile], left_out: list[LeftOutFile]
) -> list[Source]:
    slices: dict[str, list[Path]] = {}
    sources: list[Source] = []
    others = []
    for file in _walk(folder, unreadable, left_out):
        try:
            kind = _kind(file)
            if kind == "zip":
                zipped = _in_zip(file, stack)
                sources += [replace(source, name=_relative(file, folder, source.name)) for source in zipped]
            elif kind is None and file.name.lower().endswith(_ALL_SUFFIXES):
                raise InputError(f"{file.relative_to(folder)}: {_describe_start(file)}, expected {_READABLE}.")
            elif kind is None:
                others.append(file)
            elif kind != "dicom":
                sources.append(Source(kind, (file,), folder, _relative(file, folder, file.name)))
            elif (key := _series(file)) == "":
                others.append(file)
            else:
                slices.setdefault(key, []).append(file)
        except _NoImages as error:
            logger.warning("%s", error)
            left_out.append(LeftOutFile(folder, str(file.relative_to(folder)), "a zip without images"))
        except Exception as error:  # an error in one file does not stop the others
            name = str(file.relative_to(folder))
            unreadable.append(UnreadableFile(folder, name, _explain_unreadable(name, error)))
    damaged = [folder / file.name for file in unreadable if not file.name.lower().endswith(_OTHER_SUFFIXES)]
    sources = _leave_out(sources + _group_series(slices, folder, damaged), folder, left_out)
    reason = "not an image of a kind that is read"
    left_out += [LeftOutFile(folder, str(file.relative_to(folder)), reason) for file in others]
    if others:
        names = ", ".join(file.name for file in others[:5]) + (", ..." if len(others) > 5 else "")
        logger.warning(
            "%s: %d file(s) are not images of a kind that is read, and are left out: %s", folder, len(others), names
        )
    if not sources and not unreadable:
        raise InputError(f"{folder}: no images in this folder, expected {_READABLE}.")
    return sorted(sources, key=lambda source: source.name)


def _explain_unreadable(name: str, error: Exception) -> SuperResolutionError:
    if isinstance(error, SuperResolutionError):
        return error
    if isinstance(error, OSError):
        return InputError(f"{name}: cannot be opened ({error.strerror}). Check that you may read it.")
    return InternalError.of(name, error)


def _leave_out(sources: list[Source], path: Path, left_out: list[LeftOutFile]) -> list[Source]:
    """Leave out results of earlier runs, so that the same command gives the same results again, and localizers of CT.

    A folder or zip that holds nothing else is read: the user named it on purpose.
    """
    reasons = [_RESULT if is_result(source) else _LOCALIZER if _is_localizer(source) else "" for source in sources]
    if all(reasons):
        return sources
    files = [LeftOutFile(path, source.name, reason) for source, reason in zip(sources, reasons, strict=True) if reason]
    if results := [file.name for file in files if file.reason == _RESULT]:
        names = ", ".join(results[:5]) + (", ..." if len(results) > 5 else "")
        logger.warning(
            "%s: %d result(s) of earlier runs are left out: %s. To enlarge one of them again, pass its path.",
            path, len(results), names,
        )  # fmt: skip
    left_out += files
    return [source for source, reason in zip(sources, reasons, strict=True) if not reason]


def is_result(source: Source) -> bool:
    """Return whether a source is a result of this package."""
    return describes_result(_derivation(source))


def _is_localizer(source: Source) -> bool:
    try:
        tags = ["SOPClassUID", "ImageType"]
        return source.format == "dicom" and all(is_localizer(open_header(file, tags)) for file in source.files)
    except Exception:  # reading the image will report the error
        return False


def _derivation(source: Source) -> str:
    file = source.files[0]
    try:
        if source.format == "dicom":
            return derivation(file)
        return nifti.nifti_description(file) if source.format == "nifti" else picture.picture_description(file)
    except Exception:  # reading the image will report the error
        return ""


def _is_series_result(source: Source, folder: Path) -> bool:
    """Return whether a folder is the result of a series: numbered DICOM files of this package and nothing else."""
    files = sorted(folder.iterdir()) if source.in_folder else []
    if not files or any(re.fullmatch(r"\d{4,}\.dcm", file.name) is None for file in files):
        return False
    return is_result(Source("dicom", (files[0],), folder, folder.name))


def _group_series(slices: dict[str, list[Path]], folder: Path, damaged: list[Path]) -> list[Source]:
    """Return one source for each series, named after the folder of its files.

    If several have one name, they are told apart by what the files of each share, so that a further one changes none.

    A series has a note about files beside it that are damaged or name no series, because they may be slices of it.
    """
    stray = damaged + [file for key, (file, *_) in slices.items() if key == str(file)]
    singles = [files[0] for files in slices.values() if len(files) == 1]
    sources = [Source("dicom", (file,), folder, _relative(file, folder, file.name)) for file in singles]
    several = {key: files for key, files in slices.items() if len(files) > 1}
    parents = [Path(os.path.commonpath([file.parent for file in files])) for files in several.values()]
    parent_names = [
        folder.resolve().name if parent == folder else str(parent.relative_to(folder)) for parent in parents
    ]
    series_count = Counter(parent_names)
    for (key, files), name in zip(several.items(), parent_names, strict=True):
        ending = series_ending(key) if series_count[name] > 1 else ""
        names = quote(", ".join(file.name for file in stray if file.parent in {each.parent for each in files}))
        notes = (f"Slices may be missing: files beside them are damaged or name no series: {names}.",) if names else ()
        sources.append(Source("dicom", tuple(files), folder, (name or "series") + ending, notes=notes))
    return sources


def _in_file(path: Path, stack: ExitStack | None) -> list[Source]:
    if not path.exists():
        raise InputError(f"{path}: does not exist. Check the spelling.")
    if not path.is_file():
        raise InputError(f"{path}: neither a file nor a folder. Give an image: {_READABLE}.")
    kind = _kind(path)
    if kind == "zip":
        return _in_zip(path, stack)
    if kind is None:
        raise InputError(f"{path}: {_describe_start(path)}, expected {_READABLE}.")
    return [Source(kind, (path,), path, path.name)]


def _describe_start(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(8)
    return f"not an image that can be read ({f'it starts with {start!r}' if start else 'it is empty'})"


def _in_zip(path: Path, stack: ExitStack | None) -> list[Source]:
    if stack is None:
        raise InputError(f"{path}: a zip, expected image files. Unpack it, or use `monai-sr enhance`.")
    from monai_sr_bundle.images.zipped import unpack_series  # packed bundles read no zips and do not carry it

    folder = stack.enter_context(working_folder(Path(tempfile.gettempdir())))
    states = file_states([path])
    series, notes = unpack_series(path, folder, _series)
    require_unchanged(states)
    if not series:
        raise _NoImages(f"{path.name}: no DICOM images in this zip. Unpack other kinds of images first.")
    return [Source("dicom", files, path, name, True, states, notes) for name, files in series.items()]


def _walk(folder: Path, unreadable: list[UnreadableFile], left_out: list[LeftOutFile]) -> Iterator[Path]:
    """Yield the files; tell of folders that cannot be opened, and of links that are not followed."""

    def tell(error: OSError) -> None:
        name = os.path.relpath(error.filename, folder)
        unreadable.append(UnreadableFile(folder, name, _explain_unreadable(name, error)))

    for here, folders, files in os.walk(folder, onerror=tell):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        visible = [Path(here, name) for name in sorted(files) if not name.startswith(".")]
        for link in (*(Path(here, name) for name in folders), *visible):
            if link.is_symlink() and not link.is_file():
                target = "folder, which is not followed" if link.is_dir() else "file that is not there"
                left_out.append(LeftOutFile(folder, str(link.relative_to(folder)), f"a link to a {target}"))
        yield from (file for file in visible if file.is_file())


def _kind(path: Path) -> Format | Literal["zip"] | None:
    if is_dicom(path):
        return "dicom"
    if nifti.is_nifti(path):
        return "nifti"
    if (kind := picture.picture_format(path)) is not None:
        return kind
    with path.open("rb") as file:
        return "zip" if file.read(4) in _ZIP_STARTS else None


def _series(file: Path) -> str:
    try:
        return series_key(file)
    except SuperResolutionError:
        return str(file)  # a source of its own, so that reading it reports the error


def _relative(file: Path, folder: Path, name: str) -> str:
    return str(file.relative_to(folder).with_name(name))


def _result_name(source: Source, name: str) -> str:
    """Return the source's name with "_sr" and a suffix of its format."""
    if source.in_folder:
        return f"{name}_sr"
    suffix = suffix_of(name)
    allowed = (".zip",) if source.zipped else _SUFFIXES[source.format]
    stem, name_suffix = (name[: -len(suffix)], name[-len(suffix) :]) if suffix else (name, "")
    return f"{stem}_sr{name_suffix if suffix in allowed else allowed[0]}"


def _number_names(names: list[str], sources: Sequence[Source]) -> list[str]:
    used: set[str] = set()
    numbered = []
    for name, source in zip(names, sources, strict=True):
        ending = "" if source.in_folder else suffix_of(name)
        stem = name[: len(name) - len(ending)]
        candidate, count = name, 1
        while _fold_case(candidate) in used:
            count += 1
            candidate = f"{stem}_{count}{name[len(stem) :]}"
        used.add(_fold_case(candidate))
        numbered.append(candidate)
    return numbered


def _fold_case(name: str) -> str:
    """Return the same name for paths that are one file on a disk that ignores case."""
    return os.path.normpath(name).casefold()


def _parent_folder(source: Source) -> Path:
    """Return the folder that holds the source file, zip or series folder."""
    if source.zipped:
        return source.path.resolve().parent
    home = _series_folder(source) if source.in_folder else source.files[0].resolve()
    return home.parent


def _series_folder(source: Source) -> Path:
    return Path(os.path.commonpath([file.resolve().parent for file in source.files]))


def suffix_of(name: str) -> str:
    """Return the suffix of a kind of file that is read, in lower case; empty for any other name."""
    return next((suffix for suffix in _ALL_SUFFIXES if name.lower().endswith(suffix)), "")


def _check_suffix(source: Source | Image, out: Path) -> None:
    """Raise OutputError for the name of another kind of file; of a `Source`, say what the command line offers too."""
    suffix, from_source = suffix_of(out.name), isinstance(source, Source)
    may_convert = from_source and source.format == "dicom" and suffix in _SUFFIXES["nifti"]
    as_nifti = ", or pass --output-format nifti" if may_convert else ""
    allowed: tuple[str, ...] = tuple(picture.SUFFIXES)
    kind = "a picture"
    if source.layout == "folder":
        if suffix:
            raise OutputError(f"{out}: the result of a series is a folder. Choose a name without {suffix}{as_nifti}.")
        return
    if source.layout == "zip":
        kind, allowed = "a zip of DICOM", (".zip",)
    elif source.format == "dicom":
        kind, allowed = "a DICOM file", (*_SUFFIXES["dicom"], "")
    elif source.format == "nifti":
        kind, allowed = "a NIfTI file", _SUFFIXES["nifti"]
    if suffix not in allowed:
        raise OutputError(
            f"{out}: the result is {kind}, expected a name ending in {' or '.join(filter(None, allowed))}{as_nifti}."
            + " For a folder of results, end the name with a slash." * from_source
        )


def check_apart(results: Sequence[Path], sources: Sequence[Source]) -> None:
    """Raise OutputError if a result would be, lie in, or contain an input."""
    inputs = {file.resolve(): source for source in sources for file in (source.path, *source.files)}
    same_files = {(status.st_dev, status.st_ino) for status in (file.stat() for file in inputs if file.is_file())}
    holders = {parent for file in inputs for parent in file.parents}
    series_folders = {_series_folder(source) for source in sources if source.in_folder}
    for result in results:
        resolved = result.resolve()
        status = resolved.stat() if resolved.is_file() else None
        if resolved in inputs or (status and (status.st_dev, status.st_ino) in same_files):
            raise OutputError(f"{result}: is an input, and inputs are never changed. Choose another name.")
        if resolved in holders:
            raise OutputError(f"{result}: holds an input, and inputs are never changed. Choose another folder.")
        if any(folder in resolved.parents for folder in series_folders):
            raise OutputError(f"{result}: lies in the folder of a source series. Choose a folder outside it.")


def _require_dicom_only(folder: Path) -> None:
    for entry in sorted(folder.iterdir()):
        if not (entry.is_file() and is_dicom(entry)):
            raise OutputError(
                f"{folder}: would be replaced, but holds {entry.name}, which is no DICOM file. Choose another folder."
            )


def _write_dicom_folder(result: Image, provenance: Provenance, out: Path) -> None:
    # A series with a scout may keep one slice, which the writer would write as a file.
    if len(result.header) == 1:
        out.mkdir()
        write_dicom(result, provenance, out / "0001.dcm")
    else:
        write_dicom(result, provenance, out)
