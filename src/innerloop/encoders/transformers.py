"""Models of the package transformers, from folders on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from innerloop.engine.errors import InnerloopError

OPTIONAL = ("pooler.", "pooler_")  # weights that a model can do without


def load_model(folder: Path) -> tuple[Any, bool]:
    """The model in a folder, in evaluation mode, and whether its pooling layer, if it
    has one, is stored there.

    Raises InnerloopError for a folder whose model cannot be used.
    """
    from transformers import AutoModel
    from transformers.utils import logging

    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        model, about = AutoModel.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except Exception as error:  # of any type
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise InnerloopError(
            f"the model in {folder} cannot be used: {reason}"
        ) from error
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()
    missing = sorted(about["missing_keys"])
    needed = [name for name in missing if not name.startswith(OPTIONAL)]
    if needed:
        raise InnerloopError(
            f"the model in {folder} lacks weights: {needed[0]} and others"[:290]
        )
    assert isinstance(model, nn.Module)
    return model.float().eval(), not missing
