"""What the benchmarks compute on: a made-up CLIP, made-up classes and made-up images, all seeded.

Speed depends on shapes and not on what the weights know, so no weights are downloaded: random ones at the scales that
CLIP starts its training from (`initialize_parameters` of OpenAI's clip/model.py) keep activations, features and
gradients in an ordinary range. Shape letters as in daptune.clip.model.
"""

import math

import torch
from torch import Tensor

from daptune.clip.tokenizer import TextTokenizer

VIT_B16 = {
    "embed_dim": 512,
    "image_size": 224,
    "patch_size": 16,
    "vision_width": 768,
    "vision_layers": 12,
    "vision_heads": 12,
    "vision_mlp": 3072,
    "context_length": 77,
    "vocab_size": 49408,
    "text_width": 512,
    "text_layers": 12,
    "text_heads": 8,
    "text_mlp": 2048,
    "activation": "quick_gelu",
}
SOT, EOT, DOT, X = 49406, 49407, 269, 343  # ids of CLIP's vocabulary: <start>, <end>, ".", and CoOp's placeholder "x"
CONTEXT_TOKENS = VISION_TOKENS = 16
OPTIONS = {"vpt": {"vision_depth": 1}}  # method -> what its row has in place of its defaults: the tokens of DAPT


def weights(seed: int = 0, size: dict = VIT_B16) -> dict[str, Tensor]:
    """A state dict under OpenAI's names; norms and biases are off 1 and 0, so that forgetting one would show."""
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int, std: float, mean: float = 0.0) -> Tensor:
        return torch.empty(*shape).normal_(mean, std, generator=random)

    def norm(name: str, width: int) -> None:
        state[f"{name}.weight"] = normal(width, std=0.05, mean=1.0)
        state[f"{name}.bias"] = normal(width, std=0.02)

    def blocks(root: str, width: int, layers: int, mlp: int) -> None:
        into, out = width**-0.5, width**-0.5 * (2 * layers) ** -0.5
        for i in range(layers):
            block = f"{root}.resblocks.{i}"
            norm(f"{block}.ln_1", width)
            norm(f"{block}.ln_2", width)
            for name, rows, columns, std in (
                ("attn.in_proj_", 3 * width, width, into),
                ("attn.out_proj.", width, width, out),
                ("mlp.c_fc.", mlp, width, (2 * width) ** -0.5),
                ("mlp.c_proj.", width, mlp, out),
            ):
                state[f"{block}.{name}weight"] = normal(rows, columns, std=std)
                state[f"{block}.{name}bias"] = normal(rows, std=0.01)

    width, text, joint = size["vision_width"], size["text_width"], size["embed_dim"]
    patches = (size["image_size"] // size["patch_size"]) ** 2
    state: dict[str, Tensor] = {}
    state["visual.conv1.weight"] = normal(width, 3, size["patch_size"], size["patch_size"], std=width**-0.5)
    state["visual.class_embedding"] = normal(width, std=width**-0.5)
    state["visual.positional_embedding"] = normal(1 + patches, width, std=width**-0.5)
    norm("visual.ln_pre", width)
    blocks("visual.transformer", width, size["vision_layers"], size["vision_mlp"])
    norm("visual.ln_post", width)
    state["visual.proj"] = normal(width, joint, std=width**-0.5)
    state["token_embedding.weight"] = normal(size["vocab_size"], text, std=0.02)
    state["positional_embedding"] = normal(size["context_length"], text, std=0.01)
    blocks("transformer", text, size["text_layers"], size["text_mlp"])
    norm("ln_final", text)
    state["text_projection"] = normal(text, joint, std=text**-0.5)
    state["logit_scale"] = torch.tensor(math.log(100.0))
    return state


def class_tokens(classes: int, seed: int = 1) -> list[list[int]]:
    """Token ids of `classes` made-up names: 1 to 5 tokens, 2.2 on average, as those of the usual data sets."""
    random = torch.Generator().manual_seed(seed)
    share = torch.tensor([0.35, 0.30, 0.20, 0.10, 0.05])
    lengths = 1 + torch.multinomial(share, classes, replacement=True, generator=random)
    return [torch.randint(1000, 40000, (int(n),), generator=random).tolist() for n in lengths]


class MadeUpTokenizer(TextTokenizer):
    """Stands in for daptune's tokenizer so that class "17" has the tokens class_tokens(...)[17]."""

    context_length, sot, start, eot, pad, vocab_size = 77, SOT, (SOT,), EOT, 0, VIT_B16["vocab_size"]

    def __init__(self, names: list[list[int]]) -> None:
        self.names = names

    def encode(self, text: str) -> list[int]:
        """Ids without start and end: a number is that class's name, "." the full stop, any other word a placeholder."""
        ids: list[int] = []
        for word in text.replace(".", " . ").split():
            ids += self.names[int(word)] if word.isdigit() else [DOT if word == "." else X]
        return ids

    def decode(self, ids: list[int]) -> str:
        return " ".join(map(str, ids))


def context(tokens: int = CONTEXT_TOKENS, seed: int = 2) -> Tensor:
    """CoOp's start: (M, W) from N(0, 0.02)."""
    random = torch.Generator().manual_seed(seed)
    return torch.empty(tokens, VIT_B16["text_width"]).normal_(std=0.02, generator=random)


def vision_prompt(tokens: int = VISION_TOKENS, seed: int = 3) -> Tensor:
    """VPT's start: (P, W) uniform in +-sqrt(6 / (3 p^2 + W))."""
    bound = math.sqrt(6 / (3 * VIT_B16["patch_size"] ** 2 + VIT_B16["vision_width"]))
    random = torch.Generator().manual_seed(seed)
    return torch.empty(tokens, VIT_B16["vision_width"]).uniform_(-bound, bound, generator=random)


def learned(method: str, size: dict = VIT_B16, seed: int = 6) -> dict[str, Tensor]:
    """Values for what a method learns, by its own names, at the sizes of its defaults and OPTIONS."""
    text, vision, joint = size["text_width"], size["vision_width"], size["embed_dim"]
    depth, hidden = min(9, size["text_layers"], size["vision_layers"]), max(joint // 16, 8)
    upper = {kind: size[f"{kind}_layers"] - round(5 / 12 * size[f"{kind}_layers"]) for kind in ("text", "vision")}
    shapes = {
        "cocoop": {
            "text_prompt": (4, text),
            "meta_net.linear1.weight": (hidden, joint),
            "meta_net.linear1.bias": (hidden,),
            "meta_net.linear2.weight": (text, hidden),
            "meta_net.linear2.bias": (text,),
        },
        "coop": {"text_prompt": (CONTEXT_TOKENS, text)},
        "vpt": {"vision_prompt": (VISION_TOKENS, vision)},
        "plot": {"text_prompt": (4, 16, text)},
        "maple": {
            "text_prompt": (depth, 2, text),
            "coupling_weight": (depth, vision, text),
            "coupling_bias": (depth, vision),
        },
        "tcp": {
            "text_prompt": (4, text),
            "class_net.linear1.weight": (max(joint // 4, 8), joint),
            "class_net.linear1.bias": (max(joint // 4, 8),),
            "class_net.linear2.weight": (4 * text, max(joint // 4, 8)),
            "class_net.linear2.bias": (4 * text,),
        },
        "mmrl": {
            "representation": (5, 512),
            "images.maps.weight": (upper["vision"], vision, 512),
            "images.maps.bias": (upper["vision"], vision),
            "images.projection": (vision, joint),
            "texts.maps.weight": (upper["text"], text, 512),
            "texts.maps.bias": (upper["text"], text),
        },
        "two_sfs": {
            f"{kind}_norms.{name}": (size[f"{kind}_layers"], 2, size[f"{kind}_width"])
            for kind in ("text", "vision")
            for name in ("weight", "bias")
        },
    }
    random = torch.Generator().manual_seed(seed)
    return {
        name: torch.empty(shape).normal_(float(name.endswith("norms.weight")), 0.02, generator=random)
        for name, shape in shapes[method].items()
    }


def batch(images: int, classes: int, seed: int = 4) -> tuple[Tensor, Tensor]:
    """(B, 3, R, R) normalised pixels and (B,) labels."""
    random = torch.Generator().manual_seed(seed)
    pixels = torch.randn(images, 3, VIT_B16["image_size"], VIT_B16["image_size"], generator=random)
    return pixels, torch.randint(classes, (images,), generator=random)


def directions(classes: int, seed: int = 5) -> Tensor:
    """(C, D) unit rows: prototypes, and the fixed directions that the text rows of the table take gradients along."""
    rows = torch.randn(classes, VIT_B16["embed_dim"], generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(rows, dim=-1)
