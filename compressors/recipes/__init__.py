"""One torch-free module per technique: its frozen configuration. `compressors.recipe` knows them all."""
