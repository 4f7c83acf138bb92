"""Exceptions of etnet and the exit code that the command line gives for each.

    EtnetError                  anything etnet reports in one sentence
    ├── UsageError        (2)   wrong option, recipe key or value
    ├── DataError         (3)   missing, unreadable or inconsistent images and masks
    ├── ModelFileError    (3)   a weights file that is damaged, foreign or for other classes
    ├── EnvironmentFault  (4)   missing package, device, network, disk space or native build
    │   ├── DiskFault     (4)   a file cannot be written: the disk is full, read-only or gone
    │   └── OutOfMemory   (4)   a batch does not fit into the device's memory
    ├── CheckFailed       (5)   a check ran and its floor did not hold, for instance a non-finite loss
    └── SomeFilesFailed   (6)   a folder was processed, some of its files could not be

Every message is one sentence: what, where, got, expected, what to do.
"""

from __future__ import annotations

from typing import ClassVar


class EtnetError(Exception):
    """Base of every error that etnet raises on purpose; the command line prints its text without a traceback."""

    exit_code: ClassVar[int] = 1


class UsageError(EtnetError):
    """An option, recipe key or argument does not exist or has a value outside its range."""

    exit_code = 2


class DataError(EtnetError):
    """An image, mask or folder is missing, unreadable or does not fit the others."""

    exit_code = 3


class ModelFileError(EtnetError):
    """A weights file cannot be read, was not written by etnet, or was trained for something else."""

    exit_code = 3


class EnvironmentFault(EtnetError):
    """Something outside the user's data is missing: a package, a device, the network, disk space, the native build."""

    exit_code = 4


class DiskFault(EnvironmentFault):
    """A file could not be written; the one that was there before is kept, and a later attempt may succeed."""


class OutOfMemory(EnvironmentFault):
    """The device has too little memory for a batch; a smaller one may fit."""


class CheckFailed(EtnetError):
    """A check of numbers failed: a loss is not finite, a score is below its floor."""

    exit_code = 5


class SomeFilesFailed(EtnetError):
    """A folder was processed to its end, but some of its files could not be."""

    exit_code = 6
