"""`daptune predict`: one row per image, in order; a run that writes to a file can be interrupted and resumed."""

import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from daptune.cli import STDIN
from daptune.cli.console import note, progress, warnings_shown
from daptune.cli.options import PredictOptions, RunOptions
from daptune.data.boxes import Boxes
from daptune.data.stream import Item
from daptune.data.video import Frame, check_video, interval
from daptune.errors import DataError, Interrupted
from daptune.predict.inputs import Share, items, spelt
from daptune.predict.predictor import Predictor
from daptune.predict.row_log import RowLog, check_out
from daptune.predict.rows import Format, Row, Wanted, check_parquet, format_of, predict_rows, writing
from daptune.predict.tools import TOOLS
from daptune.regular import read_regular

COUNTED = 10_000  # maximum number of images that are counted before the first is read, to estimate the remaining time


def run(adapter: Path, paths: Sequence[str], predict: PredictOptions, options: RunOptions) -> int:
    """Run the command. Raises DaptuneError for bad input or if no image could be read."""
    form = _format(predict)
    if predict.transductive:
        _check_set(adapter, predict)
    if predict.out is not None:
        check_out(predict.out)
    paths = ["-" if path == STDIN else path for path in paths]
    every, boxes = _interval(predict), _boxes(paths, predict)
    images, total = image_stream(paths, predict.shard, every) if boxes is None else _crops(boxes, predict.shard)
    predicted, wanted = _executor(adapter, predict, options), _wanted(predict)
    with warnings_shown(), progress(steps=True) as bar:
        advance: Callable[[int], object] = partial(bar.advance, bar.add_task("predicting", total=total, note=""))
        if predict.transductive:  # rows come all at once, when every image has been read
            images, advance = _ticking(images, advance), int
        if predict.out is None:
            done = read = 0
            with writing(form, sys.stdout, wanted) as write:
                for rows in predicted(images):
                    for row in rows:
                        write(row)
                        read += "error" not in row
                    done += len(rows)
                    advance(len(rows))
        else:
            with RowLog(predict.out, _identity(adapter, paths, predict, options)) as log:
                if predict.transductive:
                    log.forget()
                elif log.match(images):
                    note(f"daptune: resuming after {log.done} existing rows")
                    advance(log.done)
                try:
                    for rows in predicted(images):
                        log.append(rows)
                        advance(len(rows))
                except KeyboardInterrupt:
                    raise Interrupted(
                        f"Stopped; {log.done} rows are in {log.folder}; run the same command to resume."
                    ) from None
                log.finish(form, wanted)
                done, read = log.done, log.read
        if boxes is not None:
            boxes.tell()
    if not read:
        raise DataError(f"none of the {done} files could be read; each row says why")
    return 0


def load_predictor(adapter: Path, predict: PredictOptions, options: RunOptions) -> Predictor:
    """Load an adapter, or an exported ONNX file, which needs no torch. On a Ray cluster each worker calls this."""
    predictor: Predictor
    if adapter.suffix.lower() == ".onnx":
        predictor = _exported(adapter, predict, options)
    else:
        from daptune.cli.loading import predictor_with

        if predict.engine is not None:
            from daptune.predict.onnx import no_engine

            raise no_engine(adapter)
        held = predictor_with(adapter, options)
        held.scaled_decoding = predict.scaled_decoding
        if predict.scores == "sigmoid":
            held.judge_each_class()
        predictor = held.transductive(predict.reject) if predict.transductive else held
    predictor.scaled_decoding = predict.scaled_decoding
    return predictor


def _exported(model: Path, predict: PredictOptions, options: RunOptions) -> Predictor:
    from daptune.predict.onnx import open_exported

    if predict.scores == "sigmoid":
        raise DataError(f"{model} holds the scores that it was exported with; leave out --scores")
    how: dict[str, Any] = {"precision": options.precision, "backbone": options.backbone, "device": options.device}
    return open_exported(model, engine=predict.engine, batch_size=options.batch_size, **how)


def _executor(
    adapter: Path, predict: PredictOptions, options: RunOptions
) -> Callable[[Iterator[Item]], Iterator[list[Row]]]:
    load = partial(load_predictor, adapter, predict, options)
    if predict.executor == "ray":
        from daptune.predict.ray_rows import ray_rows

        return partial(ray_rows, load, wanted=_wanted(predict), gpu=options.device.startswith("cuda"))
    return partial(predict_rows, load(), wanted=_wanted(predict))


