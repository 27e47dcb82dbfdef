"""Fetch adapters from the Hugging Face Hub (`hf:user/name[@revision]`) and publish them.

As with backbones, cached files are used without network access; `fetch_adapter` checks the Hub.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from daptune.adapter.card import PLACE
from daptune.adapter.record import CARD_FILE, JSON_FILE, TENSOR_FILE, AdapterRecord, read_record, read_tensor_file
from daptune.clip.hub import HUB_NAME, Source, asking, hub_fetch, hub_files
from daptune.errors import AdapterError, foreign
from daptune.files import recovered
from daptune.foreign import read_bytes
from daptune.hub import hub_endpoint, hub_errors

LARGEST_CARD = 4_000_000
"""Bytes of a model card."""


@dataclass(frozen=True)
class Pushed:
    """A published adapter."""

    name: str
    """Name to load it by: `hf:user/name`, with `@branch` unless it is the main one."""
    url: str
    record: AdapterRecord


def find_adapter(name: str | Path) -> Path:
    """The folder of an adapter, a path or `hf:user/name[@revision]`.

    Raises AdapterError if it is neither in the cache nor can be fetched.
    """
    source = on_hub(name)
    if source is None:
        return recovered(Path(name).expanduser())
    from huggingface_hub import try_to_load_from_cache

    files = [try_to_load_from_cache(source.repo, file, revision=source.revision) for file in (JSON_FILE, TENSOR_FILE)]
    if all(isinstance(file, str) for file in files):
        return Path(str(files[0])).parent
    return fetch_adapter(source)


def on_hub(name: str | Path) -> Source | None:
    """The repository of `hf:user/name[@revision]`; None for a path."""
    text = name.as_posix() if isinstance(name, Path) else name
    if not text.startswith("hf:"):
        return None
    match = HUB_NAME.fullmatch(text)
    if match is None:
        raise AdapterError(f"expected hf:user/name or hf:user/name@revision, found {text!r}")
    return Source(text, repo=match["repo"], revision=match["revision"])


def holds_adapter(source: Source) -> bool:
    """Ask the Hub whether the repository holds an adapter. Raises AdapterError."""
    with asking(source, AdapterError):
        return JSON_FILE in hub_files(source)


def fetch_adapter(source: Source) -> Path:
    """Fetch an adapter's files or their updates, all of one commit, and return their folder."""
    with asking(source, AdapterError):
        names = hub_files(source)
        if not {JSON_FILE, TENSOR_FILE} <= set(names):
            raise AdapterError(
                f"{source.repo} holds no adapter: expected {JSON_FILE} and {TENSOR_FILE}, found {_some(names)}; check "
                "the name"
            )
        folder = hub_fetch(source, JSON_FILE).parent
        same = replace(source, revision=folder.name)  # the commit of the first file
        for file in (TENSOR_FILE, CARD_FILE):
            if file in names:
                hub_fetch(same, file)
    return folder


def push_adapter(adapter: str | Path, target: str, *, private: bool = False, revision: str | None = None) -> Pushed:
    """Publish an adapter's three files as one commit of `target`, `hf:user/name`, created if missing.

    The files are checked first; the card names the repository. Raises AdapterError for a damaged adapter, without
    login or network, for a repository that holds something else, or a public one with `private`.
    """
    source = on_hub(target)
    if source is None:
        raise AdapterError(f"expected hf:user/name to publish to, found {target!r}")
    branch = revision or source.revision
    folder = find_adapter(adapter)
    record = read_record(folder)
    blob = read_tensor_file(folder, record)
    name = f"hf:{source.repo}" + (f"@{branch}" if branch else "")
    with foreign(lambda why: AdapterError(f"{folder / CARD_FILE} cannot be read ({why}); save the adapter again")):
        card = read_bytes(folder / CARD_FILE, LARGEST_CARD).decode("utf-8")
    content = {
        JSON_FILE: (folder / JSON_FILE).read_bytes(),
        TENSOR_FILE: blob,
        CARD_FILE: card.replace(PLACE, name).encode(),
    }

    unreachable = f"{source.repo} was not published: the Hub cannot be reached ({{reason}}); try again"
    with hub_errors(source.repo, AdapterError, unreachable, revision=branch):
        from huggingface_hub import CommitOperationAdd, HfApi

        api = HfApi(endpoint=hub_endpoint())
        api.create_repo(source.repo, private=private or None, exist_ok=True)
        info = api.model_info(source.repo)
        there = [entry.rfilename for entry in info.siblings or ()]
        if JSON_FILE not in there and set(there) - {".gitattributes", CARD_FILE}:
            raise AdapterError(f"{source.repo} holds something that is not an adapter ({_some(there)}); name a new one")
        if private and not info.private:
            raise AdapterError(f"{source.repo} exists and is public; make it private on its page, or omit --private")
        if branch:
            api.create_branch(source.repo, branch=branch, exist_ok=True)
        done = api.create_commit(
            source.repo,
            [CommitOperationAdd(file, data) for file, data in content.items()],
            commit_message=f"{record.method} for {len(record.class_names)} classes, by daptune",
            revision=branch,
        )
    return Pushed(name, str(done.commit_url).partition("/commit/")[0], record)


def _some(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)[:5]) or "nothing"
