"""Which model of the corpus is judged with which samples: one table.

Run as a script it says what is here, and what the dense models score on their samples.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from _bench import MissingError, from_corpus, from_models, from_repository, from_shared
from make_zoo import EXPORTERS
from make_zoo import NAMES as ZOO_NAMES
from samples import (
    FULL,
    QUICK,
    Array,
    Case,
    Run,
    Sizes,
    audio,
    files,
    noise,
    pictures,
    sentences,
    text,
)

from onnx_relief.comparing.evaluation import evaluate_model
from onnx_relief.data import Dataset, open_data
from onnx_relief.errors import ReliefError
from onnx_relief.graph.document import Document, input_specs, load
from onnx_relief.runtime import open_session

EXAMPLE: Final = """example:
  python tools/corpus_data.py --only 'ppocr-*' magika
"""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One model.

    Attributes:
        name: What it is called in tables.
        origin: Framework that it comes from, and package.
        find: Returns its file, or raises `MissingError`.
        build: Makes its samples; None where there is nothing to prune.
    """

    name: str
    origin: str
    find: Callable[[], Path]
    build: Callable[[Path, Sizes], Case] | None


def _corpus(name: str, origin: str, build: Callable[[Path, Sizes], Case] | None) -> Entry:
    return Entry(name=name, origin=origin, find=lambda: from_corpus(f"{name}.onnx"), build=build)


def _ours(name: str, origin: str, build: Callable[[Path, Sizes], Case]) -> Entry:
    return Entry(name=name, origin=origin, find=lambda: from_models(f"{name}.onnx"), build=build)


def _shared(name: str, origin: str, build: Callable[[Path, Sizes], Case]) -> Entry:
    return Entry(
        name=name, origin=origin, find=lambda: from_shared("models", f"{name}.onnx"), build=build
    )


LIGHT: Final = (
    *("alexnet", "densenet121", "inception_v1", "inception_v2", "resnet50"),
    *("shufflenet", "squeezenet", "vgg19", "zfnet512"),
)
ENTRIES: Final = (
    _corpus("ppocr-rec", "PaddlePaddle, PP-OCRv4", text.recognition),
    _corpus("ppocr-det", "PaddlePaddle, PP-OCRv4", text.detection),
    _corpus("ppocr-cls", "PaddlePaddle, PP-OCR 2.0", text.direction),
    _corpus("paddle-layout", "PaddlePaddle, PicoDet", text.layout),
    _corpus("magika", "Keras, tf2onnx", files.system_files),
    _corpus("basic-pitch", "TensorFlow, tf2onnx", audio.pitches),
    _corpus("silero-vad", "PyTorch, all weights inside If", audio.voice),
    _corpus("silero-vad-16k", "PyTorch", audio.voice),
    _corpus("silero-vad-outer", "PyTorch, weights outside If", audio.voice),
    _corpus("minilm-l3", "PyTorch, transformer", sentences.topics),
    _corpus("tashkeel-int8", "PyTorch, quantised to int8", None),
    _ours("lenet-300-100", "PyTorch", pictures.shipped("mnist")),
    _ours("lenet-5", "PyTorch", pictures.shipped("mnist")),
    _ours("fashion-keras", "Keras, tf2onnx", pictures.shipped("fashion", "nhwc")),
    _ours("fashion-sklearn", "scikit-learn, skl2onnx", pictures.shipped("fashion", "flat")),
    _shared("cifar10-resnet20", "PyTorch", pictures.cifar),
    _shared("imagenet-efficientnet-lite0", "TensorFlow, PyTorch", pictures.efficientnet),
    *(_shared(f"digits-mlp-{seed}", "NumPy", pictures.digits(seed)) for seed in range(3)),
    *(_shared(f"digits-cnn-{seed}", "NumPy", pictures.digits(seed)) for seed in range(3)),
    *(
        _corpus(f"light-{name}.random", "Caffe2, random weights", pictures.random_network)
        for name in LIGHT
    ),
)

_BY = {"dynamo": "PyTorch, exported by torch.export", "script": "PyTorch, exported by TorchScript"}
ZOO: Final = tuple(
    Entry(
        name=f"zoo-{name}.{how}",
        origin=f"{_BY[how]}, random weights",
        find=lambda file=f"zoo-{name}.{how}.onnx": from_repository(  # type: ignore[misc]
            "corpus", file, "tools/make_zoo.py"
        ),
        build=noise.made_up,
    )
    for name in ZOO_NAMES
    for how in EXPORTERS
)


def opened(case: Case, document: Document) -> tuple[Dataset, Dataset]:
    """Return the calibration and the test data of a model."""
    inputs = input_specs(document.proto)
    calibration, test = (
        open_data(part, inputs, preprocess=case.preprocess)
        for part in (case.calibration, case.test)
    )
    return calibration, test


def runner(document: Document) -> Run:
    """Return a function that runs a model once."""
    session = open_session(document)

    def run(feed: Mapping[str, Array]) -> Mapping[str, Array]:
        return session.run(feed)

    return run


def dense_score(case: Case, document: Document, test: Dataset) -> float | None:
    """Return what the dense model scores in percent; None where it is the measure itself."""
    if test.has_labels:
        return evaluate_model(document, test, batch_size=case.batch_size).value
    if case.judge is None or case.against_dense:
        return None
    run = runner(document)
    return case.judge(run, run)


def main() -> int:
    """Print one line for every model."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", metavar="PATTERN", help="names with shell wildcards")
    parser.add_argument("--quick", action="store_true", help="a handful of samples for each")
    options = parser.parse_args()
    for entry in chosen(options.only):
        print(f"{entry.name:30} {_line(entry, QUICK if options.quick else FULL)}", flush=True)
    return 0


def chosen(patterns: list[str] | None, entries: Sequence[Entry] = ENTRIES) -> list[Entry]:
    """Return the entries whose names match one of the patterns; all without patterns."""
    if not patterns:
        return list(entries)
    found = [entry for entry in entries if any(map(Path(entry.name).match, patterns))]
    if not found:
        names = ", ".join(entry.name for entry in entries)
        sys.exit(f"--only matches no model; choose among {names}")
    return found


def _line(entry: Entry, sizes: Sizes) -> str:
    try:
        path = entry.find()
        if entry.build is None:
            return "nothing to prune"
        document, case = load(path), entry.build(path, sizes)
        score = dense_score(case, document, opened(case, document)[1])
    except (MissingError, ReliefError) as error:
        return f"skipped: {error}"
    shown = "the measure itself" if score is None else f"{score:.1f} %"
    return f"dense {shown} ({case.score}; {case.data})"


if __name__ == "__main__":
    sys.exit(main())
