"""`onnx-relief compact`: cut what a masked model never uses, and prove that the rest is equal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group
from rich.text import Text

from onnx_relief.api.compare import compare
from onnx_relief.commands.console import Speaker
from onnx_relief.commands.flags import Model, Shape
from onnx_relief.commands.one_feed import one_feed
from onnx_relief.commands.options import (
    PrepareOptions,
    SpeakOptions,
    parse_shapes,
)
from onnx_relief.commands.storing import RoundTo, Store, parse_round_to
from onnx_relief.compaction.compact import Compacted
from onnx_relief.compaction.compact import compact as make_smaller
from onnx_relief.errors import UnsupportedError
from onnx_relief.files import check_distinct, check_output
from onnx_relief.graph.document import input_specs, load
from onnx_relief.graph.save import save
from onnx_relief.graph.sparse_store import is_sparse
from onnx_relief.report.build import as_plain, to_json
from onnx_relief.report.table import sentences, totals_table
from onnx_relief.report.text import plain, plural


@dataclass(frozen=True, kw_only=True)
class CompactOptions(PrepareOptions, SpeakOptions):
    """Everything that `compact` can be told."""

    model: Model
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="The smaller model; by default MODEL.compact.onnx in the current folder.",
        ),
    ] = None
    data: Annotated[
        str | None,
        typer.Option(help="Sample data, as `prune` takes it: both models are compared on it, too."),
    ] = None
    shape: Shape = None
    round_to: RoundTo = "auto"
    store: Store = "dense"
    provider: Annotated[
        str, typer.Option(help="cpu, cuda or any that ONNX Runtime names; auto takes the best.")
    ] = "auto"
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Replace a file that exists; write a model whose output a mask has cut off.",
        ),
    ] = False

    @property
    def target(self) -> Path:
        """Where the smaller model goes."""
        return self.out or Path(f"{self.model.stem}.compact.onnx")


def compact(options: CompactOptions) -> None:
    """Cut out the channels that a masked model never uses; the outputs stay the same.

    Example: onnx-relief compact model.pruned.onnx -o model.small.onnx

    The result is compared with the masked model each time, and written only if they agree.
    """
    speaker = Speaker(options)
    check_distinct([("MODEL", options.model), ("-o", options.target)])
    check_output(options.target, "-o", force=options.force)
    document = load(options.model)
    inputs, shapes = input_specs(document.proto), parse_shapes(options.shape)
    feed = one_feed(inputs, options.data, shapes, options)
    found = make_smaller(
        document,
        feed,
        provider=options.provider,
        round_to=parse_round_to(options.round_to),
        sparse=is_sparse(options.store),
    )
    for output, layer in () if options.force else found.cut_off.items():
        raise UnsupportedError(
            f"output {output!r} of {options.model} is the same whatever the input, since layer "
            f"{layer!r} has no weights left; prune less, or write it all the same with --force"
        )
    save(found.document, options.target, force=options.force)
    sizes = compare(options.model, options.target, shapes=parse_shapes(options.shape))
    table = Group(
        totals_table(sizes.first, sizes.second, None, names=("masked", "compact")),
        *sentences(_told(found, options.round_to)),
        Text(f"compact model: {plain(str(options.target))}"),
    )
    told = {
        "format": "onnx-relief compaction 1",
        "groups": found.groups,
        "removed": found.removed,
        "joins": found.joins,
        "kept": found.kept,
        "difference": found.difference,
        "sparse": found.sparse,
        "cut_off": found.cut_off,
        "before": as_plain(sizes.first),
        "after": as_plain(sizes.second),
        "written": str(options.target),
    }
    speaker.result(table, to_json(told))


def _cut(found: Compacted, *, exact: bool) -> str:
    # How many more are dead is not counted, but there may be some.
    if found.removed:
        rounded = "" if exact else " as far as multiples that runtimes like allow"
        groups = f"{found.removed:,} of {found.groups:,} groups of channels"
        return f"{groups} are dead or unread, and are cut{rounded}"
    none = f"none of {found.groups:,} groups of channels is"
    if exact:
        return f"{none} dead or unread"
    return (
        f"{none} cut: fewer are dead or unread, if any, than multiples that runtimes like need; "
        "--round-to 1 cuts all that are dead"
    )


def _told(found: Compacted, round_to: str) -> list[str]:
    lines = [
        _cut(found, exact=round_to == "1"),
        f"outputs differ by {found.difference:.1e} of their size at most",
    ]
    for output, layer in found.cut_off.items():
        lines.append(
            f"output {output!r} is the same whatever the input: layer {layer!r} has no weights left"
        )
    if found.joins:
        lines.append(f"{found.joins:,} sums had a branch that was a constant, which is left out")
    if found.sparse:
        lines.append(
            f"{found.sparse:,} weights are stored in sparse form: only ONNX Runtime reads that"
        )
    return lines + [f"{plural(count, 'channel')} kept: {why}" for why, count in _most(found.kept)]


def _most(kept: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(kept.items(), key=lambda pair: -pair[1])[:5]
