"""Files of a few bytes that claim to be large, deep or many: refused in one line, before memory or time is taken."""

import hashlib
import io
import json
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest
import torch
from PIL import Image
from pyarrow import parquet

from daptune.adapter.store import load_adapter
from daptune.bench.plan import find_plan
from daptune.clip.backbone import Backbone, load_backbone
from daptune.clip.checkpoints import read_checkpoint
from daptune.data.benchmarks.layouts import matlab
from daptune.data.benchmarks.unpack import extract
from daptune.data.images import decode
from daptune.data.sources import read_source
from daptune.errors import DaptuneError
from daptune.foreign import parse_json, parse_toml
from daptune.opcodes import Machine
from tests.clip.made_up import make_tensors, write_huggingface

from .child import in_child
from .readers import ADAPTERS, TINY

Tally = Callable[..., None]


@pytest.fixture(scope="module")
def tiny() -> Backbone:
    return load_backbone("tiny", precision="fp32")


def refused(read: Callable[[], object], word: str, tally: Tally, memory: int = 200, seconds: float = 20) -> None:
    """It ends in one line with `word`, within megabytes and seconds of a child."""
    outcome = in_child(read, memory, 10 * seconds)
    tally(inputs=1, failures=int(outcome.signal != 0), peak=outcome.peak, longest=outcome.seconds)
    assert isinstance(outcome.error, DaptuneError), outcome
    assert word in str(outcome.error) and "\n" not in str(outcome.error), outcome.error


def changed(folder: Path, **fields: Any) -> Path:
    """The adapter of an earlier version with other fields."""
    folder.mkdir(exist_ok=True)
    content = json.loads((ADAPTERS / "dapt" / "adapter.json").read_text("utf-8")) | fields
    blob = (ADAPTERS / "dapt" / "adapter.safetensors").read_bytes()
    (folder / "adapter.safetensors").write_bytes(blob)
    content["tensors_sha256"] = hashlib.sha256(blob).hexdigest()
    (folder / "adapter.json").write_text(json.dumps(content))
    return folder


MANY = [f"name {place}" for place in range(100_000)]
OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "visual tokens": ("dapt", {"text_tokens": 2, "vision_tokens": 10**7}),
    "deep visual tokens": ("vpt", {"vision_tokens": 10**7}),
    "contexts": ("plot", {"prompts": 10**7, "text_tokens": 2}),
    "contexts of proda": ("proda", {"prompts": 10**8, "text_tokens": 2}),
    "width of a network": ("upt", {"network_width": 10**6}),
    "rank": ("clip_lora", {"rank": 10**8}),
    "sets": ("plot_pp", {"vision_sets": 10**7}),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_options_of_an_adapter_take_no_memory_that_its_file_lacks(
    case: str, tiny: Backbone, tmp_path: Path, tally: Tally
) -> None:
    method, options = OPTIONS[case]
    folder = changed(tmp_path / "a", method=method, method_config=options)
    refused(lambda: load_adapter(folder, tiny), "does not fit", tally)


FIELDS: dict[str, tuple[dict[str, Any], str]] = {
    "many names": ({"class_names": MANY}, "100,000 classes"),
    "many names of a class": ({"names": {"red_ball": MANY, "green leaf": ["x"]}}, "names of classes"),
    "a long name": ({"class_names": ["\U0001f600" * 500, "x"]}, "2,000 bytes"),
    "escape codes": ({"class_names": ["\x1b]0;pwned\x07", "x"]}, "not allowed in a name"),
    "half a character": ({"class_names": ["\ud800", "x"]}, "half a character"),
    "a temperature of 400 digits": ({"temperature": 10**400}, "401 digits"),
    "a precision that is a number": ({"backbone": {"name": "tiny", "sha256": "0", "precision": 7}}, "'backbone'"),
    "figures of another type": ({"metrics": {"held_out": [1]}}, "'metrics' must give figures"),
    "a figure that is a text": ({"metrics": {"held_out": {"dapt": {"accuracy": "x"}}}}, "'metrics' must give figures"),
    "a shape that is a text": ({"tensors": {"x": "y"}}, "a shape for every name"),
    "an option that is an object": ({"method_config": {"t": {}}}, "'method_config'"),
    "many templates": (
        {"ensemble": {"a": [1, 1, 1], "factors": [1, 1, 1], "templates": ["{}"] * 2000}},
        "templates: expected at most",
    ),
}


