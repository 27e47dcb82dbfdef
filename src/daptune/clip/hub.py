"""Find the files of a backbone by name, in this package, on disk or on the Hugging Face Hub.

    photo, tiny               the backbones in this package
    ViT-B-16/openai           open_clip's architecture/tag; `hub_models.json` lists its repository on the Hub
    hf:org/repo[@revision]    any repository of the Hub in open_clip's or transformers' layout; also hf-hub:org/repo
    a folder or a file        in the formats of `checkpoints`

Names have priority over paths: write ./tiny for a folder of that name. Cached files are used without network access, so
that runs are reproducible; `pull` checks the Hub and fetches updates.
"""

import re
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import BackboneError, DaptuneError, suggest
from ..files import read_json
from ..hub import hub_endpoint, hub_errors
from .checkpoints import SUFFIXES, find_layout, huggingface, is_clip_model, openclip, refuse_config
from .checkpoints.containers import INDEX, files_of
from .families import refuse_unserved
from .file_tokenizer import FILES

EMBEDDED = {name: Path(__file__).with_name(name) for name in ("photo", "tiny")}
"""The backbones in this package: one knows photographs, the other icons."""
HUB_NAME = re.compile(r"hf(?:-hub)?:(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
_OPENAI = {"ViT-B/32": "ViT-B-32", "ViT-B/16": "ViT-B-16", "ViT-L/14": "ViT-L-14", "ViT-L/14@336px": "ViT-L-14-336"}
_OPENAI |= {name: name for name in ("RN50", "RN101", "RN50x4", "RN50x16", "RN50x64")}
_UNREACHABLE = (
    "{name} is not in the cache, and the Hub cannot be reached ({{reason}}). On a machine with network, type "
    "`daptune pull {name}`, and copy {{folder}} of its cache into {{cache}} here; or give a folder with its files."
)
_BESIDE = (huggingface.PREPROCESSOR, huggingface.PROCESSOR, *FILES)
_SERVED_ALIKE = (
    (r"siglip", "a SigLIP", "ViT-B-16-SigLIP2/webli, hf:google/siglip2-base-patch16-224"),
    (r"worldwide|metaclip-?2", "a MetaCLIP 2", "ViT-H-14-worldwide/metaclip2_worldwide, hf:facebook/metaclip-2-..."),
    (r"\beva-?02", "an EVA02-CLIP", "EVA02-B-16/merged2b_s8b_b131k, EVA02-L-14/merged2b_s4b_b131k"),
    (r"\bpe[-_]core", "a PE-Core", "PE-Core-B-16/meta, PE-Core-L-14-336/meta, hf:timm/PE-Core-B-16"),
)
"""What names of families that are served look like, and the form of those that are known."""
_LICENCES = ((r"metaclip(2|-2)", "CC-BY-NC-4.0, no commercial use"),)
"""Of weights that may not be used for every purpose, by the name of their repository."""


@dataclass(frozen=True)
class Source:
    """A path on this machine, or a repository of the Hub.

    `activation` and `preprocess` (fields of Preprocess) are those of the tag in open_clip's pretrained.py; without
    them, the checkpoint's config applies.
    """

    name: str
    path: Path | None = None
    repo: str = ""
    revision: str | None = None
    activation: str | None = None
    preprocess: dict[str, Any] = field(default_factory=dict)

    @property
    def licence(self) -> str:
        """What limits the use of its weights; empty where nothing is known to."""
        return next((text for name, text in _LICENCES if re.search(name, self.repo, re.IGNORECASE)), "")


@cache
def hub_models() -> dict[str, dict[str, Any]]:
    """Every architecture/tag -> {"repo", "activation"?, "preprocess"?}."""
    table: dict[str, dict[str, Any]] = read_json(Path(__file__).with_name("hub_models.json"))
    return table


def resolve(name: str | Path, revision: str | None = None) -> Source:
    """Resolve a name without network access. Raises BackboneError with a suggestion for an unknown one."""
    text = str(name)
    if text in EMBEDDED:
        return Source(text, path=EMBEDDED[text])
    if match := HUB_NAME.fullmatch(text):
        text = f"hf:{text.partition(':')[2]}"
        _refuse_layout(text, match["repo"])
        if revision and match["revision"] and revision != match["revision"]:
            raise BackboneError(f"{text!r} and revision={revision!r} name different revisions: give one of them.")
        return Source(text, repo=match["repo"], revision=revision or match["revision"])
    known = f"{_OPENAI[text]}/openai" if text in _OPENAI else re.sub(r"-quickgelu(?=/)", "", text)
    if known in hub_models():
        entry = hub_models()[known]
        return Source(known, revision=revision, **entry)
    path = Path(text).expanduser()
    if text and path.exists():
        return Source(text, path=path)
    is_path = text.count("/") > 1 or text.startswith((".", "/", "~")) or path.suffix in SUFFIXES
    if not is_path and not _tags(text):
        refuse_unserved(text, repr(text))
        for pattern, family, known in _SERVED_ALIKE:
            if re.search(pattern, text, re.IGNORECASE):
                raise BackboneError(
                    f"{text!r} is no name of {family} that is known here; such are {known}, or a folder."
                )
    raise BackboneError(f"no backbone is called {text!r}, and no file or folder has this name.{_suggest(text)}")


def _refuse_layout(name: str, repo: str) -> None:
    """Raise BackboneError for a repository of Meta's whose weights are a .pt without a config."""
    if match := re.fullmatch(r"facebook/PE-Core-([TSBLG])(\d+)-(\d+)", repo, re.IGNORECASE):
        size = match[1].upper()
        known = f"PE-Core-{'bigG' if size == 'G' else size}-{match[2]}{'' if size == 'B' else f'-{match[3]}'}"
        same = f"take {known}/meta, the same weights, or " if f"{known}/meta" in hub_models() else ""
        raise BackboneError(
            f"{name} holds Meta's own .pt, and from the Hub the layouts of open_clip and transformers are read: {same}"
            "fetch the .pt yourself and give its path."
        )


def locate(
    name: str | Path, *, revision: str | None = None, cache_dir: Path | None = None, download: bool = True
) -> Path:
    """The folder or file of a backbone, from the cache or, with `download`, from the Hub.

    Raises BackboneError for an unknown name, without network, or for a repository without a CLIP.
    """
    source = resolve(name, revision)
    if source.path is not None:
        return source.path
    if (cached := _cached(source, cache_dir)) is not None:
        return cached
    if not download:
        raise BackboneError(
            f"{source.name} is not on this machine, and it is fetched only if you say so: add --allow-download "
            f"(in Python allow_download=True), or type `daptune pull {source.name}`."
        )
    return pull(name, revision=revision, cache_dir=cache_dir)


def pull(name: str | Path, *, revision: str | None = None, cache_dir: Path | None = None) -> Path:
    """Fetch a backbone or its updates from the Hub and return its folder; that of a path or an embedded one as it is.

    Only the files needed are fetched: one layout, and no pickle if there is a safetensors file. Raises BackboneError
    as `locate`.
    """
    source = resolve(name, revision)
    if source.path is not None:
        return source.path

    def fetch(file: str) -> Path:
        return hub_fetch(source, file, cache_dir)

    with asking(source, BackboneError):
        config, *files = choose(hub_files(source), source.name, lambda: is_clip_model(fetch(huggingface.CONFIG)))
        described = fetch(config)
        refuse_config(described, source.name)  # before its weights are fetched
        for file in files:
            fetch(file)
    return described.parent


def choose(files: Collection[str], name: str, is_clip: Callable[[], bool]) -> list[str]:
    """Files of a repository to fetch: the config first, then weights, shards, preprocessing and tokenizer.

    `checkpoints.find_layout` chooses the layout. Raises BackboneError if no layout holds a CLIP.
    """
    if layout := find_layout(files, is_clip):
        config, weights = layout
        stem = weights.removesuffix(INDEX)
        shards = [file for file in files if INDEX in weights and _is_shard(file, stem)]
        return [config, weights, *sorted(shards), *(file for file in _BESIDE if file in files)]
    refuse_unserved(name, name)
    shown = ", ".join(sorted(files)[:5]) or "nothing"
    raise BackboneError(
        f"{name} has no readable CLIP: expected open_clip_config.json or config.json with weights beside it, "
        f"found {shown}."
    )


def _is_shard(file: str, stem: str) -> bool:
    """model-00001-of-00002.safetensors belongs to model.safetensors."""
    root, _, suffix = stem.rpartition(".")
    return re.fullmatch(rf"{re.escape(root)}-\d+-of-\d+\.{re.escape(suffix)}", file) is not None


def _cached(source: Source, cache_dir: Path | None) -> Path | None:
    """The folder of a complete copy in the cache, or None."""
    from huggingface_hub import try_to_load_from_cache

    def find(file: str) -> Path | None:
        path = try_to_load_from_cache(source.repo, file, cache_dir=cache_dir, revision=source.revision)
        return Path(path) if isinstance(path, str) else None

    names = [name for layout in (openclip, huggingface) for name in (layout.CONFIG, *layout.WEIGHTS)]
    here = {name: path for name in names if (path := find(name))}
    layout = find_layout(here, lambda: is_clip_model(here.get(huggingface.CONFIG)))
    if layout is None:
        return None
    try:
        files_of(here[layout[1]])
    except BackboneError:
        return None  # a shard is missing
    return here[layout[0]].parent


def asking(source: Source, kind: type[DaptuneError]) -> AbstractContextManager[None]:
    """A block of requests about a repository, whose errors become one-line errors of `kind`."""
    return hub_errors(source.repo, kind, _UNREACHABLE.format(name=source.name), revision=source.revision)


def hub_files(source: Source) -> list[str]:
    """Names of the files of a repository; use it within `asking`."""
    from huggingface_hub import HfApi

    info = HfApi(endpoint=hub_endpoint()).model_info(source.repo, revision=source.revision)
    return [entry.rfilename for entry in info.siblings or ()]


def hub_fetch(source: Source, file: str, cache_dir: Path | None = None) -> Path:
    """Path in the cache of a file of a repository, fetched unless up to date; use it within `asking`."""
    from huggingface_hub import hf_hub_download

    found = hf_hub_download(source.repo, file, revision=source.revision, cache_dir=cache_dir, endpoint=hub_endpoint())
    return Path(found)


def _tags(text: str) -> list[str]:
    return [name for name in hub_models() if name.startswith(f"{text}/")]


def _suggest(text: str) -> str:
    if tags := _tags(text):
        return f" Tags of {text}: {', '.join(tags)}."
    others = "Give a name such as ViT-B-16/openai, hf:org/repo, a folder, a file, photo or tiny."
    return suggest(text, [*EMBEDDED, *hub_models()], otherwise=others)
