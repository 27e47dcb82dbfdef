"""One exported file of the made-up adapter, shared by the tests of this folder."""

from pathlib import Path

import pytest

from daptune.classifier import FewShotClassifier
from daptune.export.onnx_file import export_onnx


@pytest.fixture(scope="session")
def exported(fitted: FewShotClassifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`fitted` as an fp32 file; not to be changed."""
    return export_onnx(fitted, tmp_path_factory.mktemp("exported") / "model.onnx").path
