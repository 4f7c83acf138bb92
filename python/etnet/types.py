"""Plain containers that pass between the layers; NumPy only, so that they import without torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

UInt8Array = npt.NDArray[np.uint8]
Float32Array = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Sample:
    """One image with its ground truth at the image's own size.

    Attributes:
        id: Name of the image without suffix, unique inside a data set.
        image: RGB image [H, W, 3], uint8.
        mask: Class indices [H, W], uint8; `ignore_index` (if the recipe names one) marks pixels without a label.
        field_of_view: Pixels [H, W], bool, inside which a second score is reported; None where the data set has none.
        reference_cdr: The annotators' mean vertical cup-to-disc ratio; None where the data set has none.
    """

    id: str
    image: UInt8Array
    mask: UInt8Array
    field_of_view: BoolArray | None = None
    reference_cdr: float | None = None


@dataclass(frozen=True)
class Prediction:
    """What the network says about one image, in that image's own geometry.

    Attributes:
        labels: Most probable class per pixel [H, W], uint8.
        probabilities: Softmax over classes [C, H, W], float32, in 0..1; None when it was not asked for.
        edges: Probability of a boundary times 255, rounded [H, W], uint8; None for a network without edge guidance.
        center: (row, column) of the region of interest that was segmented, in pixels, the middle of the first pixel at
            (0.5, 0.5); None where the whole image was.
    """

    labels: UInt8Array
    probabilities: Float32Array | None
    edges: UInt8Array | None
    center: tuple[float, float] | None = None


@dataclass(frozen=True)
class RegionOfInterest:
    """The square around a centre that a network segments instead of the whole image.

    Attributes:
        side: Side of the square as a share of the image's width, 0..1.
        size: Height and width in pixels to which the square is resized.
    """

    side: float
    size: int


@dataclass(frozen=True)
class StructureRule:
    """What a predicted structure must look like; see `etnet.inference.postprocess`.

    Attributes:
        structure: Name of a class other than the background, or of a group of classes.
        largest: How many of its connected regions stay, the largest ones; None keeps all.
        min_area: Smallest connected region that stays, in pixels of the image.
        fill_holes: Whether background that the structure encloses becomes part of it.
    """

    structure: str
    largest: int | None = None
    min_area: int = 0
    fill_holes: bool = False


@dataclass(frozen=True)
class Postprocessing:
    """What becomes of a network's probabilities after it has run; the default leaves its labels as they are.

    Attributes:
        threshold: Probability, 0..1, from which a pixel belongs to the second of two classes; None takes the most
            probable class.
        structures: Rules for structures, applied in this order.
    """

    threshold: float | None = None
    structures: tuple[StructureRule, ...] = ()


@dataclass(frozen=True)
class ImageStatistics:
    """What `etnet.data.image_statistics` measures of an image, each independent of the image's size.

    Attributes:
        brightness: Mean grey of the field, which is the image without its black border, 0..1.
        contrast: Standard deviation of the field's grey, 0..1.
        sharpness: Finest detail of the field relative to the next coarser one; falls when an image is blurred, and does
            not change with brightness or contrast.
        red: Share of red in the mean colour of the field, 0..1; 1/3 in a grey image.
        blue: Share of blue.
        frame: Mean grey of the outer frame minus that of the image, in standard deviations of the image's grey; changes
            its sign in a negative.
    """

    brightness: float
    contrast: float
    sharpness: float
    red: float
    blue: float
    frame: float


@dataclass(frozen=True)
class TrainingRange:
    """The range of the images that a network was trained on.

    Attributes:
        low: The lowest value of each statistic.
        high: The highest.
        images: How many images were measured.
    """

    low: ImageStatistics
    high: ImageStatistics
    images: int


@dataclass(frozen=True)
class Contract:
    """Everything needed to use trained weights exactly as they were trained; stored inside every weights file.

    Attributes:
        class_names: Names of the classes in index order; index 0 is the background.
        class_colors: An RGB colour, 0..255 each, per class.
        mean: Per-channel mean (RGB, on the 0..255 scale) that is subtracted from an image.
        std: Per-channel standard deviation (RGB, 0..255 scale) that an image is divided by.
        size_multiple: Height and width of the network's input must be multiples of this many pixels.
        image_size: (height, width) to which images are resized before the network; None keeps their own size.
        intensity_window: (low, high) mapped to 0..255 when an image has more than 8 bits; None maps the full range.
        class_groups: Structures of several classes, each a name and the indices of its classes.
        roi: The square that is segmented; None segments the whole image.
        postprocess: What `etnet infer` does to predicted masks unless it is told otherwise.
        edge_width: Width of the boundary band that the edge branch learned, in pixels of the network's input.
        training_range: Statistics of the whole images trained on; None in files of before they were stored, and where
            the input is not a whole image.
    """

    class_names: tuple[str, ...]
    class_colors: tuple[tuple[int, int, int], ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    size_multiple: int = 16
    image_size: tuple[int, int] | None = None
    intensity_window: tuple[float, float] | None = None
    class_groups: tuple[tuple[str, tuple[int, ...]], ...] = ()
    roi: RegionOfInterest | None = None
    postprocess: Postprocessing = Postprocessing()
    edge_width: int = 3
    training_range: TrainingRange | None = None

    @property
    def num_classes(self) -> int:
        """Number of classes, background included."""
        return len(self.class_names)
