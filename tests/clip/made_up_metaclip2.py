"""Made-up MetaCLIP 2s in both layouts, with tokenizers whose end of a text is not the highest id."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tokenizers import Tokenizer as Engine
from tokenizers import models, pre_tokenizers, processors
from torch import Tensor

from . import made_up
from .made_up import SMALL, make_tensors

METACLIP2 = replace(SMALL, context_length=40, vocab_size=400, activation="gelu", family="metaclip2", eos_id=2)
WORDS = ("a", "photo", "of", "cat", "Cat", "sea", "lake", "Hund", "猫", "собака", "chien", ".", "dog")
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
__all__ = ["METACLIP2", "make_tensors", "write_openclip", "write_tokenizer", "write_transformers"]


def write_tokenizer(path: Path, special: tuple[str, ...] = SPECIAL, size: int = 400) -> Path:
    """A unigram model in the form of XLM-V's (case matters, and a template that adds the ends), with `size` pieces."""
    letters = [chr(code) for code in range(33, 127)]
    pieces = [*special, "\u2581", *("\u2581" + word for word in WORDS), *letters]
    pieces += [f"<extra{number}>" for number in range(size - len(pieces))]
    scores = [0.0] * len(special) + [-10.0 if len(piece) == 1 else -3.0 for piece in pieces[len(special) :]]
    engine = Engine(models.Unigram(list(zip(pieces, scores, strict=True)), special.index("<unk>"), False))
    engine.pre_tokenizer = pre_tokenizers.Metaspace()
    engine.add_special_tokens(list(special))
    if "<s>" in special:
        ends = [("<s>", special.index("<s>")), ("</s>", special.index("</s>"))]
        engine.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    path.parent.mkdir(parents=True, exist_ok=True)
    engine.save(str(path))
    return path


def write_transformers(folder: Path, tensors: Mapping[str, Tensor]) -> Path:
    """A folder of a MetaClip2Model with its tokenizer."""
    made_up.write_huggingface(folder, tensors, METACLIP2)
    config = json.loads((folder / "config.json").read_text()) | {"model_type": "metaclip_2"}
    config["text_config"] |= {"eos_token_id": 2, "bos_token_id": 0, "pad_token_id": 1}
    (folder / "config.json").write_text(json.dumps(config))
    write_tokenizer(folder / "tokenizer.json")
    return folder


def write_openclip(folder: Path, tensors: Mapping[str, Tensor]) -> Path:
    """An open_clip folder with its tokenizer."""
    path = made_up.write_openclip(folder, tensors, METACLIP2) / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["model_cfg"]["text_cfg"] |= {"hf_tokenizer_name": "facebook/xlm-v-base", "pool_type": "eos", "eos_id": 2}
    path.write_text(json.dumps(config))
    write_tokenizer(folder / "tokenizer.json")
    return folder
