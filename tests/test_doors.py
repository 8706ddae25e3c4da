"""One engine, several interfaces: the same bundle gives the same pixels through each of them."""

import nibabel
import numpy as np
import pytest
from monai.bundle import ConfigWorkflow

from monai_sr_bundle import enhance
from monai_sr_bundle.__main__ import main
from monai_sr_bundle.backends.opening import open_backend
from monai_sr_bundle.bundles import configs_dir, find_bundle
from monai_sr_bundle.datasets.phantom import draw_phantom, write_phantom_png
from monai_sr_bundle.images import files
from tests.images.dicom_files import TILTED, ct_series, radiograph

AFFINE = np.array([[0.05, -0.7, 0, 10], [0.7, 0.02, 0.1, -20], [0, 0.05, 5, 30], [0, 0, 0, 1.0]])


def draw(kind, folder):
    """An image of a kind, and the bundle for it."""
    film = draw_phantom(48)[:40]
    if kind == "png":
        write_phantom_png(folder / "chest.png", 48)
        return folder / "chest.png", "chest_xray_edsr_x4"
    if kind == "radiograph":
        return radiograph(folder / "chest.dcm", np.rint(film * 4095).astype(np.uint16)), "chest_xray_edsr_x4"
    hounsfield = np.rint(np.stack([film, film[::-1], film[:, ::-1]]) * 1400 - 1000).astype(np.int16)
    if kind == "series":
        ct_series(folder / "ct", (hounsfield + 1024).astype(np.uint16), TILTED)
        return folder / "ct", "chest_ct_edsr_x4"
    image = nibabel.Nifti1Image(hounsfield.T, AFFINE)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, folder / "ct.nii.gz")
    return folder / "ct.nii.gz", "chest_ct_edsr_x4"


def through_monai(config, root, source, out):
    """What `python -m monai.bundle run` does, in this process."""
    workflow = ConfigWorkflow(
        config, logging_file=False, bundle_root=str(root), dataset_dir=str(source), output_dir=str(out)
    )
    workflow.initialize()
    workflow.run()
    workflow.finalize()
    return files.read_one(next(path for path in out.iterdir()))


@pytest.mark.parametrize("kind", ["png", "radiograph", "series", "nifti"])
def test_every_interface_gives_the_same_pixels_on_the_same_grid(packed, tmp_path, kind):
    source, bundle = draw(kind, tmp_path)
    folder = configs_dir() / bundle
    expected = enhance(source, bundle, backend="torch").image
    assert (
        main(
            [
                "enhance",
                str(source),
                f"{tmp_path / 'cli'}/",
                "--bundle",
                bundle,
                "--backend",
                "torch",
                "--quiet",
                "--progress",
                "none",
            ]
        )
        == 0
    )
    checkout = [str(folder / "model.yaml"), str(configs_dir() / "workflows" / "inference.yaml")]
    package = packed(bundle)
    interfaces = {
        "command line": files.read_one(next((tmp_path / "cli").iterdir())),
        "monai.bundle run": through_monai(checkout, folder, source, tmp_path / "monai"),
        "packed bundle": through_monai(
            str(package / "configs" / "inference.yaml"), package, source, tmp_path / "packed"
        ),
        "packed bundle by its folder": enhance(source, str(package), backend="torch").image,
    }
    for interface, image in interfaces.items():
        assert image.pixels.dtype == expected.pixels.dtype, interface
        np.testing.assert_array_equal(image.pixels, expected.pixels, err_msg=interface)
        if expected.grid.in_millimetres:
            np.testing.assert_allclose(image.grid.spacing_xyz, expected.grid.spacing_xyz, rtol=1e-6, err_msg=interface)
        if len(image.pixels) > 1:  # a radiograph's file does not say where the detector was
            np.testing.assert_allclose(image.grid.affine, expected.grid.affine, atol=1e-3, err_msg=interface)


@pytest.mark.parametrize("bundle", ["bicubic", "chest_xray_edsr_x4", "chest_ct_edsr_x4"])
def test_the_two_backends_agree_to_1e_4_of_the_window(bundle):
    chest = draw_phantom(56)[None, None, :40]
    by_torch, by_onnx = (
        open_backend(find_bundle(bundle), backend, "cpu").run("model", chest) for backend in ("torch", "onnx")
    )
    assert by_torch.shape == (1, 1, 160, 224)
    np.testing.assert_allclose(by_torch, by_onnx, rtol=0, atol=1e-4)


def test_the_command_line_and_monai_choose_the_same_names(tmp_path):
    images = tmp_path / "images"
    (images / "ward").mkdir(parents=True)
    for name in ("a.png", "ward/a.png"):
        write_phantom_png(images / name, 32)
    main(["enhance", str(images), f"{tmp_path / 'cli'}/", "--bundle", "bicubic", "--quiet", "--progress", "none"])
    config = [str(configs_dir() / name) for name in ("bicubic/model.yaml", "workflows/inference.yaml")]
    through_monai_all(config, images, tmp_path / "monai")
    found = [
        sorted(path.relative_to(tmp_path / interface) for path in (tmp_path / interface).rglob("*.png"))
        for interface in ("cli", "monai")
    ]
    assert len(found[0]) == 2
    assert found[0] == found[1]
    with files.discover([tmp_path / "cli"]) as cli, files.discover([tmp_path / "monai"]) as monai:
        for one, other in zip(cli, monai, strict=True):
            np.testing.assert_array_equal(files.read(one).pixels, files.read(other).pixels)


def through_monai_all(config, source, out):
    workflow = ConfigWorkflow(
        config,
        logging_file=False,
        bundle_root=str(configs_dir() / "bicubic"),
        dataset_dir=str(source),
        output_dir=str(out),
    )
    workflow.initialize()
    workflow.run()
