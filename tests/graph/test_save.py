"""What is saved is what was loaded, wherever its data lies and whatever lies there already."""

from __future__ import annotations

import hashlib
import shutil

import numpy as np
import onnx
import pytest
from small_models import (
    WEIGHT,
    edited,
    expected,
    files_in,
    in_another_process,
    inline,
    model_of,
    outside,
    real_files,
    save_refusal,
    weights,
    written,
)

from onnx_relief.errors import OutputError, UnsupportedError
from onnx_relief.graph.document import load
from onnx_relief.graph.save import save, staged, write_to
from onnx_relief.graph.storage import read


def test_real_files_survive_loading_and_saving(tmp_path):
    assert len(real_files()) >= 100
    for number, path in enumerate(real_files()):
        saved = tmp_path / f"{number}.onnx"
        save(load(path), saved)
        original = onnx.load(path, load_external_data=False)
        assert onnx.load(saved, load_external_data=False) == original
        assert saved.read_bytes() == original.SerializeToString(deterministic=True)


def rich_model():
    """Return a model with everything that other tools are known to lose."""
    proto = model_of(inline())
    for holder in (proto, proto.graph, proto.graph.node[0], proto.graph.initializer[0]):
        holder.doc_string = "näher"
        holder.metadata_props.add(key="labels", value="cat,dog")
    annotation = proto.graph.quantization_annotation.add(tensor_name="w")
    annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="s")
    proto.graph.sparse_initializer.append(
        onnx.helper.make_sparse_tensor(
            inline("s", np.ones(1, np.float32)), inline("i", np.zeros(1, np.int64)), [4]
        )
    )
    proto.functions.add(name="f", domain="acme", doc_string="f").opset_import.add(version=17)
    proto.training_info.add().initialization.name = "start"
    proto.producer_name, proto.model_version, proto.domain = "somebody", 7, "org.example"
    # Field 1023 of the model, length-delimited: something that this version of ONNX cannot know.
    return onnx.ModelProto.FromString(proto.SerializeToString() + b"\xfa\x3f\x03abc")


def test_nothing_is_lost(tmp_path):
    proto = rich_model()
    path = tmp_path / "out.onnx"
    save(load(proto), path)
    assert onnx.load(path) == proto
    save(load(path), tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == path.read_bytes()


def test_losslessness_notices_one_lost_field(tmp_path):
    proto = rich_model()
    save(load(proto), tmp_path / "out.onnx")
    del proto.metadata_props[:]
    assert onnx.load(tmp_path / "out.onnx") != proto


def test_external_data_in_another_folder_keeps_its_names(tmp_path):
    tensors = outside(location="./w.bin"), outside("v", location="sub/v.bin", offset=4)
    path = written(tmp_path / "in", *tensors, w_bin=WEIGHT.tobytes())
    (tmp_path / "in" / "sub").mkdir()
    (tmp_path / "in" / "sub" / "v.bin").write_bytes(b"....." + WEIGHT.tobytes())
    (tmp_path / "out").mkdir()
    save(load(path), tmp_path / "out" / "model.onnx")
    assert files_in(tmp_path / "out") == files_in(tmp_path / "in")


def test_external_data_in_the_same_folder_gets_the_name_of_the_model(tmp_path):
    tensors = outside(length=48), outside("v", location="sub/v.bin", offset=5)
    path = written(tmp_path, *tensors, w_bin=WEIGHT.tobytes())
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "v.bin").write_bytes(b"....." + WEIGHT.tobytes())
    before = files_in(tmp_path)
    save(edited(path), tmp_path / "out.onnx")
    assert {name: files_in(tmp_path)[name] for name in before} == before
    assert set(files_in(tmp_path)) - set(before) == {"out.onnx", "out.w.bin", "sub/out.v.bin"}
    found = weights(tmp_path / "out.onnx")
    assert np.array_equal(found["w"], expected())
    assert np.array_equal(found["v"], WEIGHT)


