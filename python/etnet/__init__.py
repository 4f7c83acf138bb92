"""ET-Net: medical image segmentation with edge-attention guidance (Zhang et al., MICCAI 2019).

Importing this package is cheap: the names below are loaded when they are first used, torch with them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from etnet.errors import EtnetError
    from etnet.inference.predictor import Predictor
    from etnet.inference.two_stage import open_predictor
    from etnet.losses import EdgeSupervisedLoss, LovaszSoftmax
    from etnet.models import ETNet

_HOME = {
    "ETNet": "etnet.models",
    "EdgeSupervisedLoss": "etnet.losses",
    "EtnetError": "etnet.errors",
    "LovaszSoftmax": "etnet.losses",
    "Predictor": "etnet.inference.predictor",
    "open_predictor": "etnet.inference.two_stage",
}

__all__ = ["ETNet", "EdgeSupervisedLoss", "EtnetError", "LovaszSoftmax", "Predictor", "__version__", "open_predictor"]


def __getattr__(name: str) -> Any:
    """Load a public name from its module on first use (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'etnet' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
