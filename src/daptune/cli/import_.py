"""`daptune import`: a checkpoint of official code -> an adapter."""

import shlex
from pathlib import Path

from daptune.cli.app import app
from daptune.cli.console import emit_json, print_pairs, say, shapes_text
from daptune.cli.options import ImportOptions, key_values
from daptune.errors import DataError
from daptune.regular import read_regular

_IMPORT = ImportOptions()


@app.command(name="import", help_format="markdown")
def import_(checkpoint: Path, /, *, options: ImportOptions = _IMPORT) -> int:
    """Turn a checkpoint of the official CoOp, DAPT or MaPLe code into an adapter, without running anything in it.

    Parameters
    ----------
    checkpoint
        `model-best.pth.tar` or `model.pth.tar-50`, as written by Dassl.
    """
    from daptune.adapter.official import import_checkpoint
    from daptune.adapter.record import check_target
    from daptune.adapter.store import make_record, save_adapter
    from daptune.clip.backbone import load_backbone
    from daptune.methods import get_method

    out = check_target(options.out)
    names = _class_names(options)
    backbone = load_backbone(options.backbone, precision=options.precision, device=options.device)
    imported = import_checkpoint(
        checkpoint, get_method(options.method).name, backbone, names, key_values(options.set_options)
    )
    method = imported.method
    folder = save_adapter(out, method, make_record(method, backbone, data=imported.source))
    shapes = {name: list(tensor.shape) for name, tensor in method.state_dict().items()}
    if options.json:
        emit_json({"adapter": str(folder), "method": method.name, "classes": len(names), "tensors": shapes})
        return 0
    about = {"checkpoint": checkpoint, "method": method.title, "classes": len(names)}
    print_pairs(about | {"learned": shapes_text(shapes), "adapter": folder})
    say(f"\nNext:\n  daptune eval {shlex.quote(str(folder))} FOLDER   measure on labelled images")
    return 0


def _class_names(options: ImportOptions) -> tuple[str, ...]:
    from daptune.data.benchmarks.reading import distinct_names, read_benchmark

    if options.dataset is not None and options.classes is None:
        return read_benchmark(options.dataset, options.root).whole().class_names
    if options.classes is None or options.dataset is not None:
        raise DataError("give --classes FILE, one class name per line in the order of the labels, or --dataset NAME.")
    text = read_regular(options.classes.expanduser()).decode("utf-8")
    names = tuple(line for line in map(str.strip, text.splitlines()) if line)
    if not names:
        raise DataError(f"{options.classes}: expected one class name per line, found none.")
    return distinct_names(names)  # ImageNet's own list has two names twice
