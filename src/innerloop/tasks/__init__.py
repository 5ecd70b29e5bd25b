"""Task sources: functions of a split ("train", "val", "test") and options that return a
TaskDistribution.
"""

from collections.abc import Callable

from innerloop.core.task import TaskDistribution
from innerloop.engine.augmentation import Warp
from innerloop.readers.image import ImageReader
from innerloop.readers.text import TextReader
from innerloop.tasks.algorithmic import associative_recall, copy, repeat_copy
from innerloop.tasks.arrays import arrays
from innerloop.tasks.assay_table import molecules
from innerloop.tasks.cifar import cifar_fs, fc100
from innerloop.tasks.cluttered_omniglot import cluttered_omniglot
from innerloop.tasks.completion import completion
from innerloop.tasks.descriptions import descriptions
from innerloop.tasks.emoji import emoji
from innerloop.tasks.episodes import ClassBank, Episodes
from innerloop.tasks.folder import folder
from innerloop.tasks.function_sums import sums
from innerloop.tasks.gp_curves import gp_curves
from innerloop.tasks.instructions import instructions
from innerloop.tasks.molecules import tox21
from innerloop.tasks.names import names
from innerloop.tasks.omniglot import omniglot
from innerloop.tasks.optimizees import mlp_digits, mlp_omniglot, quadratics
from innerloop.tasks.pages import pages
from innerloop.tasks.pools import pools
from innerloop.tasks.programs import list_programs, string_programs
from innerloop.tasks.ratings import ratings
from innerloop.tasks.scan import scan
from innerloop.tasks.sinusoid import sinusoid
from innerloop.tasks.stories import stories
from innerloop.tasks.strokes import strokes
from innerloop.tasks.tables import tables
from innerloop.tasks.text import clinc, cloze, text
from innerloop.tasks.xor import xor

TASKS: dict[str, Callable[..., TaskDistribution]] = {
    "strokes": strokes,
    "omniglot": omniglot,
    "cifar-fs": cifar_fs,
    "fc100": fc100,
    "emoji": emoji,
    "sinusoid": sinusoid,
    "sums": sums,
    "folder": folder,
    "arrays": arrays,
    "text": text,
    "clinc": clinc,
    "cloze": cloze,
    "tox21": tox21,
    "molecules": molecules,
    "copy": copy,
    "repeat-copy": repeat_copy,
    "associative-recall": associative_recall,
    "gp-curves": gp_curves,
    "completion": completion,
    "ratings": ratings,
    "pages": pages,
    "cluttered-omniglot": cluttered_omniglot,
    "pools": pools,
    "xor": xor,
    "tables": tables,
    "string-programs": string_programs,
    "list-programs": list_programs,
    "instructions": instructions,
    "scan": scan,
    "names": names,
    "stories": stories,
    "descriptions": descriptions,
    "quadratics": quadratics,
    "mlp-digits": mlp_digits,
    "mlp-omniglot": mlp_omniglot,
}

__all__ = [
    "TASKS",
    "ClassBank",
    "Episodes",
    "ImageReader",
    "TextReader",
    "Warp",
    "arrays",
    "associative_recall",
    "cifar_fs",
    "clinc",
    "cloze",
    "cluttered_omniglot",
    "completion",
    "copy",
    "descriptions",
    "emoji",
    "fc100",
    "folder",
    "gp_curves",
    "instructions",
    "list_programs",
    "mlp_digits",
    "mlp_omniglot",
    "molecules",
    "names",
    "omniglot",
    "pages",
    "pools",
    "quadratics",
    "ratings",
    "repeat_copy",
    "scan",
    "sinusoid",
    "stories",
    "string_programs",
    "strokes",
    "sums",
    "tables",
    "text",
    "tox21",
    "xor",
]
