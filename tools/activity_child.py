"""One run for `bench_activity.py`: plain inference, or measuring and scoring with one estimator."""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import onnxruntime
from activity_profile import READING, RUNNING, SCORING
from numpy.typing import NDArray


def main() -> int:
    """Run once and write seconds and peak memory in bytes as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mode", required=True, help="plain, or the name of an estimator")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help=".npy of float32 pictures")
    parser.add_argument("--pictures", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--profile", help="prefix of ONNX Runtime's profile")
    parser.add_argument("--result", type=Path, required=True)
    options = parser.parse_args()
    if options.profile:
        _profile_every_session(options.profile)
    parts = _plain(options) if options.mode == "plain" else _measured(options)
    whole = {"seconds": sum(parts.values()), "peak": _peak(), "parts": parts}
    options.result.write_text(json.dumps(whole))
    return 0


def _peak() -> int:
    """Return the largest resident set of this process so far, in bytes.

    Linux starts a child's `ru_maxrss` with what its parent held, so `VmHWM` is asked first.
    """
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    except (OSError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _plain(options: argparse.Namespace) -> dict[str, float]:
    """Return the seconds that starting the session and running it on all pictures takes."""
    begin = perf_counter()
    settings = onnxruntime.SessionOptions()
    session = onnxruntime.InferenceSession(
        options.model, settings, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    for batch in _batches(options):
        session.run(None, {name: batch})
    seconds = perf_counter() - begin
    del session
    gc.collect()
    return {RUNNING: seconds}


def _measured(options: argparse.Namespace) -> dict[str, float]:
    """Return the seconds of each part, from reading the model to the scores of all connections."""
    # Imported here, so that plain inference does not pay for it.
    data, decide, document, layers, measuring, probes, settings = (
        importlib.import_module(f"onnx_relief.{name}")
        for name in (
            *("data", "decide", "graph.document", "graph.layers", "measure"),
            *("graph.probes", "settings"),
        )
    )
    chosen = settings.Settings(
        estimator=probes.Estimator(options.mode), batch_size=options.batch, provider="cpu"
    )
    times = [perf_counter()]
    model = document.load(options.model)
    survey = layers.find_layers(model)
    times.append(perf_counter())
    pictures = data.open_data(str(options.data), document.input_specs(model.proto))
    batches = _first(pictures.batches(options.batch), options.pictures)
    found = measuring.measure(survey, survey.sites, batches, chosen)
    times.append(perf_counter())
    for site in survey.sites:
        decide.score(survey, site, found.activities[site.layer.name])
    times.append(perf_counter())
    assert found.samples == options.pictures
    spans = np.diff(times).tolist()
    return dict(zip((READING, RUNNING, SCORING), spans, strict=True))


def _first(batches: Iterator[Any], pictures: int) -> Iterator[Any]:
    """Yield batches until there are as many pictures."""
    seen = 0
    for batch in batches:
        yield batch
        seen += batch.count
        if seen >= pictures:
            return


def _batches(options: argparse.Namespace) -> Iterator[NDArray[np.float32]]:
    for start in range(0, options.pictures, options.batch):
        # Mapped anew: pages that were read count as memory until the file is unmapped.
        mapped = np.load(options.data, mmap_mode="r")
        yield np.array(mapped[start : min(start + options.batch, options.pictures)])


def _profile_every_session(prefix: str) -> None:
    original = onnxruntime.SessionOptions

    def profiled() -> Any:  # noqa: ANN401
        options = original()
        options.enable_profiling = True
        options.profile_file_prefix = prefix
        return options

    onnxruntime.SessionOptions = profiled


if __name__ == "__main__":
    sys.exit(main())
