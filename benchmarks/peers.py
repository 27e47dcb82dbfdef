"""Image features beside other programs: `python -m benchmarks.peers [--precision bf16] [--batch 32] [--repeats 5]`.

The image tower of a ViT-B/16 with made-up weights and its projection, on the same decoded images: daptune; transformers
as it is and under torch.compile (with frozen weights, `freezing`); ONNX Runtime and OpenVINO on a file that torch
exported from transformers' model. Those that are not installed are left out, and so is ONNX Runtime in bfloat16, which
it does not compute on CPUs. All take turns in one process. Prints images a second (the best turn), the ratios of the
same turns, and the largest distance of unit features from those of transformers in float32. Needs, beside the extra
`export`, `pip install transformers openvino`.
"""

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks import workload
from benchmarks.host import keep
from benchmarks.pictures import made_up_classifier
from benchmarks.turns import by_turns, ratio

Encode = Callable[[Tensor], Tensor]
SHAPE = workload.VIT_B16
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The image tower's weights under the names of transformers' CLIPVisionModelWithProjection."""
    found, width = {}, SHAPE["vision_width"]
    root = "vision_model"
    found[f"{root}.embeddings.class_embedding"] = state["visual.class_embedding"]
    found[f"{root}.embeddings.patch_embedding.weight"] = state["visual.conv1.weight"]
    found[f"{root}.embeddings.position_embedding.weight"] = state["visual.positional_embedding"]
    found["visual_projection.weight"] = state["visual.proj"].T.contiguous()
    norms = [("visual.ln_pre", f"{root}.pre_layrnorm"), ("visual.ln_post", f"{root}.post_layernorm")]
    for layer in range(SHAPE["vision_layers"]):
        ours, theirs = f"visual.transformer.resblocks.{layer}", f"{root}.encoder.layers.{layer}"
        norms += [
            (f"{ours}.{name}", f"{theirs}.{new}") for name, new in (("ln_1", "layer_norm1"), ("ln_2", "layer_norm2"))
        ]
        norms += [(f"{ours}.mlp.c_fc", f"{theirs}.mlp.fc1"), (f"{ours}.mlp.c_proj", f"{theirs}.mlp.fc2")]
        norms += [(f"{ours}.attn.out_proj", f"{theirs}.self_attn.out_proj")]
        for kind in ("weight", "bias"):
            parts = state[f"{ours}.attn.in_proj_{kind}"].split(width)
            found |= {f"{theirs}.self_attn.{p}_proj.{kind}": part for p, part in zip("qkv", parts, strict=True)}
    for kind in ("weight", "bias"):
        found |= {f"{new}.{kind}": state[f"{name}.{kind}"] for name, new in norms}
    return found


def peer_model(precision: str) -> Any:
    """transformers' model with the made-up weights."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(
        hidden_size=SHAPE["vision_width"], intermediate_size=SHAPE["vision_mlp"], projection_dim=SHAPE["embed_dim"],
        num_hidden_layers=SHAPE["vision_layers"], num_attention_heads=SHAPE["vision_heads"],
        image_size=SHAPE["image_size"], patch_size=SHAPE["patch_size"], hidden_act=SHAPE["activation"],
    )  # fmt: skip
    model = CLIPVisionModelWithProjection(config)
    left = model.load_state_dict(renamed(workload.weights()), strict=False)
    if left.unexpected_keys or [name for name in left.missing_keys if "position_ids" not in name]:
        raise SystemExit(f"transformers has other names: {left}")
    return model.to(DTYPES[precision]).eval()


def transformers(precision: str, compiled: bool) -> Encode:
    """Its own forward pass, plain or compiled."""
    model, dtype = peer_model(precision), DTYPES[precision]
    if compiled:
        import torch._inductor.config as inductor

        inductor.freezing = True
        model = torch.compile(model)
    return lambda images: model(pixel_values=images.to(dtype)).image_embeds


def exported(folder: Path, batch: int) -> Path:
    """transformers' model as an ONNX file in float32, for any number of images."""
    path = folder / "tower.onnx"
    images = torch.zeros(max(2, batch), 3, SHAPE["image_size"], SHAPE["image_size"])
    shapes = {"pixel_values": {0: torch.export.Dim("images")}}
    program = torch.onnx.export(peer_model("fp32"), (images,), dynamo=True, dynamic_shapes=shapes, verbose=False)
    program.save(str(path))
    return path


