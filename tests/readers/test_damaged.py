"""Damaged files end in one line, whatever the damage."""

from pathlib import Path
from random import Random
from typing import Any

import pytest

from innerloop.engine.errors import InnerloopError
from innerloop.readers import ImageReader, SoundReader, TextReader
from tests.fuzz.values import mangled
from tests.readers.test_sound import tone, wav
from tests.readers.test_sources import TABLED, in_tar, in_tar_gz, in_zip, photos

IMAGES, SOUNDS = ImageReader(1, (4, 4)), SoundReader(0.1)
TEXTS = TextReader.fitted(["low low", "high"])
TABLE = {"labels.csv": b"image,label\na/1.png,x\nb/2.png,y\n", **TABLED}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, str, bytes]]:
    root = tmp_path_factory.mktemp("whole")
    tones = {"a/1.wav": wav(tone()), "b/2.wav": wav(tone(8000), 8000, 24)}
    made: list[tuple[Any, Path]] = []
    for pack in (in_zip, in_tar, in_tar_gz):
        made += [
            (IMAGES, pack(photos(), root / "photos")),
            (IMAGES, pack(TABLE, root / "table")),
            (TEXTS, pack({"a/1.txt": b"low", "b/2.txt": b"caf\xe9"}, root / "texts")),
            (SOUNDS, pack(tones, root / "sounds")),
        ]
    (root / "a.wav").write_bytes(wav(tone(), bits=32, floating=True))
    (root / "a.json").write_text('[{"text": "low", "label": "é"}]', encoding="utf-8")
    made += [(SOUNDS, root / "a.wav"), (TEXTS, root / "a.json")]
    return [(reader, file.name, file.read_bytes()) for reader, file in made]


@pytest.mark.parametrize("seed", range(8))
def test_damage_is_one_line(
    files: list[tuple[Any, str, bytes]], tmp_path: Path, seed: int
) -> None:
    rng = Random(seed)
    for reader, name, content in files:
        damaged, how = mangled(rng, content)
        (tmp_path / name).write_bytes(damaged)
        for labels in (True, False):
            try:
                reader.read(tmp_path / name, labels=labels)
            except InnerloopError as error:
                text = str(error).replace(str(tmp_path), "")
                assert "\n" not in text, (name, how)
                assert len(text) < 300, (name, how)
