"""Images in files, folders and zips: their names, the names of their results, and every path that is refused."""

from __future__ import annotations

import io
import os
import re
import shutil
import stat
import struct
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import PIL.Image
import pytest
from monai_sr_bundle.errors import InputError, OutputError
from monai_sr_bundle.images import files
from monai_sr_bundle.images import zipped as zipped_files
from monai_sr_bundle.images.files import Source, discover, output_paths, read, write
from monai_sr_bundle.images.one_image import read_one
from pydicom.data import get_testdata_file

from tests.images.dicom_files import ct_series, ct_slice, enlarged, phantom, provenance, radiograph, zipped


def find(*paths: Path) -> list[Source]:
    with discover(paths) as sources:
        return sources


def names(*paths: Path) -> list[str]:
    return [source.name for source in find(*paths)]


def png(path: Path, mode: str = "L", **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new(mode, (12, 10), 7).save(path, **options)
    return path


def nifti(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(np.arange(120, dtype=np.int16).reshape(5, 4, 6), np.diag([-1, -1, 2.0, 1])), path)
    return path


def series(folder: Path, slices: int = 3, uid: str = "2.25.1") -> list[Path]:
    return ct_series(folder, phantom(slices=slices), np.eye(3), SeriesInstanceUID=uid)


def enhance(source: Source, out: Path, **options: bool) -> Path:
    return write(enlarged(read(source)), provenance(), out, **options)


@pytest.fixture(autouse=True)
def _temporary_files_are_gone(tmp_path_factory, monkeypatch) -> Iterator[None]:
    """Every test here also shows that unpacked zips and staging folders are gone at its end."""
    temporary_dir = tmp_path_factory.mktemp("tmp")
    monkeypatch.setattr(tempfile, "tempdir", str(temporary_dir))
    yield
    assert os.listdir(temporary_dir) == []


def test_formats_are_recognised_by_content_and_not_by_name(tmp_path: Path):
    png(tmp_path / "a.dcm", format="PNG")
    png(tmp_path / "b.png", format="JPEG")
    png(tmp_path / "c", format="TIFF")
    nifti(tmp_path / "x.nii").rename(tmp_path / "d.jpg")
    radiograph(tmp_path / "e.txt")
    formats = {source.name: source.format for source in find(tmp_path)}
    assert formats == {"a.dcm": "png", "b.png": "jpeg", "c": "tiff", "d.jpg": "nifti", "e.txt": "dicom"}


def test_a_folder_is_searched_deeply_in_order_and_without_hidden_files(tmp_path: Path):
    for name in ("b.png", "a/z.png", "a/b/c.png", ".hidden.png", ".git/d.png", "__MACOSX/e.png"):
        png(tmp_path / name)
    assert names(tmp_path) == ["a/b/c.png", "a/z.png", "b.png"]


def test_files_that_are_no_images_are_left_out_of_a_folder_with_one_warning(tmp_path: Path, caplog):
    png(tmp_path / "a.png")
    for number in range(7):
        (tmp_path / f"notes{number}.txt").write_text("text")
    assert names(tmp_path) == ["a.png"]
    assert len(caplog.records) == 1
    assert "7 file(s) are not images of a kind that is read, and are left out: notes0.txt, notes1.txt" in caplog.text


def test_a_dicom_file_without_an_image_is_left_out_of_a_folder_and_refused_by_its_reader(tmp_path: Path, caplog):
    shutil.copy(get_testdata_file("test-SR.dcm", download=False), tmp_path / "report")
    png(tmp_path / "a.png")
    assert names(tmp_path) == ["a.png"]
    assert "left out: report" in caplog.text
    (report,) = find(tmp_path / "report")
    with pytest.raises(InputError, match=r"report: holds no image"):
        read(report)


def test_results_of_earlier_runs_are_left_out_of_a_folder_in_one_line(tmp_path: Path, caplog):
    png(tmp_path / "a.png")
    png(tmp_path / "b.jpg", format="JPEG")
    png(tmp_path / "c.tif")
    nifti(tmp_path / "d.nii")
    radiograph(tmp_path / "e.dcm")
    zipped(tmp_path / "f.zip", series(tmp_path.parent / "zipped", uid="2.25.8"))
    series(tmp_path / "ct")
    before = names(tmp_path)
    with discover([tmp_path]) as sources:
        results = list(map(enhance, sources, output_paths(sources, tmp_path / "out")))
    assert len(results) == 7
    assert names(tmp_path) == before
    (line,) = {record.getMessage() for record in caplog.records}
    assert "7 result(s) of earlier runs are left out: out/a_sr.png, out/b_sr.jpg" in line
    for result in results:  # a result that is named by itself is an image as any other
        assert len(find(result)) == 1
    assert len(names(tmp_path / "out")) == 7


def test_a_file_that_no_reader_expects_is_the_only_one_that_is_missing(tmp_path: Path, monkeypatch, caplog):
    for name in ("a.png", "b.png", "c.png"):
        png(tmp_path / "in" / name)
    picture_format = files.picture.picture_format

    def fail(path: Path) -> object:
        return {}["Doe^Jane"] if path.name == "b.png" else picture_format(path)

    monkeypatch.setattr(files.picture, "picture_format", fail)
    unreadable: list[files.UnreadableFile] = []
    with discover([tmp_path / "in"], unreadable) as sources:
        assert [source.name for source in sources] == ["a.png", "c.png"]
    (file,) = unreadable
    assert (file.path, file.name, file.error.exit_code) == (tmp_path / "in", "b.png", 1)
    assert "b.png: a mistake of this program, KeyError in files.py, line " in str(file.error)
    assert "Doe" not in str(file.error)
    assert names(tmp_path / "in") == ["a.png", "c.png"]
    assert "b.png" in caplog.text


def test_the_slices_of_a_series_are_one_source_named_after_their_folder(tmp_path: Path):
    slices = series(tmp_path / "patient" / "ct")
    for named, name in ((tmp_path / "patient", "ct"), (tmp_path / "patient" / "ct", "ct"), (tmp_path, "patient/ct")):
        (source,) = find(named)
        assert (source.name, source.files, source.path, source.in_folder) == (name, tuple(slices), named, True)


def test_a_folder_given_as_a_dot_has_a_name(tmp_path: Path, monkeypatch):
    series(tmp_path / "ct")
    monkeypatch.chdir(tmp_path / "ct")
    assert names(Path(".")) == ["ct"]


def test_several_series_in_one_folder_have_names_that_a_further_one_does_not_change(tmp_path: Path):
    first_letters: list[dict[str, str]] = []
    for number in (3, 2, 1):
        for file in series(tmp_path / f"s{number}", uid=f"2.25.{number}"):
            (tmp_path / "all").mkdir(exist_ok=True)
            file.rename(tmp_path / "all" / f"{number}_{file.name}")
        first_letters.append({source.name: source.files[0].name[0] for source in find(tmp_path / "all")})
    assert first_letters[0] == {"all": "3"}
    assert first_letters[1].items() < first_letters[2].items()
    assert sorted(first_letters[2].values()) == ["1", "2", "3"]
    assert all(re.fullmatch("all_series_[0-9a-f]{8}", name) for name in first_letters[2])


def test_a_series_beside_a_folder_of_its_name_has_a_name_of_its_own(tmp_path: Path):
    series(tmp_path / "m", uid="2.25.1")
    series(tmp_path / "m" / "m", uid="2.25.2")
    assert len(set(names(tmp_path / "m"))) == 2


def test_links_that_are_not_followed_and_folders_that_cannot_be_opened_are_told(tmp_path: Path, monkeypatch):
    png(tmp_path / "in" / "a.png")
    png(tmp_path / "other" / "b.png")
    (tmp_path / "in" / "closed").mkdir()
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "other")
    (tmp_path / "in" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "in" / "linked.png").symlink_to(tmp_path / "other" / "b.png")
    scan = os.scandir

    def refuse(path: str) -> object:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    unreadable: list[files.UnreadableFile] = []
    left_out: list[files.LeftOutFile] = []
    with discover([tmp_path / "in"], unreadable, left_out) as sources:
        assert [source.name for source in sources] == ["a.png", "linked.png"]
    assert [str(file.error) for file in unreadable] == [
        "closed: cannot be opened (Permission denied). Check that you may read it."
    ]
    assert {file.name: file.reason for file in left_out} == {
        "linked": "a link to a folder, which is not followed", "gone.png": "a link to a file that is not there",
    }  # fmt: skip


