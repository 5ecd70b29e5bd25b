"""Readers: conversion of files and raw inputs to tensors."""

from innerloop.readers.base import Inputs, Reader
from innerloop.readers.encoded import (
    EncodedImages,
    EncodedSounds,
    EncodedTexts,
    EncoderTokens,
)
from innerloop.readers.image import ImageReader
from innerloop.readers.molecule import MoleculeReader
from innerloop.readers.sound import SoundReader
from innerloop.readers.table import TableReader
from innerloop.readers.text import TextReader, Texts

# by the name that a run's experiment uses
READERS: dict[str, type[Reader]] = {
    reader.kind: reader
    for reader in (
        ImageReader,
        TextReader,
        TableReader,
        MoleculeReader,
        SoundReader,
        EncodedImages,
        EncodedTexts,
        EncodedSounds,
        EncoderTokens,
    )
}

__all__ = [
    "READERS",
    "EncodedImages",
    "EncodedSounds",
    "EncodedTexts",
    "EncoderTokens",
    "ImageReader",
    "Inputs",
    "MoleculeReader",
    "Reader",
    "SoundReader",
    "TableReader",
    "TextReader",
    "Texts",
]