def test_only_location_entries_change(tmp_path):
    path = written(tmp_path, outside(length=48, offset=0, basepath="x"))
    save(load(path), tmp_path / "out.onnx")
    text = (tmp_path / "out.onnx").read_bytes()
    proto = onnx.ModelProto.FromString(text)
    proto.graph.initializer[0].external_data[0].value = "w.bin"
    assert proto.SerializeToString(deterministic=True) == path.read_bytes()


def test_foreign_data_file_is_not_overwritten(tmp_path):
    path = written(tmp_path / "in")
    out = written(tmp_path / "out", inline(), w_bin=b"somebody else's").with_name("out.onnx")
    save(edited(path), out)
    assert (out.parent / "w.bin").read_bytes() == b"somebody else's"
    assert np.array_equal(weights(out)["w"], expected())


def test_refuses_when_both_names_of_a_data_file_exist(tmp_path):
    path = written(tmp_path)
    (tmp_path / "out.w.bin").write_bytes(b"keep")
    assert "--force" in save_refusal(load(path), tmp_path / "out.onnx")
    save(edited(path), tmp_path / "out.onnx", force=True)
    assert (tmp_path / "out.w.bin").read_bytes() == b"keep"
    assert np.array_equal(weights(tmp_path / "out.onnx")["w"], expected())


def test_forced_runs_do_not_pile_up_data_files(tmp_path):
    path = written(tmp_path)
    save(load(path), tmp_path / "out.onnx")
    for position in range(4):
        save(edited(path, position), tmp_path / "out.onnx", force=True)
        assert np.array_equal(weights(tmp_path / "out.onnx")["w"], expected(position))
        assert len(files_in(tmp_path)) == 4
    assert (tmp_path / "w.bin").read_bytes() == WEIGHT.tobytes()


@pytest.mark.parametrize("other", ["other.onnx", "out.onnx.bak"])
@pytest.mark.parametrize("location", ["w.bin", "below/w.bin"])
def test_data_that_another_model_mentions_is_not_removed(tmp_path, location, other):
    path = written(tmp_path, outside(location="w.bin"), w_bin=WEIGHT.tobytes())
    if location != "w.bin":
        (tmp_path / "below").mkdir()
        (tmp_path / "w.bin").rename(tmp_path / location)
        path.write_bytes(model_of(outside(location=location)).SerializeToString())
    save(load(path), tmp_path / "out.onnx")
    shutil.copy(tmp_path / "out.onnx", tmp_path / other)
    save(edited(path), tmp_path / "out.onnx", force=True)
    (tmp_path / other).rename(tmp_path / "restored.onnx")
    assert np.array_equal(weights(tmp_path / "restored.onnx")["w"], WEIGHT)


def test_input_may_be_replaced_by_force_but_not_its_data(tmp_path):
    path = written(tmp_path, outside(location="model.bin"), model_bin=WEIGHT.tobytes())
    assert "input model itself" in save_refusal(load(path), path)
    document = edited(path)
    save(document, path, force=True)
    assert (tmp_path / "model.bin").read_bytes() == WEIGHT.tobytes()
    assert np.array_equal(weights(path)["w"], expected())
    assert np.array_equal(read(document, document.proto.graph.initializer[0]), expected())


def test_data_of_the_input_is_never_the_target(tmp_path):
    path = written(tmp_path)
    with pytest.raises(OutputError, match=r"w\.bin holds the weights of the input model"):
        save(edited(path), tmp_path / "w.bin", force=True)
    assert (tmp_path / "w.bin").read_bytes() == WEIGHT.tobytes()


def test_input_without_external_data_may_be_replaced_by_force(tmp_path):
    path = written(tmp_path, inline())
    document = edited(path)
    assert "input model itself" in save_refusal(document, path)
    save(document, path, force=True)
    assert np.array_equal(weights(path)["w"], expected())


def test_stated_checksum_follows_the_data(tmp_path):
    data = WEIGHT.tobytes()
    path = written(tmp_path, outside(checksum=hashlib.sha1(data).hexdigest()))
    save(edited(path), tmp_path / "out.onnx")
    said = load(tmp_path / "out.onnx").proto.graph.initializer[0].external_data
    digest = hashlib.sha1((tmp_path / "out.w.bin").read_bytes()).hexdigest()
    assert {entry.key: entry.value for entry in said}["checksum"] == digest


