"""Run a command and write how long it took and how much memory it held, as JSON.

This process exists to be small: Linux starts the peak of a child with what its parent holds, and
the tools that compare models hold hundreds of megabytes. Called by `child.run`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path


def main() -> int:
    """Run `measured.py RESULT COMMAND...` and return the exit code of the command."""
    result, *command = sys.argv[1:]
    begin = time.perf_counter()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    code = os.waitstatus_to_exitcode(status)
    found = {
        "seconds": time.perf_counter() - begin,
        "cpu": usage.ru_utime + usage.ru_stime,
        "peak_mb": usage.ru_maxrss / 1024,  # kilobytes on Linux
        "code": code,
    }
    Path(result).write_text(json.dumps(found))
    return code if 0 <= code < 256 else 1


if __name__ == "__main__":
    sys.exit(main())
