import zipfile

import nibabel
import numpy as np
import pytest
import torch
from monai.transforms import Compose, SaveImaged
from monai_sr_bundle import enhance
from monai_sr_bundle.datasets.phantom import draw_phantom, write_phantom_png
from monai_sr_bundle.engine.monai_inferer import TiledInferer
from monai_sr_bundle.errors import InputError, OutputError, UsageError
from monai_sr_bundle.images.picture import read_picture
from monai_sr_bundle.inferers.data_consistency import ArtifactReport
from monai_sr_bundle.shipped_bundles import configs_dir
from monai_sr_bundle.training.progress import BestWeights
from monai_sr_bundle.transforms.image_files import ReadImaged, StoredNumbersd, WriteImaged, find_source, image_items
from PIL import Image

from tests.images.dicom_files import ct_series, radiograph

AFFINE = np.array([[0.05, -0.7, 0, 10], [0.7, 0.02, 0.1, -20], [0, 0.05, 5, 30], [0, 0, 0, 1.0]])


@pytest.fixture
def volume(tmp_path):
    """An oblique NIfTI of HU, 12 columns, 10 rows, 4 slices."""
    stored = np.random.default_rng(0).integers(-1000, 400, (12, 10, 4)).astype(np.int16)
    image = nibabel.Nifti1Image(stored, AFFINE)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, tmp_path / "ct.nii.gz")
    return tmp_path / "ct.nii.gz"


def writer(tmp_path, bundle="bicubic", checkpoint="", **options):
    """The last two steps of a workflow."""
    write = WriteImaged(
        "pred",
        output_dir=str(tmp_path / "out"),
        bundle_root=str(configs_dir() / bundle),
        checkpoint=checkpoint,
        device=torch.device("cpu"),
        **options,
    )
    return Compose([StoredNumbersd("pred", scale=4, modality="any", window=[0, 255]), write])


def repeated(image, times=4):
    """An enlargement by repetition."""
    return image.repeat_interleave(times, 1).repeat_interleave(times, 2)


def test_a_volume_is_rows_columns_slices_in_units_of_the_window(volume):
    image = ReadImaged("image", modality="CT", window=[-1000, 400])({"image": str(volume)})["image"]
    assert image.shape == (1, 10, 12, 4)
    assert image.dtype == torch.float32
    stored = nibabel.load(volume).get_fdata()
    np.testing.assert_allclose(image[0].numpy(), (stored.swapaxes(0, 1) + 1000) / 1400, atol=1e-6)


def test_the_affine_leads_from_row_column_slice_to_ras(volume):
    image = ReadImaged("image", modality="CT", window=[-1000, 400])({"image": str(volume)})["image"]
    column, row, index = 7, 3, 2
    np.testing.assert_allclose(
        image.affine.numpy() @ [row, column, index, 1], AFFINE @ [column, row, index, 1], atol=1e-5
    )


def test_a_radiograph_has_no_axis_of_slices_and_more_is_whiter(tmp_path):
    pixels = np.arange(120, dtype=np.uint16).reshape(10, 12)
    file = radiograph(tmp_path / "chest.dcm", pixels, PhotometricInterpretation="MONOCHROME1")
    image = ReadImaged("image", modality="CXR", window=[0, 255])({"image": str(file)})["image"]
    assert image.shape == (1, 10, 12)
    assert image[0, 0, 0] == 1
    assert image[0, -1, -1] == 0


def test_without_a_named_result_the_output_folder_gets_it(tmp_path):
    write_phantom_png(tmp_path / "chest.png", 32)
    image = ReadImaged("image", modality="any", window=[0, 255])({"image": str(tmp_path / "chest.png")})["image"]
    writer(tmp_path)({"image": image, "pred": repeated(image)})
    assert read_picture(tmp_path / "out" / "chest_sr.png").pixels.shape == (1, 128, 128)


def test_a_zip_is_refused_by_name(tmp_path):
    write_phantom_png(tmp_path / "chest.png", 32)
    ct_series(tmp_path / "series", np.zeros((2, 10, 12), np.uint16))
    with zipfile.ZipFile(tmp_path / "series.zip", "w") as archive:
        for file in (tmp_path / "series").iterdir():
            archive.write(file, file.name)
    with pytest.raises(InputError, match=r"series\.zip: a zip, expected image files\. Unpack it"):
        image_items(str(tmp_path / "series.zip"), str(tmp_path / "out"))
    with pytest.raises(InputError, match=r"series\.zip: a zip, expected image files"):
        find_source(str(tmp_path / "series.zip"))


def test_an_older_result_stops_the_run_before_it_begins(tmp_path):
    write_phantom_png(tmp_path / "chest.png", 32)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "chest_sr.png").touch()
    with pytest.raises(OutputError, match="exists already"):
        image_items(str(tmp_path / "chest.png"), str(tmp_path / "out"))
    assert len(image_items(str(tmp_path / "chest.png"), str(tmp_path / "out"), overwrite=True)) == 1


