"""`daptune pull`."""

from pathlib import Path

from .conftest import Command


def test_pull_of_what_is_here(daptune: Command, made_up_backbone: str) -> None:
    found = daptune("pull", made_up_backbone, "--json").json
    assert found["bytes"] == Path(made_up_backbone).stat().st_size and len(found["sha256"]) == 64
    assert "sha256" in daptune("pull", made_up_backbone).out
