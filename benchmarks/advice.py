"""What `innerloop advise` measures on the intents of CLINC150's test domains: 45
classes of 150 texts each.

python benchmarks/advice.py --minutes 5
"""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path

from reporting import finish, parser_of

from innerloop.advice import advise
from innerloop.tasks.text import DOMAINS, requests


def write(file: Path) -> None:
    """The requests as a table."""
    found = requests()
    with file.open("w", encoding="utf-8", newline="") as opened:
        table = csv.writer(opened)
        table.writerow(["text", "label"])
        for domain in DOMAINS["test"]:
            for intent, texts in found[domain].items():
                table.writerows([text, intent] for text in texts)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "examples.csv"
        write(file)
        advice = advise(file, minutes=options.minutes)
    finish(advice.report(), options)


if __name__ == "__main__":
    main()
