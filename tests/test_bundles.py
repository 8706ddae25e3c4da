import json
import shutil

import pytest

from monai_sr_bundle.__main__ import main
from monai_sr_bundle.bundles import (
    all_bundles,
    all_variants,
    default_bundle,
    find_bundle,
    open_bundle,
    require_version,
    sha256_of,
)
from monai_sr_bundle.degradation import Degradation
from monai_sr_bundle.errors import BundleError
from tests.changed_bundles import copied as copy_of
from tests.changed_bundles import with_facts, with_metadata

SHIPPED = list(all_bundles())


@pytest.fixture
def copied(tmp_path):
    """A copy of a shipped bundle that a test may break."""
    return shutil.copytree(find_bundle("chest_xray_edsr_x4").folder, tmp_path / "chest_xray_edsr_x4")


@pytest.mark.parametrize("bundle", SHIPPED, ids=lambda bundle: bundle.name)
def test_a_shipped_bundle_is_complete(bundle):
    assert bundle.modality in ("CXR", "CT", "any")
    assert Degradation.parse(bundle.operator).scale == bundle.scale
    assert bundle.window[0] < bundle.window[1]
    assert (bundle.folder / "card.md").is_file()
    for name in bundle.metadata["weights_sha256"]:
        path, sha256 = bundle.weights(name)
        assert sha256_of(path) == sha256
        assert path.stat().st_size <= 25 * 1024**2
    assert len({bundle.has_file(name) for name in bundle.onnx_files}) == 1  # all or none
    assert bundle.has_file("model.pt") == (bundle.parameters > 0)


@pytest.mark.parametrize("bundle", [b for b in SHIPPED if b.parameters], ids=lambda bundle: bundle.name)
def test_the_halo_reaches_as_far_as_the_network_looks(bundle):
    from monai_sr_bundle.backends.torch_backend import build_network

    network = build_network(bundle)
    assert bundle.family.halo >= network.receptive_radius
    assert bundle.family.grid == getattr(network, "grid", 1)


@pytest.mark.parametrize("modality", ["CXR", "CT"])
def test_each_modality_has_one_default(modality):
    assert default_bundle(modality).modality == modality


def test_a_modality_without_a_default_says_so():
    with pytest.raises(BundleError, match="0 default bundles for MR, expected one. Name one with --bundle"):
        default_bundle("MR")


def test_a_bundle_is_found_by_its_folder(copied):
    assert find_bundle(str(copied)).folder == copied.resolve()


def test_a_packed_bundle_reads_the_same(packed):
    source, packed_one = find_bundle("chest_ct_edsr_x4"), find_bundle(str(packed("chest_ct_edsr_x4")))
    for key in ("modality", "scale", "operator", "window", "version", "parameters"):
        assert getattr(packed_one, key) == getattr(source, key)
    assert type(packed_one.family) is type(source.family)
    assert packed_one.weights("model.onnx")[1] == source.weights("model.onnx")[1]


def test_a_bundle_that_does_not_state_its_slices_sees_one(copied):
    assert open_bundle(with_facts(copied, slices=None)).family.slices == 1


def test_the_metadata_tell_how_many_slices_the_network_sees():
    for bundle in SHIPPED:
        if bundle.family.name != "diffusion":
            slices = bundle.family.slices
            image = bundle.metadata["network_data_format"]["inputs"]["image"]
            assert (image["num_channels"], len(image["channel_def"])) == (slices, slices), bundle.name


def test_an_unknown_bundle_lists_those_there_are():
    with pytest.raises(BundleError, match="'chest_mri' is unknown. Available: bicubic, chest_ct_edsr_x4, chest_ct_"):
        find_bundle("chest_mri")


def test_a_folder_that_is_no_bundle_is_refused(tmp_path):
    with pytest.raises(BundleError, match="is not a bundle: found neither model.yaml nor configs/inference.yaml"):
        open_bundle(tmp_path)


def test_missing_metadata_is_named(copied):
    (copied / "metadata.json").unlink()
    with pytest.raises(BundleError, match=r"metadata.json is missing in .*Install the bundle again"):
        open_bundle(copied)


def test_a_text_that_cannot_be_read_is_named(copied):
    (copied / "metadata.json").write_text("{")
    with pytest.raises(BundleError, match="its texts cannot be read"):
        open_bundle(copied)