def _check_set(adapter: Path, predict: PredictOptions) -> None:
    """Raise DataError for options that do not go with answers to a whole set."""
    if adapter.suffix.lower() == ".onnx":
        raise DataError(f"{adapter} gives no image features, which --transductive needs; name the adapter's folder")
    if predict.shard is not None or predict.executor == "ray":
        option = "--executor ray" if predict.shard is None else f"--shard {predict.shard}"
        raise DataError(f"--transductive answers to all images together and {option} to parts of them; leave out one")
    if predict.sets is not None:
        from daptune.predict.as_set import NO_SETS

        raise DataError(NO_SETS)


def _ticking(images: Iterator[Item], advance: Callable[[int], object]) -> Iterator[Item]:
    for image in images:
        advance(1)
        yield image


def _wanted(predict: PredictOptions) -> Wanted:
    return Wanted(predict.top_k, predict.reject, predict.sets, predict.format in TOOLS, predict.boxes is not None)


def _format(predict: PredictOptions) -> Format:
    if predict.top_k < 1:
        raise DataError(f"--top-k must be at least 1; found {predict.top_k}")
    if predict.json and predict.format not in (None, "jsonl"):
        raise DataError(f"--json and --format {predict.format} exclude each other; leave one out")
    form = "jsonl" if predict.json else predict.format or format_of(predict.out)
    if form == "parquet":
        if predict.out is None:
            raise DataError("--format parquet needs a file to write to; add --out rows.parquet")
        check_parquet(f"writing {predict.out.name}")
    return form


def _interval(predict: PredictOptions) -> Fraction | None:
    """Seconds between the frames of a film. Raises DataError or MissingExtraError before any work."""
    if predict.every is None:
        return None
    every = interval(predict.every)
    if predict.executor == "ray":
        raise DataError("--every decodes films in this process; leave out --executor ray")
    check_video()
    return every


def _boxes(paths: Sequence[str], predict: PredictOptions) -> Boxes | None:
    if predict.boxes is None:
        return None
    if predict.every or predict.executor == "ray":
        raise DataError(f"--boxes goes without {'--every' if predict.every else '--executor ray'}; leave it out")
    if len(paths) != 1 or not Path(paths[0]).expanduser().is_dir():
        raise DataError(f"--boxes expects one folder, which its images are relative to; found {' '.join(paths) or '-'}")
    return Boxes(predict.boxes, Path(paths[0]).expanduser())


def _crops(boxes: Boxes, part: str | None) -> tuple[Iterator[Item], int | None]:
    crops = (Item(spelt(name), crop) for name, crop in boxes)
    return (crops, sum(map(len, boxes.boxes.values()))) if part is None else (Share(part).of(crops), None)


def image_stream(
    paths: Sequence[str], part: str | None = None, every: Fraction | None = None
) -> tuple[Iterator[Item], int | None]:
    """The images of files, folders, lists and tables, and their number if that is quick to find; frames of films too.

    Raises DataError for an empty stream.
    """
    if not paths:
        raise DataError("no images given; name files, folders, or - for a list on standard input")
    images = items(paths, every, None if part is None else Share(part))
    head: list[Item] = []
    for item in images:
        head.append(item)
        if len(head) == COUNTED or isinstance(item.source, bytes | Frame):  # which are not kept in memory
            return chain(head, images), None
    if not head:
        here = f"part {part} of " if part else ""
        raise DataError(f"no image files in {here}{', '.join(paths[:3])}; name files or folders with images")
    return iter(head), len(head)


def _identity(adapter: Path, paths: Sequence[str], predict: PredictOptions, options: RunOptions) -> dict[str, Any]:
    """Settings that determine the rows; a resumed run must match them."""
    files = [adapter]
    if adapter.suffix.lower() != ".onnx":
        from daptune.adapter.sharing import find_adapter

        files = sorted(find_adapter(adapter).glob("adapter.*"))
    digest = hashlib.sha256()
    for file in files:
        digest.update(read_regular(file))
    return {
        "adapter": digest.hexdigest(),
        "images": [path if path == "-" else os.path.abspath(os.path.expanduser(path)) for path in paths],
        "shard": predict.shard,
        "top-k": predict.top_k,
        "reject": predict.reject,
        "sets": predict.sets,
        "scores": None if predict.scores == "softmax" else predict.scores,
        "transductive": predict.transductive or None,  # as in runs of earlier versions
        "engine": None if predict.engine == "onnxruntime" else predict.engine,  # the default
        "precision": options.precision,
        "scaled-decoding": predict.scaled_decoding,
        "every": predict.every,
        "boxes": None if predict.boxes is None else hashlib.sha256(read_regular(predict.boxes)).hexdigest(),
        "format": "of another tool" if predict.format in TOOLS else None,  # the rows then have paths
    }
