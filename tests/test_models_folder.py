"""models/README.md tells the truth about the files beside it; the tools that fetch and make."""

from __future__ import annotations

import hashlib
import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

FOLDER = Path(__file__).parent.parent / "models"
TOOLS = Path(__file__).parent.parent / "tools"
LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
MODEL_CELLS = 9
DATA_CELLS = 6


def table(cells):
    """Return the rows of the README table that has this many columns, without its head."""
    lines = (FOLDER / "README.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in rows if len(row) == cells and row[0].endswith((".onnx", ".npz"))]


MODELS = {row[0]: row for row in table(MODEL_CELLS)}
DATA = {row[0]: row for row in table(DATA_CELLS)}


def samples(task, purpose):
    with np.load(FOLDER / f"{task}-{purpose}.npz", allow_pickle=False) as arrays:
        return arrays["image"], arrays["labels"]


def run(name, images):
    """Return the answers by output name for uint8 images (n, 1, 28, 28)."""
    session = onnxruntime.InferenceSession(FOLDER / name, providers=["CPUExecutionProvider"])
    (source,) = session.get_inputs()
    feed = images.reshape(-1, *source.shape[1:]).astype(np.float32) / 255
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {source.name: feed}), strict=True))


def classes(answers):
    return answers["label"] if "label" in answers else next(iter(answers.values())).argmax(axis=1)


def test_readme_lists_every_file_and_no_other():
    listed = {*MODELS, *DATA, "README.md"}
    assert listed == {path.name for path in FOLDER.iterdir()}
    assert len(MODELS) == len(DATA) == 4


@pytest.mark.parametrize("row", [*MODELS.values(), *DATA.values()], ids=lambda row: row[0])
def test_size_and_sha256_are_those_of_the_file(row):
    content = (FOLDER / row[0]).read_bytes()
    assert row[-2:] == [str(len(content)), hashlib.sha256(content).hexdigest()]


def test_all_files_together_stay_under_ten_megabytes():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 10_000_000


@pytest.mark.parametrize("name", MODELS)
def test_model_reaches_the_accuracy_that_the_readme_states(name):
    images, labels = samples("mnist" if name.startswith("lenet") else "fashion", "test")
    accuracy = 100 * np.mean(classes(run(name, images)) == labels)
    assert accuracy == pytest.approx(float(MODELS[name][5]), abs=0.05 + 1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_model_is_valid_and_answers_alike_in_batches_of_one_and_seven(name):
    onnx.checker.check_model(FOLDER / name, full_check=True)
    images = samples("fashion", "calibration")[0][:7]
    together = run(name, images)
    alone = [run(name, image[None]) for image in images]
    for output, answer in together.items():
        single = np.concatenate([one[output] for one in alone])
        np.testing.assert_allclose(single, answer, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("task", ["mnist", "fashion"])
@pytest.mark.parametrize(("purpose", "count"), [("calibration", 1000), ("test", 2000)])
def test_samples_are_balanced_bytes_with_labels(task, purpose, count):
    images, labels = samples(task, purpose)
    assert (images.shape, images.dtype) == ((count, 1, 28, 28), np.uint8)
    assert labels.dtype == np.int64
    assert np.bincount(labels).tolist() == [count // 10] * 10


@pytest.mark.parametrize("task", ["mnist", "fashion"])
def test_no_test_sample_is_a_calibration_sample(task):
    calibration = {image.tobytes() for image in samples(task, "calibration")[0]}
    assert calibration.isdisjoint(image.tobytes() for image in samples(task, "test")[0])


@pytest.mark.parametrize("name", [*MODELS, *DATA])
def test_files_name_no_folder_of_the_machine_that_made_them(name):
    content = (FOLDER / name).read_bytes()
    assert not any(root in content for root in (b"/home/", b"/root/", b"/tmp/", b"site-packages"))


@pytest.fixture
def tool(monkeypatch):
    """Return a function that imports a module of tools/ as its scripts do."""
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module


@pytest.mark.parametrize("script", ["make_models.py", "fetch_corpus.py"])
def test_unknown_name_is_refused_in_one_sentence_and_nothing_is_written(script, tmp_path):
    command = [sys.executable, TOOLS / script, "--only", "no-such-model", "--to", tmp_path / "new"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 1
    assert answer.stderr.startswith(f"{script.removesuffix('.py')}: --only")
    assert answer.stderr.count("\n") == 1
    assert not list(tmp_path.rglob("*.*"))


@pytest.mark.parametrize("script", ["make_models.py", "fetch_corpus.py"])
def test_help_shows_an_example(script):
    command = [sys.executable, TOOLS / script, "--help"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"python tools/{script}" in answer.stdout


def test_random_weights_make_a_light_model_that_answers_each_picture_differently(tool):
    light = onnx.load(LIGHT / "light_squeezenet.onnx")
    before = light.SerializeToString()
    filled = tool("random_weights").with_random_weights(light)
    assert light.SerializeToString() == before
    onnx.checker.check_model(filled)
    assert not [node for node in filled.graph.node if node.op_type == "ConstantOfShape"]
    session = onnxruntime.InferenceSession(
        filled.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    pictures = np.random.default_rng(0).standard_normal((2, 1, 3, 224, 224)).astype(np.float32)
    answers = [session.run(None, {"data_0": picture})[0] for picture in pictures]
    assert np.isfinite(answers).all()
    assert np.abs(answers[0] - answers[1]).max() > 1e-5


def test_random_weights_are_the_same_every_time(tool):
    light = onnx.load(LIGHT / "light_shufflenet.onnx")
    fill = tool("random_weights").with_random_weights
    assert fill(light).SerializeToString() == fill(light).SerializeToString()


def test_written_npz_has_the_same_bytes_a_second_time(tool, tmp_path):
    arrays = {"image": np.arange(12, dtype=np.uint8), "labels": np.arange(3)}
    first, second = tmp_path / "1.npz", tmp_path / "2.npz"
    for path in (first, second):
        tool("models.datasets").write_npz(path, arrays)
    assert first.read_bytes() == second.read_bytes()
    with np.load(first) as stored:
        assert {name: stored[name].tolist() for name in stored} == {
            name: array.tolist() for name, array in arrays.items()
        }


def test_data_of_the_wrong_form_is_refused_by_name(tool, tmp_path):
    np.savez(tmp_path / "wrong.npz", pictures=np.zeros(3))
    with pytest.raises(tool("models").ModelsError, match=r"wrong\.npz.*train_images"):
        tool("models.datasets").read(tmp_path / "wrong.npz")
