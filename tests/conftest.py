"""Its place makes the helper modules of this folder importable for the tests in sub-folders."""

import os

from hypothesis import settings

# Small networks on few cores: threads that wait for each other cost far more than they bring.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# They hold no doctests, and pytest cannot tell modules of one name apart.
collect_ignore_glob = ["conftest.py", "**/conftest.py"]

# What CI says depends on the change alone; on a developer's machine every run looks elsewhere.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")
