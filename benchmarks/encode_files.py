"""Image features of files by another program: `python -m benchmarks.encode_files NAME PLACE FILES...`.

For benchmarks/waiting.py. NAME is transformers (bfloat16, its own forward pass), onnxruntime (float32) or openvino
(bfloat16 where the processor has it). PLACE holds the models that `--make` writes there, made up, in the shape of
ViT-B/16. Imports nothing of daptune to encode.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of CLIP's training images
SIZE, BATCH = 224, 16  # the best of 8, 16 and 32 for the three
Encode = Callable[[Any], Any]


def make(place: Path) -> None:
    """The models of the three programs, once."""
    from benchmarks.peers import exported, peer_model

    if not (place / "transformers").exists():
        peer_model("bf16").save_pretrained(place / "transformers")
    if not (place / "tower.onnx").exists():
        exported(place, BATCH)


def pictures(paths: Sequence[str]) -> Iterator[Any]:
    """Batches (B, 3, R, R): decoded, the short side resized, the middle cut out, normalised."""
    batch = []
    for path in paths:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        scale = SIZE / min(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
        left, top = (image.width - SIZE) // 2, (image.height - SIZE) // 2
        pixels = np.asarray(image.crop((left, top, left + SIZE, top + SIZE)), np.float32) / 255
        batch.append(((pixels - MEAN) / STD).transpose(2, 0, 1).astype(np.float32))
        if len(batch) == BATCH:
            yield np.stack(batch)
            batch = []
    if batch:
        yield np.stack(batch)


def transformers(place: Path) -> Encode:
    import torch
    from transformers import CLIPVisionModelWithProjection

    model = CLIPVisionModelWithProjection.from_pretrained(place / "transformers", dtype=torch.bfloat16).eval()

    @torch.inference_mode()
    def encode(images: Any) -> Any:
        return model(pixel_values=torch.from_numpy(images).bfloat16()).image_embeds.float().numpy()

    return encode


def onnxruntime(place: Path) -> Encode:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(place / "tower.onnx"), providers=["CPUExecutionProvider"])
    given, wanted = session.get_inputs()[0].name, session.get_outputs()[0].name
    return lambda images: session.run([wanted], {given: images})[0]


def openvino(place: Path) -> Encode:
    import openvino

    model = openvino.Core().compile_model(str(place / "tower.onnx"), "CPU", {"PERFORMANCE_HINT": "LATENCY"})
    return lambda images: model(images)[0]


def main() -> None:
    """Encode, and print the shape of what was found."""
    name, place, *files = sys.argv[1:]
    if name == "--make":
        make(Path(place))
        return
    encode = {"transformers": transformers, "onnxruntime": onnxruntime, "openvino": openvino}[name](Path(place))
    print(np.concatenate([encode(batch) for batch in pictures(files)]).shape)


if __name__ == "__main__":
    main()
