"""One temporary folder for everything that a command keeps on the side, gone when it ends."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from onnx_relief.commands.signals import undisturbed
from onnx_relief.errors import OutputError

_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def scratch_folder() -> Iterator[None]:
    """Let all temporary files of the block lie in one folder, and remove it afterwards.

    Whoever makes a temporary file can be interrupted before knowing that it exists; this folder is
    made and removed where nothing can interrupt.

    Raises:
        OutputError: No temporary folder can be written, or there is no room left in it.
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
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        place = f" in {os.path.dirname(folder)}" if folder else ""
        raise OutputError(
            f"there is no room for temporary files{place} ({(error.strerror or '').lower()}); "
            "free some, or set TMPDIR to another folder"
        ) from error
    finally:
        with undisturbed():
            tempfile.tempdir = before
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
