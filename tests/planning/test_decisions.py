from __future__ import annotations

from dataclasses import replace

import pytest

from etnet.data.mask_values import MaskMapping
from etnet.planning.classes import ClassPlan
from etnet.planning.decisions import Means, decide, decide_localizer, is_spot
from etnet.planning.planning import recipe_of
from etnet.planning.survey import Structure, Survey

CPU, GPU = Means(gpu=False, from_scratch=True), Means(gpu=True, from_scratch=False)
LUNG = Structure("lung", images=80, share=0.26, width_px=129, extent_px=324, components=(2, 2), holes=False)
VESSEL = Structure("vessel", images=20, share=0.09, width_px=5, extent_px=532, components=(1, 19), holes=True)
CLASSES = ClassPlan(("background", "lung"), MaskMapping({0: 0, 255: 1}), None, "values 0, 255")
SURVEY = Survey(
    pairs=80,
    surveyed=80,
    sizes={(512, 512): 80},
    kinds={"grey 8-bit": 80},
    window=None,
    structures=(LUNG,),
    spot=None,
    spot_area=None,
    patient_pattern=None,
    patients=None,
)


def chosen(survey: Survey, classes: ClassPlan = CLASSES, means: Means = CPU) -> dict[str, object]:
    decisions = decide(survey, classes, means)
    recipe_of("plan", decisions)
    return {one.key: one.value for one in decisions}


def test_wide_structures_are_seen_on_reduced_images_without_a_gpu():
    keys = chosen(SURVEY)
    assert keys["data.image_size"] == [256, 256]
    assert keys["data.crop_size"] == 256
    assert "model.high_resolution" not in keys


def test_a_gpu_sees_them_at_their_own_size():
    keys = chosen(SURVEY, means=GPU)
    assert "data.image_size" not in keys
    assert (keys["data.crop_size"], keys["model.encoder"], keys["model.encoder_weights"]) == (
        512,
        "resnet50",
        "imagenet",
    )


def test_narrow_structures_keep_every_pixel_and_are_predicted_at_half_the_size():
    keys = chosen(replace(SURVEY, sizes={(3000, 2000): 80}, structures=(replace(VESSEL, name="lung"),)))
    assert "data.image_size" not in keys
    assert keys["model.high_resolution"] is True
    assert keys["augmentation.scale"] == [0.75, 1.5]
    assert keys["data.crop_size"] == 320


def test_a_large_image_is_reduced_only_as_far_as_its_narrowest_structure_allows():
    classes = replace(CLASSES, names=("background", "lung", "lesion"))
    structures = (LUNG, replace(LUNG, name="lesion", width_px=33))
    keys = chosen(replace(SURVEY, sizes={(2048, 1024): 80}, structures=structures), classes)
    assert keys["data.image_size"] == [1008, 512]


def reasons(survey: Survey, classes: ClassPlan = CLASSES) -> dict[str, str]:
    return {one.key: one.reason for one in decide(survey, classes, CPU)}


def test_reasons_tell_height_from_width_and_a_bound_from_a_width():
    wide = reasons(replace(SURVEY, sizes={(1024, 512): 80}))
    assert wide["data.image_size"] == (
        "from 1024x512 pixels (height x width): lung is still over 48 px wide; masks have the image's own size"
    )
    narrow = reasons(replace(SURVEY, sizes={(512, 512): 80}, structures=(replace(LUNG, width_px=49),)))
    assert narrow["data.image_size"].startswith("from 512x512 pixels: lung is still 24 px wide")


@pytest.mark.parametrize(
    ("sizes", "reason"),
    [
        ({(300, 300): 80}, "the whole image"),
        ({(300, 304): 80}, "the whole image"),
        ({(300, 300): 60, (300, 900): 20}, "a part of about 300x300 pixels"),
        ({(600, 500): 80}, "a part of 600x500 pixels (height x width)"),
    ],
)
def test_a_crop_is_the_whole_image_only_where_it_holds_the_largest(sizes, reason):
    narrow = replace(SURVEY, sizes=sizes, structures=(replace(VESSEL, name="lung"),))
    assert reasons(narrow)["data.crop_size"] == reason


