"""What can be wrong with a file."""

from __future__ import annotations


class PackedFileError(ValueError):
    """The file is no `.bantam` file, is damaged, or asks for more than the reader's limits allow."""
