"""What scikit-learn reaches on the support sets of unseen tasks of texts, without
meta-learning: logistic regression on TF-IDF of words and pairs of words.

python benchmarks/baselines.py clinc --frequencies support
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from reporting import finish, parser_of, row, table
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from innerloop.tasks import ClassBank, Episodes
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


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("which", choices=("clinc",))
    parser.add_argument("--frequencies", choices=("support", "training"), required=True)
    parser.add_argument("--tasks", type=int, default=600)
    parser.add_argument("--split", choices=("val", "test"), default="test")
    options = parser.parse_args()
    known = options.frequencies == "training"
    rows = [
        row({"ways": 5, "shots": shots}, {"accuracy": torch.tensor(list(scores))}, "%")
        for shots in (1, 5)
        for scores in [clinc_scores(options.tasks, shots, known, options.split)]
    ]
    title = f"TF-IDF, words counted in the {options.frequencies} set"
    finish(table(title, rows), options)


if __name__ == "__main__":
    main()
