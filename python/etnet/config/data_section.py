"""The sections `data` and `augmentation` of a recipe (paper Sec. 2.3)."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from etnet.config.folds import FoldText, require_share_of_fold, with_share_of_fold
from etnet.config.section import SIZE_MULTIPLE, Fraction, Section

DatasetName = Literal["folder", "drive", "chase_db1", "stare", "drishti_gs", "refuge", "montgomery", "lung_ct"]

CacheLimit = Annotated[float, Field(ge=0, allow_inf_nan=False)] | Literal["auto"]
"""GiB; `auto` is a quarter of what is free when training starts."""

Rgb = tuple[
    Annotated[int, Field(ge=0, le=255)], Annotated[int, Field(ge=0, le=255)], Annotated[int, Field(ge=0, le=255)]
]


class RoiSection(Section):
    """The square around a structure that is segmented instead of the whole image (paper Sec. 3, "localize").

    `side` is a share of the image's width, `size` the height and width in pixels to which the square is resized, and
    `jitter` how far training moves its centre to either side, as a share of `side`.
    """

    side: Annotated[float, Field(gt=0, le=1)]
    size: Annotated[int, Field(ge=2 * SIZE_MULTIPLE, multiple_of=SIZE_MULTIPLE)] = 512
    jitter: Annotated[float, Field(ge=0, le=0.5)] = 0.1


class DataSection(Section):
    """Where the pairs come from and how a mask is read.

    `class_groups` names structures that consist of several classes, such as an optic disc of rim and cup; they are
    scored beside the classes. `min_annotators` is for data sets whose masks count annotators (`drishti_gs`).
    `split_file` replaces the split that comes with a data set. `patient_pattern` tells patients in the names of one's
    own images: a regular expression for names without suffix, whose group is the patient, such as `(p[0-9]+)_.*`.
    Images of one patient are held out together. `fold`, such as `2/5`, holds out one of so many parts of the training
    images instead of a `validation_fraction`, which then is that of a fold and may be left out.
    `cache_memory` and `cache_disk` limit, in GiB, what training keeps of decoded images: in memory that its processes
    share, and beyond that in the run folder until the run ends. They never change what is trained; 0 keeps nothing.
    """

    dataset: DatasetName = "folder"
    class_names: tuple[str, ...] = ("background", "foreground")
    class_colors: tuple[Rgb, ...] | None = None
    class_groups: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    mask_values: dict[int, int] | None = None
    min_annotators: Annotated[int, Field(ge=1, le=4)] = 3
    split_file: str | None = None
    patient_pattern: str | None = None
    roi: RoiSection | None = None
    ignore_index: Annotated[int, Field(ge=1, le=255)] | None = None
    image_size: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] | None = None
    intensity_window: tuple[float, float] | None = None
    crop_size: Annotated[int, Field(ge=2 * SIZE_MULTIPLE)] = 512
    edge_width: Annotated[int, Field(ge=1, le=64)] = 3
    validation_fraction: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.2
    fold: FoldText | None = None
    workers: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    cache_memory: CacheLimit = "auto"
    cache_disk: CacheLimit = "auto"

    @field_validator("crop_size")
    @classmethod
    def _crop_is_a_multiple(cls, value: int) -> int:
        if value % SIZE_MULTIPLE:
            lower = value // SIZE_MULTIPLE * SIZE_MULTIPLE
            raise ValueError(f"must be a multiple of {SIZE_MULTIPLE}, for instance {lower} or {lower + SIZE_MULTIPLE}")
        return value

    @field_validator("patient_pattern")
    @classmethod
    def _pattern_has_a_group(cls, value: str | None) -> str | None:
        try:
            groups = 1 if value is None else re.compile(value).groups
        except re.error as error:
            raise ValueError(f"is no regular expression ({error})") from None
        if groups != 1:
            raise ValueError(
                f"has {groups} groups; expected one pair of parentheses around the patient, as in (p[0-9]+)_.*"
            )
        return value

    @model_validator(mode="after")
    def _pattern_is_for_a_folder(self) -> DataSection:
        if self.patient_pattern is not None and self.dataset != "folder":
            raise ValueError(
                f"patient_pattern is for dataset: folder, but dataset is {self.dataset}, whose own names tell patients"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _fold_says_the_fraction(cls, values: Any) -> Any:
        return with_share_of_fold(values)

    @model_validator(mode="after")
    def _fold_fits_the_fraction(self) -> DataSection:
        require_share_of_fold(self.fold, self.validation_fraction)
        return self

    @model_validator(mode="after")
    def _classes_fit(self) -> DataSection:
        count = len(self.class_names)
        if not 2 <= count <= 255:
            raise ValueError(f"class_names lists {count} classes; expected 2 to 255, the background first")
        if len(set(self.class_names)) != count:
            raise ValueError(f"class_names {list(self.class_names)} holds a name twice")
        if self.class_colors is not None and len(self.class_colors) != count:
            raise ValueError(f"class_colors lists {len(self.class_colors)} colours for {count} classes")
        if self.ignore_index is not None and self.ignore_index < count:
            raise ValueError(f"ignore_index {self.ignore_index} is also a class; use 255")
        if self.intensity_window is not None and not self.intensity_window[0] < self.intensity_window[1]:
            raise ValueError(f"intensity_window {list(self.intensity_window)} must be [low, high] with low < high")
        if self.roi is not None and self.image_size is not None:
            raise ValueError("image_size and roi are both given; with roi, its size is that of the network's input")
        targets = set((self.mask_values or {}).values()) - set(range(count)) - {self.ignore_index}
        if targets:
            raise ValueError(
                f"mask_values maps to {sorted(targets)}; expected class indices 0..{count - 1} or ignore_index"
            )
        return self

    @model_validator(mode="after")
    def _groups_consist_of_classes(self) -> DataSection:
        for name, members in self.class_groups.items():
            if name in self.class_names:
                raise ValueError(f"class_groups holds {name!r}, which is also a class; give the group another name")
            unknown = sorted(set(members) - set(self.class_names[1:]))
            if unknown or not members:
                raise ValueError(
                    f"class_groups.{name} is {list(members)}; expected some of the classes {list(self.class_names[1:])}"
                )
        return self


class AugmentationSection(Section):
    """Random changes of a training sample (paper Sec. 2.3)."""

    mirror: Fraction = 0.5
    scale: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (0.5, 2.0)
    rotation: Annotated[float, Field(ge=0, le=180)] = 10.0
    color_jitter: Fraction = 0.5
    brightness: Fraction = 0.2
    contrast: Fraction = 0.2
    saturation: Fraction = 0.2
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.02

    @model_validator(mode="after")
    def _scale_is_ordered(self) -> AugmentationSection:
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale {list(self.scale)} must be [smallest, largest]")
        return self
