"""Networks: ET-Net (paper Sec. 2), its parts, and the networks that it is compared with (`MODELS`)."""

from __future__ import annotations

from etnet.models.blocks import DBlock, WeightedBlock
from etnet.models.edge_guidance import EdgeGuidanceModule
from etnet.models.encoder import Encoder
from etnet.models.etnet import ETNet
from etnet.models.network import ETNetOutput, SegmentationNetwork
from etnet.models.registry import MODELS, build_model
from etnet.models.weighted_aggregation import WeightedAggregationModule
from etnet.models.weights import EncoderWeightsReport, load_encoder_weights

__all__ = [
    "MODELS",
    "DBlock",
    "ETNet",
    "ETNetOutput",
    "EdgeGuidanceModule",
    "Encoder",
    "EncoderWeightsReport",
    "SegmentationNetwork",
    "WeightedAggregationModule",
    "WeightedBlock",
    "build_model",
    "load_encoder_weights",
]
