"""The data sets that etnet knows: what they hold, where they come from, and how their files are recognised by name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from etnet.config.data_section import DatasetName


@dataclass(frozen=True)
class DatasetCard:
    """What is known about a data set without having it.

    Attributes:
        name: Value of the recipe's `data.dataset`, and name of the recipe.
        title: What people call it.
        structures: What is labelled.
        images: What the images are.
        train: Labelled images in the training part of the official download.
        test: Those in the test part.
        split: Where the division into the two parts comes from.
        layout: Folders and files of the official download, one line each.
        source: Page of the official download.
        reference: Article that introduced it.
        terms: What has to be agreed to.
        image_name: Regular expression of an official image's file name.
        example: Such a name.
        values: Stored values of official mask files.
        sizes: (width, height) of official images; two parts may come from two cameras.
    """

    name: DatasetName
    title: str
    structures: tuple[str, ...]
    images: str
    train: int
    test: int
    split: str
    layout: tuple[str, ...]
    source: str
    reference: str
    terms: str
    image_name: str
    example: str
    values: tuple[int, ...]
    sizes: tuple[tuple[int, int], ...]

    @cached_property
    def image_pattern(self) -> re.Pattern[str]:
        """`image_name`, compiled."""
        return re.compile(self.image_name, re.IGNORECASE)

    @property
    def total(self) -> int:
        """Labelled images of both parts."""
        return self.train + self.test


_REQUEST = "free for research after registration; not to be passed on"
_CITE = "free for research; cite the article"

CATALOG: dict[str, DatasetCard] = {
    card.name: card
    for card in (
        DatasetCard(
            name="drive",
            title="DRIVE",
            structures=("vessel",),
            images="retinal photographs",
            train=20,
            test=20,
            split="the download's own halves",
            layout=(
                "training/images/21_training.tif",
                "training/1st_manual/21_manual1.gif",
                "training/mask/21_training_mask.gif",
                "test/ the same (today's download has no test/1st_manual)",
            ),
            source="https://drive.grand-challenge.org",
            reference="Staal et al., IEEE TMI 2004, doi:10.1109/TMI.2004.825627",
            terms=_REQUEST,
            image_name=r"[0-9]{2}_(training|test)\.[a-z]+",
            example="21_training.tif",
            values=(0, 255),
            sizes=((565, 584),),
        ),
        DatasetCard(
            name="chase_db1",
            title="CHASE_DB1",
            structures=("vessel",),
            images="retinal photographs of children",
            train=20,
            test=8,
            split="children 01-10 and 11-14, as commonly used; both eyes of a child on one side",
            layout=("Image_01L.jpg", "Image_01L_1stHO.png", "Image_01L_2ndHO.png (second observer, not used)"),
            source="https://blogs.kingston.ac.uk/retinal/chasedb1/",
            reference="Fraz et al., IEEE TBME 2012, doi:10.1109/TBME.2012.2205687",
            terms=_CITE,
            image_name=r"Image_[0-9]{2}[LR]\.[a-z]+",
            example="Image_01L.jpg",
            values=(0, 1, 255),
            sizes=((999, 960),),
        ),
        DatasetCard(
            name="stare",
            title="STARE",
            structures=("vessel",),
            images="retinal photographs",
            train=10,
            test=10,
            split="first ten and last ten in the order of their numbers, as commonly used",
            layout=("stare-images/im0001.ppm", "labels-ah/im0001.ah.ppm", "labels-vk/ (second observer, not used)"),
            source="https://cecas.clemson.edu/~ahoover/stare/probing/index.html",
            reference="Hoover et al., IEEE TMI 2000, doi:10.1109/42.845178",
            terms=_CITE,
            image_name=r"im[0-9]{4}\.ppm(\.gz)?",
            example="im0001.ppm",
            values=(0, 255),
            sizes=((700, 605),),
        ),
        DatasetCard(
            name="drishti_gs",
            title="Drishti-GS",
            structures=("optic_disc", "optic_cup"),
            images="retinal photographs",
            train=50,
            test=51,
            split="the download's own halves",
            layout=(
                "Training/Images/GLAUCOMA/drishtiGS_002.png (and NORMAL/)",
                "Training/GT/drishtiGS_002/SoftMap/drishtiGS_002_ODsegSoftmap.png",
                "Training/GT/drishtiGS_002/SoftMap/drishtiGS_002_cupsegSoftmap.png",
                "Test/Images/, Test/Test_GT/ the same",
            ),
            source="https://cvit.iiit.ac.in/projects/mip/drishti-gs/mip-dataset2/Home.php",
            reference="Sivaswamy et al., ISBI 2014, doi:10.1109/ISBI.2014.6867807",
            terms=_REQUEST,
            image_name=r"drishtiGS_[0-9]{3}\.[a-z]+",
            example="drishtiGS_002.png",
            values=(0, 64, 128, 191, 255),
            sizes=((2047, 1751),),
        ),
        DatasetCard(
            name="refuge",
            title="REFUGE",
            structures=("optic_disc", "optic_cup"),
            images="retinal photographs",
            train=400,
            test=400,
            split="the download's Training400 and Validation400, as in the paper; Test400 where there is no validation",
            layout=(
                "Training400/Glaucoma/g0001.jpg, Training400/Non-Glaucoma/n0001.jpg",
                "Annotation-Training400/Disc_Cup_Masks/Glaucoma/g0001.bmp (and Non-Glaucoma/)",
                "REFUGE-Validation400/V0001.jpg",
                "REFUGE-Validation400-GT/Disc_Cup_Masks/V0001.bmp",
            ),
            source="https://refuge.grand-challenge.org",
            reference="Orlando et al., Medical Image Analysis 2020, doi:10.1016/j.media.2019.101570",
            terms=_REQUEST,
            image_name=r"[gnVT][0-9]{4}\.jpg",
            example="g0001.jpg",
            values=(0, 128, 255),
            sizes=((2124, 2056), (1634, 1634)),
        ),
        DatasetCard(
            name="montgomery",
            title="Montgomery County chest X-rays",
            structures=("lung",),
            images="chest radiographs",
            train=80,
            test=58,
            split="seeded and stratified by label; the paper's own 80/58 is not published",
            layout=(
                "CXR_png/MCUCXR_0001_0.png",
                "ManualMask/leftMask/MCUCXR_0001_0.png",
                "ManualMask/rightMask/MCUCXR_0001_0.png",
                "or masks/ with both lungs in one file",
            ),
            source="https://lhncbc.nlm.nih.gov/LHC-downloads/downloads.html",
            reference="Jaeger et al., Quant. Imaging Med. Surg. 2014, doi:10.3978/j.issn.2223-4292.2014.11.20",
            terms="free for research; cite the article; not to be passed on",
            image_name=r"MCUCXR_[0-9]{4}_[01]\.[a-z]+",
            example="MCUCXR_0001_0.png",
            values=(0, 1, 255),
            sizes=((4020, 4892), (4892, 4020)),
        ),
        DatasetCard(
            name="lung_ct",
            title="Finding and Measuring Lungs in CT Data",
            structures=("lung",),
            images="slices of chest CT",
            train=214,
            test=53,
            split="seeded; the paper's own 214/53 is not published",
            layout=("2d_images/ID_0000_Z_0142.tif", "2d_masks/ID_0000_Z_0142.tif"),
            source="https://www.kaggle.com/datasets/kmader/finding-lungs-in-ct-data",
            reference="K. Mader, Kaggle data set",
            terms="a Kaggle account; see the page",
            image_name=r"ID_[0-9]{4}_Z_[0-9]{4}\.tiff?",
            example="ID_0000_Z_0142.tif",
            values=(0, 255),
            sizes=((512, 512),),
        ),
    )
}
"""Cards by the value of `data.dataset`; one's own `folder` has none."""


def dataset_of(file_name: str) -> str | None:
    """The data set whose official images are named like this file; None for other names.

    >>> dataset_of("im0077.ppm"), dataset_of("MCUCXR_0001_0.png"), dataset_of("scan_3.png")
    ('stare', 'montgomery', None)
    """
    return next((card.name for card in CATALOG.values() if card.image_pattern.fullmatch(file_name)), None)
