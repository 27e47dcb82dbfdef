"""Labelled images: sources -> tables -> few-shot draws -> batches. Nothing here knows of `clip`.

Only the loader needs torch, so its names are imported when first used.
"""

from typing import TYPE_CHECKING, Any

from daptune.data.augment import Augmentation
from daptune.data.cache import Decoder
from daptune.data.check import DecodeReport, Unreadable, check_readable, drop_unreadable
from daptune.data.fewshot import FewShot, sample_fewshot, split_holdout
from daptune.data.heldout import choose_split, hold_out, read_images
from daptune.data.images import MAX_PIXELS, decode
from daptune.data.join import JoinedTables, join_tables
from daptune.data.sources import read_source, table_from_lists
from daptune.data.table import DatasetItem, ImageSource, ImageTable, Splits

if TYPE_CHECKING:
    from daptune.data.device import Preprocess
    from daptune.data.loader import DecodedBatch, ImageLoader, iter_batches

__all__ = [
    "MAX_PIXELS",
    "Augmentation",
    "DatasetItem",
    "DecodeReport",
    "DecodedBatch",
    "Decoder",
    "FewShot",
    "ImageLoader",
    "ImageSource",
    "ImageTable",
    "JoinedTables",
    "Preprocess",
    "Splits",
    "Unreadable",
    "check_readable",
    "choose_split",
    "decode",
    "drop_unreadable",
    "hold_out",
    "iter_batches",
    "join_tables",
    "read_images",
    "read_source",
    "sample_fewshot",
    "split_holdout",
    "table_from_lists",
]

_WITH_TORCH = {"DecodedBatch", "ImageLoader", "Preprocess", "iter_batches"}


def __getattr__(name: str) -> Any:
    if name in _WITH_TORCH:
        from daptune.data import loader

        return getattr(loader, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