def test_refuses_edit_of_shared_bytes(tmp_path):
    path = written(tmp_path, outside(), outside("v"))
    with pytest.raises(UnsupportedError, match="'v' and 'w'"):
        save(edited(path), tmp_path / "out.onnx")
    assert set(files_in(tmp_path)) == {"model.onnx", "w.bin"}


def test_staged_model_is_complete_and_goes_away(tmp_path):
    document = edited(written(tmp_path / "in"))
    (tmp_path / "out").mkdir()
    with staged(document, tmp_path / "out" / "out.onnx") as ready:
        assert not (tmp_path / "out" / "out.onnx").exists()
        assert np.array_equal(weights(ready.path)["w"], expected())
    assert list((tmp_path / "out").iterdir()) == []


def test_write_to_a_fresh_folder(tmp_path):
    document = edited(
        written(tmp_path / "in", outside(location="copy.onnx"), copy_onnx=WEIGHT.tobytes())
    )
    (tmp_path / "out").mkdir()
    path = write_to(document, tmp_path / "out", "copy.onnx")
    assert path == tmp_path / "out" / "copy.onnx"
    assert np.array_equal(weights(path)["w"], expected())
    with pytest.raises(OutputError):
        write_to(document, tmp_path / "in", "model.onnx")


def test_saved_files_have_ordinary_permissions(tmp_path):
    save(load(written(tmp_path)), tmp_path / "out.onnx")
    (tmp_path / "plain").touch()
    for name in ("out.onnx", "out.w.bin"):
        assert (tmp_path / name).stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_sparse_file_stays_sparse(tmp_path):
    values = np.zeros(10_000_000, np.float32)
    values[-1] = 1
    path = written(tmp_path, outside(values=values), w_bin=values.tobytes())
    save(load(path), tmp_path / "out.onnx")
    copied = tmp_path / "out.w.bin"
    assert copied.read_bytes() == values.tobytes()
    assert copied.stat().st_blocks * 512 < values.nbytes / 4


HUGE = """
import sys
from pathlib import Path
import numpy as np
from onnx import TensorProto
from small_models import model_of, outside
from onnx_relief.graph.document import load
from onnx_relief.graph.save import save
from onnx_relief.graph.storage import read, write_entries

folder, count = Path(sys.argv[1]), int(sys.argv[2])
tensor = outside(offset=4096)
tensor.dims[:] = [4, count // 4]
spots = np.array([0, 7, count // 2, count - 1])
(folder / "model.onnx").write_bytes(model_of(tensor).SerializeToString())
data = np.memmap(folder / "w.bin", np.float32, "w+", offset=4096, shape=(count,))
data[spots] = data[spots + [1, 1, 1, -1]] = 5
data.flush()
del data

document = load(folder / "model.onnx")
tensor = document.proto.graph.initializer[0]
assert read(document, tensor).reshape(-1)[spots].tolist() == [5, 5, 5, 5]
document = write_entries(document, tensor, spots, 0)
save(document, folder / "out.onnx")
saved = read(load(folder / "out.onnx"), load(folder / "out.onnx").proto.graph.initializer[0])
assert saved.shape == (4, count // 4)
assert saved.reshape(-1)[spots].tolist() == [0, 0, 0, 0]
assert saved.reshape(-1)[spots + [1, 1, 1, -1]].tolist() == [5, 5, 5, 5]
assert (folder / "out.w.bin").stat().st_size == 4096 + 4 * count
# Not ru_maxrss: that begins with what the process had in memory that this one was forked from.
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(peak.split()[1]) // 1024)
"""


def test_model_over_two_gigabytes_is_never_in_memory(tmp_path):
    done = in_another_process(HUGE, tmp_path, 540_000_000)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 300
    for file in tmp_path.iterdir():
        file.unlink()
