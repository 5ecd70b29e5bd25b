"""The command line. Parsing imports nothing heavy; a command imports what it needs when
it runs.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

SPLITS = ("train", "val", "test")


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, with a guess at what was meant."""

    words: Sequence[str] = ()  # of the command line

    def error(self, message: str) -> NoReturn:
        print(
            f"{self.prog}: error: {self._guess(message)} (see {self.prog} --help)",
            file=sys.stderr,
        )
        raise SystemExit(2)

    def _guess(self, message: str) -> str:
        if match := re.match(
            r"argument .*?: invalid choice: '?([^' ]+)'? \(choose from (.*)\)", message
        ):
            close = difflib.get_close_matches(
                match[1], re.findall(r"[\w.+-]+", match[2]), 1
            )
            return f"{match[1]!r} is none of {match[2]}" + (
                f": did you mean {close[0]!r}?" if close else ""
            )
        if match := re.match(r"unrecognized arguments: (--[\w-]+)", message):
            close = difflib.get_close_matches(
                match[1], [flag for flag in self._flags() if flag != match[1]], 1
            )
            return f"there is no flag {match[1]}" + (
                f": did you mean {close[0]}?" if close else ""
            )
        return message

    def _flags(self) -> list[str]:
        """The flags of this parser and of the command that is given."""
        named = [
            pair
            for action in self._actions
            if isinstance(action.choices, dict)
            for pair in action.choices.items()
        ]
        inner = [p for name, p in named if isinstance(p, Parser) and name in self.words]
        return [flag for action in self._actions for flag in action.option_strings] + [
            flag for p in inner for flag in p._flags()
        ]


