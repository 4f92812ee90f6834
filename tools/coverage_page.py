"""What docs/coverage.md says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from _bench import table

Row = dict[str, Any]
EQUAL: Final = 1e-5
TARGETS: Final = {
    "light-resnet50.random": (0.251, 0.260),
    "zoo-resnet50.dynamo": (0.251, 0.260),
    "light-squeezenet.random": (0.35, None),
    "light-inception_v1.random": (0.35, None),
    "light-inception_v2.random": (0.35, None),
    "light-densenet121.random": (0.35, None),
    "light-shufflenet.random": (0.35, None),
    "ppocr-cls": (0.45, None),
    "ppocr-det": (0.45, None),
    "ppocr-rec": (0.45, None),
    "magika": (0.6, None),
    "zoo-bert.dynamo": (0.45, None),
    "zoo-encoder.dynamo": (0.45, None),
    "zoo-vit.dynamo": (0.45, None),
}
"""What was asked for at ratio 0.5: the share of the parameters, and of the MACs, at most."""

_INTRODUCTION: Final = """\
Half of all channels are cut out of each model: of the groups of channels that run through the same
axes of the same weights the first half goes, without rounding and whatever it is worth. A layer
between two others keeps a quarter of its weights then. Where attention is written out, half of the
width of every head goes, and then half of the heads.

The difference is the largest one of an output to the model in which the same channels are zero,
relative to the largest element of that output, on one sample, in ONNX Runtime; "rounding" is how
far the masked model is from itself when ONNX Runtime fuses nothing: weights that were not trained
to work together amplify it. "In float64" is the difference when torch computes both models in
float64, through the bridge: what is more than rounding would be as large there.

