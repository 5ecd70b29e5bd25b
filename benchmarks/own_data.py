"""A few examples of new classes: innerloop beside what people would use instead, on the
same tasks.

    python benchmarks/own_data.py texts --tasks 1000 --run runs/texts
    python benchmarks/own_data.py photos --source fc100 --ways 20
    python benchmarks/own_data.py texts --also minilm+words+runs/tuned

Texts are CLINC150's test domains, photographs the test classes of CIFAR-FS, FC100 or
emoji. Every contender gets the same support items and labels, and labels the same
queries; the milliseconds are those of one task, with the items embedded before. *Minus
Probe* is the difference on the same tasks, with its 95 % interval: a row is better or
worse where that excludes 0, and else tied. Contenders whose package is
missing are left out; SetFit, which trains the encoder for every task, gets
`--setfit-tasks`, the first of them.
"""

from __future__ import annotations

import importlib.util
import resource
import sys
import time
import types
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from reporting import finish, parser_of, row
from torch import Tensor, nn

from innerloop import Examples, Probe, TaskSpec, load
from innerloop.engine.errors import InnerloopError
from innerloop.evaluation.chunks import chunks
from innerloop.learners.metric.protonet import ProtoNet
from innerloop.measurements import Report, Table
from innerloop.readers.encoded import encoded_reader, usual_reader
from innerloop.readers.image import ImageReader
from innerloop.registry import find
from innerloop.tasks.episodes import ClassBank, Episodes
from innerloop.tasks.text import DOMAINS, requests

PROBE, SETFIT = "Probe", "SetFit"

# support items (n,), labels (n,) and query items (m,), as indices; returns labels (m,)
Contender = Callable[[Tensor, Tensor, Tensor], Any]


