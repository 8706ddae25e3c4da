"""The card of a packed bundle is enough for somebody who has nothing but the bundle."""

import re
import shlex

import pytest
from monai.bundle import ConfigParser
from monai_sr_bundle.shipped_bundles import all_bundles, configs_dir, find_bundle

NAMES = (
    "chest_xray_edsr_x4", "chest_xray_blind", "chest_ct_blind", "chest_xray_residual_flow_x4", "chest_xray_sr3_x4",
    "chest_ct_throughplane", "bicubic",
)  # fmt: skip
"""Bundles of every family and kind of images, and the one without weights."""


def section(folder):
    text = (folder / "docs" / "README.md").read_text()
    return text[text.index("## Bundle commands") : text.index("## References")]


def commands(folder):
    blocks = re.findall(r"```\n(.*?)\n```", section(folder), flags=re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


def texts(command):
    named = command[command.index("--config_file") + 1]
    return re.findall(r"configs/\w+\.yaml", named)


@pytest.mark.parametrize("name", NAMES)
def test_every_command_of_the_card_names_texts_and_keys_that_the_bundle_has(packed, name):
    folder = packed(name)
    runs = [command for command in commands(folder) if "run" in command]
    assert len(runs) >= 4
    for command in runs:
        parser = ConfigParser()
        parser.read_config([str(folder / text) for text in texts(command)])
        keys = [word[2:] for word in command[command.index("--config_file") + 2 :] if word.startswith("--")]
        assert [key for key in keys if key not in parser] == [], command


@pytest.mark.parametrize("name", NAMES)
def test_every_text_that_is_packed_is_named_by_the_card(packed, name):
    folder = packed(name)
    named = set(re.findall(r"configs/\w+\.yaml", section(folder)))
    assert named == {f"configs/{path.name}" for path in (folder / "configs").glob("*.yaml")}


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("chest_xray_edsr_x4", [[]]),
        ("chest_xray_residual_flow_x4", [[], ["flow"]]),
        ("chest_xray_blind", [["films"], ["films", "flow"]]),
        ("chest_ct_throughplane", [["slabs"]]),
    ],
)
def test_one_goes_on_with_the_last_stage_that_the_weights_have_gone_through(packed, name, stages):
    tuning = [command for command in commands(packed(name)) if "fine_tune" in " ".join(command)]
    expected = [["train", *(f"train_{each}" for each in stage), "fine_tune"] for stage in stages]
    assert [texts(command) for command in tuning] == [[f"configs/{each}.yaml" for each in files] for files in expected]


def test_the_packages_of_the_metadata_are_installed_by_the_card(packed):
    folder = packed("chest_xray_sr3_x4")
    metadata = find_bundle(str(folder)).metadata
    (install,) = [command for command in commands(folder) if command[:2] == ["pip", "install"]]
    required = {f"{name}=={version}" for name, version in metadata["required_packages_version"].items()}
    versions = {f"{key}=={metadata[name]}" for key, name in (("monai", "monai_version"), ("torch", "pytorch_version"))}
    assert required | versions | {f"numpy=={metadata['numpy_version']}"} == set(install[2:])


@pytest.mark.parametrize("name", [name for name in NAMES if name != "bicubic"])
def test_fine_tuning_never_writes_where_a_training_has_written(packed, name):
    trained, tuned = set(), set()
    for command in commands(packed(name)):
        if "configs/train.yaml" in " ".join(command):
            folders = tuned if "fine_tune" in " ".join(command) else trained
            out = command.index("--output_dir") + 1 if "--output_dir" in command else None
            folders.add(command[out] if out else "runs")
    assert tuned
    assert not trained & tuned


def test_a_packed_card_says_at_its_first_command_what_it_needs_and_where_those_without_it_are(packed):
    text = (packed("chest_xray_edsr_x4") / "docs" / "README.md").read_text()
    first = text.index("monai-sr enhance")
    assert "need the package monai-sr-bundle. With MONAI and this bundle alone: [Bundle commands]" in text[:first]


def test_links_of_a_packed_card_lead_to_files(packed):
    for name in NAMES:
        docs = packed(name) / "docs"
        links = re.findall(r"\]\(([^)#]+)\)", (docs / "README.md").read_text())
        assert [link for link in links if "://" not in link and not (docs / link).is_file()] == []
    assert "training_curve.csv" in links or name == "bicubic"


@pytest.mark.parametrize("bundle", all_bundles(), ids=lambda bundle: bundle.name)
def test_a_source_card_leaves_the_commands_of_monai_to_the_packed_one(bundle):
    assert "monai.bundle" not in (bundle.folder / "card.md").read_text()


@pytest.mark.parametrize("bundle", [each for each in all_bundles() if each.parameters], ids=lambda each: each.name)
def test_every_trained_bundle_has_a_small_picture(bundle):
    assert (bundle.folder / "example.jpg").stat().st_size <= 60_000


def test_a_packed_card_names_the_source_of_its_picture(packed):
    for name, source in (("chest_xray_edsr_x4", "Kermany"), ("chest_ct_throughplane", "Armato")):
        docs = packed(name) / "docs"
        paragraphs = (docs / "README.md").read_text().split("\n\n")
        (number,) = [number for number, text in enumerate(paragraphs) if "](example.jpg)" in text]
        assert source in paragraphs[number + 1]
        assert "CC BY" in paragraphs[number + 1]


def test_variants_are_named_as_not_packed(packed):
    text = (packed("chest_xray_edsr_x4") / "docs" / "README.md").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("- Variants are in the source repository alone")]
    variants = {path.parent.name for path in (configs_dir() / "chest_xray_edsr_x4" / "variants").glob("*/model.yaml")}
    assert set(re.findall(r"`:(\w+)`", line)) == variants
