"""What scikit-learn reaches on the support sets of unseen tasks, without meta-learning:
the rows beside ours in docs/results.md.

python benchmarks/baselines.py clinc
logistic regression on TF-IDF of words and pairs of words
python benchmarks/baselines.py tox21        a random forest on fingerprints
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

import numpy as np
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from innerloop.engine.scores import roc_auc
from innerloop.measurements import Estimate
from innerloop.tasks import ClassBank, Episodes, tox21
from innerloop.tasks.text import DOMAINS, requests


def clinc_scores(tasks: int, shots: int, known: bool, split: str) -> Iterator[float]:
    """Accuracy, task by task. With `known`, the word frequencies of TF-IDF are those of
    all training requests, otherwise those of the support set.
    """
    found = requests()
    chosen = {
        intent: texts
        for domain in DOMAINS[split]
        for intent, texts in found[domain].items()
    }
    texts = np.array([text for some in chosen.values() for text in some])
    bank = ClassBank.of(
        torch.arange(len(texts))[:, None],
        [len(some) for some in chosen.values()],
        list(chosen),
    )
    counted = [
        text
        for domain in DOMAINS["train"]
        for some in found[domain].values()
        for text in some
    ]
    for task in (
        Episodes(bank, 5, shots, 15)
        .sample(tasks, torch.Generator().manual_seed(0))
        .unbind()
    ):
        support, query = (
            texts[side.x.flatten().long().numpy()]
            for side in (task.support, task.query)
        )
        words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
        words.fit([*counted, *support] if known else support)
        model = LogisticRegression(C=10.0, max_iter=1000).fit(
            words.transform(support), task.support.y.argmax(-1).numpy()
        )
        yield float(
            (
                model.predict(words.transform(query)) == task.query.y.argmax(-1).numpy()
            ).mean()
        )


def tox21_scores(tasks: int, split: str) -> Iterator[float]:
    """Area under the ROC curve, task by task, of 10 + 10 molecules and 32 + 32
    queries.
    """
    for task in (
        tox21(split, shots=10, queries=32)
        .sample(tasks, torch.Generator().manual_seed(0))
        .unbind()
    ):
        forest = RandomForestClassifier(100, random_state=0).fit(
            task.support.x.numpy(), task.support.y.argmax(-1).numpy()
        )
        yield float(
            roc_auc(
                torch.from_numpy(forest.predict_proba(task.query.x.numpy())[:, 1]),
                task.query.y[:, 1],
            )
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("which", choices=("clinc", "tox21"))
    parser.add_argument("--tasks", type=int, default=600)
    parser.add_argument("--split", choices=("val", "test"), default="test")
    options = parser.parse_args()
    if options.which == "tox21":
        report("random forest", tox21_scores(options.tasks, options.split))
        return
    for shots in (1, 5):
        for known in (False, True):
            counted = (
                "words counted in the training split"
                if known
                else "words counted in the support set"
            )
            report(
                f"TF-IDF, 5-way {shots}-shot, {counted}",
                clinc_scores(options.tasks, shots, known, options.split),
            )


def report(name: str, scores: Iterator[float]) -> None:
    begun = time.perf_counter()
    values = torch.tensor(list(scores))
    mean, interval = Estimate.of(values)
    print(
        f"{name}: {mean:.4f} ± {interval:.4f} ({len(values)} tasks, "
        f"{time.perf_counter() - begun:.0f} s)",
        flush=True,
    )


if __name__ == "__main__":
    main()