def test_a_damaged_slice_is_a_source_of_its_own_so_that_it_is_reported(tmp_path: Path):
    slices = series(tmp_path / "ct", 4)
    slices[0].write_bytes(slices[0].read_bytes()[:142])  # within the length of an element
    sources = find(tmp_path / "ct")
    assert [len(source.files) for source in sources] == [1, 3]
    with pytest.raises(InputError, match=slices[0].name):
        read(sources[0])


@pytest.mark.parametrize("content", [b"", bytes(128) + b"DICM" + bytes(1000), None])
def test_a_series_beside_a_damaged_file_says_that_slices_may_be_missing(tmp_path: Path, content: bytes | None):
    series(tmp_path / "whole", uid="2.25.2")
    last = sorted(series(tmp_path / "ct", 4), key=lambda file: file.stem[-1])[-1]
    last.write_bytes(last.read_bytes()[:500] if content is None else content)
    (tmp_path / "ct" / "icon.png").write_bytes(b"no picture, and no slice")
    unreadable: list[files.UnreadableFile] = []
    with discover([tmp_path], unreadable) as sources:
        notes = {source.name: read(source).notes for source in sources if source.in_folder}
        failed = [file.name for file in unreadable] + [source.name for source in sources if not source.in_folder]
    assert set(failed) == {f"ct/{last.name}", "ct/icon.png"}
    note = f"Slices may be missing: files beside them are damaged or name no series: {last.name}."
    assert notes == {"ct": (note,), "whole": ()}


