"""Trials on a Ray cluster: the same numbers, and bad addresses refused in bounded time."""

from __future__ import annotations

import socket
import threading

import pytest
from classifier import cnn, data_file, written

import onnx_relief as relief
from onnx_relief.errors import SettingsError
from onnx_relief.trials.cluster import on_cluster

HAS_RAY = "needs the extra [distributed]"


@pytest.fixture(name="nobody")
def listening_but_silent():
    """Return the address of something that is no Ray cluster: it hangs up on everybody."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up():
            while True:
                try:
                    server.accept()[0].close()
                except OSError:
                    return

        threading.Thread(target=hang_up, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture(name="two_workers", scope="module")
def cluster_of_two_workers():
    """Return the address of a cluster with two machines of one processor each, on this one."""
    pytest.importorskip("ray", reason=HAS_RAY)
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    cluster.add_node(num_cpus=1)
    yield cluster.address
    cluster.shutdown()


def test_without_ray_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(SettingsError, match=r"onnx-relief\[distributed\]"):
        on_cluster("local")


@pytest.mark.parametrize("address", ["", "here", "host:", "host:0", "host:70000", "http://a:80/b"])
def test_what_is_no_address_is_refused(address):
    pytest.importorskip("ray", reason=HAS_RAY)
    with pytest.raises(SettingsError, match="is no address; give host:port"):
        on_cluster(address)


def test_an_address_that_does_not_answer_is_refused():
    pytest.importorskip("ray", reason=HAS_RAY)
    with pytest.raises(SettingsError, match=r"answers at --ray 127.0.0.1:1; start"):
        on_cluster("127.0.0.1:1")


def test_what_answers_and_is_no_cluster_is_refused_in_time(nobody, monkeypatch):
    pytest.importorskip("ray", reason=HAS_RAY)
    monkeypatch.setattr("onnx_relief.trials.cluster._ANSWER", 2.0)
    with pytest.raises(SettingsError, match="no Ray cluster answers"):
        on_cluster(nobody)


@pytest.mark.filterwarnings("ignore")  # of Ray itself, which is not ours to mend
def test_two_workers_find_what_one_process_finds(tmp_path, two_workers):
    model = written(tmp_path, cnn())
    data = data_file(tmp_path, shape=(2, 8, 8))
    tried = {"granularity": "weight,channel", "sparsities": (0.0, 0.5, 0.9)}
    alone = relief.analyze(model, str(data), **tried)
    assert relief.analyze(model, str(data), **tried, ray=two_workers) == alone
