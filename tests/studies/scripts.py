"""Scripts as rows of a study."""

from __future__ import annotations

from pathlib import Path

SCRIPT = """
import json, sys, time
from pathlib import Path
file, name, seconds = Path(sys.argv[-1]), sys.argv[1], float(sys.argv[2])
def note(word):
    with (Path(__file__).parent / "log.txt").open("a") as log:
        print(word, file=log, flush=True)
note(name)
time.sleep(seconds)
if name == "broken":
    sys.exit("it broke: 7 is not 8")
value = {"name": "score", "mean": 0.5, "interval": 0.1, "n": 9, "unit": "%",
         "transductive": False}
row = {"labels": {"of": name}, "values": [value], "signature": ""}
report = {"tables": [{"title": "t", "rows": [row]}], "notes": [], "context": {}}
file.write_text(json.dumps(report))
"""


def scripts(folder: Path, *rows: tuple[str, float], first: str = "") -> str:
    """A study of scripts that wait for so many seconds, after the line `first`."""
    (folder / "script.py").write_text(first + SCRIPT)
    text = '[tests]\n"score" = ""\n'
    for name, seconds in rows:
        line = f"{folder}/script.py {name} {seconds}"
        text += f'[[row]]\nname = "{name}"\nscript = "{line}"\n'
    return text


def log(folder: Path) -> list[str]:
    """The scripts that were started, in their order."""
    file = folder / "log.txt"
    return file.read_text().split() if file.exists() else []
