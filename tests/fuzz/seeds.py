"""Valid files that cases begin with, as bytes by name; small, and of phantoms that never were patients."""

from __future__ import annotations

import gzip
import io
import json
import tempfile
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import nibabel
import numpy as np
import PIL.Image
from monai_sr_bundle.boxes.box import Box
from monai_sr_bundle.boxes.dicom_report_write import write_report
from monai_sr_bundle.boxes.readings import ImageIdentity, Reader, Reading, format_readings
from monai_sr_bundle.images.dicom_read import read_headers
from monai_sr_bundle.shipped_bundles import configs_dir
from pydicom import dcmread, uid
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset

from tests.images.dicom_files import SOURCES, ct_series, phantom, radiograph

Files = dict[str, bytes]
"""Content of each file of a case, by its name inside the folder of the case."""

SHIPPED_WITH_PYDICOM = (
    "JPEGLSNearLossless_16.dcm", "JPEGLSNearLossless_08.dcm", "MR_small_jpeg_ls_lossless.dcm", "JPEG2000.dcm",
    "JPGExtended.dcm", "JPEG-lossy.dcm", "SC_rgb_small_odd_jpeg.dcm", "image_dfl.dcm",
)  # fmt: skip
BUNDLES = (
    "bicubic", "chest_xray_residual_flow_x4", "chest_xray_blind", "chest_ct_throughplane", "chest_xray_sr3_x4",
    "chest_xray_latent_diffusion_x4", "chest_ct_residual_flow_x4",
)  # fmt: skip
CALIBRATED = "chest_xray_edsr_x4"
IMAGE = "film.dcm"
"""The image that boxes and reports of the seeds belong to."""


