"""`check_dataset`: everything that can be said about a data folder before training on it."""

from etnet.data.check.checking import check_dataset
from etnet.data.check.layout import locate, recognise
from etnet.data.check.report import CheckReport, PartSummary, ValueCount

__all__ = ["CheckReport", "PartSummary", "ValueCount", "check_dataset", "locate", "recognise"]
