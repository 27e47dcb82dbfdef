"""One exported file of the made-up adapter, shared by the tests of this folder."""

from pathlib import Path

import pytest

from daptune.classifier import FewShotClassifier, load
from daptune.export.onnx_file import export_onnx


@pytest.fixture(scope="session")
def exact(adapter: Path) -> FewShotClassifier:
    """The made-up adapter in fp32, whatever this machine trains in; not to be changed."""
    return load(adapter, precision="fp32")


@pytest.fixture(scope="session")
def exported(exact: FewShotClassifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It as an fp32 file; not to be changed."""
    return export_onnx(exact, tmp_path_factory.mktemp("exported") / "model.onnx").path
