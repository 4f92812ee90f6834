"""Imports point one way, found in the sources: nobody has to remember it."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import onnx_relief.errors

PACKAGE = Path(onnx_relief.errors.__file__).parent
NAME = PACKAGE.name
FILES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}

# Values that everybody may know, from the bottom up.
VALUES = {
    "errors",
    "geometry",
    "tensors",
    "plan",
    "structures",
    "budget",
    "settings",
    "training",
    "history",
    "results",
    "analysis",
    "files",
}
# The only parts of the package that a part may import, besides itself.
MAY_IMPORT = {
    "errors": set(),
    "geometry": set(),
    "tensors": set(),
    "plan": {"errors", "geometry"},
    "structures": {"errors"},
    "budget": {"errors"},
    "settings": {"errors", "geometry", "plan", "structures", "budget", "analysis"},
    "training": {"errors"},
    "analysis": {"errors"},
    "scoring": {"errors", "geometry", "plan"},
    "selection": {"errors", "geometry", "plan"},
    "activity": {"errors", "geometry", "plan"},
    "solving": {"errors", "geometry", "plan"},
    "graph": VALUES,
    "data": VALUES,
    "runtime": VALUES | {"graph"},
    "report": VALUES | {"graph"},
    "bridge": VALUES | {"graph", "data", "runtime", "progress"},
    "deploy": VALUES | {"graph", "runtime"},
}
# The only parts that may import what is not ours; None for nobody.
OUTSIDE = {
    "torch": {"bridge"},
    "onnx2fx": {"bridge"},
    "lightning": {"bridge"},
    "onnxruntime": {"runtime"},
    "openvino": {"deploy"},
    "tract": {"deploy"},
    "MNN": {"deploy"},
    "cv2": {"deploy"},
    "ncnn": {"deploy"},
    "ray": {"trials"},
    "onnx_graphsurgeon": {"graph"},
    "PIL": {"data"},
    "typer": {"cli", "commands"},
}


def imported(module, *, anywhere=True):
    """Return the names of all modules that a module imports, and `x.y` for `from x import y`.

    With `anywhere` also those inside functions and for type checkers; without, what is imported
    when the module is.
    """
    tree = ast.parse(FILES[module].read_text(encoding="utf-8"))
    found = set()
    for node in ast.walk(tree) if anywhere else tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            found |= {a.value for a in node.args if isinstance(a, ast.Constant)}
    return found


def part(module):
    """Return the folder or file below the package: `graph` for onnx_relief.graph.walk."""
    return module.removeprefix(NAME).removeprefix(".").split(".")[0]


def inside(module, *, anywhere=True):
    """Return the modules of the package that a module imports."""
    return {name for name in imported(module, anywhere=anywhere) if name in FILES} - {module, NAME}


def test_the_whole_package_was_found():
    assert {f"{NAME}.graph.walk", f"{NAME}.pipeline", f"{NAME}.errors"} <= set(FILES)
    assert f"{NAME}.errors" in inside(f"{NAME}.plan")
    assert {part(module) for module in FILES} >= set(MAY_IMPORT) - {"results", "files"}


@pytest.mark.parametrize("name", MAY_IMPORT)
def test_part_imports_only_what_lies_below(name):
    wrong = {
        (module, other)
        for module in FILES
        if part(module) == name
        for other in inside(module)
        if part(other) not in MAY_IMPORT[name] | {name}
    }
    assert not wrong


@pytest.mark.parametrize("name", ["scoring", "selection", "activity", "solving"])
def test_mathematics_knows_numpy_and_no_onnx(name):
    outside = {
        other.split(".")[0]
        for module in FILES
        if part(module) == name
        for other in imported(module)
    }
    assert outside - set(sys.stdlib_module_names) <= {"numpy", NAME}


@pytest.mark.parametrize("library", OUTSIDE)
def test_library_is_imported_in_one_place(library):
    users = {
        part(module)
        for module in FILES
        if library in {other.split(".")[0] for other in imported(module)}
    }
    assert users <= OUTSIDE[library]
    assert users or not OUTSIDE[library]


def test_only_the_command_line_imports_the_command_line():
    users = {
        module
        for module in FILES
        if {"cli", "commands"} & {part(other) for other in inside(module)}
    }
    assert {part(module) for module in users} <= {"cli", "commands", "__main__"}


def test_only_the_command_line_and_users_import_the_python_api():
    users = {part(m) for m in FILES if "api" in {part(other) for other in inside(m)}}
    assert "commands" in users
    assert users <= {"", "api", "commands"}


def test_pipeline_is_imported_from_above_only():
    below = {*MAY_IMPORT, "settings", "measuring", "agreement"}
    users = {part(m) for m in FILES if f"{NAME}.pipeline" in inside(m)}
    assert users
    assert not users & below


def test_no_module_imports_itself_in_a_circle():
    try:
        TopologicalSorter({m: inside(m, anywhere=False) for m in FILES}).prepare()
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")


def test_no_folder_imports_itself_by_way_of_others():
    below = {part(m): set() for m in FILES if part(m)}
    for module in FILES:
        if part(module):
            below[part(module)] |= {part(o) for o in inside(module)} - {part(module), ""}
    try:
        TopologicalSorter(below).prepare()
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")


def test_importing_the_package_imports_neither_torch_nor_onnxruntime():
    code = f"import sys, {NAME}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert NAME in done.stdout.split()
    assert not {"torch", "onnxruntime", "typer", "rich"} & set(done.stdout.split())