@pytest.mark.parametrize(
    ("name", "construct"),
    [
        ("overwrite", lambda tmp_path, **option: writer(tmp_path, **option)),
        ("force", lambda _, **option: ReadImaged("image", modality="CT", window=[0, 1], **option)),
        ("force_model", lambda _, **option: ReadImaged("image", modality="CT", window=[0, 1], **option)),
        ("consistency", lambda _, **option: StoredNumbersd("pred", scale=4, modality="CT", window=[0, 1], **option)),
        ("consistency", lambda _, **option: TiledInferer("one_pass", 4, 4, 400, "area_x4", **option)),
        ("resume", lambda tmp_path, **option: BestWeights(str(tmp_path), {"model": torch.nn.Linear(1, 1)}, **option)),
    ],
)
def test_a_text_is_no_yes_or_no(tmp_path, name, construct):
    with pytest.raises(UsageError, match=f"{name} is false, expected True or False"):
        construct(tmp_path, **{name: "false"})


@pytest.mark.parametrize(("checkpoint", "named"), [("", "empty"), ("runs/none.pt", "runs/none.pt")])
def test_a_network_without_its_weights_writes_nothing(tmp_path, checkpoint, named):
    with pytest.raises(UsageError, match=f"checkpoint is {named}, expected a file with weights of chest_xray_srcnn_x4"):
        writer(tmp_path, bundle="chest_xray_srcnn_x4", checkpoint=checkpoint)


def test_what_cannot_be_read_is_left_out_of_a_folder_before_anything_is_computed(tmp_path, caplog):
    for name in ("a.png", "z.png"):
        write_phantom_png(tmp_path / name, 32)
    Image.new("RGB", (32, 32), (200, 30, 30)).save(tmp_path / "m.png")
    (tmp_path / "n.png").write_bytes(b"no picture")
    header = nibabel.Nifti1Header()
    header.set_data_shape((30000, 30000, 2000))
    (tmp_path / "huge.nii").write_bytes(header.binaryblock + bytes(100))
    reader = ReadImaged("image", modality="any", window=[0, 255])
    items = image_items(str(tmp_path), str(tmp_path / "out"), reader=reader)
    assert [item["result"] for item in items] == [str(tmp_path / "out" / f"{name}_sr.png") for name in "az"]
    assert [record.message.partition(":")[0] for record in caplog.records] == ["n.png", "huge.nii", "m.png"]
    for name in ("a.png", "z.png"):
        (tmp_path / name).unlink()
    Image.new("RGB", (32, 32), (200, 30, 30)).save(tmp_path / "o.png")
    with pytest.raises(InputError, match="none of its 3 images can be enlarged"):
        image_items(str(tmp_path), str(tmp_path / "out"), reader=reader)


def test_an_empty_name_is_not_the_working_folder(tmp_path):
    with pytest.raises(UsageError, match="dataset_dir is empty, expected an image or a folder"):
        image_items("", str(tmp_path))


@pytest.mark.parametrize("window", [[0, 0], [255, 0], [0], 5, ["dark", "bright"]])
def test_a_window_is_two_rising_numbers(window):
    with pytest.raises(UsageError, match=r"window is .*, expected two rising numbers"):
        ReadImaged("image", modality="any", window=window)


@pytest.mark.parametrize("bundle", ["chest_xray_edsr_x4", "chest_xray_blind"])
def test_a_bundle_says_where_an_image_is_unlike_its_training_inputs_in_the_words_of_the_engine(
    tmp_path, caplog, bundle
):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "noisy.png")
    root = str(configs_dir() / bundle)
    reader = ReadImaged("image", modality="CXR", window=[0, 255], bundle_root=root, force_model=True)
    reader({"image": str(tmp_path / "noisy.png")})
    messages = {record.message for record in caplog.records}
    expected = enhance(tmp_path / "noisy.png", bundle, force_model=True).warnings
    assert {f"noisy.png: {sentence}" for sentence in expected if "trained on" in sentence} <= messages
    assert any("noisier than those the model was trained on" in sentence for sentence in messages)


def test_a_single_slice_for_a_network_of_several_is_told_in_the_words_of_the_engine(tmp_path, caplog):
    flat = nibabel.Nifti1Image((draw_phantom(40) * 1400 - 1000).astype(np.int16), np.diag([0.7, 0.7, 5, 1]))
    nibabel.save(flat, tmp_path / "slice.nii.gz")
    root = str(configs_dir() / "chest_ct_residual_flow_x4")
    ReadImaged("image", modality="CT", window=[-1000, 400], bundle_root=root)({"image": str(tmp_path / "slice.nii.gz")})
    sentence = "A single slice: chest_ct_residual_flow_x4 sees 3, and took it for its own neighbours."
    assert f"slice.nii.gz: {sentence}" in {record.message for record in caplog.records}
    assert sentence in enhance(tmp_path / "slice.nii.gz", "chest_ct_residual_flow_x4").warnings


