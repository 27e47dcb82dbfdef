"""Requests to the Hugging Face Hub: its address, and what its errors mean."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from daptune.errors import DaptuneError


def hub_endpoint() -> str | None:
    """The address of `HF_ENDPOINT`; None for the public Hub."""
    return os.environ.get("HF_ENDPOINT") or None


@contextmanager
def hub_errors(repo: str, kind: type[DaptuneError], unreachable: str, *, revision: str | None = None) -> Iterator[None]:
    """Turn errors of requests to the Hub into one-line errors of `kind`; raise at once if offline.

    `unreachable` is the message if the Hub does not answer, with places for {reason}, {cache} and the {folder} there.
    """

    def unanswered(reason: str) -> DaptuneError:
        from huggingface_hub.constants import HF_HUB_CACHE

        folder = f"models--{repo.replace('/', '--')}"
        return kind(unreachable.format(reason=reason, cache=HF_HUB_CACHE, folder=folder))

    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise unanswered("HF_HUB_OFFLINE is set")
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except DaptuneError:
        raise
    except Exception as error:  # network errors have no common class across versions of huggingface_hub
        answer = error.response if isinstance(error, HfHubHTTPError) else None
        status = None if answer is None else answer.status_code
        if isinstance(error, GatedRepoError):
            reason = f"{repo} requires accepting its terms: do so on its page, then log in with `hf auth login`."
        elif isinstance(error, RevisionNotFoundError):
            reason = f"{repo} has no revision {revision!r}; leave it out for the newest."
        elif isinstance(error, RepositoryNotFoundError):
            reason = f"the Hub has no repository {repo!r} that you may read; check the name, or run `hf auth login`."
        elif isinstance(error, EntryNotFoundError) and answer is not None:
            reason = f"{repo} has no such file: {answer.url}"
        elif isinstance(error, HFValidationError):
            reason = f"{repo!r} is not a valid repository name: expected user/name."
        elif status == 401:
            reason = f"the Hub requires a login ({repo}); log in with `hf auth login`."
        elif status == 403:
            reason = f"your login has no permission for this on {repo}; log in with `hf auth login`, or ask its owner."
        else:
            raise unanswered((str(error).strip() or type(error).__name__).splitlines()[0]) from error
        raise kind(reason) from error