def _written(write: Callable[[Path], object]) -> Files:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def _encoded(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def zip_files(files: Files, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a zip of files, the same bytes at any time."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return buffer.getvalue()


def unzip_files(data: bytes) -> Files:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_files(files: Files, folder: Path) -> None:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


@cache
def dicom() -> tuple[Files, ...]:
    """One file of each kind, and of each transfer syntax."""
    seeds = [_written(lambda folder, write=write: write(folder / "x.dcm")) for write in SOURCES.values()]
    ct = seeds[0]["x.dcm"]
    large = phantom(64, 64, dtype="uint16")[0]  # JPEG 2000 has a smallest size
    film = _written(lambda folder: radiograph(folder / "x.dcm", large))["x.dcm"]
    for syntax in (uid.RLELossless, uid.JPEG2000Lossless):
        dataset = dcmread(io.BytesIO(film))
        dataset.compress(syntax, generate_instance_uid=False)
        seeds.append({"x.dcm": _encoded(dataset)})
    for syntax in (uid.DeflatedExplicitVRLittleEndian, uid.ImplicitVRLittleEndian):
        dataset = dcmread(io.BytesIO(ct))
        dataset.file_meta.TransferSyntaxUID = syntax
        seeds.append({"x.dcm": _encoded(dataset)})
    little = dcmread(io.BytesIO(ct))
    little.PixelData = np.frombuffer(little.PixelData, "<u2").astype(">u2").tobytes()
    big = Dataset()
    big.update({element.tag: element for element in little})
    big.file_meta = FileMetaDataset()
    big.file_meta.update(little.file_meta)
    big.file_meta.TransferSyntaxUID = uid.ExplicitVRBigEndian
    seeds.append({"x.dcm": _encoded(big)})
    files = (Path(get_testdata_file(name, download=False)) for name in SHIPPED_WITH_PYDICOM)
    compressed = [{"x.dcm": file.read_bytes()} for file in files]
    return tuple(4 * seeds + compressed)  # most of these start a process, which takes longer than all else


@cache
def series() -> tuple[Files, ...]:
    """Folders of CT slices, one of them with a scout."""

    def with_scout(folder: Path) -> None:
        files = ct_series(folder, phantom(12, 10, slices=4))
        scout = dcmread(files[0])
        scout.ImageType, scout.SOPInstanceUID = ["ORIGINAL", "PRIMARY", "LOCALIZER"], "2.25.77"
        scout.save_as(folder / "scout.dcm")

    return _written(lambda folder: ct_series(folder, phantom(12, 10, slices=4))), _written(with_scout)


@cache
def zips() -> tuple[Files, ...]:
    """A zip of a series, compressed and stored."""

    files = _written(lambda folder: ct_series(folder, phantom(12, 10, slices=3)))
    return tuple({"x.zip": zip_files(files, method)} for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED))


@cache
def nifti() -> tuple[Files, ...]:
    """NIfTI-1 and NIfTI-2, gzipped and not, of several types, flat and of volumes."""
    seeds: list[Files] = []
    numbers = np.random.default_rng(0).integers(-1000, 1000, (11, 10, 3))
    for kind in (nibabel.Nifti1Image, nibabel.Nifti2Image):
        for dtype in (np.int16, np.float32, np.uint8):
            image = kind(numbers.astype(dtype), np.diag([0.7, 0.8, 2.5, 1.0]))
            image.set_qform(image.affine, 1)
            seeds.append({"x.nii": image.to_bytes()})
    seeds.append({"x.nii": nibabel.Nifti1Image(numbers[..., 0].astype(np.int16), np.eye(4)).to_bytes()})
    seeds += [{"x.nii.gz": gzip.compress(seed["x.nii"], mtime=0)} for seed in (seeds[0], seeds[4])]
    return tuple(seeds)


@cache
def pictures() -> tuple[Files, ...]:
    """PNG, JPEG and TIFF of each kind of sample that is read, and some that are not."""
    grey = phantom(18, 16, dtype="uint8", bright=200)[0]
    deep, real = grey.astype(np.uint16) * 200, grey.astype(np.float32)
    colours = np.repeat(grey[..., None], 3, axis=2)
    seeds: list[Files] = []
    for suffix, pages, options in (
        ("png", [grey], {}), ("png", [deep], {"dpi": (300, 300)}), ("png", [colours], {}),
        ("jpg", [grey], {"quality": 90, "dpi": (150, 150)}), ("jpg", [colours], {"progressive": True}),
        ("tif", [grey], {"dpi": (100, 100)}), ("tif", [deep, deep], {"compression": "tiff_lzw"}),
        ("tif", [real], {"compression": "tiff_adobe_deflate"}), ("tif", [grey], {"compression": "packbits"}),
        ("tif", [grey], {"big_tiff": True}),
    ):  # fmt: skip
        buffer = io.BytesIO()
        first, *others = [PIL.Image.fromarray(page) for page in pages]
        more = {"save_all": True, "append_images": others} if others else {}
        first.save(buffer, format={"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix.upper()), **options, **more)
        seeds.append({f"x.{suffix}": buffer.getvalue()})
    return tuple(seeds)


BOXES = (
    Box("Nodule", 3.25, 5.5, 9.75, 20.125, reader="R1", certainty=0.8),
    Box("Effusion", 0, 0, 20, 24, reader="R1"),
)


@cache
def boxes() -> tuple[Files, ...]:
    """A film with boxes as a table and as readings."""
    film = _written(lambda folder: radiograph(folder / IMAGE))
    reading = Reading(ImageIdentity("film.dcm", columns=20, rows=24), Reader("R1"), BOXES, status="submitted")
    rows = "".join(f"film.dcm,{box.finding},{','.join(map(str, box.xyxy))},0,R1,0.5\n" for box in BOXES)
    table = f"image,finding,x_min,y_min,x_max,y_max,slice_index,reader,certainty\n{rows}"
    return film | {"x.json": format_readings([reading]).encode()}, film | {"x.csv": table.encode()}


@cache
def reports() -> tuple[Files, ...]:
    """Structured Reports of boxes on a film, and one on a volume, in millimetres."""

    def on_a_film(folder: Path) -> None:
        write_report(BOXES, read_headers([radiograph(folder / IMAGE)], folder)[0], folder / "x.dcm")

    def on_a_volume(folder: Path) -> None:
        headers, _ = read_headers(ct_series(folder / "ct", phantom(slices=3)), folder)
        write_report([Box("Nodule", 3, 5, 9, 20, slice_index=1)], headers, folder / "x.dcm", in_patient=True)
        for file in (folder / "ct").iterdir():
            file.unlink()

    return _written(on_a_film), _written(on_a_volume)


@cache
def calibrations() -> tuple[Files, ...]:
    """The calibration that a bundle is shipped with."""
    return ({"calibration.json": (configs_dir() / CALIBRATED / "calibration.json").read_bytes()},)


@cache
def bundles() -> tuple[Files, ...]:
    """The texts of shipped bundles, without their weights."""
    return tuple(
        {f"b/{text}": (configs_dir() / name / text).read_bytes() for text in ("model.yaml", "metadata.json")}
        for name in BUNDLES
    )


@cache
def manifests() -> tuple[Files, ...]:
    """A data set of two radiographs with boxes, and one of a volume; the images are empty files."""
    films = (
        "file,split,license,patient_id,view,labels,width,height,mm_per_pixel,sha256\n"
        "a.png,train,CC0,p1,PA,Nodule|Mass,512,512,0.14,\nb.png,test,CC0,p2,AP,,512,512,,\n"
    )
    volumes = (
        "file,split,license,patient_id,shape_xyz,spacing_mm,hu_min,hu_max,kernel\n"
        "v.nii,val,CC0,p3,64x64x8,0.7x0.7x2.5,-1024,3071,B30\n"
    )
    table = "image,finding,x_min,y_min,x_max,y_max,reader\na.png,Nodule,1,2,30.5,40,R1\n"
    return (
        {"manifest.csv": films.encode(), "boxes.csv": table.encode(), "a.png": b"", "b.png": b""},
        {"manifest.csv": volumes.encode(), "v.nii": b""},
    )


@cache
def requests() -> tuple[Files, ...]:
    """Lines that a viewer sends to its worker."""
    array = io.BytesIO()
    np.save(array, phantom(16, 16, dtype="int16"))
    plan = {
        "do": "plan", "id": 1, "shape": [1, 64, 64], "modality": "CXR", "bundle": "bicubic", "scale": 2,
        "region": [0, 1, 0, 16, 0, 16], "spacing": [0.7, 0.7, 1.0],
    }  # fmt: skip
    wish = {"do": "enhance", "id": 2, "array": "{folder}/x.npy", "out": "{folder}", "modality": "CT",
            "bundle": "bicubic", "region": [0, 1, 0, 8, 0, 8]}  # fmt: skip
    lines = [json.dumps(line).encode() for line in (plan, wish, {"do": "bundles", "id": "b"})]
    return tuple({"request.json": line, "x.npy": array.getvalue()} for line in lines)
