"""Training losses: Lovasz-Softmax (paper eq. 1) and its weighted sum over regions and edges (paper Sec. 2.2)."""

from __future__ import annotations

from etnet.losses.edge_supervised import EdgeSupervisedLoss, LossTerms
from etnet.losses.lovasz_softmax import LovaszSoftmax

__all__ = ["EdgeSupervisedLoss", "LossTerms", "LovaszSoftmax"]
