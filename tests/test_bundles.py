import json
import re
import shutil

import pytest
from monai_sr_bundle.__main__ import main
from monai_sr_bundle.backends.onnx_files import onnx_files
from monai_sr_bundle.bundles import open_bundle, released_weights, require_version, sha256_of
from monai_sr_bundle.degradation import Degradation
from monai_sr_bundle.errors import BundleError, InputError
from monai_sr_bundle.shipped_bundles import all_bundles, all_variants, configs_dir, default_bundle, find_bundle

from tests.changed_bundles import damaged, with_facts, with_metadata

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
    assert len({bundle.has_file(name) for name in onnx_files(bundle)}) == 1  # all or none
    assert bundle.has_file("model.pt") == (bundle.parameters > 0)


def test_another_scale_is_the_same_bundle_without_what_holds_for_its_own_alone(copied):
    metadata = json.loads((copied / "metadata.json").read_text())
    hashes = metadata["weights_sha256"] | {"error_bars.pt": "0" * 64, "error_bars.onnx": "0" * 64}
    with_metadata(with_facts(copied, scales=[4, 2]), weights_sha256=hashes, input_range={"noise": [0.1, 0.2]})
    bundle = open_bundle(copied)
    other = bundle.at_scale(2)
    assert (bundle.scale, bundle.scales, other.scale, other.scales) == (4, (2, 4), 2, (2, 4))
    assert (bundle.operator, other.operator) == ("bicubic_antialias_x4", "bicubic_antialias_x2")
    assert (bundle.scale_zyx, other.scale_zyx) == ((1, 4, 4), (1, 2, 2))
    assert (onnx_files(bundle), onnx_files(other)) == (("model_x4.onnx",), ("model_x2.onnx",))
    assert bundle.weights("model.pt") == other.weights("model.pt")
    for key in ("eval_metrics", "input_range"):
        assert key in bundle.metadata
        assert key not in other.metadata
    assert bundle.has_file("error_bars.pt")
    assert not other.has_file("error_bars.pt")
    assert not other.has_file("error_bars.onnx")
    assert bundle.at_scale(None) is bundle
    assert other.at_scale(4).metadata == bundle.metadata


def test_a_scale_that_a_bundle_does_not_have_is_refused():
    with pytest.raises(InputError, match="--scale 3: bundle chest_xray_edsr_x4 enlarges by 4. Choose such a scale"):
        find_bundle("chest_xray_edsr_x4").at_scale(3)
    with pytest.raises(InputError, match="--scale 5: bundle chest_xray_blind enlarges by 2 or 3 or 4. Choose such a"):
        find_bundle("chest_xray_blind").at_scale(5)


@pytest.mark.parametrize("modality", ["CXR", "CT"])
def test_each_modality_has_one_default(modality):
    assert default_bundle(modality).modality == modality


def test_a_packed_bundle_reads_the_same(packed):
    source, packed_one = find_bundle("chest_ct_edsr_x4"), find_bundle(str(packed("chest_ct_edsr_x4")))
    for key in ("modality", "scale", "operator", "window", "version", "parameters"):
        assert getattr(packed_one, key) == getattr(source, key)
    assert type(packed_one.family) is type(source.family)
    assert packed_one.weights("model.onnx")[1] == source.weights("model.onnx")[1]


def test_the_metadata_states_how_many_slices_the_network_sees():
    for bundle in SHIPPED:
        slices = bundle.family.slices
        image = bundle.metadata["network_data_format"]["inputs"]["image"]
        assert (image["num_channels"], len(image["channel_def"])) == (slices, slices), bundle.name


@pytest.mark.parametrize(
    ("call", "argument", "message"),
    [
        (find_bundle, "chest_mri", "'chest_mri' is unknown. Available: bicubic, chest_ct_blind, chest_ct_"),
        (find_bundle, "chest_xray_srgan_x4:deep", "no variant 'deep'. Available: chest_xray_srgan_x4:equal_time, "),
        (open_bundle, configs_dir(), "is not a bundle: found neither model.yaml nor configs/inference.yaml"),
        (default_bundle, "MR", "0 default bundles for MR, expected one. Name one with --bundle"),
    ],
)
def test_a_bundle_that_is_not_there_is_refused_with_those_there_are(call, argument, message):
    with pytest.raises(BundleError, match=message):
        call(argument)


