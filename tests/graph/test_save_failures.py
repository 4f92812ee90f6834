"""A save that does not finish has not begun: what was there is as it was."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from small_models import (
    WEIGHT,
    edited,
    files_in,
    in_another_process,
    inline,
    model_of,
    outside,
    save_refusal,
    weights,
    without_privileges,
    written,
)

from onnx_relief.errors import OutputError
from onnx_relief.graph.document import load
from onnx_relief.graph.save import save, staged

INTERRUPTED_SAVE = Path(__file__).with_name("interrupted_save.py")


def test_refuses_impossible_targets(tmp_path):
    document = load(written(tmp_path / "in", inline()))
    (tmp_path / "out").mkdir()
    assert "is a folder" in save_refusal(document, tmp_path / "out")
    assert "is a folder" in save_refusal(document, tmp_path / "out", force=True)
    assert "does not exist" in save_refusal(document, tmp_path / "none" / "out.onnx")
    assert "does not exist" in save_refusal(document, tmp_path / "in" / "model.onnx" / "out.onnx")
    assert "name is too long" in save_refusal(document, tmp_path / ("x" * 300))
    os.mkfifo(tmp_path / "pipe")
    assert "regular file" in save_refusal(document, tmp_path / "pipe", force=True)


def test_refuses_to_overwrite_without_force(tmp_path):
    document = load(model_of(inline()))
    (tmp_path / "out.onnx").write_bytes(b"precious")
    assert "--force" in save_refusal(document, tmp_path / "out.onnx")
    (tmp_path / "link.onnx").symlink_to("nowhere")
    assert "--force" in save_refusal(document, tmp_path / "link.onnx")
    save(document, tmp_path / "out.onnx", force=True)
    assert load(tmp_path / "out.onnx").proto == document.proto


def test_refuses_target_that_appears_meanwhile(tmp_path):
    document = load(written(tmp_path / "in"))
    (tmp_path / "out").mkdir()
    for name in ("out.onnx", "w.bin"):
        with staged(document, tmp_path / "out" / "out.onnx") as ready:
            (tmp_path / "out" / name).write_bytes(b"precious")
            with pytest.raises(OutputError):
                ready.commit()
        assert files_in(tmp_path / "out") == {name: b"precious"}
        (tmp_path / "out" / name).unlink()


def test_refuses_data_folder_that_leads_outside(tmp_path):
    path = written(tmp_path / "in", outside(location="sub/w.bin"))
    (tmp_path / "in" / "sub").mkdir()
    (tmp_path / "in" / "w.bin").rename(tmp_path / "in" / "sub" / "w.bin")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sub").symlink_to(tmp_path / "elsewhere")
    assert "leads out" in save_refusal(load(path), tmp_path / "out" / "out.onnx")
    assert not files_in(tmp_path / "elsewhere")


def test_failed_commit_leaves_no_new_folders(tmp_path, monkeypatch):
    path = written(tmp_path / "in", outside(location="a/b/w.bin"))
    (tmp_path / "in" / "a" / "b").mkdir(parents=True)
    (tmp_path / "in" / "w.bin").rename(tmp_path / "in" / "a" / "b" / "w.bin")
    (tmp_path / "out").mkdir()
    with staged(load(path), tmp_path / "out" / "out.onnx") as ready:
        real = os.replace
        monkeypatch.setattr(os, "replace", fails_for(".onnx", real))
        with pytest.raises(OutputError):
            ready.commit()
    assert os.listdir(tmp_path / "out") == []
    monkeypatch.undo()
    save(load(path), tmp_path / "out" / "out.onnx")
    assert np.array_equal(weights(tmp_path / "out" / "out.onnx")["w"], WEIGHT)


def fails_for(ending, function):
    def failing(source, target):
        if str(target).endswith(ending):
            raise OSError(errno.EIO, "Input/output error")
        function(source, target)

    return failing


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, OSError])
def test_errors_of_the_caller_pass_and_nothing_stays(tmp_path, error):
    document = load(written(tmp_path / "in"))
    (tmp_path / "out").mkdir()
    with pytest.raises(error), staged(document, tmp_path / "out" / "out.onnx"):
        raise error
    assert os.listdir(tmp_path / "out") == []


def test_refuses_folder_that_may_not_be_written():
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o555)
        with without_privileges():
            text = save_refusal(load(model_of(inline())), Path(folder) / "out.onnx")
    assert "may not be written" in text


FAILURES = [(errno.ENOSPC, "disk is full"), (errno.EDQUOT, "quota"), (errno.EROFS, "read-only")]


@pytest.mark.parametrize(("number", "reason"), FAILURES)
@pytest.mark.parametrize("call", ["write", "fsync", "replace", "mkdir"])
def test_failing_disk_is_told_and_the_old_file_stays(tmp_path, monkeypatch, call, number, reason):
    path = written(tmp_path / "in")
    (tmp_path / "out").mkdir()
    save(load(path), tmp_path / "out" / "out.onnx")
    document = edited(path)

    def failing(*_args):
        raise OSError(number, "broken")

    monkeypatch.setattr(os, call, failing)
    assert reason in save_refusal(document, tmp_path / "out" / "out.onnx", force=True)
    assert np.array_equal(weights(tmp_path / "out" / "out.onnx")["w"], WEIGHT)


LIMITED = """
import resource, signal, sys
from onnx_relief.errors import OutputError
from onnx_relief.graph.document import load
from onnx_relief.graph.save import save

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
document = load(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
try:
    save(document, sys.argv[2], force=True)
except OutputError as error:
    print(error)
"""


@pytest.mark.parametrize("is_external", [False, True])
@pytest.mark.parametrize("limit", [0, 100, 300_000])
def test_real_limit_of_the_disk(tmp_path, is_external, limit):
    values = np.ones(100_000, np.float32)
    tensor = outside(values=values) if is_external else inline(values=values)
    path = written(tmp_path / "in", tensor, w_bin=values.tobytes())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "out.onnx").write_bytes(b"precious")
    done = in_another_process(LIMITED, path, tmp_path / "out" / "out.onnx", limit)
    assert "out.onnx cannot be written: files may not become this large" in done.stdout, done.stderr
    assert files_in(tmp_path / "out") == {"out.onnx": b"precious"}
    assert os.listdir(tmp_path / "out") == ["out.onnx"]


def stopped(tmp_path, way):
    """Return what was found for each point at which a save was stopped: (at, kind, rest)."""
    run = "import runpy, sys; runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    done = in_another_process(run, INTERRUPTED_SAVE, tmp_path, way)
    assert done.returncode == 0, done.stderr
    rows = [line.split("|") for line in done.stdout.splitlines()]
    assert rows[-1] == ["end", "new"]
    assert len(rows) > 8
    assert {row[1] for row in rows} == {"old", "new"}
    return [(row[0], row[1], row[2:]) for row in rows]


def test_killed_anywhere_old_or_new_model_is_whole(tmp_path):
    rows = stopped(tmp_path, "kill")
    assert {"write", "fsync", "os.rename"} <= {at for at, _, _ in rows}
    for _, _, rest in rows:
        assert all(name.startswith(".out.onnx.") or name.endswith("w.bin") for name in rest)


def test_interrupted_anywhere_nothing_of_ours_stays(tmp_path):
    for at, kind, rest in stopped(tmp_path, "interrupt"):
        if kind == "old":
            assert rest == []
        elif "rmtree" not in at:
            assert set(rest) <= {"out.w.bin", *(name for name in rest if name[0] == ".")}


def test_full_disk_anywhere_nothing_of_ours_stays(tmp_path):
    for _, kind, rest in stopped(tmp_path, "full"):
        assert kind == "new" or rest == []


def test_what_is_no_model_is_replaced_without_looking_for_its_data(tmp_path):
    path = written(tmp_path)
    (tmp_path / "out.onnx").write_bytes(b"no model")
    save(edited(path), tmp_path / "out.onnx", force=True)
    assert weights(tmp_path / "out.onnx")["w"][0, 1] == 0


def test_folder_that_may_be_written_but_not_listed():
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o333)
        with without_privileges():
            save(load(model_of(inline())), Path(folder) / "out.onnx")
        assert weights(Path(folder) / "out.onnx")["w"][0, 0] == 1
