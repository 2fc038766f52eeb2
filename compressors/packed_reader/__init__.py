"""Reads `.bantam` files: expands them to the very ONNX file that was packed, or to its tensors.

Needs Python and numpy, nothing else of Bantam: the folder may be copied to where a model is unpacked, and
`python -m packed_reader model.bantam model.onnx` (or model.safetensors) does it there.
"""

from .container import MAGIC, MAXIMUM_BYTES, expand
from .errors import PackedFileError
from .safetensors import safetensors_bytes
from .tensors import decoded_tensors

__all__ = ["MAGIC", "MAXIMUM_BYTES", "PackedFileError", "decoded_tensors", "expand", "safetensors_bytes"]
