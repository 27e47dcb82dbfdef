"""All methods by name: one file per method, and plug-ins of the entry point group "daptune.methods".

    backbone = daptune.load_backbone("tiny")
    method = METHODS["dapt"](backbone, ["cat", "dog"], make_config("dapt", {"text_tokens": 4}))

To add a method, add a file with a frozen dataclass of options and a subclass of `Method`.
"""

import inspect
import logging
from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules

import torch

from ..clip.towers import CAUSAL_TEXT, LEARNED_CONTEXT
from ..errors import MethodError, suggest
from ..names import plain_key, unreadable
from .base import Method, SupportSet
from .options import MethodConfig, parse_options

__all__ = ["METHODS", "Method", "MethodConfig", "SupportSet", "get_method", "make_config", "say_unreadable"]

GROUP = "daptune.methods"
logger = logging.getLogger("daptune")


def _own() -> Iterator[type[Method]]:
    for module in (import_module(f"{__name__}.{found.name}") for found in iter_modules(__path__)):
        for value in vars(module).values():
            mine = inspect.isclass(value) and value.__module__ == module.__name__
            if mine and issubclass(value, Method) and "name" in vars(value):
                yield value


def _plugins() -> Iterator[type[Method]]:
    """Yield the methods of other packages; one that cannot be used is logged and skipped."""
    for point in entry_points(group=GROUP):
        try:
            found = point.load()
        except Exception as error:
            logger.warning("Skipped the method plug-in %s: %s", point.name, error)
            continue
        whole = inspect.isclass(found) and issubclass(found, Method)
        if whole and all(hasattr(found, said) for said in ("name", "title", "year")):
            yield found
        else:
            logger.warning("Skipped the method plug-in %s: %s is not a named Method.", point.name, point.value)


def _register() -> dict[str, type[Method]]:
    methods = {method.name: method for method in _own()}
    for method in _plugins():
        if method.name in methods:
            logger.warning("Skipped the method plug-in %s: a method of that name exists.", method.name)
        else:
            methods[method.name] = method
    return dict(sorted(methods.items(), key=lambda item: (item[1].year, item[0])))


METHODS: dict[str, type[Method]] = _register()
"""Name -> class, oldest first."""


def get_method(name: str) -> type[Method]:
    """The class of a method, in any usual spelling. Raises `MethodError`, with the nearest name, for an unknown one."""
    known = METHODS.get(name) or {plain_key(known): method for known, method in METHODS.items()}.get(plain_key(name))
    if known is None:
        raise MethodError(f"There is no method {name!r}.{suggest(name, METHODS)}")
    return known


def say_unreadable(method: Method) -> None:
    """Log one line if names in the prompts mean nothing to the backbone's text tower, with what mends it.

    Raises MethodError or BackboneError for a prompt that is too long for it, before anything is learned.
    """
    if not method.reads_names():
        return
    tokenizer = method.backbone.tokenizer
    encode, room = tokenizer.encode, tokenizer.context_length
    longest = max(len(encode(name)) for names in method.names.values() for name in names)
    if 4 * longest > room or not method.trainable:  # without training, this pass of the text tower is the only one
        with torch.no_grad():
            method.text_features()
    say_cost(method)
    strange = [
        label for label, names in method.names.items() if len(unreadable(names, tokenizer.spelling)) == len(names)
    ]
    if not strange:
        return
    silent = " or ".join(name for name, other in METHODS.items() if not other.reads_names())
    logger.warning(
        "CLIP's text side cannot read %d of %d class names (%s): say what they are with --names names.csv, columns "
        "folder,name (Python: class_names={label: name}), or learn without names: --method %s",
        len(strange), len(method.names), ", ".join(strange[:3]) + (", ..." if len(strange) > 3 else ""), silent,
    )  # fmt: skip


def say_cost(method: Method) -> None:
    """Log one line if each step of a fit encodes the texts of all classes whole, and how much more that is."""
    has, tokenizer = method.clip.has, method.backbone.tokenizer
    if CAUSAL_TEXT in has or LEARNED_CONTEXT not in method.needs_with(method.config):
        return
    names = [name for own in method.names.values() for name in own]
    whole = len(names) * tokenizer.context_length
    context = next((len(p) for key, p in method.named_parameters() if key.endswith("text_prompt") and p.dim() == 2), 4)
    shared = 1 + context + sum(len(tokenizer.encode(name)) + 2 for name in names)
    logger.warning(
        "The text tower of %s sees all its %d places, so each step encodes %s text tokens, %.0f times those of a "
        "causal tower such as OpenAI's; methods whose text is frozen encode them once (tip_adapter_f, vpt, gda).",
        method.backbone.name, tokenizer.context_length, f"{whole:,}", whole / shared,
    )  # fmt: skip


def make_config(method: str, options: Mapping[str, object]) -> MethodConfig:
    """Make a method's options from names and values; values may be text (`--set text_tokens=4`, a JSON file).

    Raises `MethodError` for an unknown option or an invalid value.
    """
    config_class = get_method(method).config_class
    return config_class(**parse_options(method, config_class, options))
