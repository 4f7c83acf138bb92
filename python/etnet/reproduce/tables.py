"""The paper's Tables 1 to 3 as data: methods, data sets, metrics and published numbers (paper Sec. 3)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from etnet.errors import UsageError

Figures = tuple[float | None, ...]
"""Published numbers of one method on one data set, one per metric; None where the paper prints none."""


@dataclass(frozen=True)
class Metric:
    """A column of a table.

    Attributes:
        key: Name in `table.json` and `table.csv`.
        title: The paper's name.
        structure: Class or class group that is scored; None for a score over all classes.
    """

    key: str
    title: str
    structure: str | None = None


@dataclass(frozen=True)
class PaperDataset:
    """A data set of the paper.

    Attributes:
        key: Name of the recipe that trains on it.
        title: The paper's name.
        metrics: What the paper measures on it, in its order.
        folders: Names under which its folder is found, the usual one first; case and punctuation do not count.
    """

    key: str
    title: str
    metrics: tuple[Metric, ...]
    folders: tuple[str, ...]

    def is_called(self, name: str) -> bool:
        """Whether a folder of this name holds the data set.

        >>> DRISHTI_GS.is_called("drishti-gs1_files"), DRISHTI_GS.is_called("DRIVE")
        (True, False)
        """
        return _letters(name) in map(_letters, self.folders)


@dataclass(frozen=True)
class Method:
    """A row of a table.

    Attributes:
        key: Name for `--methods`.
        title: The paper's name.
        overrides: What makes a recipe train this method.
        not_run: Why etnet does not train it; None where it does.
    """

    key: str
    title: str
    overrides: tuple[str, ...] = ()
    not_run: str | None = None


@dataclass(frozen=True)
class PaperTable:
    """One table of the paper.

    Attributes:
        name: Name on the command line.
        title: The paper's caption.
        methods: Rows, in the paper's order.
        datasets: Groups of columns, in the paper's order.
        published: Numbers in percent by method and data set.
        quick_methods: Rows that `--quick` trains unless told otherwise.
        footnotes: What a reader has to know about the printed table.
    """

    name: str
    title: str
    methods: tuple[Method, ...]
    datasets: tuple[PaperDataset, ...]
    published: Mapping[tuple[str, str], Figures]
    quick_methods: tuple[str, ...]
    footnotes: tuple[str, ...] = ()

    def figures(self, method: Method, dataset: PaperDataset) -> Figures:
        """The paper's numbers in one cell, in the order of the data set's metrics."""
        return self.published[method.key, dataset.key]


ACCURACY = Metric("accuracy", "Acc.")
MEAN_IOU = Metric("mean_iou", "mIoU")
DICE_CUP = Metric("dice_optic_cup", "Dice_OC", structure="optic_cup")
DICE_DISC = Metric("dice_optic_disc", "Dice_OD", structure="optic_disc")

_OPTIC = (DICE_CUP, DICE_DISC, MEAN_IOU)
_GENERAL = (ACCURACY, MEAN_IOU)

REFUGE = PaperDataset("refuge", "REFUGE", _OPTIC, ("REFUGE", "REFUGE1", "REFUGE2018"))
DRISHTI_GS = PaperDataset("drishti_gs", "Drishti-GS", _OPTIC, ("Drishti-GS", "Drishti-GS1", "Drishti-GS1_files"))
DRIVE = PaperDataset("drive", "DRIVE", _GENERAL, ("DRIVE",))
MONTGOMERY = PaperDataset(
    "montgomery", "MC", _GENERAL, ("Montgomery", "MontgomerySet", "MontgomeryCounty", "NLM-MontgomeryCXRSet", "MC")
)
LUNG_CT = PaperDataset(
    "lung_ct", "LUNA", _GENERAL, ("LUNA", "lung_ct", "finding-lungs-in-ct-data", "finding-lungs-in-ct")
)

FCN = Method("fcn", "FCN", ("model.name=fcn",))
UNET = Method("unet", "U-Net", ("model.name=unet",))
M_NET = Method("mnet", "M-Net", ("model.name=mnet",))
MULTI_TASK = Method("multi_task", "Multi-task", ("model.name=multi_task",))
POSAL = Method(
    "posal",
    "pOSAL",
    not_run="adversarial domain adaptation, trained with REFUGE; etnet shows its published number only",
)
ET_NET = Method("etnet", "ET-Net", ("model.name=etnet", "model.use_egm=true", "model.use_wam=true"))

LOCALIZER = Method("localizer", "Disc localizer")
"""Not a row: finds the region of interest that the methods segment (Sec. 3, "first localize the disc centers")."""

BASE = Method("base", "Base Network", ("model.name=etnet", "model.use_egm=false", "model.use_wam=false"))
BASE_EGM = Method("base_egm", "Base Network + EGM", ("model.name=etnet", "model.use_egm=true", "model.use_wam=false"))
BASE_WAM = Method("base_wam", "Base Network + WAM", ("model.name=etnet", "model.use_egm=false", "model.use_wam=true"))
BASE_EGM_WAM = Method("etnet", "Base Network + EGM + WAM", ET_NET.overrides)

TABLE_1 = PaperTable(
    name="table1",
    title="Table 1: Optic disc/cup segmentation results on retinal fundus images.",
    methods=(FCN, UNET, M_NET, MULTI_TASK, POSAL, ET_NET),
    datasets=(REFUGE, DRISHTI_GS),
    published={
        ("fcn", "refuge"): (84.67, 92.56, 82.47),
        ("fcn", "drishti_gs"): (87.95, 95.69, 83.92),
        ("unet", "refuge"): (85.44, 93.08, 83.12),
        ("unet", "drishti_gs"): (88.06, 96.43, 84.87),
        ("mnet", "refuge"): (86.48, 93.59, 84.02),
        ("mnet", "drishti_gs"): (88.60, 96.58, 85.88),
        ("multi_task", "refuge"): (86.74, 94.01, 84.36),
        ("multi_task", "drishti_gs"): (88.96, 96.55, 85.94),
        ("posal", "refuge"): (87.50, 94.60, None),
        ("posal", "drishti_gs"): (90.10, 97.40, None),
        ("etnet", "refuge"): (89.12, 95.29, 86.70),
        ("etnet", "drishti_gs"): (93.14, 97.52, 87.92),
    },
    quick_methods=("etnet",),
    footnotes=(
        "The text of Sec. 3 prints Dice_OD for the cup as well as for the disc; the cup is meant by Dice_OC.",
        "The paper gives no mIoU for pOSAL.",
    ),
)

TABLE_2 = PaperTable(
    name="table2",
    title="Table 2: Segmentation results on retinal fundus, X-Ray and CT images.",
    methods=(FCN, UNET, M_NET, MULTI_TASK, ET_NET),
    datasets=(DRIVE, MONTGOMERY, LUNG_CT),
    published={
        ("fcn", "drive"): (94.13, 74.55),
        ("fcn", "montgomery"): (97.35, 90.53),
        ("fcn", "lung_ct"): (96.18, 93.82),
        ("unet", "drive"): (94.45, 75.46),
        ("unet", "montgomery"): (97.82, 91.64),
        ("unet", "lung_ct"): (96.63, 94.79),
        ("mnet", "drive"): (94.58, 75.81),
        ("mnet", "montgomery"): (97.96, 91.95),
        ("mnet", "lung_ct"): (97.27, 94.92),
        ("multi_task", "drive"): (94.97, 76.21),
        ("multi_task", "montgomery"): (98.13, 92.24),
        ("multi_task", "lung_ct"): (97.82, 94.96),
        ("etnet", "drive"): (95.60, 77.44),
        ("etnet", "montgomery"): (98.65, 94.20),
        ("etnet", "lung_ct"): (98.68, 96.23),
    },
    quick_methods=("unet", "etnet"),
    footnotes=("The paper does not say which Montgomery (MC) images it tests on; the split here is the recipe's.",),
)

TABLE_3 = PaperTable(
    name="table3",
    title="Table 3: Ablation study of optic disc/cup segmentation on the Drishti-GS test set",
    methods=(BASE, BASE_EGM, BASE_WAM, BASE_EGM_WAM),
    datasets=(DRISHTI_GS,),
    published={
        ("base", "drishti_gs"): (90.11, 95.77, 84.41),
        ("base_egm", "drishti_gs"): (91.24, 97.17, 86.49),
        ("base_wam", "drishti_gs"): (91.49, 97.07, 86.62),
        ("etnet", "drishti_gs"): (93.14, 97.52, 87.92),
    },
    quick_methods=("base", "base_egm", "base_wam", "etnet"),
)

TABLES = {table.name: table for table in (TABLE_1, TABLE_2, TABLE_3)}
"""The tables by their name on the command line."""


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def chosen(names: str | None, known: tuple[str, ...], *, option: str) -> tuple[str, ...]:
    """The names of a comma-separated option in the table's order; all of them when the option was not given.

    Raises:
        UsageError: A name is unknown, or none is given.

    >>> chosen("etnet, fcn", ("fcn", "unet", "etnet"), option="--methods")
    ('fcn', 'etnet')
    """
    if names is None:
        return known
    asked = [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in asked if name not in known]
    if unknown or not asked:
        raise UsageError(f"{option} is {names!r}; this table has {', '.join(known)}")
    return tuple(name for name in known if name in asked)