def test_two_copies_of_a_film_are_two_images(tmp_path: Path):
    shutil.copy(radiograph(tmp_path / "a.dcm", modality="CR"), tmp_path / "b.dcm")
    assert names(tmp_path) == ["a.dcm", "b.dcm"]


def test_a_file_named_twice_is_one_source(tmp_path: Path):
    a = png(tmp_path / "a.png")
    assert names(tmp_path, a, a) == ["a.png"]


def test_a_file_that_is_no_image_is_refused_with_its_first_bytes(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(b"%PDF-1.4 and so on")
    (tmp_path / "empty.dcm").write_bytes(b"")
    with pytest.raises(InputError, match=r"a\.png: not an image.*starts with b'%PDF-1\.4'.*expected DICOM, NIfTI"):
        find(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"empty\.dcm: not an image that can be read \(it is empty\)"):
        find(tmp_path / "empty.dcm")


def test_missing_paths_empty_folders_and_devices_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"nowhere: does not exist"):
        find(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no images in this folder, expected DICOM"):
        find(tmp_path)
    with pytest.raises(InputError, match="/dev/null: neither a file nor a folder"):
        find(Path("/dev/null"))


def test_a_file_that_cannot_be_opened_is_refused_alone_and_left_out_of_a_folder(tmp_path: Path, monkeypatch, caplog):
    locked = png(tmp_path / "locked.png")
    png(tmp_path / "open.png")
    io_open = io.open

    def refuse_locked(file: object, *arguments: object, **options: object) -> object:
        if str(file) == str(locked):  # rights would not stop root
            raise PermissionError(13, "Permission denied", str(file))
        return io_open(file, *arguments, **options)

    monkeypatch.setattr(io, "open", refuse_locked)
    with pytest.raises(InputError, match=r"locked\.png: cannot be opened \(Permission denied\)"):
        find(locked)
    assert names(tmp_path) == ["open.png"]
    assert "locked.png: cannot be opened (Permission denied). Check that you may read it. It is left out" in caplog.text


def test_a_zip_of_a_series_is_one_source_and_its_result_is_a_zip(tmp_path: Path):
    slices = series(tmp_path / "ct")
    members = {f"study/./IMAGES/{file.name}": file for file in slices} | {"study/notes.txt": png(tmp_path / "no.png")}
    path = zipped(tmp_path / "case.zip", members)
    before = path.read_bytes()
    with discover([path]) as sources:
        (source,) = sources
        assert (source.name, source.zipped, source.in_folder, len(source.files)) == ("case.zip", True, False, 3)
        image = read(source)
        (out,) = output_paths(sources, tmp_path)
        assert out == tmp_path / "case_sr.zip"
        enhance(source, out)
    np.testing.assert_array_equal(image.pixels, phantom(slices=3))
    assert path.read_bytes() == before
    with discover([out]) as sources:
        written = read(sources[0])
    np.testing.assert_array_equal(written.pixels, enlarged(image).pixels)
    np.testing.assert_allclose(written.grid.affine, enlarged(image).grid.affine, atol=1e-3)


def test_a_zip_of_one_radiograph_gives_a_zip(tmp_path: Path):
    path = zipped(tmp_path / "case.zip", {"IM1": radiograph(tmp_path / "x")})
    with discover([path]) as sources:
        enhance(sources[0], tmp_path / "out.zip")
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert archive.namelist() == ["0001.dcm"]


def test_an_error_in_a_file_of_a_zip_names_the_zip(tmp_path: Path):
    path = zipped(tmp_path / "case.zip", {"IM1": radiograph(tmp_path / "x", BitsStored=20)})
    with discover([path]) as sources, pytest.raises(InputError, match=r"^case.zip: 000000_IM1: stores 20 bits"):
        read(sources[0])


def test_a_zip_with_several_series_gives_numbered_sources(tmp_path: Path):
    members = {f"{n}/{f.name}": f for n in (1, 2) for f in series(tmp_path / str(n), uid=f"2.25.{n}")}
    zips = names(zipped(tmp_path / "case.zip", members))
    assert len(set(zips)) == 2
    assert all(re.fullmatch(r"case_series_[0-9a-f]{8}\.zip", name) for name in zips)


def test_films_of_a_zip_have_the_same_names_every_time(tmp_path: Path):
    path = zipped(tmp_path / "case.zip", {f"IM{n}": radiograph(tmp_path / f"film{n}") for n in (1, 2)})
    assert len(set(names(path))) == 2
    assert names(path) == names(path)


def test_a_zip_in_a_folder_is_found_and_one_without_images_is_left_out(tmp_path: Path, caplog):
    (tmp_path / "in" / "sub").mkdir(parents=True)
    zipped(tmp_path / "in" / "sub" / "case.zip", series(tmp_path / "ct"))
    zipped(tmp_path / "in" / "letter.docx", {"word.xml": png(tmp_path / "x.png")})
    assert names(tmp_path / "in") == ["sub/case.zip"]
    assert "letter.docx: no DICOM images in this zip" in caplog.text


def test_no_name_in_a_zip_leads_out_of_the_temporary_folder(tmp_path: Path):
    slices = series(tmp_path / "ct")
    names_out_of_the_folder = ["../../evil.dcm", "/evil.dcm", "..\\evil\0.dcm"]
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        for name, file in zip(names_out_of_the_folder, slices, strict=True):
            archive.writestr(zipfile.ZipInfo(name), file.read_bytes())
    with discover([tmp_path / "evil.zip"]) as sources:
        (source,) = sources
        assert len(source.files) == 3
        assert len({file.parent for file in source.files}) == 1
        assert source.files[0].parent.parent == Path(tempfile.gettempdir())
        read(source)


def test_a_link_in_a_zip_is_not_followed(tmp_path: Path):
    link = zipfile.ZipInfo("link.dcm")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        archive.writestr(link, str(radiograph(tmp_path / "film.dcm")))
    with pytest.raises(InputError, match=r"in\.zip: no DICOM images in this zip"):
        find(tmp_path / "in.zip")


def test_unpacked_files_are_gone_after_an_interrupt(tmp_path: Path):
    path = zipped(tmp_path / "case.zip", series(tmp_path / "ct"))
    with suppress(KeyboardInterrupt), discover([path]) as sources:
        file = sources[0].files[0]
        assert file.exists()
        raise KeyboardInterrupt
    assert not file.parent.exists()


def bomb(path: Path) -> Path:
    """A zip of one member of 3,000,000 zeros."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.dcm", bytes(3_000_000))
    return path


def change_zip(path: Path, code: str, value: int, at: int) -> None:
    """Change a number in the header of the first member, and in the directory, where it stands two bytes later."""
    data = bytearray(path.read_bytes())
    struct.pack_into(code, data, at, value)
    struct.pack_into(code, data, data.rindex(b"PK\x01\x02") + at + 2, value)
    path.write_bytes(data)


def test_files_of_a_zip_that_are_no_images_are_named_and_a_slice_that_may_be_missing_is_noted(tmp_path: Path, caplog):
    files = {path.name: path for path in series(tmp_path / "ct")}
    for name, content in (("viewer.exe", b"MZ"), ("IM7", b""), ("8.dcm", b"cut off")):
        files[name] = tmp_path / name
        files[name].write_bytes(content)
    (source,) = find(zipped(tmp_path / "case.zip", files))
    assert "case.zip: 3 file(s) are no DICOM images, and are left out: " in caplog.text
    assert source.notes == ("Slices may be missing: files in the zip are damaged or name no series: IM7, 8.dcm.",)


def test_a_series_in_a_zip_with_a_slice_that_is_cut_off_says_that_slices_may_be_missing(tmp_path: Path):
    slices = series(tmp_path / "ct", 4)
    last = sorted(slices, key=lambda file: file.stem[-1])[-1]
    last.write_bytes(last.read_bytes()[:500])
    sources = find(zipped(tmp_path / "case.zip", {path.name: path for path in slices}))
    assert sorted(len(source.files) for source in sources) == [1, 3]
    note = f"Slices may be missing: files in the zip are damaged or name no series: {last.name}."
    assert [source.notes for source in sources if len(source.files) == 3] == [(note,)]


def test_an_encrypted_zip_is_refused(tmp_path: Path):
    path = zipped(tmp_path / "in.zip", {"a.dcm": png(tmp_path / "a.png")})
    change_zip(path, "<H", 1, at=6)  # flags
    with pytest.raises(InputError, match=r"in\.zip: encrypted zip\. Unpack it with its password"):
        find(path)


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch):
    path = bomb(tmp_path / "in.zip")
    assert path.stat().st_size < 5000
    monkeypatch.setattr(zipped_files, "MAX_UNZIPPED_BYTES", 2_999_999)
    with pytest.raises(InputError, match=r"in\.zip: unpacks to 1 files of 3,000,000 bytes.*give the folder"):
        find(path)
    monkeypatch.setattr(zipped_files, "MAX_UNZIPPED_BYTES", 3_000_000)
    monkeypatch.setattr(zipped_files, "MAX_ZIPPED_FILES", 0)
    with pytest.raises(InputError, match="expected at most 0 and"):
        find(path)


def test_a_member_that_is_larger_than_its_zip_says_is_refused(tmp_path: Path):
    path = bomb(tmp_path / "in.zip")
    change_zip(path, "<I", 1000, at=22)  # uncompressed size
    with pytest.raises(InputError, match=r"in\.zip: damaged zip \(Bad CRC-32"):
        find(path)


def test_a_zip_that_does_not_fit_on_the_disk_is_refused(tmp_path: Path, monkeypatch):
    path = zipped(tmp_path / "in.zip", {"a.dcm": png(tmp_path / "a.png")})
    monkeypatch.setattr("shutil.disk_usage", lambda _path: SimpleNamespace(free=5))
    with pytest.raises(OutputError, match=r"in\.zip: unpacking needs \d+ bytes and .* has 5 free.*TMPDIR"):
        find(path)


def test_damaged_and_empty_zips_are_refused(tmp_path: Path):
    path = zipped(tmp_path / "in.zip", series(tmp_path / "ct"))
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(InputError, match=r"in\.zip: damaged zip.*Get the file again"):
        find(path)
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    with pytest.raises(InputError, match=r"empty\.zip: no DICOM images in this zip"):
        find(tmp_path / "empty.zip")


def test_results_keep_their_place_and_suffix_under_an_output_folder(tmp_path: Path):
    root = tmp_path / "in"
    for name in ("a.png", "a.jpg", "sub/a.png", "UPPER.PNG"):
        png(root / name)
    nifti(root / "v.nii.gz")
    series(root / "ct")
    radiograph(root / "1.2.840.1")
    radiograph(root / "x.IMA", modality="CR", SOPInstanceUID="2.25.99")  # of the same series
    results = output_paths(find(root), tmp_path / "out")
    assert " ".join(str(path.relative_to(tmp_path / "out")) for path in results) == (
        "1.2.840.1_sr.dcm UPPER_sr.PNG a_sr.jpg a_sr.png ct_sr sub/a_sr.png v_sr.nii.gz x_sr.IMA"
    )


def test_a_wrong_suffix_is_corrected_in_the_result_and_equal_names_are_numbered(tmp_path: Path):
    for name, kind in (("a", "PNG"), ("a.dcm", "PNG"), ("a.png", "PNG"), ("b.png", "JPEG")):
        png(tmp_path / "in" / name, format=kind)
    nifti(tmp_path / "in" / "c.nii").rename(tmp_path / "in" / "c.dat")
    results = output_paths(find(tmp_path / "in"), tmp_path / "out")
    assert [path.name for path in results] == ["a_sr.png", "a_sr_2.png", "a_sr_3.png", "b_sr.jpg", "c.dat_sr.nii"]


def test_equal_names_from_different_folders_keep_their_folders(tmp_path: Path):
    first, second = png(tmp_path / "one" / "a.png"), png(tmp_path / "two" / "A.PNG")
    other = png(tmp_path / "one" / "b.png")
    results = output_paths(find(first, second, other), tmp_path / "out")
    assert [str(path.relative_to(tmp_path / "out")) for path in results] == ["one/a_sr.png", "two/A_sr.PNG", "b_sr.png"]
    series(tmp_path / "p1" / "ct", uid="2.25.1")
    series(tmp_path / "p2" / "ct", uid="2.25.2")
    results = output_paths(find(tmp_path / "p1" / "ct", tmp_path / "p2" / "ct"), tmp_path / "out")
    assert [str(path.relative_to(tmp_path / "out")) for path in results] == ["p1/ct_sr", "p2/ct_sr"]


def test_one_source_goes_to_the_name_that_was_given(tmp_path: Path):
    a = find(png(tmp_path / "a.png"))
    ct = find(tmp_path / "ct") if series(tmp_path / "ct") else []
    out = tmp_path / "out"
    assert output_paths(a, out / "b.tif") == [out / "b.tif"]
    assert output_paths(a, out) == [out / "a_sr.png"]
    assert output_paths(a, f"{out}.d/") == [tmp_path / "out.d" / "a_sr.png"]
    assert output_paths(ct, out) == [out]
    assert output_paths(ct, f"{out}/") == [out / "ct_sr"]
    (tmp_path / "there.png").mkdir()
    assert output_paths(a, tmp_path / "there.png") == [tmp_path / "there.png" / "a_sr.png"]
    one_slice = find(ct[0].files[0])
    assert output_paths(one_slice, out / "IM.1") == [out / "IM.1"]


def test_a_name_of_another_kind_is_refused_before_anything_is_computed(tmp_path: Path):
    a, v = find(png(tmp_path / "a.png")), find(nifti(tmp_path / "v.nii"))
    series(tmp_path / "ct")
    ct, one_slice = find(tmp_path / "ct"), find(tmp_path / "ct" / os.listdir(tmp_path / "ct")[0])
    with discover([zipped(tmp_path / "z.zip", ct[0].files)]) as zip_sources:
        for sources, name, expected in (
            (a, "out.nii", r"a picture, expected a name ending in \.png or \.jpg.*\.tiff\. For"),
            (a, "out.v2", "a picture, .*end the name with a slash"),
            (v, "out.png", r"a NIfTI file, .*\.nii or \.nii\.gz\. For"),
            (one_slice, "out.png", r"a DICOM file, .*\.dcm or \.dicom or \.ima\. For"),
            (one_slice, "out.nii", r"a DICOM file, .*\.ima, or pass --output-format nifti\. For"),
            (zip_sources, "out.dcm", r"a zip of DICOM, .*\.zip\. For"),
        ):
            with pytest.raises(OutputError, match=rf"{name}: the result is {expected}"):
                output_paths(sources, tmp_path / name)
    with pytest.raises(OutputError, match=r"out\.dcm: the result of a series is a folder\. .* without \.dcm\.$"):
        output_paths(ct, tmp_path / "out.dcm")
    with pytest.raises(OutputError, match=r"folder\. .* without \.nii\.gz, or pass --output-format nifti\.$"):
        output_paths(ct, tmp_path / "out.nii.gz")


def test_a_result_is_not_written_under_the_name_of_another_kind(tmp_path: Path):
    image = read_one(radiograph(tmp_path / "film.dcm"))
    with pytest.raises(OutputError, match=r"out\.nii: the result is a DICOM file, .*\.ima\.$"):  # no word of options
        write(enlarged(image), provenance(), tmp_path / "out.nii")
    assert not (tmp_path / "out.nii").exists()


def test_several_images_do_not_go_to_the_name_of_one_file(tmp_path: Path):
    sources = find(png(tmp_path / "a.png"), png(tmp_path / "b.png"))
    with pytest.raises(OutputError, match=r"o\.png: the results of 2 images need a folder, .* name of one file\. Name"):
        output_paths(sources, tmp_path / "o.png")
    with pytest.raises(OutputError, match=r"b\.png: the results of 2 images need a folder"):
        output_paths(sources, tmp_path / "b.png")
    assert output_paths(sources, f"{tmp_path}/o.png/")[0] == tmp_path / "o.png" / "a_sr.png"
    assert output_paths(sources, tmp_path / "o")[0] == tmp_path / "o" / "a_sr.png"


def test_an_output_is_never_an_input(tmp_path: Path):
    a, b = png(tmp_path / "a.png"), tmp_path / "b.png"
    os.link(a, b)
    (tmp_path / "c.png").symlink_to(a)
    for out in (a, b, tmp_path / "c.png", tmp_path / "x" / ".." / "a.png"):
        with pytest.raises(OutputError, match=r"is an input, and inputs are never changed"):
            output_paths(find(a), out)
    png(tmp_path / "a_sr.png")
    with pytest.raises(OutputError, match=r"a_sr\.png: is an input"):
        output_paths(find(a, tmp_path / "a_sr.png"), tmp_path)


def test_an_output_never_lies_in_the_folder_of_a_series_nor_around_an_input(tmp_path: Path):
    series(tmp_path / "ct")
    ct = find(tmp_path / "ct")
    for out in (tmp_path / "ct", tmp_path / "ct" / "out", tmp_path / "ct" / "a" / "b"):
        with pytest.raises(OutputError, match="lies in the folder of a source series"):
            output_paths(ct, out)
    series(tmp_path / "out" / "ct_sr" / "old")
    png(tmp_path / "out" / "ct_sr" / "a.png")
    with pytest.raises(OutputError, match="holds an input"):
        output_paths(find(tmp_path / "ct", tmp_path / "out" / "ct_sr" / "a.png"), tmp_path / "out")


def test_a_series_goes_to_the_same_folder_the_second_time(tmp_path: Path):
    series(tmp_path / "ct")
    (source,) = find(tmp_path / "ct")
    out = tmp_path / "out"
    assert output_paths([source], out) == [out]
    enhance(source, out)
    assert output_paths([source], out) == [out]
    assert output_paths([source], f"{out}/") == [out / "ct_sr"]  # where a folder of results was asked for
    for name in ("series of someone else", "with notes"):
        shutil.copytree(tmp_path / "ct", tmp_path / name)
    shutil.copytree(out, tmp_path / "with notes", dirs_exist_ok=True)
    (tmp_path / "with notes" / "notes.txt").touch()
    for name in ("series of someone else", "with notes"):
        assert output_paths([source], tmp_path / name) == [tmp_path / name / "ct_sr"]


def test_each_kind_comes_back_as_its_kind(tmp_path: Path):
    root = tmp_path / "in"
    png(root / "a.png", dpi=(254, 254))
    nifti(root / "v.nii.gz")
    radiograph(root / "r.dcm")
    series(root / "ct")
    before = {file: file.read_bytes() for file in root.rglob("*") if file.is_file()}
    sources = find(root)
    for source, out in zip(sources, output_paths(sources, tmp_path / "out"), strict=True):
        assert enhance(source, out) == out
    results = find(tmp_path / "out")
    formats = {source.name: source.format for source in results}
    assert formats == {"a_sr.png": "png", "ct_sr": "dicom", "r_sr.dcm": "dicom", "v_sr.nii.gz": "nifti"}
    for old, new in zip(sources, results, strict=True):
        expected = enlarged(read(old))
        np.testing.assert_array_equal(read(new).pixels, expected.pixels)
        np.testing.assert_allclose(read(new).grid.spacing_xyz, expected.grid.spacing_xyz, rtol=1e-4)
    assert {file: file.read_bytes() for file in root.rglob("*") if file.is_file()} == before
    assert not [name for _, folders, _ in os.walk(tmp_path) for name in folders if name.startswith(".")]


@pytest.mark.parametrize("as_zip", [False, True])
def test_a_series_of_scouts_is_left_out_beside_a_ct(tmp_path: Path, as_zip: bool):
    path = tmp_path / "study"
    slices = series(path / "ct", 2)
    scouts = [path / "scouts" / f"scout{number}.dcm" for number in (1, 2)]
    scouts[0].parent.mkdir()
    for number, scout in enumerate(scouts):
        image_type = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        ct_slice(scout, number=number, ImageType=image_type, SeriesInstanceUID="2.25.2")
    if as_zip:
        path = zipped(tmp_path / "study.zip", [*slices, *scouts])
    left_out: list[files.LeftOutFile] = []
    with discover([path], left_out=left_out) as sources:
        (source,) = sources
        assert read(source).pixels.shape[0] == 2
    assert [file.reason for file in left_out] == ["a localizer (scout) of a CT"]
    (alone,) = find(tmp_path / "study" / "scouts")
    with pytest.raises(InputError, match=r"2 CT localizers \(scouts\), expected the slices of a CT"):
        read(alone)


def test_a_slice_with_a_scout_is_written_as_a_folder_without_it(tmp_path: Path):
    series(tmp_path / "ct", 1)
    scout = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "SeriesInstanceUID": "2.25.1"}
    ct_slice(tmp_path / "ct" / "scout.dcm", number=9, **scout)
    (source,) = find(tmp_path / "ct")
    assert len(source.files) == 2
    enhance(source, tmp_path / "out")
    assert os.listdir(tmp_path / "out") == ["0001.dcm"]


def test_a_folder_is_replaced_only_if_it_holds_nothing_but_dicom(tmp_path: Path):
    series(tmp_path / "ct")
    (source,) = find(tmp_path / "ct")
    enhance(source, tmp_path / "out")
    enhance(source, tmp_path / "out", overwrite=True)
    (tmp_path / "out" / "thesis.txt").write_text("the only copy")
    with pytest.raises(OutputError, match=r"out: would be replaced, but holds thesis\.txt, which is no DICOM"):
        enhance(source, tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "thesis.txt").read_text() == "the only copy"
