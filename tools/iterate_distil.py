"""ResNet-20 with labels and without; a Paddle and a Keras model by distillation alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from _bench import from_corpus, from_models, from_shared, table
from corpus_data import runner
from iterate_runs import Told, curve, settings_text
from samples import FULL, Array, text

import onnx_relief
from onnx_relief.comparing.evaluation import evaluate_model
from onnx_relief.data import Preprocess, open_data
from onnx_relief.graph.document import Document, input_specs, load

CIFAR: Final = Preprocess(scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
RESNET: Final[dict[str, Any]] = {
    **{"iterations": 4, "epochs": 2, "alpha": 0.9, "batch_size": 128, "lr": 1e-3},
    **{"schedule": "cosine", "flip": True, "crop_padding": 4, "validation": 0.0},
}
FASHION: Final[dict[str, Any]] = {
    **{"iterations": 4, "epochs": 6, "alpha": 0.9, "batch_size": 64, "lr": 1e-3},
    **{"schedule": "cosine", "validation": 0.0},
}
WORDS: Final[dict[str, Any]] = {
    **{"iterations": 1, "epochs": 5, "alpha": 0.95, "batch_size": 16, "lr": 1e-3},
    **{"schedule": "cosine", "validation": 0.0},
}
COUNTS: Final = (200, 100)
"""Words to train on, before those that are judged on are taken out, and to judge on."""

Judge = Callable[[Document], float]


def resnet(runs: Path) -> str:
    """Return the curves of ResNet-20 with labels and by distillation alone."""
    model = from_shared("models", "cifar10-resnet20.onnx")
    pictures = from_shared("data", "cifar10-original-6k.npz")
    with np.load(pictures, allow_pickle=False) as stored:
        images = stored["train_images"]
    ways = {"With labels": f"{pictures}:train", "By distillation alone": {"image": images}}
    parts = [
        f"ResNet-20, trained on {len(images)} original CIFAR-10 pictures, judged by accuracy on "
        f"the 1017 others. `{settings_text(RESNET)}`."
    ]
    for title, data in ways.items():
        told = Told()
        found = onnx_relief.iterate(
            str(model),
            data,
            _made(runs / "resnet20") / title.lower().replace(" ", "-"),
            eval_data=f"{pictures}:test",
            preprocess=CIFAR,
            on_epoch=told.epoch,
            on_iteration=told.iteration,
            **RESNET,
        )
        parts += [f"### {title}", table(*curve(found.rows, architecture=False))]
    return "\n\n".join(parts)


def fashion_keras(runs: Path) -> str:
    """Return what distillation gives back to the Keras model."""
    model = from_models("fashion-keras.onnx")
    with np.load(from_models("fashion-calibration.npz"), allow_pickle=False) as stored:
        images = stored["image"]
    with np.load(from_models("fashion-test.npz"), allow_pickle=False) as stored:
        test = {name: stored[name] for name in ("image", "labels")}
    pixels = Preprocess(scale=1 / 255, layout="nhwc")

    def correct(document: Document) -> float:
        data = open_data(test, input_specs(document.proto), preprocess=pixels)
        return evaluate_model(document, data, batch_size=100).value

    lines = _by_turns(
        model, images, test["image"], runs / "fashion-keras", FASHION, correct, pixels
    )
    return (
        f"A Keras model of Fashion-MNIST, retrained by distillation on the {len(images)} "
        f"pictures of models/fashion-calibration.npz without their labels, judged on "
        f"{len(test['labels'])} others: agreement with the dense model, and accuracy. "
        f"`{settings_text(FASHION)}`.\n\n{table([*HEAD, 'correct, %: pruned', 'retrained'], lines)}"
    )


def words(runs: Path) -> str:
    """Return what distillation gives back to PP-OCR's recogniser."""
    model = from_corpus("ppocr-rec.onnx")
    case = text.recognition(model, replace(FULL, calibration=COUNTS[0], test=COUNTS[1]))
    judge, trained_on, test = case.judge, case.calibration, case.test
    assert judge is not None, "words are judged by reading them"
    assert isinstance(trained_on, dict), "words are pictures by input name"
    assert isinstance(test, dict), "words are pictures by input name"

    def read(document: Document) -> float:
        run = runner(document)
        return judge(run, run)

    pictures = trained_on["x"][_unlike_the_last(text.words_for(sum(COUNTS)), COUNTS[1])]
    lines = _by_turns(model, pictures, test["x"], runs / "ppocr-rec", WORDS, read, Preprocess())
    return (
        "PP-OCRv4's recogniser, a Paddle model, retrained by distillation on "
        f"{len(pictures)} rendered words without labels, judged on {COUNTS[1]} others: agreement "
        f"with the dense model, and words read without a mistake. `{settings_text(WORDS)}`."
        f"\n\n{table([*HEAD, 'words read, %: pruned', 'retrained'], lines)}"
    )


def _unlike_the_last(words: Sequence[str], count: int) -> list[int]:
    """Return the places of the words that are none of the last `count`, in whatever letters."""
    stems = [word.rstrip("0123456789").casefold()[:8] for word in words]
    return [place for place, stem in enumerate(stems[:-count]) if stem not in stems[-count:]]


HEAD: Final = ("iteration", "weights left, %", "as dense, %: pruned", "retrained")


def _by_turns(
    model: Path,
    trained_on: Array,
    judged_on: Array,
    folder: Path,
    settings: dict[str, Any],
    judge: Judge,
    preprocess: Preprocess,
) -> list[list[str]]:
    """Return a line for each iteration: what is left, and two scores, pruned and retrained."""
    told = Told()
    name = load(model).proto.graph.input[0].name
    found = onnx_relief.iterate(
        str(model),
        {name: trained_on},
        _made(folder),
        eval_data={name: judged_on},
        preprocess=preprocess,
        on_epoch=told.epoch,
        on_iteration=told.iteration,
        **settings,
    )
    before = load(model)
    lines = [["dense", f"{found.rows[0].remaining:.2f}", "", "", "", f"{judge(before):.1f}"]]
    for row in found.rows[1:]:
        place = folder / f"iteration-{row.iteration:02}"
        pruned = onnx_relief.prune(before.proto, plan=place / "plan.json").document
        before = load(place / "model.onnx")
        scores = (row.metric_pruned, row.metric_retrained, judge(pruned), judge(before))
        lines.append(
            [str(row.iteration), f"{row.remaining:.2f}", *(f"{score:.1f}" for score in scores)]
        )
    return lines


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
