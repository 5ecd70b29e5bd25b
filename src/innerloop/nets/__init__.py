"""Building blocks, and suitable networks by name."""

from innerloop.nets.conv import Conv4, Conv6
from innerloop.nets.named import ENCODERS, Headed, encoder, flat_features
from innerloop.nets.norm import BatchNorm
from innerloop.nets.recurrent import LSTMCell

__all__ = ["ENCODERS", "BatchNorm", "Conv4", "Conv6", "Headed", "LSTMCell", "encoder", "flat_features"]