@pytest.mark.parametrize("case", FIELDS)
def test_fields_of_an_adapter_are_checked(case: str, tiny: Backbone, tmp_path: Path, tally: Tally) -> None:
    fields, word = FIELDS[case]
    folder = changed(tmp_path / "a", **fields)
    refused(lambda: load_adapter(folder, tiny), word, tally)


def test_json_is_bounded() -> None:
    deep: Any = "[" * 40 + "]" * 40
    for text in (deep, '{"a":' * 5000 + "1" + "}" * 5000, "9" * 5000, "1e999", "NaN", '"\\udc80"', str(2**64)):
        with pytest.raises(ValueError, match=r"\w"):
            parse_json(text)
    with pytest.raises(ValueError, match="values"):
        parse_json(b"[" + b"[]," * 50 + b"[]]", values=20)
    assert parse_json('﻿[1, 2.5, {"a": "é\U0001f600"}]') == [1, 2.5, {"a": "é\U0001f600"}]


def test_a_plan_is_bounded(tmp_path: Path, tally: Tally) -> None:
    deep, wide, dotted = (tmp_path / f"{name}.toml" for name in ("deep", "wide", "dotted"))
    deep.write_text("a = " + "[" * 2500 + "]" * 2500)
    names = ", ".join(["1"] * 20_000)
    wide.write_text(f'methods = ["coop"]\ndatasets = ["demo"]\nshots = [{names}]\nseeds = [{names}]')
    dotted.write_text(".".join(["a"] * 20_000) + " = 1")
    refused(lambda: find_plan(str(deep)), "nested", tally)
    refused(lambda: find_plan(str(wide)).jobs(), "400,000,000 jobs", tally)
    refused(lambda: find_plan(str(dotted)), "parts", tally)
    assert parse_toml(b'a.b."c.d" = "x.y.z/1.2.3"') == {"a": {"b": {"c.d": "x.y.z/1.2.3"}}}


