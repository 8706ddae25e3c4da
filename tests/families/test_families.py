"""Keys and sampler options of a family: read, or refused with the key, its value and what to do."""

import pytest
from monai_sr_bundle.errors import BundleError, InputError
from monai_sr_bundle.families.family import ModelFamily
from monai_sr_bundle.inferers.sampler_options import SamplerOptions

from tests.families.stated import DRAWN, TEXTURE, stated_family

FAMILIES = ("diffusion", "flow", "one_pass", "through_plane")


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_opened_by_its_name(name):
    family = stated_family(name)
    assert (family.name, family.scale, family.halo) == (name, 4, 8)
    assert type(family) is ModelFamily.registered[name]


@pytest.mark.parametrize("name", [None, "", "gan", "one pass"])
def test_an_unknown_family_lists_those_there_are(name):
    names = ", ".join(sorted(ModelFamily.registered))
    with pytest.raises(BundleError, match=rf"family is {name!r}, expected one of {names}\."):
        stated_family(name)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("slices", [0, 2, -1, "3"])
def test_slices_without_one_in_the_middle_are_refused(name, slices):
    with pytest.raises(BundleError, match=f"slices is {slices}, expected an odd number above 0: one amid its"):
        stated_family(name, slices=slices)


@pytest.mark.parametrize("name", ["flow", "one_pass"])
@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"slices": 3, "network_def": {}}, 'slices is 3, but its network_def sees 1; .*Write `slices: "@slices"` into'),
        ({"network_def": {"slices": 3}}, "slices is 1, but its network_def sees 3; expected the same"),
        ({"slices": 3, "artifacts": True}, "slices is 3 beside artifacts: .* Write artifacts: false and mask: false"),
        (
            {"slices": 3, "network_def": {"slices": 3, "mask": True}},
            "slices is 3 beside a network_def with a mask: .* Write artifacts: false and mask: false, or slices: 1",
        ),
        ({"operator": "area_x3"}, "operator is area_x3, but scale is 4. Write the same factor into both."),
        ({"operator": "slab_area_x4"}, "operator is slab_area_x4, which .* Write family: through_plane, or name an"),
    ],
)
def test_keys_that_contradict_each_other_are_refused(name, facts, message):
    with pytest.raises(BundleError, match=message):
        stated_family(name, **facts)


@pytest.mark.parametrize(
    ("name", "facts", "message"),
    [
        ("one_pass", {"diffusion": DRAWN}, "there is a `diffusion` block, which family one_pass has not. Take it out"),
        ("flow", {"diffusion": None}, "there is no `diffusion` block, which family flow needs. Write one"),
        ("diffusion", {"diffusion": None}, "there is no `diffusion` block, which family diffusion needs. Write one"),
        ("flow", {"diffusion": TEXTURE | {"noise": 0}}, "the flow has noise 0 .*, expected numbers above 0"),
        ("flow", {"diffusion": TEXTURE | {"process": "flow"}}, "`diffusion` has the unknown process; it states"),
        ("flow", {"diffusion": {"noise": 0.5}}, "`diffusion` states a flow without its `texture`; expected 0 for"),
        ("diffusion", {"diffusion": DRAWN | {"texture": 1}}, "unknown texture"),
        ("diffusion", {"slices": 3}, "slices is 3, but a diffusion model sees one. Write slices: 1, or take a network"),
        ("through_plane", {"operator": "area_x4"}, "operator is area_x4, but .* has slab_area_x4. Correct it, or name"),
        ("through_plane", {"scale": 3}, "operator is slab_area_x4, but a bundle that enlarges by 3 .* slab_area_x3"),
        ("through_plane", {"modality": "CXR"}, "modality is CXR, but a bundle that enlarges by 4 along the slices has"),
        ("through_plane", {"grid": 8}, "grid is 8, but a bundle that enlarges by 4 along the slices has 1"),
        ("through_plane", {"slices": 1}, "slices is 1, but a bundle that enlarges along the slices sees neighbours"),
        ("through_plane", {"diffusion": DRAWN}, "diffusion is .*, but a bundle .* has none. Correct it, or name"),
        (
            "through_plane",
            {"network_def": {"slices": 5, "mask": True}},
            "slices is 5 beside a network_def with a mask: .* Write artifacts: false and mask: false",
        ),
    ],
)
def test_a_key_that_does_not_fit_the_family_is_refused(name, facts, message):
    with pytest.raises(BundleError, match=message):
        stated_family(name, **facts)


