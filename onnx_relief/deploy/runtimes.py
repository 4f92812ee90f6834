"""The runtimes that a model can be tried in, as one table: what it is called, found and driven by.

A runtime is only ever imported in a child process (see `child`): some crash, some hang.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from onnx_relief.errors import SettingsError

_HERE: Final = Path(__file__).parent
_PIP: Final = "pip install 'onnx-relief[deploy]'"
_NPM: Final = "and set NODE_PATH to that node_modules"


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """One way to run a model.

    Attributes:
        name: What --runtime calls it.
        module: The Python module that has to be installed; None for what Node drives.
        distribution: The package that brings it.
        adapter: ``module:function`` that prepares a run, as `adapters` describes it; for Node a
            script of this folder.
        on_demand: Whether it is left out unless it is named.
        remedy: How to get it.
        converter: A second module that has to be installed.
    """

    name: str
    module: str | None
    distribution: str
    adapter: str
    on_demand: bool = False
    remedy: str = _PIP
    converter: str | None = None

    @property
    def script(self) -> Path | None:
        """The script that Node runs; None for a runtime with a Python module."""
        return _HERE / self.adapter if self.module is None else None

    @property
    def installed(self) -> bool:
        """Whether it is here; nothing is imported to find out."""
        if self.module is None:
            return _version_by_node(self.adapter) is not None
        needed = [name for name in (self.module, self.converter) if name is not None]
        return all(importlib.util.find_spec(name) is not None for name in needed)

    @property
    def version(self) -> str:
        """The installed version, or nothing where it is not known."""
        if self.module is None:
            return _version_by_node(self.adapter) or ""
        try:
            return importlib.metadata.version(self.distribution)
        except importlib.metadata.PackageNotFoundError:
            return ""


_ADAPTERS: Final = "onnx_relief.deploy.adapters"

REFERENCE: Final = Runtime(
    name="onnxruntime",
    module="onnxruntime",
    distribution="onnxruntime",
    adapter=f"{_ADAPTERS}:onnx_runtime",
)
RUNTIMES: Final = (
    REFERENCE,
    Runtime(
        name="openvino",
        module="openvino",
        distribution="openvino",
        adapter=f"{_ADAPTERS}:openvino",
    ),
    Runtime(name="tract", module="tract", distribution="tract", adapter=f"{_ADAPTERS}:tract"),
    Runtime(name="mnn", module="MNN", distribution="MNN", adapter=f"{_ADAPTERS}:mnn"),
    Runtime(
        name="mnn-sparse",
        module="MNN",
        distribution="MNN",
        adapter=f"{_ADAPTERS}:mnn_sparse",
        on_demand=True,
    ),
    Runtime(
        name="opencv",
        module="cv2",
        distribution="opencv-python-headless",
        adapter=f"{_ADAPTERS}:opencv",
    ),
    Runtime(
        name="ncnn",
        module="ncnn",
        distribution="ncnn",
        adapter=f"{_ADAPTERS}:ncnn",
        converter="pnnx",
        remedy="pip install ncnn, then pip install --no-deps pnnx, which asks for torch otherwise",
    ),
    Runtime(
        name="onnxruntime-web",
        module=None,
        distribution="onnxruntime-web",
        adapter="web.cjs",
        remedy=f"install Node, then `npm install --ignore-scripts onnxruntime-web`, {_NPM}",
    ),
    Runtime(
        name="chromium",
        module=None,
        distribution="onnxruntime-web",
        adapter="chromium.cjs",
        remedy="install Chromium and Node, then `npm install --ignore-scripts onnxruntime-web "
        f"playwright-core`, {_NPM}",
    ),
)
"""All that are known, the reference first."""


def choose(asked: Sequence[str]) -> tuple[Runtime, ...]:
    """Return the runtimes that the names say, without the reference; ``all`` is what is here.

    Raises:
        SettingsError: There is no such runtime, or it is not installed.
    """
    known = {runtime.name: runtime for runtime in RUNTIMES}
    chosen: dict[str, Runtime] = {}
    for name in asked:
        if name == "all":
            chosen |= {one.name: one for one in RUNTIMES if one.installed and not one.on_demand}
        elif name not in known:
            raise SettingsError(f"--runtime {name!r}: give all, {', '.join(known)}")
        elif not known[name].installed:
            raise SettingsError(f"--runtime {name} is not installed; {known[name].remedy}")
        else:
            chosen[name] = known[name]
    return tuple(one for one in RUNTIMES if one.name in chosen and one != REFERENCE)


@cache
def _version_by_node(script: str) -> str | None:
    """Return the version that a script finds through NODE_PATH; None if something is missing.

    Found by Node's own rules, from our folder and not from the user's: a package that happens to
    lie in the current folder is not run.
    """
    node = shutil.which("node")
    if node is None:
        return None
    try:
        answer = subprocess.run(
            [node, str(_HERE / script), "--version"],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