Time is the processor time of a run in ONNX Runtime with one thread (the latency on a machine that
does nothing else), relative to the dense model; the models take turns in fresh sessions. onnxsim
simplifies the model first, cuts half of the channels by their L2 norm, and then half of the
heads."""


def brief(row: Row) -> str:
    """Return a line about one model for the console."""
    return " ".join(map(str, _cells(row)[2:]))


def page(rows: Sequence[Row], torch: Sequence[Row], made: str) -> str:
    """Return docs/coverage.md."""
    cut_rows = [row for row in rows if row["state"] == "cut"]
    head = ["model", "made with", "parameters", "groups of channels", "removed"]
    head += ["parameters left", "MACs left", "time left"]
    head += ["onnxsim: parameters left", "MACs left", "time left", "difference"]
    head += ["rounding", "in float64"]
    parts = [
        "# How much of a model can be cut",
        _INTRODUCTION,
        made + _commits(rows),
        table(head, [_cells(row) for row in cut_rows], left=2),
        _in_double(cut_rows),
        *_heads(cut_rows),
        *_targets(cut_rows),
        *_torch_pruning(cut_rows, torch),
        "## What is worse",
        _worse(cut_rows),
        "## What stays, and why",
        "Channels that could be followed no further, counted in groups. Outputs of the model keep "
        "their widths, so what reaches them stays by design. The stream that runs through "
        "LayerNormalization stays, since its statistics would change, with the tables of words "
        "that are as wide as it is.",
        "\n".join(line for row in cut_rows for line in _reasons(row)),
    ]
    others = [f"- {row['name']}: {row['why']}" for row in rows if row["state"] != "cut"]
    if others:
        parts += ["## Not cut", "\n".join(others)]
    return "\n\n".join(parts) + "\n"


def _commits(rows: Sequence[Row]) -> str:
    """Say it where models were measured at several commits."""
    found = sorted({row["commit"] for row in rows})
    return f" Models were measured at {', '.join(found)}." if len(found) > 1 else ""


def _final(row: Row) -> Row:
    """Return what is left in the end: without heads, too, where there are some."""
    found: Row = row["heads"] or row
    return found


def _cells(row: Row) -> list[object]:
    left, peer = _final(row), row["peer"] or {}
    return [
        row["name"],
        row["origin"],
        f"{row['million']:.2f} M",
        f"{row['groups']:,}",
        f"{row['removed']:,}",
        f"{left['parameters']:.3f}",
        f"{left['macs']:.3f}",
        f"{row['time']:.2f} of {_two_digits(row['milliseconds'])} ms" if "time" in row else "",
        *((f"{peer[key]:.3f}" for key in ("parameters", "macs")) if "macs" in peer else ("", "")),
        f"{peer['time']:.2f}" if "time" in peer else "",
        *(_tiny(row[key]) for key in ("difference", "rounding", "in_double")),
    ]


def _in_double(rows: Sequence[Row]) -> str:
    """Say of how many models the difference is known in float64, and the largest."""
    found = [row["in_double"] for row in rows if not isinstance(row["in_double"], str)]
    over = sum(row["difference"] > EQUAL for row in rows)
    return (
        f"In float64 the largest difference of all is {_tiny(max(found, default=0.0))} "
        f"({len(found)} of {len(rows)} models are carried); in ONNX Runtime {over} are above "
        f"{EQUAL:.0e}."
    )


def _two_digits(number: float) -> str:
    return f"{float(f'{number:.2g}'):g}"


def _tiny(found: object) -> str:
    """Return a difference; a text says why there is none."""
    return "not carried" if isinstance(found, str) else f"{found:.0e}" if found else "0"


def _heads(rows: Sequence[Row]) -> list[str]:
    found = [row for row in rows if row["heads"]]
    if not found:
        return []
    head = ["model", "parameters left", "MACs left", "with half of the heads, too", "MACs left"]
    cells = [
        [row["name"], *(f"{one[key]:.3f}" for one in (row, row["heads"]) for key in _SHARES)]
        for row in found
    ]
    return ["## Heads", table(head, cells)]


_SHARES = ("parameters", "macs")


def _targets(rows: Sequence[Row]) -> list[str]:
    """Say which targets are met, and where they cannot be."""
    lines, reasons = [], []
    for row in rows:
        if row["name"] in TARGETS:
            most, most_macs = TARGETS[row["name"]]
            left = _final(row)
            missed = left["parameters"] > most or left["macs"] > (most_macs or 1.0)
            lines.append(
                [
                    row["name"],
                    f"{most}" + (f", MACs {most_macs}" if most_macs else ""),
                    f"{left['parameters']:.3f}" + (f", MACs {left['macs']:.3f}" * bool(most_macs)),
                    f"{row['least']:.3f}",
                    "missed" if missed else "met",
                ]
            )
            reasons += [f"- **{row['name']}**: {said}" for said in _why_missed(row) if missed]
    head = ["model", "asked for at most", "left", "half of every axis", ""]
    said = (
        "The last but one column is what is left when of every axis that channels were followed "
        "along exactly half goes (of widths, and then of heads): a weight between two layers keeps "
        "a quarter then; what channels run along one axis of keeps a half: biases, normalisation, "
        "depthwise kernels, the layer that makes the output, tables of words. An odd number of "
        "groups keeps the smaller half."
    )
    if not lines:
        return []
    return ["## Targets", said, table(head, lines), *(["\n".join(reasons)] if reasons else [])]


def _why_missed(row: Row) -> list[str]:
    """Return why more is left than was asked for, in words."""
    most, _ = TARGETS[row["name"]]
    found = []
    if row["least"] > most:
        found.append(
            f"half of every axis leaves {row['least']:.3f}, so that {most} is out of reach at this "
            "ratio while the outputs keep their width"
        )
    if row["alone"]:
        found.append(
            f"{row['alone']} kinds of channels are one group each and stay, since a layer has to "
            "keep something: shuffled between groups of a convolution whose number does not divide "
            "their width, channels are all tied to each other"
        )
    return found


def _torch_pruning(rows: Sequence[Row], torch: Sequence[Row]) -> list[str]:
    if not torch:
        return []
    ours = {row["name"]: _final(row) for row in rows}
    lines = []
    for row in torch:
        own = ours.get(f"zoo-{row['name']}.dynamo")
        lines.append(
            [row["name"], _pair(own and [own[key] for key in _SHARES])]
            + [_pair(row[key]) for key in ("kept", "cut")]
        )
    head = ["model", "here", "Torch-Pruning 1.6.1", "the same, outputs cut, too"]
    said = (
        "Torch-Pruning 1.6.1, group L2 norm, ratio 0.5, on the PyTorch definitions that the zoo is "
        "exported from (`tools/models/zoo`): parameters, MACs left. The last column is what it "
        "leaves when no layer is exempt: half of the classes are gone then, which no file that is "
        "in use survives. Through LayerNormalization it cuts, too: the statistics are those of the "
        "remaining channels then, and the result is not equal to the masked model."
    )
    return ["## Torch-Pruning", said, table(head, lines)]


def _pair(found: object) -> str:
    if isinstance(found, list):
        return ", ".join(f"{share:.3f}" for share in found)
    return str(found or "")


def _worse(rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        left, peer = _final(row), row["peer"] or {}
        name = f"- **{row['name']}**: "
        if round(peer.get("parameters", 2.0), 3) < round(left["parameters"], 3):
            lines.append(f"{name}onnxsim leaves {peer['parameters']:.3f} of the parameters")
        if "why" in peer:
            lines.append(f"{name}onnxsim fails: {peer['why'][:200]}")
        lines += [f"{name}{said}" for said in _slower(row, left, peer)]
        if row["difference"] > EQUAL:
            lines.append(
                f"{name}the difference is {row['difference']:.0e}, above {EQUAL:.0e} "
                f"(rounding alone makes {row['rounding']:.0e}, in float64 it is "
                f"{_tiny(row['in_double'])})"
            )
    return "\n".join(lines) or "Nothing."


def _slower(row: Row, left: Row, peer: Row) -> list[str]:
    """Return what is slower than it should be, in words."""
    if "time" not in row:
        return []
    found = []
    if row["time"] > 1.0:
        found.append(f"takes {row['time']:.2f} times as long as before")
    elif 1 - row["time"] < 0.85 * (1 - left["macs"]):
        found.append(f"time falls to {row['time']:.2f}, MACs fall to {left['macs']:.2f}")
    if round(peer.get("time", 2.0), 2) < round(row["time"], 2):
        found.append(f"onnxsim's is faster: {peer['time']:.2f} of the time")
    return found


def _reasons(row: Row) -> list[str]:
    lines = [f"- **{row['name']}**: " + ("" if row["stays"] else "nothing")]
    lines[0] += "; ".join(f"{count:,} ({why})" for why, count in list(row["stays"].items())[:4])
    return lines
