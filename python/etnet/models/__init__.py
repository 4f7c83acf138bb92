"""Networks: ET-Net (paper Sec. 2) and its parts."""

from __future__ import annotations

from etnet.models.blocks import DBlock, WeightedBlock
from etnet.models.edge_guidance import EdgeGuidanceModule
from etnet.models.encoder import Encoder
from etnet.models.etnet import ETNet, ETNetOutput, build_model
from etnet.models.weighted_aggregation import WeightedAggregationModule
from etnet.models.weights import EncoderWeightsReport, load_encoder_weights

__all__ = [
    "DBlock",
    "ETNet",
    "ETNetOutput",
    "EdgeGuidanceModule",
    "Encoder",
    "EncoderWeightsReport",
    "WeightedAggregationModule",
    "WeightedBlock",
    "build_model",
    "load_encoder_weights",
]