def test_a_folder_of_two_images_is_not_one_image(tmp_path):
    for name in ("a.png", "b.png"):
        write_phantom_png(tmp_path / name, 32)
    with pytest.raises(InputError, match="holds 2 images, expected one image file"):
        find_source(str(tmp_path))


def test_another_modality_is_refused_unless_forced(tmp_path, caplog):
    file = radiograph(tmp_path / "chest.dcm", np.arange(120, dtype=np.uint16).reshape(10, 12))
    with pytest.raises(InputError, match="this is CXR, but bundle of this config is made for CT"):
        ReadImaged("image", modality="CT", window=[-1000, 400])({"image": str(file)})
    ReadImaged("image", modality="CT", window=[-1000, 400], force=True)({"image": str(file)})
    assert "forced onto CXR" in caplog.text


def test_a_source_that_was_changed_meanwhile_is_refused(tmp_path):
    write_phantom_png(tmp_path / "chest.png", 32)
    image = ReadImaged("image", modality="any", window=[0, 255])({"image": str(tmp_path / "chest.png")})["image"]
    (tmp_path / "chest.png").unlink()
    write_phantom_png(tmp_path / "chest.png", 40)
    with pytest.raises(RuntimeError) as raised:
        writer(tmp_path)({"image": image, "pred": repeated(image)})
    assert isinstance(raised.value.__cause__, InputError)
    assert "The file may have changed meanwhile" in str(raised.value.__cause__)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("count", [2, 0])
def test_what_a_network_has_removed_is_told_where_the_result_is_written(tmp_path, caplog, count):
    write_phantom_png(tmp_path / "chest.png", 32)
    image = ReadImaged("image", modality="any", window=[0, 255])({"image": str(tmp_path / "chest.png")})["image"]
    caplog.clear()
    removed = ArtifactReport(np.zeros((1, 32, 32), bool), np.ones((1, 32, 32), bool), count, 0.01)
    inferer = TiledInferer("one_pass", scale=4, halo=4, memory_per_pixel=400, operator="area_x4")
    inferer.removed = {image.meta["filename_or_obj"]: removed}
    writer(tmp_path, inferer=inferer)({"image": image, "pred": repeated(image)})
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == ([f"chest.png: {removed.sentence}"] if count else [])


def test_a_volume_comes_back_in_hu_with_columns_first_and_every_landmark_at_its_place(volume):
    item = ReadImaged("image", modality="CT", window=[-1000, 400])({"image": str(volume)})
    item["pred"] = repeated(item["image"].as_tensor(), 2)
    affine = item["image"].affine.clone().numpy()
    values = StoredNumbersd("pred", scale=2, modality="CT", window=[-1000, 400])(item)["pred"]
    assert values.dtype == torch.int16
    stored = np.asarray(nibabel.load(volume).dataobj)
    np.testing.assert_array_equal(values.numpy(), stored.repeat(2, axis=0).repeat(2, axis=1))
    middle_of_children = [2 * 5 + 0.5, 2 * 3 + 0.5, 2, 1]
    np.testing.assert_allclose(values.affine.numpy() @ middle_of_children, affine @ [3, 5, 2, 1], atol=1e-5)
    assert values.meta["files"] == item["image"].meta["files"]
    np.testing.assert_array_equal(item["image"].affine, affine)  # the source keeps its own grid


def test_padding_does_not_change_the_units_of_an_image_of_any_modality(tmp_path):
    hu = np.full((64, 64), 40, dtype=np.int16)
    hu[:, :8], hu[20:30, 20:30] = -3024, -850
    nibabel.save(nibabel.Nifti1Image(hu[..., None], np.eye(4)), tmp_path / "ct.nii")
    item = ReadImaged("image", modality="any", window=[0, 255])({"image": str(tmp_path / "ct.nii")})
    item["pred"] = item["image"]
    changed = StoredNumbersd("pred", scale=1, modality="any", window=[0, 255])(item)["pred"]
    np.testing.assert_array_equal(changed.numpy().squeeze()[8:], hu[8:])


def test_rescaled_storage_comes_back_in_modality_values(tmp_path):
    ct_series(tmp_path / "series", np.arange(240, dtype=np.uint16).reshape(2, 10, 12))
    item = ReadImaged("image", modality="CT", window=[-1000, 400])({"image": str(tmp_path / "series")})
    item["pred"] = item["image"]
    changed = StoredNumbersd("pred", scale=1, modality="CT", window=[-1000, 400])(item)
    image = changed["pred_written"]
    assert (image.slope, image.intercept) != (1, 0)
    values = image.pixels * image.slope + image.intercept
    np.testing.assert_array_equal(changed["pred"].numpy(), np.moveaxis(values, 0, -1).swapaxes(0, 1))


def test_applications_that_save_results_themselves_can_leave_the_writer_out(tmp_path):
    assert isinstance(writer(tmp_path).transforms[-1], SaveImaged)
