"""What was measured, as an answer: tables, a recommendation, commands and a page."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any

from innerloop.advice.candidates import NEW, Candidate
from innerloop.advice.data import LabeledData
from innerloop.advice.diagnosis import Diagnosis, forecast
from innerloop.advice.scoring import Block, Key, Scores, is_tied
from innerloop.measurements import Estimate, Measurement, Report, Row, Table
from innerloop.readers.image import ImageReader, thumbnail

ENOUGH = 100  # tasks, to be the best
TOP = 10  # rows of a table of pairs or items
PICTURES = 4  # of a pair of classes
SIDE = 96  # pixels of a picture
WIDE = 70  # letters of an item's name


@dataclass
class Record:
    """The scores of a candidate by shots."""

    candidate: Candidate
    blocks: dict[int, dict[Key, Block]] = field(default_factory=dict)

    @property
    def shots(self) -> list[int]:
        return sorted(self.blocks)

    def has(self, shots: int, key: Key) -> bool:
        return key in self.blocks.get(shots, {})

    def scores(self, shots: int) -> Scores:
        return Scores(self.blocks.get(shots, {}))

    def add(self, shots: int, key: Key, block: Block) -> None:
        self.blocks.setdefault(shots, {})[key] = block

    @property
    def mean(self) -> float:
        """The mean accuracy over the numbers of shots."""
        found = [self.scores(k).estimate().mean for k in self.shots]
        return sum(found) / max(len(found), 1)


Records = Mapping[str, Record]


def best_of(records: Records, shots: int) -> Record | None:
    """The most accurate candidate, the simplest of those that are equal; among those
    that were tested on enough tasks, and by the tasks that two of them share.
    """
    known = [r for r in records.values() if shots in r.blocks]
    most = max((len(r.scores(shots)) for r in known), default=0)
    known = [r for r in known if len(r.scores(shots)) >= min(ENOUGH, most)]
    best = None
    for record in known:
        gain = best and record.scores(shots).minus(best.scores(shots))
        if best is None or (gain and gain.mean > 0):
            best = record
    return best


def verdicts(records: Records, shots: int) -> dict[str, str]:
    """ "best", "tied", "worse" or "better" by candidate: tied where the difference to
    the best on the same tasks is not outside its 95 % interval; better only one that
    was tested on few tasks.
    """
    best = best_of(records, shots)
    if best is None:
        return {}
    top = best.scores(shots)
    found = {}
    for name, record in records.items():
        if record is best:
            found[name] = "best"
        elif shots in record.blocks:
            gap = top.minus(record.scores(shots))
            outside = "worse" if gap is not None and gap.mean > 0 else "better"
            found[name] = "tied" if is_tied(gap) else outside
    return found


def simplest(records: Records, shots: int) -> Record | None:
    """The first candidate that is the best or tied with it."""
    found = verdicts(records, shots)
    good = ("best", "tied", "better")
    return next((records[n] for n, verdict in found.items() if verdict in good), None)


def gain_at(records: Records, name: str, rival: str, shots: int) -> Estimate | None:
    """How much more accurate a candidate is than another, or None where they share no
    tasks.
    """
    if name not in records or rival not in records or name == rival:
        return None
    return records[name].scores(shots).minus(records[rival].scores(shots))


@dataclass(frozen=True)
class Advice:
    """The answer to which classifier to use.

    Args:
        data: the labeled items.
        ways: classes in a task.
        records: the candidates on tasks of all classes, the simplest first.
        held_out: those that were trained on a part of the classes, and the untrained,
            on tasks of the other classes.
        curve: one candidate by examples per class.
        diagnosis: what leave-one-out predictions say, or None.
        distances: known task sources and how far they are, the nearest first.
        notes: what was left out, and why.
    """

    data: LabeledData
    ways: int
    records: Records
    held_out: Records
    curve: Record
    diagnosis: Diagnosis | None
    distances: tuple[tuple[str, float], ...]
    notes: tuple[str, ...]

    @property
    def shots(self) -> list[int]:
        """The numbers of shots that were measured."""
        return sorted({k for record in self.records.values() for k in record.blocks})

    @property
    def usual(self) -> Candidate:
        """What `innerloop adapt` uses without options."""
        return next(iter(self.records.values())).candidate

    def untrained(self, shots: int) -> Candidate:
        """The simplest untrained candidate that is tied with the best of them."""
        known = {n: r for n, r in self.records.items() if not r.candidate.trained}
        found = simplest(known, shots)
        return found.candidate if found else self.usual

    def recommended(self, shots: int) -> Candidate:
        """The simplest candidate that is tied with the best. One that was trained on a
        part of the classes is recommended where it is better than that on the others,
        outside the interval.
        """
        found = simplest(self.records, shots)
        chosen = found.candidate if found else self.usual
        trained = {n: r for n, r in self.held_out.items() if r.candidate.trained}
        best = simplest(trained, shots)
        if best is None:
            return chosen
        name = best.candidate.name
        gain = gain_at(self.held_out, name, self.untrained(shots).name, shots)
        better = gain is not None and not is_tied(gain) and gain.mean > 0
        return best.candidate if better else chosen

    # ------------------------------------------------------------------ tables

    def report(self) -> Report:
        """All tables, and the recommendation with its commands."""
        known = self.data.encoder
        vectors = f", vectors of {known}" if known else ""
        tables = [
            self._compared(
                f"accuracy on {self._tasks()} of your classes{vectors}", self.records
            )
        ]
        if any(r.candidate.trained for r in self.held_out.values()):
            tables.append(
                self._compared(
                    f"accuracy on {self._tasks()} of classes that were not trained on",
                    self.held_out,
                )
            )
        tables += [self._curve(), *self._diagnosed(), self._near()]
        context = {
            "recommended": {str(k): self.recommended(k).name for k in self.shots},
            "commands": [n.strip() for n in self._next() if n.startswith("  ")],
            "encoder": self.data.encoder,
            "classes": len(self.data.classes),
            "items": len(self.data.names),
        }
        notes = (*self._explained(), *self.notes, *self._next())
        return Report(tuple(t for t in tables if t.rows), notes, context)

    def _tasks(self) -> str:
        return f"{min(self.ways, len(self.data.classes))}-way tasks"

    def _compared(self, title: str, records: Records) -> Table:
        shots = sorted({k for record in records.values() for k in record.blocks})
        found = {k: verdicts(records, k) for k in shots}
        known = [r for r in records.values() if r.blocks]
        rows = []
        for record in sorted(known, key=lambda r: -r.mean):
            name = record.candidate.name
            marks: dict[str, Any] = {_shots(k): found[k].get(name, "") for k in shots}
            values = []
            for k in record.shots:
                scores = record.scores(k)
                label = f"accuracy, {_shots(k)}"
                values.append(
                    Measurement.of(label, scores.estimate(), len(scores), "%")
                )
            count = max(len(record.scores(k)) for k in record.shots)
            labels = {"candidate": name, **marks, "tasks": count}
            rows.append(Row(labels, tuple(values)))
        return Table(title, tuple(rows))

    def _curve(self) -> Table:
        rows, before = [], None
        for k in self.curve.shots:
            scores = self.curve.scores(k)
            estimate = scores.estimate()
            values = [Measurement.of("accuracy", estimate, len(scores), "%")]
            gain = None if before is None else scores.minus(before)
            if gain is not None:
                values.append(Measurement.of("gain", gain, len(scores), "%"))
            rows.append(Row({"examples per class": k}, tuple(values)))
            before = scores
        return Table(f"learning curve of {self.curve.candidate.name}", tuple(rows))

    def _diagnosed(self) -> list[Table]:
        found = self.diagnosis
        if found is None:
            return []
        names, labels = self.data.classes, self.data.labels
        confusions = tuple(
            Row(
                {
                    "class": names[c.first],
                    "other class": names[c.second],
                    "confused": c.times,
                    "of": c.of,
                },
                (),
            )
            for c in found.confusions[:TOP]
        )
        doubts = tuple(
            Row(
                {
                    "item": self._name(d.item),
                    "label": names[int(labels[d.item])],
                    "looks like": names[d.other],
                },
                (
                    Measurement("probability of label", d.own, unit="%"),
                    Measurement("of the other", d.probability, unit="%"),
                ),
            )
            for d in found.doubts[:TOP]
        )
        copies = tuple(
            Row(
                {
                    "item": self._name(c.first),
                    "label": names[int(labels[c.first])],
                    "nearly the same": self._name(c.second),
                    "its label": names[int(labels[c.second])],
                },
                (),
            )
            for c in found.copies[:TOP]
        )
        what = self.data.what
        return [
            Table("pairs of classes that are confused (leave-one-out)", confusions),
            Table(f"{what}s whose label looks wrong", doubts),
            Table(f"nearly the same {what} in two classes", copies),
        ]

    def _near(self) -> Table:
        rows = [
            Row({"tasks": name}, (Measurement("distance", far),))
            for name, far in self.distances
        ]
        return Table("known tasks, by distance to your data", tuple(rows))

    def _name(self, item: int) -> str:
        name = " ".join(self.data.names[item].split())
        return name if len(name) <= WIDE else name[: WIDE - 3] + "..."

    # ------------------------------------------------------------------ words

    def _explained(self) -> list[str]:
        """What the tables say, in sentences."""
        lines = []
        measured = [r for r in self.records.values() if r.blocks]
        if measured:
            lines.append(
                f"± is a 95 % interval for other tasks and for other {self.data.what}s "
                "of these classes. best: the most accurate; tied: its difference to "
                "the best, on the same tasks, is within the 95 % interval."
            )
        else:
            lines.append("No candidate was measured, so this advice is a guess.")
        found = self.diagnosis
        if found is not None and (accuracy := found.accuracy) is not None:
            lines.append(
                f"Among all {len(self.data.classes)} classes at once, each example "
                f"predicted from all others: accuracy {100 * accuracy:.1f} % of "
                f"{found.items:,} {self.data.what}s (ridge, leave-one-out)."
            )
        return [*lines, *self._more_examples(), *self._training()]

    def _more_examples(self) -> list[str]:
        shots = self.curve.shots
        if len(shots) < 2:
            return []
        scores = {k: self.curve.scores(k) for k in shots}
        last = scores[shots[-1]].minus(scores[shots[-2]])
        usual = int(self.data.bank.counts.median())
        found = forecast({k: s.estimate() for k, s in scores.items()}, last, usual)
        if found is None or last is None:
            return []
        gain = 100 * (found.error - found.doubled)
        text = (
            f"More examples: a power law of the error (exponent {found.slope:.2f}) "
            f"expects {100 * found.error:.1f} % error with {found.shots} examples per "
            f"class, and {100 * found.doubled:.1f} % with {2 * found.shots}"
        )
        if not found.gain:
            return [
                f"{text}; but from {shots[-2]} to {shots[-1]} examples the gain is not "
                "outside its interval, so more of them will hardly help."
            ]
        worth = "worth it" if gain >= 1 else "a small gain"
        return [f"{text}: {gain:.1f} points, {worth}."]

    def _training(self) -> list[str]:
        """Whether training helped, on the same tasks as without."""
        lines = []
        for records in (self.records, self.held_out):
            for name, record in records.items():
                if not record.candidate.trained:
                    continue
                parts = []
                for k in record.shots:
                    rival = self.untrained(k).name
                    gain = gain_at(records, name, rival, k)
                    if gain is not None:
                        outside = "helps" if gain.mean > 0 else "hurts"
                        known = "not clear" if is_tied(gain) else outside
                        parts.append(
                            f"{_shown(gain)} at {_shots(k)} against {rival} ({known})"
                        )
                if parts:
                    lines.append(f"Training: {name}: {'; '.join(parts)}.")
        return lines

    def _next(self) -> list[str]:
        """What to use, and the commands for it."""
        chosen: dict[Candidate, list[int]] = {}
        for k in self.shots:
            found = self.recommended(k)
            chosen.setdefault(found, []).append(k)
        lines = [f"{NEW} is a folder, a table or an archive to label."]
        if self.data.path is None:
            lines.append("DATA is where these classes are stored.")
        if not chosen:
            return [*lines, *self._use(self.usual, [], "")]
        for candidate, shots in chosen.items():
            words = " and ".join(map(_shots, shots)) if len(chosen) > 1 else ""
            lines += self._use(candidate, shots, words)
        return lines

    def _use(self, chosen: Candidate, shots: list[int], words: str) -> list[str]:
        """That a candidate is to be used, and how."""
        use = f"With {words}, use" if words else "Use"
        lines = [f"{use} {chosen.name}."]
        pool = self.records if chosen.name in self.records else self.held_out
        gains = {k: gain_at(pool, chosen.name, self.usual.name, k) for k in shots}
        parts = [f"{_shown(g)} at {_shots(k)}" for k, g in gains.items() if g]
        if parts:
            lines.append(
                f"Its gain over {self.usual.name}, which needs no run: "
                f"{', '.join(parts)}."
            )
        if chosen.trained and not chosen.source:
            lines.append(
                "The gain was measured on classes that were not trained on: expect it "
                "for classes that you add later. How accurate it is on the classes "
                "that it is trained on, no figure above says."
            )
        commands = chosen.commands(self.data)
        if not commands:
            known = {
                name: record
                for name, record in self.records.items()
                if record.candidate.commands(self.data)
            }
            found = simplest(known, shots[-1]) if shots else None
            other = found.candidate if found else next(iter(known.values())).candidate
            lines.append(
                "No command labels by it. The best of those that have one is "
                f"{other.name}:"
            )
            commands = other.commands(self.data)
        return [*lines, *(f"  {command}" for command in commands)]

    # ------------------------------------------------------------------ page

    def page(self) -> str:
        """A page in HTML, complete in itself: the tables, and what is confused or
        doubtful as pictures or texts.
        """
        report = self.report()
        parts = []
        for note in self._next():
            code = note.startswith("  ")
            tag = "pre" if code else "p"
            parts.append(f"<{tag}>{escape(note.strip())}</{tag}>")
        for table in report.tables:
            parts.append(table._repr_html_())
        parts += [f"<p>{escape(n)}</p>" for n in (*self._explained(), *self.notes)]
        found = self.diagnosis
        if found is not None:
            names, labels = self.data.classes, self.data.labels
            for c in found.confusions[:TOP]:
                shown = "".join(map(self._shown, c.items[:PICTURES]))
                parts.append(
                    f"<h3>{escape(names[c.first])} or {escape(names[c.second])}: "
                    f"{c.times} of {c.of}</h3>{shown}"
                )
            if found.doubts:
                parts.append("<h2>Labels that look wrong</h2>")
            parts += [
                f"<p>{self._shown(d.item)} labeled "
                f"{escape(names[int(labels[d.item])])}, looks like "
                f"{escape(names[d.other])}</p>"
                for d in found.doubts[:TOP]
            ]
        return _PAGE.format(body="\n".join(parts))

    def _shown(self, item: int) -> str:
        """An item as HTML: a picture or its text."""
        data = self.data
        label = escape(data.classes[int(data.labels[item])])
        name = escape(data.names[item])
        if data.files and isinstance(data.bank.reader, ImageReader):
            content = base64.b64encode(thumbnail(data.files[item], SIDE)).decode()
            body = f'<img alt="{name}" src="data:image/jpeg;base64,{content}">'
        else:
            body = f"<blockquote>{name}</blockquote>"
        return f"<figure>{body}<figcaption>{label}</figcaption></figure>"


def _shown(gain: Estimate) -> str:
    """A difference of accuracies in points."""
    return f"{100 * gain.mean:+.2f} ± {100 * (gain.interval or 0):.2f} points"


def _shots(number: int) -> str:
    return f"{number} shot{'s' if number > 1 else ''}"


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Advice</title>
<meta name="viewport" content="width=device-width">
<style>
:root {{ color-scheme: light dark }}
body {{ font: 15px/1.4 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem;
  padding: 0 1rem }}
table {{ border-collapse: collapse; margin: 1.5rem 0 }}
caption {{ text-align: left; font-weight: 600; padding: .3rem 0 }}
td, th {{ border-top: 1px solid #8884; padding: .3rem .8rem .3rem 0;
  text-align: left }}
figure {{ display: inline-block; margin: 0 .5rem .5rem 0; max-width: 16rem;
  vertical-align: top }}
figcaption {{ font-size: 12px; opacity: .75 }}
img {{ width: 96px; height: 96px; object-fit: cover; border-radius: 6px }}
blockquote {{ margin: 0 }}
pre {{ overflow-x: auto; padding: .6rem; background: #8882 }}
</style>
<h1>Advice</h1>
{body}
</html>
"""