# Sampler options


@pytest.mark.parametrize("name", ["one_pass", "through_plane"])
@pytest.mark.parametrize("options", [{"steps": 4}, {"samples": 2}, {"sampler": "ddim"}, {"texture": 0.0}])
def test_one_pass_has_no_sampler_options(name, options):
    family, (option,) = stated_family(name), options
    with pytest.raises(InputError, match=f"--{option}: bundle this bundle is no diffusion model, .* Leave the option"):
        family.resolve(SamplerOptions(**options))
    assert family.resolve(SamplerOptions(seed=7)) == SamplerOptions(seed=7)
    assert family.sampling(SamplerOptions()) is None


def test_all_options_that_do_not_fit_are_named_at_once():
    with pytest.raises(InputError, match="^--steps, --samples: bundle"):
        stated_family("one_pass").resolve(SamplerOptions(samples=2, steps=4))


def test_what_was_not_chosen_is_as_the_bundle_states():
    diffusion, flow = stated_family("diffusion"), stated_family("flow")
    resolved = diffusion.resolve(SamplerOptions(seed=3, steps=20))
    assert resolved == SamplerOptions(seed=3, steps=20, samples=1, sampler="ddim")
    assert diffusion.sampling(resolved) == ("ddim", 20, 1, None)
    resolved = flow.resolve(SamplerOptions(texture=0.5, samples=3))
    assert resolved == SamplerOptions(steps=2, samples=3, texture=0.5)
    assert flow.sampling(resolved) == ("flow", 2, 3, 0.5)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_strength_is_that_of_the_bundle_where_none_is_chosen(name):
    family = stated_family(name, strength=0.3)
    assert family.resolve(SamplerOptions()).strength == 0.3
    assert family.resolve(SamplerOptions(strength=0.0)).strength == 0.0


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("diffusion", {"texture": 0.5}, "--texture 0.5: .* is a diffusion model, which draws the whole image. Leave"),
        ("diffusion", {"steps": 0}, "--steps 0: .* expected 1 to 100"),
        ("diffusion", {"steps": 30}, "--steps 30: .* Expected a divisor, as 25 or 50"),
        ("flow", {"sampler": "ddim"}, "--sampler ddim: bundle this bundle is a flow, which has one sampler. Leave"),
        ("flow", {"steps": 65, "texture": 1.0}, "--steps 65: a flow takes 1 to 64 steps"),
        ("flow", {"steps": 4}, "--steps: bundle this bundle gives the expected image, .* or add --texture, above 0"),
        ("flow", {"samples": 4, "steps": 2}, "--steps, --samples: bundle this bundle gives the expected image"),
    ],
)
def test_options_that_a_family_does_not_have_are_refused(name, options, message):
    with pytest.raises(InputError, match=message):
        stated_family(name).resolve(SamplerOptions(**options))


def test_texture_none_at_all_may_be_asked_for_with_steps():
    flow = stated_family("flow", generative=True)
    resolved = flow.resolve(SamplerOptions(texture=0.0, steps=8))
    assert flow.sampling(resolved) is None
    assert not flow.generates(resolved)
    assert flow.generates(flow.resolve(SamplerOptions(texture=0.1)))


# What it says of itself


def test_the_parts_are_the_files_of_onnx():
    parts = {name: [part.name for part in stated_family(name).parts] for name in FAMILIES}
    assert parts == {
        "diffusion": ["encoder", "denoiser", "decoder"],
        "flow": ["model", "velocity"],
        "one_pass": ["model"],
        "through_plane": ["model"],
    }
    for name in ("flow", "one_pass"):
        family = stated_family(name, network_def={"mask": True})
        assert [part.name for part in family.parts] == [*parts[name], "artifacts"]


def test_scale_and_error_bars_follow_from_the_family():
    assert {name: (stated_family(name).scale_zyx, stated_family(name).error_bars) for name in FAMILIES} == {
        "diffusion": ((1, 4, 4), True),
        "flow": ((1, 4, 4), True),
        "one_pass": ((1, 4, 4), True),
        "through_plane": ((4, 1, 1), False),
    }
