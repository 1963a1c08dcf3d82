"""Take a model elsewhere: files without pickle, and one ONNX file for a whole model."""

from ._onnx import export_onnx
from ._skops import SKOPS_TRUSTED

__all__ = ["SKOPS_TRUSTED", "export_onnx"]
