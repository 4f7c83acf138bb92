"""What a recipe says for images like those surveyed, each choice with its reason."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from etnet.data.mask_values import MaskMapping
from etnet.planning.classes import ClassPlan
from etnet.planning.survey import WIDTHS, Structure, Survey

MULTIPLE = 16
KEPT_WIDTH = 16
"""Pixels of width that the narrowest structure keeps when images are reduced: four cells of the network's output."""

NARROW = 9
"""Pixels of width up to which a structure is narrow: two cells of the stride of 4 at which the paper predicts."""

ENOUGH_MASKS = 10
"""Masks that must agree before an anatomical rule is read from them."""

SMALL_SPOT = 1 / 3
"""Share of the image's width up to which a single spot is segmented in a square around it."""

_ROOM = 1.4
"""Side of that square, in sides of the largest spot: room for the background and for an error of the localizer."""

LOCALIZER_SIDE = 256


@dataclass(frozen=True)
class Decision:
    """One key of the recipe.

    Attributes:
        key: Such as `data.crop_size`.
        value: Plain lists, dictionaries, numbers and texts.
        reason: One line; empty where the key needs none.
    """

    key: str
    value: Any
    reason: str = ""


@dataclass(frozen=True)
class Means:
    """What there is to train with.

    Attributes:
        gpu: Whether it is a GPU.
        from_scratch: Whether the encoder starts at random, because ImageNet weights cannot or must not be had.
    """

    gpu: bool
    from_scratch: bool

    @property
    def longest_crop(self) -> int:
        """Side of a crop that this device trains on in reasonable time, pixels."""
        return 512 if self.gpu else 320

    @property
    def reduced_side(self) -> int:
        """Shorter side, in pixels, below which large structures are not reduced."""
        return 512 if self.gpu else 256


def decide(survey: Survey, classes: ClassPlan, means: Means) -> list[Decision]:
    """Every key of the recipe but the length of the training, in the order of the file.

    Args:
        survey: What the images and masks are like.
        classes: What the values of the masks stand for.
        means: What there is to train with.
    """
    if is_spot(survey):
        region = _region(survey, means)
        scale = region["size"] / (region["side"] * survey.size[1])
        seen = [
            Decision("data.roi", region, "the square that is segmented; another network finds its centre"),
            Decision("data.crop_size", region["size"], "the whole square"),
        ]
    else:
        size = _reduced_size(survey, means)
        scale = size[0] / survey.size[0] if size else 1.0
        seen = list(_seen(survey, size, means))
    in_network = [replace(one, width_px=max(1, round(one.width_px * scale))) for one in survey.structures]
    narrow = [one for one in in_network if one.width_px <= NARROW]
    return [
        *_read(survey, classes),
        *seen,
        Decision("data.validation_fraction", _held_out(survey.pairs), "chooses the weights"),
        *_augmentation(survey, classes, narrow),
        *_model(narrow, means),
        _learning_rate(means),
        *_postprocessing(survey, narrow),
    ]


def is_spot(survey: Survey) -> bool:
    """Whether two networks should share the work, one that finds the structures and one that segments them.

    So it is where every mask shows one small piece, as in the paper's segmentation of the optic disc (Sec. 3).
    """
    return survey.spot is not None and survey.spot <= SMALL_SPOT and survey.surveyed >= ENOUGH_MASKS


def decide_localizer(survey: Survey, classes: ClassPlan, means: Means) -> list[Decision]:
    """Keys of the recipe that finds the spot in a small copy of the image, all its classes as one.

    Args:
        survey: What the images and masks are like.
        classes: What the values of the masks stand for.
        means: What there is to train with.
    """
    inside = {value: min(index, 1) for value, index in classes.mapping.classes.items() if index != classes.ignore_index}
    ignored = {} if classes.ignore_index is None else {classes.ignore_index: classes.ignore_index}
    joined = ClassPlan(
        ("background", "spot"), MaskMapping(inside | ignored), classes.ignore_index, "all classes as one"
    )
    return [
        *_read(survey, joined),
        Decision("data.image_size", [LOCALIZER_SIDE, LOCALIZER_SIDE], "finding it needs no detail"),
        Decision("data.crop_size", LOCALIZER_SIDE, "the whole image"),
        Decision("data.validation_fraction", _held_out(survey.pairs), "chooses the weights"),
        Decision("augmentation.scale", [0.7, 1.4]),
        Decision("model.encoder", "resnet18"),
        Decision("model.encoder_weights", "none" if means.from_scratch else "imagenet"),
        Decision("model.decoder_channels", 64),
        Decision("model.edge_channels", 32),
        Decision("optimizer.base_lr", 0.003),
    ]


def _region(survey: Survey, means: Means) -> dict[str, Any]:
    side = min(1.0, _ROOM * (survey.spot or 1.0))
    return {"side": round(side, 3), "size": 512 if means.gpu else 256, "jitter": 0.1}


