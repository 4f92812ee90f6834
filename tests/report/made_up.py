"""A report with made-up numbers, to be changed in one place at a time."""

from __future__ import annotations

from dataclasses import replace

from onnx_relief.report.build import DataRow, LayerRow, Report
from onnx_relief.results import (
    Evaluation,
    FileSize,
    Latency,
    LayerCost,
    ModelCost,
    OutputDifference,
    Timing,
)


def row(**changed):
    usual = {
        "name": "conv",
        "op": "Conv",
        "kind": "convolution",
        "alpha": 0.95,
        "connections": 100,
        "kept": 60,
        "weights": 900,
        "nonzero": 540,
        "units": 10,
        "alive": 8,
        "removed": 1,
        "macs": 9000.0,
        "effective_macs": 5400.0,
        "left_alone": None,
        "not_followed": None,
    }
    return LayerRow(**(usual | changed))


def model(name="m.onnx", *, plain=1000, zipped=900, nonzero=900):
    layer = LayerCost(
        layer="conv", connections=100, kept=60, weights=900, nonzero=nonzero, units=10, alive=8
    )
    file = FileSize(name=name, plain=plain, zipped=zipped, sha256="0" * 64)
    return ModelCost(
        name=name,
        files=(file,),
        parameters=1000,
        nonzero=nonzero,
        layers=(replace(layer, positions=10.0),),
    )


def evaluation(**changed):
    gap = OutputDifference(output="y", largest=0.5, relative_error=0.1, cosine=0.99)
    usual = {
        "metric": "accuracy",
        "unit": "%",
        "output": "y",
        "dense": 98.0,
        "pruned": 97.5,
        "samples": 10,
        "data": "test.npz (10 samples)",
        "differences": (gap,),
    }
    return Evaluation(**(usual | changed))


def latency(dense=2.0, pruned=2.0, spread=1.0):
    timings = tuple(
        Timing(median=time, slowest=time * spread, sessions=2, runs=10) for time in (dense, pruned)
    )
    return Latency(timings=timings, samples=1, provider="CPUExecutionProvider")


def report(**changed):
    usual = {
        "versions": {"onnx-relief": "0.1.0"},
        "settings": {"alpha": 0.95},
        "dense": model(),
        "pruned": model("m.pruned.onnx", zipped=500, nonzero=540),
        "layers": (row(),),
        "refusals": (),
        "data": DataRow(calibration="calib.npz", evaluation="test.npz", skipped={}),
        "evaluation": evaluation(),
        "latency": latency(),
    }
    return Report(**(usual | changed))
