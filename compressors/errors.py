"""Errors of this room. One root, so that a caller can catch everything that compression may refuse.

CompressorError
├── UnsafeArchive          an uploaded file was refused before torch read it
├── UnsupportedModel       the program uses something that no technique or exporter handles
├── InvalidRecipe          a recipe names a layer, ratio, order or technique that does not exist or does not fit
├── InvalidData            rows, columns, shapes or labels that do not fit the model
└── ParityError            two forms of one model (program, modules, artifact) disagree beyond tolerance
"""


class CompressorError(Exception):
    """Root of all errors raised by `compressors`. The message names the value, the limit and the remedy."""


class UnsafeArchive(CompressorError):
    """The archive is damaged, oversized or carries content that could run code when it is read."""


class UnsupportedModel(CompressorError):
    """The model cannot be read, shaped or exported as it is."""


class InvalidRecipe(CompressorError):
    """The recipe does not apply to this model."""


class InvalidData(CompressorError):
    """The data do not fit the model or the task."""


class ParityError(CompressorError):
    """Two forms of one model give different outputs.

    max_error: largest absolute difference seen.
    """

    def __init__(self, message: str, *, max_error: float) -> None:
        super().__init__(message)
        self.max_error = max_error