def test_another_version_of_the_package_is_refused():
    with pytest.raises(BundleError, match=r"packed with monai_sr_bundle 9.9.9, but .* is imported from"):
        require_version("9.9.9")


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"window": [400, -1000]}, r"model\.yaml: window is \[400, -1000\], expected two rising numbers"),
        ({"window": [0]}, r"model\.yaml: window is \[0\], expected two rising numbers"),
        ({"window": ["0", "255"]}, "expected two rising numbers"),
        ({"scale": 1}, r"model\.yaml: scale is 1, expected at least 2"),
        ({"scale": 10**30}, r"model\.yaml: scales is \[10+\], expected different whole numbers from 2 to 64"),
        *(
            ({"scales": scales}, r"model\.yaml: scales is .*, expected different whole numbers from 2 to 64, .* 4")
            for scales in (2, [], [2, 3], [1, 4], [2, "4"], [4, 4], [4, 65])
        ),
        ({"halo": None}, r"model.yaml has no halo \(int\)"),
        ({"halo": -1}, r"model\.yaml: halo is -1, expected at least 0"),
        ({"grid": 0}, r"model\.yaml: grid is 0, expected at least 1"),
        ({"grid": "8"}, r"model\.yaml: grid is 8, expected at least 1"),
        ({"slices": 2}, r"model\.yaml: slices is 2, expected an odd number above 0: one amid its neighbours"),
        ({"operator": "magic_x4"}, r"model\.yaml: degradation is 'magic_x4', expected KERNEL_x"),
        ({"memory_per_pixel": 0}, r"model\.yaml: memory_per_pixel is 0, expected at least 1"),
        ({"guard": True}, r"model\.yaml: guard is stated, which version 0\.2\.0 has no longer. Take guard out"),
        ({"cascade": ["a", "b"]}, r"model\.yaml: cascade is stated, which version 0\.2\.0 has no longer"),
    ],
)
def test_facts_that_cannot_be_are_refused(copied, facts, message):
    with pytest.raises(BundleError, match=message):
        open_bundle(with_facts(copied, **facts))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metadata.json", None, r"metadata.json is missing in .*Install the bundle again"),
        ("metadata.json", "{", "its texts cannot be read"),
        ("metadata.json", "[]", r"metadata\.json holds no keys, expected those that every bundle"),
        *(("model.yaml", content, "bundle chest_xray_edsr_x4: ") for content in ("- a list", "", "a: [1")),
    ],
)
def test_a_text_that_is_missing_or_holds_something_else_is_refused(copied, name, content, message):
    (copied / name).unlink() if content is None else (copied / name).write_text(content)
    with pytest.raises(BundleError, match=message) as raised:
        open_bundle(copied)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("key", ["version", "authors", "copyright", "task", "parameters", "weights_sha256"])
def test_metadata_that_is_missing_is_named(copied, key):
    with pytest.raises(BundleError, match=rf"metadata\.json has no {key} \("):
        open_bundle(with_metadata(copied, **{key: None}))


def test_the_released_weights_are_those_in_a_checkout_and_in_a_packed_bundle(packed, copied):
    folder = packed("chest_ct_edsr_x4")
    checkout = configs_dir() / "chest_ct_edsr_x4"
    assert released_weights(str(checkout)) == str(checkout / "model.pt")
    assert released_weights(str(folder)) == str(folder.resolve() / "models" / "model.pt")
    assert released_weights(str(configs_dir() / "bicubic")) == ""  # a method without weights has no file
    with pytest.raises(BundleError, match=r"model\.pt has SHA-256"):
        released_weights(str(damaged(copied, "model.pt")))
    (copied / "model.pt").unlink()
    with pytest.raises(BundleError, match=r"model\.pt is missing"):
        released_weights(str(copied))


def test_an_error_says_that_weights_may_not_be_read(copied, monkeypatch):
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


def test_a_variant_has_the_range_of_inputs_of_its_bundle_where_it_learns_from_the_same():
    input_range = find_bundle("chest_xray_residual_flow_x4").metadata["input_range"]
    assert input_range
    assert find_bundle("chest_xray_residual_flow_x4:artifacts").metadata["input_range"] == input_range
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


def test_the_list_shows_variants_when_asked(capsys):
    assert main(["bundles"]) == 0
    short = capsys.readouterr().out
    assert main(["bundles", "--variants"]) == 0
    long = capsys.readouterr().out
    assert "chest_xray_srgan_x4 " in short
    assert re.search(r"chest_xray_blind \(default\) +CXR +x2, x3, x4 ", short)
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


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: &a [1, 2]\nb: &b [*a, *a]\nc: [*b, *b]\n", "it has aliases"),
        ("a: " + "[" * 5000 + "]" * 5000, "recursion"),
        ("a: 2026-99-99", "month"),
    ],
)
def test_a_text_that_describes_more_than_it_holds_is_refused(copied, text, reason):
    (copied / "model.yaml").write_text(text)
    with pytest.raises(BundleError, match=rf"its texts cannot be read \(.*{reason}"):
        open_bundle(copied)
