"""`report.html` of a folder of predictions: one file that shows, without a network, what to look at first and why.

Imports without torch. What is drawn over an image is the caller's choice; this package orders, plots and writes.
"""

from __future__ import annotations

from etnet.inference.report.content import ReportHead, ReportRow
from etnet.inference.report.thumbnails import draw_thumbnail
from etnet.inference.report.writing import write_report

__all__ = ["ReportHead", "ReportRow", "draw_thumbnail", "write_report"]
