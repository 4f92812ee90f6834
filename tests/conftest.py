"""Its place makes the helper modules of this folder importable for the tests in sub-folders."""
