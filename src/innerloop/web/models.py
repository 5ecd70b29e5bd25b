"""What can be taught: ready learners, pretrained encoders, and runs."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from innerloop.core.learner import Learner
from innerloop.core.task import Examples
from innerloop.engine.errors import InnerloopError, MissingPackageError
from innerloop.estimators import untrained
from innerloop.evaluation.clustering import Embedding
from innerloop.experiment import load
from innerloop.readers.encoded import Encoded, usual_reader
from innerloop.runs import digest
from innerloop.web import drawings
from innerloop.web.http import Refused

READY = Path(__file__).parent / "ready" / "drawings"
SIDE = 256  # pixels of a picture that is kept, at least as many as its reader needs
MOST_SIDE = 1024
MOST_CHARACTERS = 400_000  # of texts that are embedded at once
IMAGES = ("drawing", "image")
EXTRAS = {"image": "innerloop[photos]", "text": "innerloop[texts]"}


class Model:
    """A learner that can be taught.

    Args:
        name: in the interface.
        learner: with a reader.
        identity: changes when its predictions do.

    Attributes:
        kind: what its examples are: "drawing", "image", "text" or "row".
        head: learns from vectors that `vectors` returns; `learner` itself where a
            support set changes how inputs are encoded.
    """

    def __init__(self, name: str, learner: Learner, identity: str):
        self.name, self.learner, self.identity = name, learner, identity
        self.reader = learner.reader
        self.kind = kind_of(self.reader)
        self._encode, self.head = parted(learner)

    @property
    def side(self) -> int:
        """Pixels of a picture that is kept, in height and width at most."""
        return min(max(SIDE, self.reader.side), MOST_SIDE)

    @property
    def columns(self) -> list[str]:
        """The columns of an example in a table that its reader reads."""
        if self.kind == "row":
            return [column.name for column in self.reader.columns]
        if self.kind == "text":
            return [self.reader.text_column]
        return [self.reader.image_column or "image"]

    @property
    def label_column(self) -> str:
        return self.reader.label_column or "label"

    def new_vectors(self, items: Sequence[Any]) -> Tensor:
        """The vectors of what comes with one call.

        Raises Refused for texts that are too long to be embedded at once.
        """
        if sum(len(i) for i in items if isinstance(i, str)) > MOST_CHARACTERS:
            raise Refused(
                413,
                "too large",
                f"the texts of one call have at most {MOST_CHARACTERS:,} characters",
            )
        return self.vectors(items)

    @torch.no_grad()
    def vectors(self, items: Sequence[Any]) -> Tensor:
        """What the head learns from (n, ...): of images, texts, or rows of numbers.

        Raises InnerloopError for what the reader cannot read.
        """
        raw = np.asarray(items, np.float64) if self.kind == "row" else list(items)
        return self._encode(self.reader.convert(raw).to(self.learner.dtype))

    def item(self, value: dict[str, Any]) -> Any:
        """The drawing, text or row of a body as the reader takes it.

        Raises Refused for another kind.
        """
        if "drawing" in value and self.kind in IMAGES:
            return drawings.picture(value["drawing"]["strokes"])
        if "text" in value and self.kind == "text":
            return clean(value["text"]) or _refuse("the text is empty")
        if "row" in value and self.kind == "row":
            return self.row(value["row"])
        raise Refused(422, "kind", f"this model reads {self.kind}s")

    def row(self, values: Sequence[float]) -> list[float]:
        if len(values) != len(self.columns):
            _refuse(
                f"a row has {len(self.columns)} numbers ({', '.join(self.columns)}); "
                f"got {len(values)}"
            )
        return [float(value) for value in values]


def _refuse(message: str) -> Any:
    raise Refused(422, "invalid", message)


def clean(text: str) -> str:
    """A text without control characters and halves of surrogate pairs, which files
    cannot hold, and without surrounding spaces.
    """
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return "".join(c for c in whole if c >= " " or c in "\n\t").strip()


def kind_of(reader: Any) -> str:
    """What an example of a reader is in the interface; "" for what cannot be taught
    there.
    """
    if reader is None:
        return ""
    if reader.drawn:
        return "drawing"
    return reader.what if reader.what in ("image", "text", "row") else ""


def _identity(x: Tensor) -> Tensor:
    return x


@torch.no_grad()
def parted(learner: Learner) -> tuple[Callable[[Tensor], Tensor], Learner]:
    """An encoder that no support set changes, and the same learner on its vectors; the
    identity and the learner itself where it cannot be parted so.
    """
    spec = learner.spec
    assert spec is not None
    if not isinstance(learner, Embedding):
        return _identity, learner
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(6, *spec.x_shape, generator=generator)
    x = (x * spec.vocabulary).floor() if spec.vocabulary else x
    y = torch.eye(spec.y_dim)[torch.arange(4) % 2].to(learner.dtype)
    x = x.to(learner.dtype)
    head = copy.copy(learner)
    try:
        z = learner.embed(x)
        other: Any = head
        other.embed = _identity
        other.spec = replace(spec, x_shape=tuple(z.shape[1:]), vocabulary=0)
        whole = learner.predict(learner.adapt(Examples(x[:4], y)), x[4:])
        parts = head.predict(head.adapt(Examples(z[:4], y)), z[4:])
        same = torch.allclose(whole, parts, rtol=1e-3, atol=1e-3)
    except Exception:  # `embed` of a learner of a user may be anything
        return _identity, learner
    return (learner.embed, head) if same else (_identity, learner)


@dataclass
class Known:
    """A model that may not be loaded yet.

    Args:
        name, title, kind: as the interface says them.
        open: loads it.
        extra: the package that it needs.
        model: once it is loaded.
        problem: why it cannot be used.
    """

    name: str
    title: str
    kind: str
    open: Callable[[], tuple[Learner, str]]
    extra: str = ""
    model: Model | None = None
    problem: str = ""
    missing: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)


class Models:
    """All models that can be taught.

    Args:
        runs: run folders.
    """

    def __init__(self, runs: Sequence[Path] = ()):
        torch.set_num_threads(1)  # few requests are computed at once, each alone
        self._known = [
            Known("drawings", "Drawings", "drawing", lambda: _run(READY)),
            Known("photographs", "Photographs", "image", lambda: _usual("image")),
            Known("texts", "Texts", "text", lambda: _usual("text")),
            *(
                Known(f"run:{i}", folder.name, "", lambda folder=folder: _run(folder))
                for i, folder in enumerate(runs, 1)
            ),
        ]

    def states(self) -> list[dict[str, Any]]:
        """What the interface says of the models."""
        return [self._state(known) for known in self._known]

    def _state(self, known: Known) -> dict[str, Any]:
        model = self._loaded(known)
        state = {
            "name": known.name,
            "title": known.title,
            "kind": model.kind if model else known.kind or "row",
            "ready": model is not None,
            "note": known.problem,
        }
        if known.missing:
            state["missing"] = EXTRAS[known.kind]
        if model is not None and model.kind == "row":
            state["columns"] = model.columns
        return state

    def _loaded(self, known: Known) -> Model | None:
        with known.lock:
            if known.model is None and not known.problem:
                try:
                    learner, identity = known.open()
                    found = Model(known.name, learner, identity)
                    if not found.kind or learner.spec.kind != "classes":  # pyright: ignore[reportOptionalMemberAccess]
                        raise InnerloopError(
                            "it was not trained on classes of images, texts or rows"
                        )
                    known.model = found
                except MissingPackageError as error:
                    known.problem, known.missing = " ".join(str(error).split()), True
                except InnerloopError as error:
                    known.problem = " ".join(str(error).split())
            return known.model

    def open(self, name: str, identity: str | None = None) -> Model:
        """A model by its name; of runs, the one of that identity, whatever its name.

        Raises Refused for one that does not exist, or cannot be used.
        """
        if identity is not None and name.startswith("run:"):
            for known in self._known[3:]:
                model = self._loaded(known)
                if model is not None and model.identity == identity:
                    return model
            raise Refused(
                409, "model", "its model is not here: serve the run that it was made by"
            )
        known = next((known for known in self._known if known.name == name), None)
        if known is None:
            raise Refused(404, "model", "there is no such model")
        model = self._loaded(known)
        if model is None:
            raise Refused(409, "model", f"{known.title}: {known.problem}"[:290])
        return model


def _run(folder: Path) -> tuple[Learner, str]:
    if not folder.is_dir():
        raise InnerloopError("the ready model is not part of this installation")
    learner = load(folder)
    if learner.reader is None:
        raise InnerloopError("it was not trained on images, texts or rows")
    return learner, digest(learner.state_dict())


def _usual(what: str) -> tuple[Learner, str]:
    reader = usual_reader(what)
    assert isinstance(reader, Encoded)
    return untrained(reader), " ".join(reader.weights)


def shown(image: Image.Image, side: int = 96) -> Image.Image:
    """A square thumbnail: the middle of a picture."""
    width, height = image.size
    least = min(width, height)
    box = ((width - least) // 2, (height - least) // 2)
    part = image.crop((*box, box[0] + least, box[1] + least))
    return part.resize((side, side), Image.Resampling.BICUBIC)
