"""How each format of volumes is read and written: NIfTI by nibabel, MetaImage by SimpleITK.

Geometry is carried over to the mask unchanged. Free text of a header (description, name of the data base, extensions,
further keys of a MetaImage) is not: scanners and converters write the patient's name there.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from etnet.data.medical_packages import import_for
from etnet.data.metaimage_header import read_metaimage_header
from etnet.errors import DataError, EnvironmentFault
from etnet.output import replacing, write_bytes
from etnet.types import UInt8Array

_MILLIMETRES = {"mm": 1.0, "micron": 1e-3, "meter": 1e3, "unknown": 1.0}
_MOST_DIFFERENCE = 0.01
"""Share by which two descriptions of one voxel may differ: tools round them differently."""
_NIFTI_TEXTS = ("descrip", "aux_file", "db_name", "intent_name", "data_type")
_COMPRESSION = 4
_AT_ONCE = 1 << 20
_MOST_TRAILING = 1 << 24


@dataclass(frozen=True)
class VolumeHeader:
    """What a header says before any voxel is read.

    Attributes:
        shape: Voxels along the axes of the file; trailing axes of length 1 are left out.
        spacing: Distance between voxels in mm along the three axes.
        affine: Voxel index to position, the axes pointing right, front and up of the patient [4, 4].
        voxel_bytes: Size of one voxel.
    """

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    voxel_bytes: int
    affine: npt.NDArray[np.float64]


@dataclass(frozen=True)
class StoredVolume:
    """The voxels of a file, and how a mask with its geometry is written.

    Attributes:
        voxels: Stored values [I, J, K] along the axes of the file.
        slope: What stored values are multiplied by.
        intercept: What is added then.
        write_mask: Writes class indices [I, J, K], uint8.
    """

    voxels: npt.NDArray[Any]
    slope: float
    intercept: float
    write_mask: Callable[[Path, UInt8Array], None]

    def scaled(self, stored: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Values of some stored ones, in the file's unit."""
        if (self.slope, self.intercept) == (1.0, 0.0):
            return np.ascontiguousarray(stored)
        # What is too large for a float becomes infinite.
        with np.errstate(over="ignore", invalid="ignore"):
            slope, intercept = np.float32(self.slope), np.float32(self.intercept)
            values: npt.NDArray[Any] = np.asarray(stored, np.float32) * slope + intercept
        return values


@dataclass(frozen=True)
class VolumeFormat:
    """A format: the package that reads it, and the suffix of its masks."""

    package: str
    mask_suffix: str
    read_header: Callable[[Path], VolumeHeader]
    read_voxels: Callable[[Path], StoredVolume]


def _damaged(path: Path, kind: str, error: Exception) -> DataError:
    # The decoder's own text may quote the header.
    return DataError(
        f"{path}: cannot be read as a {kind} volume ({type(error).__name__}); expected a complete file; copy or export "
        "it again"
    )


def _one_value_per_voxel(path: Path, dtype: np.dtype[Any]) -> None:
    if dtype.names or dtype.kind not in "iuf":
        raise DataError(
            f"{path}: a voxel holds several values or a complex one; expected one number; export one channel"
        )


def _nifti_class(path: Path) -> Any:
    nibabel = import_for(path, "nibabel")
    with import_for(path, "nibabel.openers").ImageOpener(str(path)) as stream:
        header_bytes = stream.read(4)
    # The first field is the header's own length: 540 bytes of NIfTI-2, in either byte order.
    is_second = header_bytes[:4] in ((540).to_bytes(4, "little"), (540).to_bytes(4, "big"))
    return nibabel.Nifti2Image if is_second else nibabel.Nifti1Image


