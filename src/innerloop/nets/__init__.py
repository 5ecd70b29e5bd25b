"""Building blocks, and networks by name."""

from innerloop.nets.conv import Conv4, Conv6
from innerloop.nets.norm import BatchNorm, LayerNorm
from innerloop.nets.recurrent import LSTMCell
from innerloop.nets.registry import ENCODERS, Headed, encoder, flat_features
from innerloop.nets.resnet import ResNet12
from innerloop.nets.text import Prompted, TextEncoder

__all__ = [
    "ENCODERS",
    "BatchNorm",
    "Conv4",
    "Conv6",
    "Headed",
    "LSTMCell",
    "LayerNorm",
    "Prompted",
    "ResNet12",
    "TextEncoder",
    "encoder",
    "flat_features",
]
