"""How weights are stored in the artifact: one file per encoding, and the protocol that they share."""

from compressors.encodings.encoding import Encoding
from compressors.encodings.floats import FloatEncoding
from compressors.encodings.integers import IntegerCodes

__all__ = ["Encoding", "FloatEncoding", "IntegerCodes"]
