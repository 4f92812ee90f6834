"""`python -m onnx_relief` is the command `onnx-relief`."""

from __future__ import annotations

import sys

from onnx_relief.cli import main

if __name__ == "__main__":
    sys.exit(main())
