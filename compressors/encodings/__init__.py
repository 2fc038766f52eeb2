"""How weights are stored in the artifact: one file per encoding, and the protocol that they share."""

from compressors.encodings.codebook import Codebook
from compressors.encodings.encoding import Encoding
from compressors.encodings.floats import FloatEncoding
from compressors.encodings.integers import IntegerCodes
from compressors.encodings.powers import PowerCodes

__all__ = ["Codebook", "Encoding", "FloatEncoding", "IntegerCodes", "PowerCodes"]