class Help(argparse.ArgumentDefaultsHelpFormatter):
    """Help that tells the defaults that say something."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return (
            action.help
            if action.default in (None, False)
            else super()._get_help_string(action)
        )


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not a positive number")
    return value


def several(text: str) -> int:
    if (value := positive(text)) < 2:
        raise argparse.ArgumentTypeError(
            f"a task needs at least 2 classes, not {value}"
        )
    return value


def duration(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number of minutes")
    return value


def seconds(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number of seconds")
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0 where it succeeded, 2 where it was asked wrongly, 130 where it
    was interrupted.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    parser = build_parser(arguments)
    options = parser.parse_args(arguments)
    if not hasattr(options, "command"):
        parser.print_help()
        return 0
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        options.command(options)
    except KeyboardInterrupt:
        print("innerloop: stopped", file=sys.stderr)
        return 130
    except (ValueError, TypeError, FloatingPointError, OSError, ImportError) as error:
        if os.environ.get("INNERLOOP_TRACEBACK"):
            raise
        print(f"innerloop: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def build_parser(arguments: Sequence[str] = ()) -> Parser:
    """The parser; for `train LEARNER`, with one flag for every field of that
    learner.
    """
    from innerloop import __version__

    parser = Parser(
        prog="innerloop",
        description="Learning to learn: meta-train on many small tasks, then master a new one from a few examples.",
    )
    parser.add_argument(
        "--version", action="version", version=f"innerloop {__version__}"
    )
    parser.words = arguments
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", parser_class=Parser
    )
    for add in (_demo, _list, _cite, _test, _adapt, _ask, _imagine, _synthesize):
        add(commands)
    _train(commands, arguments)
    return parser


def _command(
    commands: Any, name: str, module: str, summary: str, function: str = "run"
) -> Parser:
    def run(options: argparse.Namespace) -> None:
        from importlib import import_module

        command: Callable[[argparse.Namespace], None] = getattr(
            import_module(f"innerloop.cli.{module}"), function
        )
        command(options)

    parser = commands.add_parser(
        name, help=summary, description=summary, formatter_class=Help
    )
    parser.set_defaults(command=run)
    return parser


def _demo(commands: Any) -> None:
    demo = _command(
        commands,
        "demo",
        "demo",
        "meta-train on strokes, adapt to unseen alphabets, compare with no meta-learning, draw a picture",
    )
    demo.add_argument(
        "--out", default="demo", metavar="DIR", help="where the picture and the run go"
    )
    demo.add_argument(
        "--minutes", type=duration, default=2.0, help="meta-training time"
    )
    demo.add_argument("--seed", type=int, default=0, help="random seed")


def _list(commands: Any) -> None:
    listing = _command(
        commands,
        "list",
        "catalogue",
        "learners, meta-gradients and task distributions, with their papers",
        "list_all",
    )
    listing.add_argument("--json", action="store_true", help="as JSON")


def _cite(commands: Any) -> None:
    cite = _command(
        commands, "cite", "catalogue", "BibTeX of the paper behind a learner", "cite"
    )
    cite.add_argument("learner", help="a learner of innerloop list")


def _test(commands: Any) -> None:
    test = _command(
        commands, "test", "test", "test a run on tasks of classes that it never saw"
    )
    test.add_argument("run", metavar="RUN", help="a run folder")
    test.add_argument("--tasks", type=positive, default=1000, help="how many tasks")
    test.add_argument(
        "--ways",
        type=several,
        help="classes in a task (default: what the learner was built for; both 5 and 20 where it takes any)",
    )
    test.add_argument(
        "--shots",
        type=positive,
        help="support examples of a class (default: as in training; 1 and 5 where ways are open and not set)",
    )
    test.add_argument(
        "--queries",
        type=positive,
        help="query examples of a class (default: 5, or as many as there are)",
    )
    test.add_argument(
        "--length",
        type=positive,
        help="exact length of a sequence, or its number of items (default: the longest trained on)",
    )
    test.add_argument(
        "--repeats",
        type=positive,
        help="how often a sequence is repeated (repeat-copy)",
    )
    test.add_argument(
        "--kernel",
        choices=("rbf", "matern", "periodic"),
        help="of the curves (gp-curves)",
    )
    test.add_argument(
        "--of",
        choices=("strokes", "omniglot"),
        help="whose characters are completed (completion)",
    )
    test.add_argument(
        "--on", metavar="TASKS", help="other tasks than it was trained on, by name"
    )
    test.add_argument("--protocol", help="another protocol of the data")
    test.add_argument(
        "--part", choices=SPLITS, default="test", help="the part of the data"
    )
    test.add_argument(
        "--within-alphabet",
        action="store_true",
        help="all classes of a task from one alphabet: the hard test",
    )
    test.add_argument(
        "--root",
        help="another folder of classes, all of them for testing on tasks folder",
    )
    test.add_argument(
        "--steps",
        type=positive,
        help="gradient steps: another number than in training, and the score after each of them",
    )
    test.add_argument(
        "--cluster",
        action="store_true",
        help="also group the queries without labels; adjusted Rand index",
    )
    test.add_argument(
        "--race",
        type=int,
        default=20,
        metavar="TASKS",
        help="tasks of the race against training from scratch; 0 leaves it out",
    )
    test.add_argument(
        "--seconds",
        type=seconds,
        help="of the processor that the search for a program may take (robustfill and deepcoder, 1)",
    )
    test.add_argument(
        "--imagined",
        metavar="RUN",
        help="support sets enlarged by what a run of metavae, metagan or gtn imagines from them",
    )
    test.add_argument(
        "--count", type=positive, default=10, help="imagined examples of a class"
    )
    test.add_argument(
        "--continual",
        type=positive,
        metavar="GROUPS",
        help="let the classes of so many groups (groups) arrive one after the other",
    )
    test.add_argument(
        "--streams",
        type=positive,
        default=10,
        help="how many random streams of classes",
    )
    test.add_argument(
        "--precision", choices=("float32", "bf16"), default="float32", help="arithmetic"
    )
    test.add_argument("--device", default="cpu", help="where to compute")
    test.add_argument("--seed", type=int, default=0, help="draws the tasks")
    test.add_argument(
        "--plot",
        metavar="FILE",
        help="draw what it answers on some tasks (curves and images to complete): a PNG",
    )
    test.add_argument("--json", metavar="FILE", help="write the results there")


def _adapt(commands: Any) -> None:
    adapt = _command(
        commands,
        "adapt",
        "adapt",
        "learn new classes from examples, and label other images or texts",
    )
    adapt.add_argument("run", metavar="RUN", help="a run folder")
    adapt.add_argument(
        "--support",
        required=True,
        metavar="DIR",
        help="the examples: DIR/class/image.png, or a .csv with the columns text and label, or y",
    )
    adapt.add_argument(
        "--query",
        required=True,
        metavar="DIR",
        help="the images to label, anywhere below DIR, or a .csv",
    )
    adapt.add_argument(
        "--out",
        required=True,
        metavar="FILE",
        help="a CSV with the columns file, text or row, label, probability",
    )
    adapt.add_argument("--device", default="cpu", help="where to compute")


def _ask(commands: Any) -> None:
    ask = _command(
        commands, "ask", "ask", "tell which images to label next, with a run of asking"
    )
    ask.add_argument("run", metavar="RUN", help="a run folder of asking")
    ask.add_argument(
        "--pool",
        required=True,
        metavar="DIR",
        help="the images without labels, anywhere below DIR",
    )
    ask.add_argument(
        "--labelled",
        metavar="DIR",
        help="those that have a label already: DIR/class/image.png",
    )
    ask.add_argument("--labels", type=positive, default=5, help="how many to name")
    ask.add_argument(
        "--strategy",
        choices=("learned", "in-turn", "entropy", "margin", "k-centre"),
        help="another way of choosing than the run's",
    )
    ask.add_argument("--device", default="cpu", help="where to compute")


def _imagine(commands: Any) -> None:
    imagine = _command(
        commands,
        "imagine",
        "imagine",
        "make new images of classes of your own, with a run of a generative learner",
    )
    imagine.add_argument(
        "run", metavar="RUN", help="a run folder of metavae, metagan or gtn"
    )
    imagine.add_argument(
        "--support",
        required=True,
        metavar="DIR",
        help="the examples: DIR/class/image.png",
    )
    imagine.add_argument(
        "--out",
        required=True,
        metavar="DIR",
        help="where the images go: DIR/class/imagined-1.png, and a contact sheet",
    )
    imagine.add_argument(
        "--count", type=positive, default=10, help="images of each class"
    )
    imagine.add_argument("--device", default="cpu", help="where to compute")
    imagine.add_argument("--seed", type=int, default=0, help="random seed")


def _synthesize(commands: Any) -> None:
    synthesize = _command(
        commands,
        "synthesize",
        "synthesize",
        "find the program that makes a column of a table from others, from a few examples",
    )
    synthesize.add_argument(
        "--examples",
        required=True,
        metavar="FILE",
        help="a .csv with a column output, empty in the rows to fill; all other columns are inputs",
    )
    synthesize.add_argument(
        "--run",
        metavar="RUN",
        help="a run folder of robustfill to guide the search (default: programs are enumerated)",
    )
    synthesize.add_argument(
        "--out", metavar="FILE", help="a .csv with all rows, filled"
    )
    synthesize.add_argument(
        "--seconds",
        type=seconds,
        default=10.0,
        help="of the processor that the search may take",
    )


def _train(commands: Any, arguments: Sequence[str]) -> None:
    train = _command(
        commands,
        "train",
        "train",
        "meta-train a learner; every field of the learner is a flag (innerloop train LEARNER --help)",
    )
    train.add_argument("learner", metavar="LEARNER", help="a learner of innerloop list")
    train.add_argument("tasks", metavar="TASKS", help="tasks of innerloop list")
    train.add_argument("--out", required=True, metavar="RUN", help="the run folder")
    train.add_argument(
        "--resume", action="store_true", help="go on where the run folder stands"
    )
    train.add_argument(
        "--from",
        dest="source",
        metavar="RUN",
        help="begin with the networks of another run, an encoder, say",
    )
    length = train.add_mutually_exclusive_group()
    length.add_argument("--steps", type=positive, help="meta-steps")
    length.add_argument(
        "--minutes",
        type=duration,
        help="minutes; the rate decays over them (default: 10, unless steps are given)",
    )
    data = train.add_argument_group("tasks")
    data.add_argument("--ways", type=several, help="classes in a task")
    data.add_argument(
        "--shots",
        type=positive,
        help="support examples of a class; of a regression task, 10",
    )
    data.add_argument(
        "--queries",
        type=positive,
        help="query examples of a class; of a regression task, 10",
    )
    data.add_argument(
        "--length",
        type=positive,
        help="longest sequence (copy, 20; repeat-copy, 10), most items (associative-recall, 6), tokens of a text (24)",
    )
    data.add_argument(
        "--repeats",
        type=positive,
        help="most repetitions of a sequence (repeat-copy, 10)",
    )
    data.add_argument(
        "--kernel",
        choices=("rbf", "matern", "periodic"),
        help="of the curves (gp-curves, rbf)",
    )
    data.add_argument(
        "--of",
        choices=("strokes", "omniglot"),
        help="whose characters are completed (completion, strokes)",
    )
    data.add_argument("--arms", type=positive, help="of a bandit (bandits, 5)")
    data.add_argument(
        "--pulls", type=positive, help="of a bandit's arms in a trial (bandits, 100)"
    )
    data.add_argument(
        "--rewards",
        choices=("bernoulli", "gaussian"),
        help="of a bandit (bandits, bernoulli)",
    )
    data.add_argument(
        "--episodes",
        type=positive,
        help="of a trial (mdps, 10; mazes, 3; navigation, half-cheetah, 20)",
    )
    data.add_argument(
        "--horizon",
        type=positive,
        help="the longest episode (mdps, 10; navigation, 100; half-cheetah, 200)",
    )
    data.add_argument(
        "--asked",
        choices=("direction", "velocity"),
        help="of a runner (half-cheetah, direction)",
    )
    data.add_argument(
        "--groups",
        type=int,
        help="from how many alphabets the classes of a task come, 0 for any (strokes, omniglot)",
    )
    data.add_argument(
        "--protocol", help="lake, lake-minimal-1, lake-minimal-2 or vinyals (omniglot)"
    )
    data.add_argument(
        "--holdout",
        action="store_true",
        default=None,
        help="keep validation classes out of training, to choose settings (omniglot)",
    )
    data.add_argument("--root", help="a folder of class folders (folder)")
    data.add_argument(
        "--file",
        help="an .npz or .csv file (arrays), a .csv with the columns text and label (text)",
    )
    data.add_argument(
        "--size",
        type=positive,
        help="images are resized to this many pixels squared (folder, omniglot; 28)",
    )
    data.add_argument(
        "--channels",
        type=int,
        choices=(1, 3),
        help="grey or colour (folder, omniglot; 1)",
    )
    fit = "move and scale drawings so that their ink fills the image (folder: no; omniglot: yes, --no-fit-ink reads whole pages, as papers do)"
    data.add_argument(
        "--fit-ink", action=argparse.BooleanOptionalAction, default=None, help=fit
    )
    outer = train.add_argument_group("meta-training")
    outer.add_argument("--batch", type=positive, help="tasks in a meta-step")
    ways = (
        "backprop",
        "reptile",
        "implicit",
        "es",
        "cma-es",
        "neat",
        "ppo",
        "a2c",
        "policy-gradient",
    )
    outer.add_argument(
        "--meta-gradient", choices=ways, help="how the meta-parameters move"
    )
    outer.add_argument(
        "--estimator",
        choices=("lvc", "dice", "biased"),
        help="of the second derivative (policy-gradient, lvc)",
    )
    outer.add_argument(
        "--sigma",
        type=float,
        help="size of the changes that are tried (es, 0.05; cma-es, 0.1 at first; neat, 0.5)",
    )
    outer.add_argument(
        "--pairs",
        type=positive,
        help="changes in a meta-step, each tried both ways (es, 16)",
    )
    outer.add_argument(
        "--ranked",
        action="store_true",
        default=None,
        help="look at the order of losses alone (es)",
    )
    outer.add_argument(
        "--population",
        type=positive,
        help="members of a generation (cma-es, 4 + 3 ln parameters; neat, 150)",
    )
    outer.add_argument(
        "--discount",
        type=float,
        help="of rewards to come, a step (ppo and a2c, 1; policy-gradient, 0.99)",
    )
    outer.add_argument(
        "--trace", type=float, help="lambda of the advantages (ppo and a2c, 0.95)"
    )
    outer.add_argument(
        "--entropy", type=float, help="its weight at the beginning (ppo and a2c, 0.04)"
    )
    outer.add_argument(
        "--uses",
        type=positive,
        help="meta-steps that go by what was played once (policy-gradient, 1)",
    )
    outer.add_argument("--optimizer", help="a name in torch.optim")
    outer.add_argument("--lr", type=float, help="its learning rate")
    outer.add_argument("--weight-decay", type=float, help="its weight decay")
    outer.add_argument("--warmup", type=int, help="steps of linear warm-up")
    outer.add_argument(
        "--decay",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="cosine decay of the learning rate",
    )
    outer.add_argument("--clip", type=float, help="largest norm of the meta-gradient")
    outer.add_argument(
        "--precision",
        choices=("auto", "float32", "bf16"),
        default="auto",
        help="arithmetic; auto is bf16 where it is fast and safe",
    )
    outer.add_argument("--device", help="where to compute (default: cpu)")
    outer.add_argument("--seed", type=int, default=0, help="random seed")
    at = arguments.index("train") + 1 if "train" in arguments else len(arguments)
    words = list(arguments[at:])
    if any(not word.startswith("-") for word in words):
        from innerloop.cli.fields import add_fields

        add_fields(train, words)