def _read_nifti_header(path: Path) -> VolumeHeader:
    try:
        kind = _nifti_class(path)
        with import_for(path, "nibabel.openers").ImageOpener(str(path)) as stream:
            # Unchecked, because the check turns a negative spacing into a positive one.
            header = kind.header_class.from_fileobj(stream, check=False)
        if not header["magic"].item().startswith((b"n+1", b"n+2")):
            raise ValueError("no mark of NIfTI")
        _one_value_per_voxel(path, header.get_data_dtype())
        shape = list(map(int, header.get_data_shape()))
        unit = _MILLIMETRES.get(header.get_xyzt_units()[0], 1.0)
        spacing = tuple(float(value) * unit for value in header["pixdim"][1:4])
        affine = np.asarray(header.get_best_affine(), dtype=np.float64)
        _check_one_spacing(path, spacing, affine * unit)
    except DataError:
        raise
    except Exception as error:  # decoders meet damaged bytes with any kind of exception
        raise _damaged(path, "NIfTI", error) from None
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    if len(shape) == 2:
        shape.append(1)
    return VolumeHeader(tuple(shape), spacing, header.get_data_dtype().itemsize, affine)


def _check_one_spacing(path: Path, spacing: tuple[float, ...], affine: npt.NDArray[np.float64]) -> None:
    """Refuse a volume whose two descriptions of its voxels contradict each other; a damaged one is refused later."""
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    both = [pair for pair in zip(spacing, lengths, strict=True) if all(np.isfinite(pair)) and min(pair) > 0]
    if all(abs(length - distance) <= _MOST_DIFFERENCE * distance for distance, length in both):
        return
    by_pixdim, by_matrix = (", ".join(f"{value:g}" for value in values) for values in (spacing, lengths))
    raise DataError(
        f"{path}: the voxel spacing is [{by_pixdim}] mm by pixdim and [{by_matrix}] mm by the orientation matrix "
        f"(sform); expected the same within {_MOST_DIFFERENCE:.0%}, because measurements would be wrong by as "
        "much; find out which is true and correct the header, or convert the volume anew"
    )


def _read_nifti_voxels(path: Path) -> StoredVolume:
    try:
        kind = _nifti_class(path)
        with _nifti_stream(path) as stream:
            image = kind.from_stream(stream)
            proxy = image.dataobj
            voxels = np.asanyarray(proxy.get_unscaled())
            if isinstance(stream, gzip.GzipFile):
                _check_end(stream)
        slope, intercept = float(proxy.slope), float(proxy.inter)
    except MemoryError:
        raise
    except Exception as error:  # decoders meet damaged bytes with any kind of exception
        raise _damaged(path, "NIfTI", error) from None
    shape, header = voxels.shape, image.header.copy()

    def write(target: Path, mask: UInt8Array) -> None:
        _write_nifti(target, mask.reshape(shape), kind, header)

    return StoredVolume(voxels.reshape((*shape, 1)[:3]), slope, intercept, write)


def _nifti_stream(path: Path) -> gzip.GzipFile | BinaryIO:
    return gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb")


def _check_end(stream: gzip.GzipFile) -> None:
    """Read what follows the voxels: the checksum behind it, which tells damaged voxels, is compared at the very end."""
    trailing = 0
    while block := stream.read(_AT_ONCE):
        trailing += len(block)
        if trailing > _MOST_TRAILING:
            raise ValueError("far more than the header announces")


def _write_nifti(path: Path, mask: UInt8Array, kind: Any, header: Any) -> None:
    kept = header.copy()
    kept.set_data_dtype(np.uint8)
    kept["scl_slope"], kept["scl_inter"] = 1.0, 0.0
    kept["cal_min"], kept["cal_max"] = 0.0, 0.0
    kept.extensions.clear()
    for name in _NIFTI_TEXTS:
        if name in kept:
            kept[name] = b""
    # Without an affine of its own the image takes the header's, with both of its transforms and their codes.
    content = kind(mask, None, kept).to_bytes()
    if path.name.lower().endswith(".gz"):
        # Without the time, so that equal masks are equal files.
        content = gzip.compress(content, compresslevel=_COMPRESSION, mtime=0)
    write_bytes(path, content)


