"""The run that others are compared with."""

from pathlib import Path

import pytest
import torch

from .small import train


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of `small.train` that nothing interrupted, with one thread; not to be changed."""
    folder = tmp_path_factory.mktemp("reference")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    train(folder)
    torch.set_num_threads(threads)
    return folder
