"""Reports of evaluations whose predictions are known."""

from __future__ import annotations

from etnet.inference.evaluate import evaluate
from etnet.inference.predictor import Predictor
from etnet.metrics.report import EvaluationReport
from etnet.types import Sample
from helpers.backends import CLASS_NAMES, PixelBackend, contract
from helpers.samples import Samples


def report_of(*samples: Sample, classes: int = 3, **options: object) -> EvaluationReport:
    """What pixel arithmetic scores on these samples."""
    predictor = Predictor(PixelBackend(classes), contract(classes))
    return evaluate(predictor, Samples(*samples), class_names=CLASS_NAMES[:classes], **options)
