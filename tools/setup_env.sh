# Sourced by tools/demo and tools/test: makes .venv with Python 3.11 or newer and installs the project.
set -eu
cd "$(dirname "$0")/.."
python="${PYTHON:-python3}"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "onnx-relief needs Python 3.11 or newer; name one with PYTHON=/path/to/python $0" >&2
    exit 2
}
[ -x .venv/bin/python ] || "$python" -m venv .venv
# The marker holds what was installed last, so that a second run starts at once.
wanted="$(cat pyproject.toml constraints.txt; echo "$1")"
if [ "$(cat .venv/installed-"$2" 2>/dev/null)" != "$wanted" ]; then
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt $1
    printf '%s\n' "$wanted" > .venv/installed-"$2"
fi
PATH="$PWD/.venv/bin:$PATH"