def _metaimage_reader(path: Path) -> Any:
    sitk = import_for(path, "SimpleITK")
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    reader = sitk.ImageFileReader()
    reader.SetImageIO("MetaImageIO")
    reader.SetFileName(str(path))
    return reader


def _read_metaimage_header(path: Path) -> VolumeHeader:
    written, reader = read_metaimage_header(path), _metaimage_reader(path)
    written.check_dimensions()
    try:
        reader.ReadImageInformation()
        value_bytes = _value_bytes(path, reader)
        components = reader.GetNumberOfComponents()
        shape, spacing = reader.GetSize(), reader.GetSpacing()
        direction, origin = reader.GetDirection(), reader.GetOrigin()
    except RuntimeError as error:
        raise _damaged(path, "MetaImage", error) from None
    if components != 1:
        raise DataError(f"{path}: a voxel holds {components} values; expected one number; export one channel")
    affine = np.eye(4)
    if len(shape) == 3:
        affine[:3, :3] = np.reshape(direction, (3, 3)) * spacing
        affine[:3, 3] = origin
        # ITK's axes point left and back where NIfTI's point right and front.
        affine[:2] *= -1
    return VolumeHeader(tuple(shape), written.spacing or tuple(spacing), value_bytes, affine)


def _value_bytes(path: Path, reader: Any) -> int:
    one: int = import_for(path, "SimpleITK").Image([1, 1, 1], reader.GetPixelID()).GetSizeOfPixelComponent()
    return one


def _read_metaimage_voxels(path: Path) -> StoredVolume:
    sitk = import_for(path, "SimpleITK")
    reader = _metaimage_reader(path)
    try:
        reader.ReadImageInformation()
        read_metaimage_header(path).check_voxels(math.prod(reader.GetSize()) * _value_bytes(path, reader))
        image = reader.Execute()
    except RuntimeError as error:
        raise _damaged(path, "MetaImage", error) from None
    voxels = sitk.GetArrayFromImage(image).T
    _one_value_per_voxel(path, voxels.dtype)
    geometry = image.GetOrigin(), image.GetSpacing(), image.GetDirection()

    def write(target: Path, mask: UInt8Array) -> None:
        _write_metaimage(target, mask, *geometry)

    return StoredVolume(voxels, 1.0, 0.0, write)


def _write_metaimage(
    path: Path, mask: UInt8Array, origin: tuple[float, ...], spacing: tuple[float, ...], direction: tuple[float, ...]
) -> None:
    sitk = import_for(path, "SimpleITK")
    image = sitk.GetImageFromArray(np.ascontiguousarray(mask.T))
    image.SetOrigin(origin)
    image.SetSpacing(spacing)
    image.SetDirection(direction)
    with replacing(path) as partial:
        # MetaImage is written by its suffix alone.
        named = partial.with_name(f"{partial.name}.mha")
        try:
            sitk.WriteImage(image, str(named), useCompression=True, compressionLevel=_COMPRESSION)
            named.replace(partial)
        except RuntimeError as error:
            raise EnvironmentFault(
                f"{path}: could not be written; free some space there or name another output folder"
            ) from error
        finally:
            named.unlink(missing_ok=True)


_NIFTI = (_read_nifti_header, _read_nifti_voxels)
_METAIMAGE = (_read_metaimage_header, _read_metaimage_voxels)

VOLUME_FORMATS: dict[str, VolumeFormat] = {
    ".nii": VolumeFormat("nibabel", ".nii", *_NIFTI),
    ".nii.gz": VolumeFormat("nibabel", ".nii.gz", *_NIFTI),
    ".mha": VolumeFormat("SimpleITK", ".mha", *_METAIMAGE),
    ".mhd": VolumeFormat("SimpleITK", ".mha", *_METAIMAGE),
}
"""Formats by suffix. A mask of an `.mhd` file, whose voxels are a file of their own, is one `.mha` file."""
