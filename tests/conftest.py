"""Its place makes the helper modules of this folder importable for the tests in sub-folders."""

import os

# Small networks on few cores: threads that wait for each other cost far more than they bring.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# They hold no doctests, and pytest cannot tell modules of one name apart.
collect_ignore_glob = ["conftest.py", "**/conftest.py"]
