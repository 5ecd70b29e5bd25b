"""Readers: what turns files and raw inputs into tensors, by kind."""

from innerloop.readers.base import Inputs, Reader
from innerloop.readers.image import ImageReader

READERS: dict[str, type[Reader]] = {ImageReader.kind: ImageReader}

__all__ = ["READERS", "ImageReader", "Inputs", "Reader"]