def _read(survey: Survey, classes: ClassPlan) -> Iterator[Decision]:
    yield Decision("data.dataset", "folder")
    yield Decision("data.class_names", list(classes.names), classes.reason)
    if not classes.stored_as_indices:
        yield Decision("data.mask_values", dict(classes.mapping.classes), "value in the mask file: class index")
    if classes.ignore_index is not None:
        yield Decision("data.ignore_index", classes.ignore_index, "pixels without a label count nowhere")
    if survey.patient_pattern is not None:
        reason = (
            f"the names look like {survey.patients} patients, who are held out as a whole; remove it if they are not"
        )
        yield Decision("data.patient_pattern", survey.patient_pattern, reason)
    if survey.window is not None:
        yield Decision(
            "data.intensity_window", list(survey.window), "99 % of the pixels of more than 8 bits lie inside"
        )


def _seen(survey: Survey, size: tuple[int, int] | None, means: Means) -> Iterator[Decision]:
    if size is not None:
        yield Decision("data.image_size", list(size), _why_reduced(survey, size))
    seen = size or survey.size
    crop = max(min(_multiple(min(seen)), means.longest_crop), 4 * MULTIPLE)
    largest = max(size) if size else max(max(shape) for shape in survey.sizes)
    about = "" if size or len(survey.sizes) == 1 else "about "
    reason = "the whole image" if crop >= largest else f"a part of {about}{_pixels(seen)}"
    yield Decision("data.crop_size", crop, reason)


def _why_reduced(survey: Survey, size: tuple[int, int]) -> str:
    narrowest = min(survey.structures, key=lambda one: one.width_px)
    # A structure of the last width is wider than the one before it.
    over, width = ("over ", WIDTHS[-2]) if narrowest.width_px == WIDTHS[-1] else ("", narrowest.width_px)
    reduced = round(width * size[0] / survey.size[0])
    former = _pixels(survey.size)
    return f"from {former}: {narrowest.name} is still {over}{reduced} px wide; masks have the image's own size"


def _pixels(size: tuple[int, int]) -> str:
    """A height and width, which is which unless they are the same."""
    return f"{size[0]}x{size[1]} pixels" + ("" if size[0] == size[1] else " (height x width)")


def _reduced_size(survey: Survey, means: Means) -> tuple[int, int] | None:
    """(height, width) to which all images are resized; None keeps theirs.

    Only wide structures allow it, and only images of one shape; a small gain is not worth the loss.
    """
    height, width = survey.size
    narrowest = min(one.width_px for one in survey.structures)
    factor = max(means.reduced_side / min(height, width), KEPT_WIDTH / narrowest)
    if factor > 0.75 or not survey.same_shape:
        return None
    return _multiple(height * factor), _multiple(width * factor)


def _multiple(pixels: float) -> int:
    return max(MULTIPLE, math.ceil(pixels / MULTIPLE) * MULTIPLE)


def _held_out(pairs: int) -> float:
    """A fifth, but no more than 200 images: they are scored again and again."""
    return 0.2 if pairs <= 1000 else round(200 / pairs, 4)


def _augmentation(survey: Survey, classes: ClassPlan, narrow: list[Structure]) -> Iterator[Decision]:
    sided = [name for name in classes.names if re.search(r"(^|[_\W])(left|right|l|r)([_\W]|$)", name.lower())]
    if sided:
        yield Decision(
            "augmentation.mirror", 0.0, f"{sided[0]} is on one side: its mirror image would be labelled wrongly"
        )
    if narrow:
        yield Decision(
            "augmentation.scale", [0.75, 1.5], f"{narrow[0].name} is narrow; at half its size it would be lost"
        )
    elif len(survey.sizes) == 1 or is_spot(survey):
        what = "all squares" if is_spot(survey) else "all images"
        yield Decision("augmentation.scale", [0.75, 1.33], f"{what} have one size, so scales differ little")


def _model(narrow: list[Structure], means: Means) -> Iterator[Decision]:
    weights = "none" if means.from_scratch else "imagenet"
    reason = "from random weights" if means.from_scratch else "downloaded once; none trains from random weights"
    yield Decision(
        "model.encoder",
        "resnet50" if means.gpu else "resnet18",
        "the paper's" if means.gpu else "small enough for a processor",
    )
    yield Decision("model.encoder_weights", weights, reason)
    if not means.gpu:
        yield Decision("model.decoder_channels", 128 if narrow else 64, "the paper's 256 need a GPU")
    if narrow:
        width = f"about {narrow[0].width_px} px wide in the network's input"
        reason = f"{narrow[0].name} is {width}: predicted at half its size, not a quarter"
        yield Decision("model.high_resolution", True, reason)


def _learning_rate(means: Means) -> Decision:
    advice = "etnet train --find-lr suggests one for your images"
    if means.gpu:
        return Decision("optimizer.base_lr", 0.005, f"the paper's; {advice}")
    return Decision("optimizer.base_lr", 0.003, f"as in the package's recipes for small networks; {advice}")


def _postprocessing(survey: Survey, narrow: list[Structure]) -> Iterator[Decision]:
    """Rules that every surveyed mask obeys, for structures of few pieces."""
    rules, reasons = {}, []
    for one in survey.structures:
        most = one.components[1]
        if one.name in {other.name for other in narrow} or one.images < ENOUGH_MASKS or most > 3:
            continue
        rules[one.name] = {"largest": most} | ({} if one.holes else {"fill_holes": True})
        reasons.append(f"{one.name} has at most {most} {'piece' if most == 1 else 'pieces'} in {one.images} masks")
    if rules:
        yield Decision("postprocess.structures", rules, "; ".join(reasons))
