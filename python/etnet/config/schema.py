"""The recipe: every choice of a training run, checked when it is read (paper Sec. 2 and 2.3)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from etnet.config.data_section import AugmentationSection, DataSection
from etnet.config.networks import NETWORKS, NetworkTraits, unknown_network
from etnet.config.section import Fraction, Section
from etnet.types import Contract, Postprocessing, RegionOfInterest, StructureRule

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)

CLASS_PALETTE = (
    (0, 0, 0),
    (46, 204, 113),
    (231, 76, 60),
    (52, 152, 219),
    (241, 196, 15),
    (155, 89, 182),
    (26, 188, 156),
    (230, 126, 34),
)
"""Colours of the first classes in written masks and overlays; more classes cycle through all but the background."""


class ModelSection(Section):
    """The network (paper Sec. 2); `use_egm` and `use_wam` give the rows of Table 3.

    `name` is `etnet` or one of the networks that it is compared with (`etnet.models.MODELS`). `decoder_channels` is
    read by `etnet` and `multi_task`, `edge_channels` by `etnet`, `encoder` and `encoder_weights` by all but `mnet`; the
    others ignore them, so that one recipe trains every network. `polar` shows M-Net its region of interest in polar
    coordinates.

    Ours, not the paper's: `high_resolution` predicts the classes of `etnet` at stride 2 with a skip connection from the
    encoder's stem.
    """

    name: str = "etnet"
    encoder: str = "resnet50"
    encoder_weights: str = "imagenet"
    decoder_channels: Annotated[int, Field(ge=8)] = 256
    edge_channels: Annotated[int, Field(ge=8)] = 64
    use_egm: bool = True
    use_wam: bool = True
    high_resolution: bool = False
    polar: bool = False

    @field_validator("name")
    @classmethod
    def _name_is_known(cls, value: str) -> str:
        if value not in NETWORKS:
            raise ValueError(unknown_network(value))
        return value

    @model_validator(mode="after")
    def _switches_belong_to_the_network(self) -> ModelSection:
        owners = {"use_egm": "etnet", "use_wam": "etnet", "high_resolution": "etnet", "polar": "mnet"}
        for key, owner in owners.items():
            value = getattr(self, key)
            if value != type(self).model_fields[key].default and self.name != owner:
                raise ValueError(
                    f"{key}={str(value).lower()} is for name={owner}, but name is {self.name}; leave it out"
                )
        return self

    @property
    def traits(self) -> NetworkTraits:
        """What the network needs of sizes, batches and packages."""
        return NETWORKS[self.name]


class LossSection(Section):
    """Lovasz-Softmax of regions and edges (paper eq. 1 and Sec. 2.2); `method` is that of `etnet.losses`.

    Ours, not the paper's: `cross_entropy` is the share of the cross-entropy in both terms, beside Lovasz-Softmax.
    """

    alpha: Fraction = 0.3
    cross_entropy: Fraction = 0.0
    classes: Literal["present", "all"] | tuple[Annotated[int, Field(ge=0)], ...] = "present"
    per_image: bool = False
    method: Literal["auto", "sort", "histogram", "reference"] = "auto"


class OptimizerSection(Section):
    """Adam with the poly schedule (paper Sec. 2.3)."""

    base_lr: Annotated[float, Field(gt=0)] = 0.005
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    poly_power: Annotated[float, Field(ge=0)] = 0.9
    clip_gradient_norm: Annotated[float, Field(gt=0)] | None = None


class TrainingSection(Section):
    """Length, batch, numerics and bookkeeping of a run.

    `patience` ends a run when so many epochs brought no better score on the held-out images. `ema_decay`, such as
    0.999, makes the network that is scored and saved the exponential moving average of the trained one.

    `accumulate` computes each batch in so many equal parts, one after the other, which takes less memory. The gradient
    is the mean over the parts. It is that of the whole batch where the loss is a mean over images
    (`loss.per_image: true`), but for batch normalization, which sees one part at a time. With `per_image: false`, the
    paper's loss, the Lovasz extension is taken of the IoU over all pixels of a part, no longer of the whole batch.

    `compile` runs network and loss through torch.compile. The first step then takes a minute or more.

    `deterministic` makes a run on a GPU repeat bit for bit, at some cost of time; one on a CPU always does.
    """

    epochs: Annotated[int, Field(ge=1)] = 300
    batch_size: Annotated[int, Field(ge=1)] = 16
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    accumulate: Annotated[int, Field(ge=1)] = 1
    deterministic: bool = False
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    compile: bool = False
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    patience: Annotated[int, Field(ge=1)] | None = None
    validate_every: Annotated[int, Field(ge=1)] = 10
    save_every: Annotated[int, Field(ge=1)] = 10

    @model_validator(mode="after")
    def _parts_are_equal(self) -> TrainingSection:
        if self.batch_size % self.accumulate:
            lower = max(1, self.batch_size // self.accumulate) * self.accumulate
            raise ValueError(
                f"batch_size {self.batch_size} does not divide into accumulate={self.accumulate} equal parts; "
                f"take for instance a batch_size of {lower}"
            )
        return self


class StructureSection(Section):
    """What a structure must look like in a predicted mask: `StructureRule` of `etnet.types`, whose names these are."""

    largest: Annotated[int, Field(ge=1)] | None = None
    min_area: Annotated[int, Field(ge=0)] = 0
    fill_holes: bool = False


class PostprocessSection(Section):
    """What `etnet infer` does to predicted masks unless it is told otherwise; by default nothing.

    `threshold` is the probability from which a pixel belongs to the second of two classes. `structures` holds rules by
    the name of a class or group, such as `lung: {largest: 2, fill_holes: true}`, and is applied in its order.
    """

    threshold: Annotated[float, Field(gt=0, lt=1)] | None = None
    structures: dict[str, StructureSection] = Field(default_factory=dict)


class Recipe(Section):
    """All choices of a training run.

    Attributes:
        name: What the run's folder is called unless the caller says otherwise.
        data: Data set and masks.
        augmentation: Random changes of training samples.
        model: Network.
        loss: Loss function.
        optimizer: Optimizer and learning-rate schedule.
        training: Length, batch, numerics.
        postprocess: Rules for predicted masks.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "folder"
    data: DataSection = DataSection()
    augmentation: AugmentationSection = AugmentationSection()
    model: ModelSection = ModelSection()
    loss: LossSection = LossSection()
    optimizer: OptimizerSection = OptimizerSection()
    training: TrainingSection = TrainingSection()
    postprocess: PostprocessSection = PostprocessSection()

    @model_validator(mode="after")
    def _loss_classes_exist(self) -> Recipe:
        count = len(self.data.class_names)
        if isinstance(self.loss.classes, tuple) and not set(self.loss.classes) <= set(range(count)):
            raise ValueError(f"loss.classes {list(self.loss.classes)} names a class outside 0..{count - 1}")
        return self

    @model_validator(mode="after")
    def _patience_has_a_score(self) -> Recipe:
        if self.training.patience is not None and self.data.validation_fraction == 0:
            raise ValueError(
                f"training.patience is {self.training.patience}, but data.validation_fraction is 0; early stopping "
                "needs held-out images, so hold some out or leave patience away"
            )
        return self

    @model_validator(mode="after")
    def _postprocessed_structures_exist(self) -> Recipe:
        known = [*self.data.class_names[1:], *self.data.class_groups]
        for name in self.postprocess.structures:
            if name not in known:
                raise ValueError(f"postprocess.structures names {name!r}; expected one of {', '.join(known)}")
        if self.postprocess.threshold is not None and len(self.data.class_names) != 2:
            raise ValueError(
                f"postprocess.threshold is for two classes, but there are {len(self.data.class_names)}; leave it out"
            )
        return self

    @model_validator(mode="after")
    def _network_fits(self) -> Recipe:
        name, traits, data = self.model.name, self.model.traits, self.data
        sizes = {"data.crop_size": data.crop_size}
        if data.roi is not None:
            sizes["data.roi.size"] = data.roi.size
        for key, size in sizes.items():
            if size % traits.size_multiple:
                larger = (size // traits.size_multiple + 1) * traits.size_multiple
                raise ValueError(
                    f"{key} is {size}; {name} needs a multiple of {traits.size_multiple}, for instance {larger}"
                )
        together, parts = self.training.batch_size // self.training.accumulate, self.training.accumulate
        if together < traits.smallest_batch:
            divided = "" if parts == 1 else f" and is computed in {parts} parts of {together}"
            raise ValueError(
                f"training.batch_size is {self.training.batch_size}{divided}; {name} needs at least "
                f"{traits.smallest_batch} at once, because it normalises maps of one pixel over the batch"
            )
        if self.model.polar and data.roi is None:
            raise ValueError(
                "model.polar is true, but data.roi is not set; the polar transform needs a region of interest around "
                "the structure"
            )
        return self

    def contract(self) -> Contract:
        """What a program needs to use weights trained by this recipe."""
        data = self.data
        colors = data.class_colors or tuple(default_color(index) for index in range(len(data.class_names)))
        return Contract(
            class_names=data.class_names,
            class_colors=colors,
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            size_multiple=self.model.traits.size_multiple,
            image_size=data.image_size,
            intensity_window=data.intensity_window,
            class_groups=tuple(
                (name, tuple(data.class_names.index(member) for member in members))
                for name, members in data.class_groups.items()
            ),
            roi=None if data.roi is None else RegionOfInterest(data.roi.side, data.roi.size),
            postprocess=Postprocessing(
                self.postprocess.threshold,
                tuple(StructureRule(name, **dict(rule)) for name, rule in self.postprocess.structures.items()),
            ),
            edge_width=data.edge_width,
        )


def default_color(class_index: int) -> tuple[int, int, int]:
    """RGB colour of a class for which the recipe names none."""
    if class_index < len(CLASS_PALETTE):
        return CLASS_PALETTE[class_index]
    return CLASS_PALETTE[1 + (class_index - 1) % (len(CLASS_PALETTE) - 1)]


def encoder_weights_path(value: str) -> Path | None:
    """The file named by `model.encoder_weights`, or None for the words `imagenet` and `none`."""
    return None if value in ("imagenet", "none") else Path(value)