def has(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


class Data:
    """Items of unseen classes: their vectors, raw form, and tasks of their indices."""

    def __init__(self, vectors: Tensor, raw: Any, counts: list[int], names: list[str]):
        self.vectors, self.raw = vectors, raw
        indices = torch.arange(len(vectors), dtype=torch.float32)[:, None]
        self.bank = ClassBank.of(indices, counts, names)

    def tasks(self, ways: int, shots: int) -> Episodes:
        queries = min(15, int(self.bank.counts.min()) - shots)
        return Episodes(self.bank, ways, shots, queries)


def texts(encoder: str | None) -> Data:
    reader = encoded_reader(encoder) if encoder else usual_reader("text")
    found = requests()
    classes = {
        intent: some for d in DOMAINS["test"] for intent, some in found[d].items()
    }
    items = [text for some in classes.values() for text in some]
    counts = [len(some) for some in classes.values()]
    return Data(reader.encode(items)[0], items, counts, list(classes))


def photos(encoder: str | None, source: str) -> Data:
    reader = encoded_reader(encoder) if encoder else usual_reader("image")
    make = find("tasks", source).factory
    size = 64 if source == "emoji" else 32
    banks = [
        make("test", ways=2, shots=1, queries=1, reader=r, augment=False).bank
        for r in (reader, ImageReader(3, (size, size)))
    ]
    counts = banks[0].counts.tolist()
    pixels = banks[1].values.flatten(1).float() / 255
    return Data(banks[0].values, pixels, counts, list(banks[0].names))


def learner_on(vectors: Tensor, learner: Any) -> Contender:
    def label(support: Tensor, y: Tensor, query: Tensor) -> Tensor:
        ways = int(y.max()) + 1
        examples = Examples(vectors[support], F.one_hot(y, ways).float())
        with torch.no_grad():
            return learner.predict(learner.adapt(examples), vectors[query]).argmax(-1)

    return label


def probe_on(vectors: Tensor) -> Contender:
    spec = TaskSpec("classes", tuple(vectors.shape[1:]), 2)
    return learner_on(vectors, Probe.build(spec))


def nearest_neighbor(data: Data) -> Contender:
    """On pixels, or on counts of words."""
    rows = data.raw if torch.is_tensor(data.raw) else _words(data.raw)

    def label(support: Tensor, y: Tensor, query: Tensor) -> Tensor:
        return y[torch.cdist(rows[query], rows[support]).argmin(-1)]

    return label


def _words(items: list[str]) -> Tensor:
    known: dict[str, int] = {}
    for item in items:
        for word in item.lower().split():
            known.setdefault(word, len(known))
    rows = torch.zeros(len(items), len(known))
    for counts, item in zip(rows, items, strict=True):
        for word in item.lower().split():
            counts[known[word]] += 1
    return F.normalize(rows, dim=-1)


def logistic(data: Data) -> Contender:
    """scikit-learn's logistic regression on the frozen vectors, each of length 1."""
    from sklearn.linear_model import LogisticRegression

    rows = F.normalize(data.vectors, dim=-1).numpy()

    def label(support: Tensor, y: Tensor, query: Tensor) -> Tensor:
        model = LogisticRegression(max_iter=1000).fit(rows[support], y.numpy())
        return torch.from_numpy(model.predict(rows[query]))

    return label


def tf_idf(data: Data) -> Contender:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    items = np.array(data.raw, dtype=object)

    def label(support: Tensor, y: Tensor, query: Tensor) -> Tensor:
        model = make_pipeline(TfidfVectorizer(), LogisticRegression(max_iter=1000))
        model.fit(items[support.numpy()], y.numpy())
        return torch.from_numpy(model.predict(items[query.numpy()]))

    return label


def easyfsl(data: Data) -> Contender:
    """Its prototypical networks; `easyfsl.methods` itself imports torchvision, which
    they do not use.
    """
    import easyfsl

    methods = types.ModuleType("easyfsl.methods")
    methods.__path__ = [f"{easyfsl.__path__[0]}/methods"]
    sys.modules[methods.__name__] = methods
    module = importlib.import_module("easyfsl.methods.prototypical_networks")
    PrototypicalNetworks = module.PrototypicalNetworks

    model = PrototypicalNetworks(nn.Identity())

    def label(support: Tensor, y: Tensor, query: Tensor) -> Tensor:
        model.process_support_set(data.vectors[support], y)
        return model(data.vectors[query]).argmax(-1)

    return label


def setfit(data: Data) -> Contender:
    """SetFit with its default settings on MiniLM."""
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from setfit import SetFitModel, Trainer, TrainingArguments
    from sklearn.linear_model import LogisticRegression

    from innerloop.encoders import open_encoder

    folder = str(open_encoder("minilm").weights.files[1].parent)

    def label(support: Tensor, y: Tensor, query: Tensor) -> Tensor:
        body = SentenceTransformer(folder, device="cpu")
        model = SetFitModel(model_body=body, model_head=LogisticRegression())
        shown = {"text": [data.raw[i] for i in support], "label": y.tolist()}
        arguments = TrainingArguments(
            report_to="none", show_progress_bar=False, save_strategy="no"
        )
        Trainer(model, arguments, train_dataset=Dataset.from_dict(shown)).train()
        found = model.predict([data.raw[i] for i in query])
        return torch.as_tensor(found)

    return label


def contenders(
    data: Data, runs: list[tuple[str, str]], others: dict[str, Tensor]
) -> dict[str, Contender]:
    spec = TaskSpec("classes", tuple(data.vectors.shape[1:]), 2)
    mean = ProtoNet.build(spec, encoder=nn.Flatten(), metric="cosine")
    raw = "nearest neighbor, " + ("pixels" if torch.is_tensor(data.raw) else "words")
    found = {
        PROBE: probe_on(data.vectors),
        raw: nearest_neighbor(data),
        "frozen encoder, nearest mean (cosine)": learner_on(data.vectors, mean),
    }
    if has("sklearn"):
        if not torch.is_tensor(data.raw):
            found["TF-IDF, logistic regression (scikit-learn)"] = tf_idf(data)
        found["frozen encoder, logistic regression (scikit-learn)"] = logistic(data)
    if has("easyfsl"):
        found["frozen encoder, ProtoNet (easyfsl)"] = easyfsl(data)
    if has("setfit") and not torch.is_tensor(data.raw):
        found[SETFIT] = setfit(data)
    for name, run in runs:
        found[name] = learner_on(data.vectors, load(run))
    for name, vectors in others.items():
        found[f"Probe on {name}"] = probe_on(vectors)
    return found


def measured(
    contender: Contender, tasks: Episodes, n: int, seed: int
) -> tuple[Tensor, float]:
    """The accuracies on `n` tasks (n,), and the seconds of one."""
    scores, seconds = [], 0.0
    like = ProtoNet.build(tasks.spec, encoder=nn.Flatten())
    generator = torch.Generator().manual_seed(seed)
    for batch in chunks(like, tasks, n, 25, generator):
        for task in batch.unbind():
            (x, y), (query, truth) = task
            begin = time.perf_counter()
            found = contender(x[:, 0].long(), y.argmax(-1), query[:, 0].long())
            seconds += time.perf_counter() - begin
            scores.append((found == truth.argmax(-1)).float().mean())
    return torch.stack(scores), seconds / n


def named(text: str) -> tuple[str, str]:
    """NAME=WHAT; without a name, what it is."""
    name, _, what = text.rpartition("=")
    return name or what, what


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("what", choices=["texts", "photos"])
    parser.add_argument("--source", default="cifar-fs", help="of photos")
    parser.add_argument("--encoder", help="default: those that are installed")
    parser.add_argument(
        "--run", action="append", default=[], type=named, help="[NAME=]RUN"
    )
    parser.add_argument(
        "--also", action="append", default=[], type=named, help="[NAME=]ENCODER"
    )
    parser.add_argument("--ways", type=int, default=5)
    parser.add_argument("--shots", type=int, default=1)
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--setfit-tasks", type=int, default=20, help="0: without it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="contenders whose names contain this text")
    options = parser.parse_args()
    make = texts if options.what == "texts" else partial(photos, source=options.source)
    data = make(options.encoder)
    others = {name: make(encoder).vectors for name, encoder in options.also}
    tasks = data.tasks(options.ways, options.shots)
    rows, probe = [], torch.empty(0)
    for name, contender in contenders(data, options.run, others).items():
        if options.only and options.only not in name and name != PROBE:
            continue
        n = options.setfit_tasks if name == SETFIT else options.tasks
        if n == 0:
            continue
        try:
            scores, seconds = measured(contender, tasks, n, options.seed)
        except (InnerloopError, RuntimeError) as error:
            print(f"{name}: {error}")
            continue
        values = {"accuracy": scores}
        if name == PROBE:
            probe = scores
        else:
            values["minus Probe"] = scores - probe[:n]
        speed = row({}, {"milliseconds": 1000 * seconds}).values
        made = row({"method": name}, values, "%")
        rows.append(replace(made, values=(*made.values, *speed)))
        print(rows[-1], flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    note = f"peak memory {peak:,.0f} MiB, {torch.get_num_threads()} threads"
    title = f"{options.ways}-way {options.shots}-shot, {tasks.describe()}"
    finish(Report((Table(title, tuple(rows)),), (note,)), options)


if __name__ == "__main__":
    main()
