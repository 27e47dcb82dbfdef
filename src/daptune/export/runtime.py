"""`OnnxClassifier`, which runs an exported file without torch, under the address that docs/export.md gives it."""

from daptune.predict.onnx import OnnxClassifier

__all__ = ["OnnxClassifier"]