def test_a_fact_that_is_missing_is_named(copied):
    text = (copied / "model.yaml").read_text()
    (copied / "model.yaml").write_text("".join(line for line in text.splitlines(True) if not line.startswith("halo")))
    with pytest.raises(BundleError, match=r"model.yaml has no halo \(int\)"):
        open_bundle(copied)


def test_weights_that_are_not_the_released_ones_are_refused(copied):
    with (copied / "model.pt").open("r+b") as file:
        file.seek(1000)
        byte = file.read(1)
        file.seek(1000)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(BundleError, match="model.pt has SHA-256 .* is damaged or was replaced; it was not loaded"):
        open_bundle(copied).weights("model.pt")


def test_missing_weights_are_named(copied):
    (copied / "model.onnx").unlink()
    with pytest.raises(BundleError, match="model.onnx is missing in"):
        open_bundle(copied).weights("model.onnx")


def test_weights_the_metadata_does_not_list_say_how_to_make_them(copied):
    metadata = json.loads((copied / "metadata.json").read_text())
    del metadata["weights_sha256"]["model.onnx"]
    (copied / "metadata.json").write_text(json.dumps(metadata))
    told = (
        "bundle chest_xray_edsr_x4 has no model.onnx. Run `monai-sr export chest_xray_edsr_x4`, or use --backend torch."
    )
    with pytest.raises(BundleError, match=told):
        open_bundle(copied).weights("model.onnx")


def test_another_version_of_the_package_is_refused():
    with pytest.raises(BundleError, match=r"packed with monai_sr_bundle 9.9.9, but .* is imported from"):
        require_version("9.9.9")


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"window": [400, -1000]}, r"model\.yaml has window \[400, -1000\], expected two rising numbers"),
        ({"window": [0]}, r"model\.yaml has window \[0\], expected two rising numbers"),
        ({"window": ["0", "255"]}, "expected two rising numbers"),
        ({"scale": 1}, r"model\.yaml has scale 1, expected at least 2"),
        ({"halo": -1}, r"model\.yaml has halo -1, expected at least 0"),
        ({"grid": 0}, r"model\.yaml has grid 0, expected at least 1"),
        ({"grid": "8"}, r"model\.yaml has grid 8, expected at least 1"),
        ({"slices": 2}, r"model\.yaml: slices is 2, expected an odd number above 0: one amid its neighbours"),
        ({"slices": 0}, r"model\.yaml: slices is 0, expected an odd number above 0"),
        ({"slices": -3}, r"model\.yaml: slices is -3, expected an odd number above 0"),
        ({"slices": "3"}, r"model\.yaml: slices is 3, expected an odd number above 0"),
        ({"slices": 3}, r"slices is 3, but its network_def sees 1; expected the same. Write `slices: \"@slices\"`"),
        ({"network_def": {"slices": 3}}, r"slices is 1, but its network_def sees 3; expected the same"),
        (
            {"family": "diffusion", "slices": 3, "network_def": {"slices": "@slices"}, "diffusion": {"steps": 4}},
            r"slices is 3, but a diffusion model sees one. Write slices: 1, or take",
        ),
        (
            {"slices": 3, "network_def": {"slices": "@slices"}, "artifacts": True},
            r"slices is 3 beside artifacts: artifacts are drawn into and found in single images\. Write artif",
        ),
        (
            {"slices": 3, "network_def": {"slices": "@slices", "mask": True}},
            r"slices is 3 beside a network_def with a mask: .* Write artifacts: false and mask: false, or slices: 1",
        ),
        ({"memory_per_pixel": 0}, r"model\.yaml has memory_per_pixel 0, expected at least 1"),
        ({"guard": True}, r"model\.yaml has guard, which version 0\.2\.0 has no longer. Take guard out"),
        ({"cascade": ["a", "b"]}, r"model\.yaml has cascade, which version 0\.2\.0 has no longer"),
    ],
)
def test_facts_that_cannot_be_are_refused(copied, facts, told):
    with pytest.raises(BundleError, match=told):
        open_bundle(with_facts(copied, **facts))


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        (
            {"slices": 3, "network_def": {"slices": "@slices"}},
            r"slices is 3, but a bundle that enlarges by 4 along the slices has 1\. Correct it, or name another family",
        ),
        (
            {"network_def": {"mask": True}},
            r"its network_def has a mask, but a bundle that enlarges along the slices removes nothing\. Write mask",
        ),
    ],
)
def test_what_a_bundle_along_the_slices_cannot_have_is_refused(tmp_path, facts, told):
    folder = copy_of(tmp_path, "chest_ct_throughplane_x4")
    with pytest.raises(BundleError, match=told):
        open_bundle(with_facts(folder, **facts))


