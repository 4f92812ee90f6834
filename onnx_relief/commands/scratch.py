"""One temporary folder for everything that a command keeps on the side, gone when it ends."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from onnx_relief.commands.signals import undisturbed
from onnx_relief.errors import OutputError


@contextmanager
def scratch_folder() -> Iterator[None]:
    """Let all temporary files of the block lie in one folder, and remove it afterwards.

    Whoever makes a temporary file can be interrupted before knowing that it exists; this folder is
    made and removed where nothing can interrupt.

    Raises:
        OutputError: No temporary folder can be written.
    """
    before, folder = tempfile.tempdir, None
    try:
        with undisturbed():
            folder = tempfile.tempdir = tempfile.mkdtemp(prefix="onnx-relief-")
        yield
    except FileNotFoundError as error:
        if folder is not None:
            raise
        raise OutputError(
            f"there is no folder for temporary files ({error.strerror or error}); set TMPDIR to one"
        ) from error
    finally:
        with undisturbed():
            tempfile.tempdir = before
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