def test_images_of_different_shapes_are_never_squashed():
    assert "data.image_size" not in chosen(replace(SURVEY, sizes={(512, 512): 40, (1024, 512): 40}))


def test_one_sided_classes_are_not_mirrored():
    classes = replace(CLASSES, names=("background", "left_lung"))
    sided = replace(SURVEY, structures=(replace(LUNG, name="left_lung"),))
    assert chosen(sided, classes)["augmentation.mirror"] == 0.0
    assert "augmentation.mirror" not in chosen(SURVEY)


@pytest.mark.parametrize(
    ("structure", "rules"),
    [
        (LUNG, {"lung": {"largest": 2, "fill_holes": True}}),
        (replace(LUNG, holes=True), {"lung": {"largest": 2}}),
        (replace(LUNG, components=(1, 7)), None),
        (replace(LUNG, images=9), None),
        (replace(LUNG, width_px=5), None),
    ],
)
def test_rules_of_anatomy_are_those_that_every_mask_obeys(structure, rules):
    assert chosen(replace(SURVEY, structures=(structure,))).get("postprocess.structures") == rules


@pytest.mark.parametrize(("pairs", "share"), [(10, 0.2), (1000, 0.2), (10000, 0.02)])
def test_no_more_than_200_images_are_held_out(pairs, share):
    assert chosen(replace(SURVEY, pairs=pairs))["data.validation_fraction"] == share


def test_what_the_files_hold_goes_into_the_recipe():
    classes = replace(CLASSES, mapping=MaskMapping({0: 0, 1: 1, 255: 255}), ignore_index=255)
    keys = chosen(replace(SURVEY, window=(30, 4000), patient_pattern="(.+)_[^_]+", patients=40), classes)
    assert keys["data.ignore_index"] == 255
    assert keys["data.intensity_window"] == [30, 4000]
    assert keys["data.patient_pattern"] == "(.+)_[^_]+"


def test_a_tiny_image_still_has_a_crop_that_the_network_takes():
    assert (
        chosen(replace(SURVEY, sizes={(40, 50): 80}, structures=(replace(LUNG, width_px=17),)))["data.crop_size"] == 64
    )


class TestSpot:
    CUP = ClassPlan(("background", "rim", "cup"), MaskMapping({0: 0, 1: 1, 2: 2, 255: 255}), 255, "values")
    SPOT = replace(
        SURVEY,
        sizes={(1000, 1200): 80},
        structures=(replace(LUNG, name="rim", width_px=33), replace(LUNG, name="cup")),
        spot=0.2,
        spot_area=0.02,
    )

    def test_is_segmented_in_a_square_with_room_around_it(self):
        keys = chosen(self.SPOT, self.CUP)
        assert keys["data.roi"] == {"side": 0.28, "size": 256, "jitter": 0.1}
        assert keys["data.crop_size"] == 256
        assert "data.image_size" not in keys

    def test_is_found_by_a_small_network_that_sees_all_classes_as_one(self):
        decisions = decide_localizer(self.SPOT, self.CUP, CPU)
        recipe = recipe_of("plan-localizer", decisions)
        assert recipe.data.mask_values == {0: 0, 1: 1, 2: 1, 255: 255}
        assert recipe.data.ignore_index == 255
        assert (recipe.data.image_size, recipe.data.crop_size) == ((256, 256), 256)

    def test_is_narrow_by_its_width_in_the_square_and_not_in_the_file(self):
        ring = replace(self.SPOT, sizes={(4000, 4800): 80}, structures=(replace(LUNG, name="rim", width_px=33),))
        told = reasons(ring, self.CUP)["model.high_resolution"]
        assert told == "rim is about 6 px wide in the network's input: predicted at half its size, not a quarter"

    @pytest.mark.parametrize(
        ("change", "spot"), [({}, True), ({"spot": 0.4}, False), ({"spot": None}, False), ({"surveyed": 9}, False)]
    )
    def test_is_told_by_enough_masks_that_all_show_one_small_piece(self, change, spot):
        assert is_spot(replace(self.SPOT, **change)) == spot
        assert ("data.roi" in chosen(replace(self.SPOT, **change), self.CUP)) == spot