def zipped(path: Path, data: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/data/0", b"\0" * 4)
    return path


class Described:
    """What a pickle of PyTorch says of a tensor."""

    def __init__(self, size: tuple[int, ...], stride: tuple[int, ...], elements: int = 1) -> None:
        self.said = (size, stride, elements)


def described(size: tuple[int, ...], stride: tuple[int, ...], elements: int = 1) -> bytes:
    """A state dict with one tensor, as PyTorch's pickle has it."""

    class Writer(pickle.Pickler):
        def persistent_id(self, value: object) -> object:
            return ("storage", torch.FloatStorage, "0", "cpu", elements) if value == "here" else None

        def reducer_override(self, value: object) -> Any:
            if isinstance(value, Described):
                return torch._utils._rebuild_tensor_v2, ("here", 0, size, stride, False, {})
            return NotImplemented

    stream = io.BytesIO()
    Writer(stream, protocol=2).dump({"positional_embedding": Described(size, stride)})
    return stream.getvalue()


PICKLES: dict[str, tuple[bytes, str]] = {
    "a place of the memo": (b"\x80\x02]r\x00\x00\x00\x10.", "no state dict"),
    "many places": (b"\x80\x02]" + b"".join(b"r" + struct.pack("<I", 2**31 + n) for n in range(999)) + b".", "no "),
    "millions of lists": (b"\x80\x02(" + b"]" * 2_000_000 + b"l.", "far more objects"),
    "millions of objects": (b"\x80\x02(ccollections\nOrderedDict\nq\x00" + b"h\x00)R" * 700_000 + b"l.", "far more"),
    "a long text": (b"\x80\x02X\xff\xff\xff\x7fabc.", "truncated"),
    "a large array of bytes": (b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"x.", "truncated"),
    "a number of a gigabyte": (b"\x80\x02\x8b\x00\x00\x00\x40x.", "too many bytes"),
    "a key of nested tuples": (b"\x80\x02}N\x85" + b"2\x86" * 60 + b"K\x01s.", "no state dict"),
    "an empty pickle": (b"", "truncated"),
    "a stride of zero": (described((10**5, 10**5), (0, 0)), "does not fit its storage"),
    "a tensor beyond its storage": (described((2, 2), (2, 1)), "does not fit its storage"),
    "a storage that is not there": (described((4,), (1,), 10**10), "has 4 bytes"),
    "a sparse tensor": (b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_sparse_tensor\n)Rs.", "run code"),
    "a tensor without numbers": (
        b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_meta_tensor_no_storage\n)Rs.", "run code",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", PICKLES)
def test_a_pickle_takes_no_memory_that_its_size_does_not_allow(case: str, tmp_path: Path, tally: Tally) -> None:
    data, word = PICKLES[case]
    path = zipped(tmp_path / "x.pt", data)
    refused(lambda: read_checkpoint(path), word, tally, memory=400)


def test_a_pickle_calls_nothing_but_what_its_reader_knows() -> None:
    def find(module: str, name: str) -> Any:
        raise DaptuneError(f"{module}.{name}")

    for call in (b"cos\nsystem\n(X\x04\x00\x00\x00true" + b"tR.", b"\x8c\x02os\x8c\x06system\x93."):
        with pytest.raises(DaptuneError, match=r"os.system"):
            Machine(call, find, lambda pid: None, lambda target, state: None).load()


def test_the_number_of_layers_is_not_read_from_a_name(tmp_path: Path, tally: Tally) -> None:
    tensors = make_tensors(TINY)
    for layer in ("100000", "9" * 40, "255"):
        name = f"transformer.resblocks.{layer}.ln_1.weight"
        torch.save(tensors | {name: torch.zeros(64)}, tmp_path / "x.pt")
        refused(lambda: read_checkpoint(tmp_path / "x.pt"), "x.pt", tally)


def test_a_header_of_safetensors_holds_no_more_than_its_file(tmp_path: Path, tally: Tally) -> None:
    folder = write_huggingface(tmp_path / "hf", make_tensors(TINY), TINY)
    many = {f"t{place}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for place in range(120_000)}
    for header, word in (
        ({"x": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}}, "bytes"),
        ({"x": {"dtype": "F32", "shape": [10**9, 10**9], "data_offsets": [0, 4]}}, "has 4 bytes"),
        (many, "header"),
    ):
        text = json.dumps(header).encode()
        (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + b"\0" * 4)
        refused(lambda: read_checkpoint(folder), word, tally)


def test_the_extended_header_of_a_tar_is_bounded(tmp_path: Path, tally: Tally) -> None:
    about = tarfile.TarInfo("x")
    about.type, about.size = tarfile.XHDTYPE, 3 * 10**9
    path = tmp_path / "a.tar"
    with path.open("wb") as file:
        file.write(about.tobuf(tarfile.USTAR_FORMAT))
        file.truncate(3 * 10**9 + 2048)  # a sparse file: it takes no room on the disk
    refused(lambda: extract(path, tmp_path / "out"), "a header of 3000", tally)


def test_a_table_of_millions_of_rows_is_refused_by_its_header(tmp_path: Path, tally: Tally) -> None:
    path = tmp_path / "rows.parquet"
    indices = pyarrow.array([0], pyarrow.int8()).take(pyarrow.repeat(0, 4_000_000))
    column = pyarrow.DictionaryArray.from_arrays(indices, ["a.png"])
    parquet.write_table(pyarrow.table({"path": column, "label": column}), path)
    assert path.stat().st_size < 100_000
    refused(lambda: read_source(path), "4,000,000 rows", tally)


def test_a_long_text_repeated_in_a_table_is_refused_as_it_grows(tmp_path: Path, tally: Tally) -> None:
    path = tmp_path / "rows.parquet"
    text = pyarrow.DictionaryArray.from_arrays(pyarrow.repeat(0, 20_000).cast(pyarrow.int32()), ["x" * 100_000])
    parquet.write_table(pyarrow.table({"path": text, "label": text}), path)
    refused(lambda: read_source(path), "far more than its size", tally, memory=600)


def test_metadata_of_a_table_are_checked(tmp_path: Path, tally: Tally) -> None:
    table = pyarrow.table({"path": ["a.png", "b.png"], "label": [0, 1]})
    path = tmp_path / "rows.parquet"
    for content in ("[]", "[" * 5000, '{"info": 3}', '{"info": {"features": []}}', "\x00", '{"info": {"features": '
                    '{"label": {"names": [1]}}}}', '{"info": {"features": {"label": {"names": "ab"}}}}'):  # fmt: skip
        parquet.write_table(table.replace_schema_metadata({"huggingface": content}), path)
        refused(lambda: read_source(path), "cannot be read as Parquet", tally)


def test_images_that_are_missing_are_looked_for_in_part(tmp_path: Path, tally: Tally) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("path,label\n" + "".join(f"{row}.png,{'ab'[row % 2]}\n" for row in range(20_000)))
    refused(lambda: read_source(path), "none of 1,000 looked for of its 20000 images exists", tally)


def test_a_jpeg_of_thousands_of_scans_is_refused(tmp_path: Path, tally: Tally) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (64, 64)).save(stream, "JPEG", progressive=True)
    content = stream.getvalue()
    start = content.rfind(b"\xff\xda")
    path = tmp_path / "a.jpg"
    path.write_bytes(content[:start] + content[start:-2] * 3000 + content[-2:])
    refused(lambda: decode(path), "scans, the limit is 100", tally)