@pytest.mark.parametrize("key", ["version", "authors", "copyright", "task", "parameters", "weights_sha256"])
def test_metadata_that_is_missing_is_named(copied, key):
    with pytest.raises(BundleError, match=rf"metadata\.json has no {key} \("):
        open_bundle(with_metadata(copied, **{key: None}))


@pytest.mark.parametrize("text", ["- a list", "", "a: [1"])
def test_a_text_that_holds_something_else_is_refused(copied, text):
    (copied / "model.yaml").write_text(text)
    with pytest.raises(BundleError, match="bundle chest_xray_edsr_x4: ") as told:
        open_bundle(copied)
    assert "\n" not in str(told.value)


def test_weights_that_may_not_be_read_are_told(copied, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("monai_sr_bundle.bundles.sha256_of", refuse)
    with pytest.raises(BundleError, match=r"model\.pt cannot be read \(Permission denied\)\. Check that you"):
        open_bundle(copied).weights("model.pt")


def test_a_variant_is_its_bundle_with_what_differs():
    bundle, variant = find_bundle("chest_ct_runet_x2"), find_bundle("chest_ct_runet_x2:nearest")
    assert variant.name == "chest_ct_runet_x2:nearest"
    assert (variant.is_variant, bundle.is_variant) == (True, False)
    assert variant.facts["network_def"]["interpolation"] == "nearest"
    assert bundle.facts["network_def"]["interpolation"] == "bilinear"
    assert variant.window == bundle.window
    assert variant.metadata["authors"] == bundle.metadata["authors"]


def test_a_variant_knows_the_range_of_inputs_of_its_bundle_where_it_learns_from_the_same():
    known = find_bundle("chest_xray_residual_flow_x4").metadata["input_range"]
    assert known
    assert find_bundle("chest_xray_residual_flow_x4:artifacts").metadata["input_range"] == known
    assert "input_range" not in find_bundle("chest_ct_runet_x2:x4").metadata  # another scale


@pytest.mark.parametrize(
    "variant", [variant for bundle in SHIPPED for variant in all_variants(bundle)], ids=lambda variant: variant.name
)
def test_a_variant_has_weights_or_says_that_it_has_none(variant):
    if not variant.metadata["weights_sha256"]:
        assert "No weights are shipped" in variant.metadata["description"]
        assert variant.parameters == 0
        return
    path, _ = variant.weights("model.pt")
    assert path.parent == variant.folder
    assert path.stat().st_size <= 25 * 1024**2
    assert variant.metadata["training"]["minutes"] > 0


def test_a_variant_never_takes_the_weights_or_figures_of_its_bundle(copied):
    folder = copied / "variants" / "bare"
    folder.mkdir(parents=True)
    (folder / "model.yaml").write_text("{}\n")
    (folder / "metadata.json").write_text('{"description": "none", "parameters": 0, "weights_sha256": {}}')
    bare = open_bundle(folder)
    assert not bare.has_file("model.pt")
    assert "eval_metrics" not in bare.metadata


def test_an_unknown_variant_lists_those_there_are():
    with pytest.raises(BundleError, match="no variant 'deep'. Available: chest_xray_srgan_x4:equal_time, "):
        find_bundle("chest_xray_srgan_x4:deep")


def test_a_text_without_keys_is_named(copied):
    (copied / "metadata.json").write_text("[]")
    with pytest.raises(BundleError, match=r"metadata\.json holds no keys, expected those that every bundle"):
        open_bundle(copied)


def test_the_list_shows_variants_when_asked(capsys):
    assert main(["bundles"]) == 0
    short = capsys.readouterr().out
    assert main(["bundles", "--variants"]) == 0
    long = capsys.readouterr().out
    assert "chest_xray_srgan_x4 " in short
    assert ":" not in short.split("licence", 1)[1]
    assert "chest_xray_srgan_x4:regression" in long
    assert "closer to the truth, less texture" in long
    assert long.count("(default)") == short.count("(default)") == 2


def test_a_text_is_read_again_when_it_has_changed_and_nobody_changes_it_for_others(copied):
    text = copied / "model.yaml"
    open_bundle(copied).facts["window"].append("spoiled")
    assert open_bundle(copied).facts["window"] == [0, 255]
    text.write_text(text.read_text().replace("window: [0, 255]", "window: [0, 254]"))
    assert open_bundle(copied).facts["window"] == [0, 254]
