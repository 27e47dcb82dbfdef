"""`OnnxClassifier` under the import path documented in docs/export.md."""

from daptune.predict.onnx import OnnxClassifier

__all__ = ["OnnxClassifier"]