def onnxruntime(path: Path, threads: int) -> Encode:
    """With all graph optimisations."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.graph_optimization_level = threads, ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    given, wanted = session.get_inputs()[0].name, session.get_outputs()[0].name
    return lambda images: torch.from_numpy(session.run([wanted], {given: images.numpy()})[0])


def openvino(path: Path, threads: int, precision: str, batch: int) -> Encode:
    """Compiled for this number of images; the hint for throughput, one stream for each core, a share of images each."""
    import openvino as ov

    core = ov.Core()
    model = core.read_model(str(path))
    model.reshape({model.inputs[0]: [max(1, batch // threads), *model.inputs[0].partial_shape[1:]]})
    kind = {"fp32": "f32", "bf16": "bf16"}[precision]
    settings = {"INFERENCE_PRECISION_HINT": kind, "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "THROUGHPUT"}
    compiled = core.compile_model(model, "CPU", settings)
    queue = ov.AsyncInferQueue(compiled, threads)

    def encode(images: Tensor) -> Tensor:
        parts = images.numpy().reshape(-1, *compiled.inputs[0].shape)
        found: list[Any] = [None] * len(parts)
        queue.set_callback(lambda request, place: found.__setitem__(place, request.get_output_tensor(0).data.copy()))
        for place, part in enumerate(parts):
            queue.start_async({0: part}, place)
        queue.wait_all()
        return torch.from_numpy(np.concatenate(found))

    return encode


def engines(precision: str, batch: int, threads: int, folder: Path) -> dict[str, Encode]:
    """What is installed and computes in this precision."""
    found: dict[str, Encode] = {
        "daptune": made_up_classifier(batch, precision).method_.clip.encode_image,
        "transformers": transformers(precision, compiled=False),
        "transformers, compiled": transformers(precision, compiled=True),
    }
    path = exported(folder, batch)
    for name, make in (
        ("ONNX Runtime", lambda: onnxruntime(path, threads)),
        ("OpenVINO", lambda: openvino(path, threads, precision, batch)),
    ):
        if name == "ONNX Runtime" and precision == "bf16":
            continue
        try:
            found[name] = make()
        except ImportError as error:
            print(f"{name} is left out: {error}")
    return found


@torch.inference_mode()
def measured(precision: str, batch: int, threads: int, repeats: int) -> dict[str, Any]:
    """Seconds of each engine by turn, and its distance from float32."""
    images = torch.randn(batch, 3, SHAPE["image_size"], SHAPE["image_size"], generator=torch.Generator().manual_seed(1))
    exact = F.normalize(peer_model("fp32")(pixel_values=images).image_embeds, dim=-1)
    with tempfile.TemporaryDirectory() as folder:
        with torch.inference_mode(False), torch.no_grad():
            encoders = engines(precision, batch, threads, Path(folder))
        differs = {
            name: float((F.normalize(encode(images).float(), dim=-1) - exact).norm(dim=-1).max())
            for name, encode in encoders.items()  # the first run of each is not measured
        }
        seconds = by_turns({name: partial(encode, images) for name, encode in encoders.items()}, repeats)
    return {"precision": precision, "batch": batch, "seconds": seconds, "distance": differs}


def shown(found: dict[str, Any]) -> str:
    """A row for each engine, the ratio to daptune by turn."""
    seconds = found["seconds"]
    lines = [
        f"| {found['precision']}, {found['batch']} images | images a second | daptune is faster | distance |",
        "|---|---|---|---|",
    ]
    for name, times in seconds.items():
        spread = ratio(times, seconds["daptune"], digits=2)
        lines.append(f"| {name} | {found['batch'] / min(times):.1f} | {spread} | {found['distance'][name]:.0e} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", nargs="+", choices=sorted(DTYPES), default=["bf16", "fp32"])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for precision in options.precision:
        rows.append(measured(precision, options.batch, options.threads, options.repeats))
        print(shown(rows[-1]), flush=True)
    keep("peers", {"threads": options.threads, "rows": rows}, options.out)


if __name__ == "__main__":
    main()
