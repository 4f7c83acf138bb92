"""DICOM files and volumes as scanners write them, full of what must never come out again."""

from __future__ import annotations

import io
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

IDENTIFIERS = ("Quetzalcoatl", "MRN-471142", "19370229", "Saint-Nowhere", "ACC-889977", "Dr-Whoknows", "private-secret")
"""Words inside every file of this module that no output, log or error may repeat."""


def write_dicom(path: Path, values: np.ndarray, *, syntax=ExplicitVRLittleEndian, frames=None, **tags) -> Path:
    """A grey image [H, W] or RGB image [H, W, 3] of 8 or 16 bits; `tags` are added, or left out where they are None."""
    dataset = identified()
    colored = values.ndim == 3 and values.shape[-1] == 3
    dataset.Rows, dataset.Columns = values.shape[:2] if colored else values.shape[-2:]
    dataset.SamplesPerPixel = 3 if colored else 1
    dataset.PhotometricInterpretation = "RGB" if colored else "MONOCHROME2"
    if colored:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = dataset.BitsStored = values.dtype.itemsize * 8
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(values.dtype.kind == "i")
    dataset.PixelData = values.tobytes() + b"\0" * (values.nbytes % 2)
    dataset["PixelData"].VR = "OB" if values.dtype.itemsize == 1 else "OW"
    if frames is not None:
        dataset.NumberOfFrames = frames
    dataset.file_meta.TransferSyntaxUID = syntax
    return save_dicom(path, dataset, **tags)


def write_jpeg2000_dicom(path: Path, values: np.ndarray, **tags) -> Path:
    """A grey image, compressed without loss by Pillow."""
    encoded = io.BytesIO()
    Image.fromarray(values).save(encoded, "JPEG2000", irreversible=False)
    data = encapsulate([encoded.getvalue()])
    return write_dicom(path, values, syntax="1.2.840.10008.1.2.4.90", PixelData=data, **tags)


def save_dicom(path: Path, dataset: Dataset, **tags) -> Path:
    for name, value in tags.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    if dataset.file_meta.TransferSyntaxUID.is_compressed and "PixelData" in dataset:
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def identified() -> Dataset:
    """A data set without an image."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID
    name, number, birth, hospital, accession, physician, secret = IDENTIFIERS
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = f"{name}^Jane", number, birth
    dataset.InstitutionName, dataset.AccessionNumber, dataset.ReferringPhysicianName = hospital, accession, physician
    dataset.ImageComments = f"{name} {number}"
    dataset.private_block(0x0099, "SCANNER", create=True).add_new(0x01, "LO", secret)
    return dataset


def write_nifti(path: Path, values: np.ndarray, affine: np.ndarray, *, kind=nibabel.Nifti1Image, **fields) -> Path:
    image = kind(values, affine)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = IDENTIFIERS[0]
    if "db_name" in image.header:
        image.header["db_name"] = IDENTIFIERS[1]
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", IDENTIFIERS[3].encode()))
    for name, value in fields.items():
        image.header[name] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)
    return path


def write_metaimage(path: Path, values: np.ndarray, *, direction=None, spacing=(1, 1, 1), origin=(0, 0, 0)) -> Path:
    """Values [I, J, K]; `direction` has ITK's axes (left, back, up)."""
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(values.T))
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    if direction is not None:
        image.SetDirection(np.ravel(direction).tolist())
    image.SetMetaData("PatientName", IDENTIFIERS[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(image, str(path))
    return path