def test_sizes_in_headers_of_images_are_no_reason_to_take_memory(tmp_path: Path, tally: Tally) -> None:
    webp = b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xff\xff\x3f" * 2 + b"\0" * 20
    gif = b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\xff\xff\xff\xff\0\x02\x02D\x01\0;"
    bmp = b"BM" + struct.pack("<IHHIIiiHHIIiiII", 100, 0, 0, 54, 40, 10**6, 10**6, 1, 24, 0, 0, 0, 0, 0, 0)
    for name, content in (("a.webp", webp), ("a.gif", gif), ("a.bmp", bmp)):
        (tmp_path / name).write_bytes(content)
        refused(lambda name=name: decode(tmp_path / name), "pixels", tally)  # type: ignore[misc]


def test_a_matlab_file_is_tried_in_a_process_of_its_own(tmp_path: Path, tally: Tally) -> None:
    """A cell array that claims 2**31 cells in 100 bytes."""
    flags = struct.pack("<IIII", 6, 8, 1, 0)
    sizes = struct.pack("<IIii", 5, 8, 2**15, 2**16)
    name = struct.pack("<HH4s", 1, 1, b"x\0\0\0")
    body = flags + sizes + name
    header = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x0100) + b"IM"
    (tmp_path / "x.mat").write_bytes(header + struct.pack("<II", 14, len(body)) + body)
    refused(lambda: matlab(tmp_path / "x.mat", "x"), "is not a MATLAB file", tally, memory=2000, seconds=30)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_an_onnx_file_that_makes_20_gigabytes_is_refused(engine: Any, tmp_path: Path, tally: Tally) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip(engine)
    from daptune.predict.onnx import OnnxClassifier
    from daptune.predict.runtimes import KEY

    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [
        helper.make_node("Constant", [], ["shape"], value=helper.make_tensor("s", 7, [2], [70_000, 70_000])),
        helper.make_node("ConstantOfShape", ["shape"], ["large"]),
        helper.make_node("ReduceSum", ["large"], ["total"], keepdims=0),
        helper.make_node("Add", ["images", "total"], ["logits"]),
    ]
    side = [None, 3, 32, 32]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("images", kind, side)],
        [helper.make_tensor_value_info("logits", kind, side)],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    model.metadata_props.add(key=KEY, value="{}")
    (tmp_path / "x.onnx").write_bytes(model.SerializeToString())
    refused(lambda: OnnxClassifier(tmp_path / "x.onnx", engine=engine), "not an ONNX file that can be run",
            tally, memory=4000, seconds=60)  # fmt: skip
