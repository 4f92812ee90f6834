"""The options of the commands, as values: each group is a dataclass, a command takes several.

Typer reads options from the signature of a function. `command_of` makes that signature from the
fields of a dataclass, so that every flag is declared once.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

from onnx_relief.data import Preprocess
from onnx_relief.errors import SettingsError
from onnx_relief.settings import Estimator

Options = TypeVar("Options")

CHOOSING = "What is pruned, and how much"
_SPEAKING = "What is printed"
_PREPARING = "How samples become what the model takes"
_RUNNING = "Running and comparing"


@dataclass(frozen=True, kw_only=True)
class SpeakOptions:
    """What is printed."""

    quiet: Annotated[
        bool,
        typer.Option("--quiet", "-q", help="Print errors only.", rich_help_panel=_SPEAKING),
    ] = False
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose",
            "-v",
            help="Name everything that is otherwise counted; tracebacks.",
            rich_help_panel=_SPEAKING,
        ),
    ] = False
    json: Annotated[
        bool,
        typer.Option("--json", help="JSON on the standard output.", rich_help_panel=_SPEAKING),
    ] = False


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """How samples become what the model takes."""

    preset: Annotated[
        str | None,
        typer.Option(
            help="imagenet, tf, efficientnet-lite, mnist or unit; flags below override it.",
            rich_help_panel=_PREPARING,
        ),
    ] = None
    resize: Annotated[
        str | None,
        typer.Option(
            help="Shorter side (256) or height x width (48x320).", rich_help_panel=_PREPARING
        ),
    ] = None
    crop: Annotated[
        str | None,
        typer.Option(
            help="Centre crop: side or height x width, after --resize.", rich_help_panel=_PREPARING
        ),
    ] = None
    scale: Annotated[
        str | None,
        typer.Option(help="Factor for every value, like 1/255.", rich_help_panel=_PREPARING),
    ] = None
    mean: Annotated[
        str | None,
        typer.Option(
            help="Subtracted after scaling; one or one per channel: .485,.456,.406.",
            rich_help_panel=_PREPARING,
        ),
    ] = None
    std: Annotated[
        str | None,
        typer.Option(
            help="Divided by at last; one or one per channel.", rich_help_panel=_PREPARING
        ),
    ] = None
    layout: Annotated[
        str | None,
        typer.Option(help="nchw, nhwc or flat: what the model takes.", rich_help_panel=_PREPARING),
    ] = None
    color: Annotated[
        str | None,
        typer.Option(help="rgb, bgr or gray: what the model takes.", rich_help_panel=_PREPARING),
    ] = None
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="Stop at a broken picture instead of leaving it out.",
            rich_help_panel=_PREPARING,
        ),
    ] = False


@dataclass(frozen=True, kw_only=True)
class ChooseOptions:
    """Which layers lose something, and how connections are valued."""

    estimator: Annotated[
        str,
        typer.Option(
            help="How the signal of kernels is estimated: paper or mean-map (cheaper).",
            rich_help_panel=CHOOSING,
        ),
    ] = Estimator.PAPER.value
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Prune only layers of such names; repeatable.",
            rich_help_panel=CHOOSING,
        ),
    ] = None
    skip: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Leave layers of such names alone; repeatable.",
            rich_help_panel=CHOOSING,
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class JudgeOptions:
    """How models are judged, and what runs them."""

    metric: Annotated[
        str | None,
        typer.Option(
            help="accuracy (with labels), agreement (without), cosine (embeddings of length 1), "
            "error (single numbers) or top5.",
            rich_help_panel=_RUNNING,
        ),
    ] = None
    output: Annotated[
        str | None,
        typer.Option(help="The model's output that the metric looks at.", rich_help_panel=_RUNNING),
    ] = None
    provider: Annotated[
        str,
        typer.Option(
            help="cpu, cuda or any that ONNX Runtime names; auto takes the best.",
            rich_help_panel=_RUNNING,
        ),
    ] = "auto"


@dataclass(frozen=True, kw_only=True)
class RunOptions(JudgeOptions):
    """Running and comparing."""

    batch_size: Annotated[
        int,
        typer.Option(
            help="Samples per run, where the model leaves that open.", rich_help_panel=_RUNNING
        ),
    ] = 16


def command_of(run: Callable[[Options], None], options: type[Options]) -> Callable[..., None]:
    """Return `run` as a function whose parameters are the fields of `options`."""
    hints = get_type_hints(options, include_extras=True)
    parameters = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in _in_reading_order(options)
    ]

    def command(**given: Any) -> None:  # noqa: ANN401 - whatever the fields are
        run(options(**given))

    command.__doc__ = run.__doc__
    command.__annotations__ = hints
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return command


def _in_reading_order(options: type[Any]) -> list[Field[Any]]:
    """Return a command's own fields first, then those of its groups as they are listed."""
    by_name = {field.name: field for field in fields(options)}
    listed = (name for one in options.__mro__[:-1] for name in one.__annotations__)
    return [by_name[name] for name in dict.fromkeys(listed)]


def preprocess_of(options: PrepareOptions) -> Preprocess:
    """Return the preprocessing that the flags say.

    Raises:
        SettingsError: A flag cannot be understood.
    """
    return Preprocess.from_flags(
        preset=options.preset,
        resize=options.resize,
        crop=options.crop,
        scale=options.scale,
        mean=options.mean,
        std=options.std,
        layout=options.layout,
        color=options.color,
    )


def parse_samples(text: str, flag: str = "--samples") -> int | None:
    """Return the number of samples that was given for a flag; None for all.

    Raises:
        SettingsError: It is neither a positive number nor ``all``.

    >>> parse_samples("200"), parse_samples("all")
    (200, None)
    """
    if text.strip().lower() == "all":
        return None
    try:
        count = int(text)
    except ValueError:
        raise SettingsError(f"{flag} {text!r} is no number; give for example 500, or all") from None
    if count < 1:
        raise SettingsError(f"{flag} must be at least 1, got {count}; or say all")
    return count


def parse_sparsities(flag: str, text: str) -> tuple[float, ...]:
    """Return the shares of ``0.3,0.5,70%``.

    Raises:
        SettingsError: One of them is none.

    >>> parse_sparsities("--sparsities", "0.3, 50%")
    (0.3, 0.5)
    """
    found = []
    for part in filter(None, (one.strip() for one in text.split(","))):
        try:
            share = float(part.removesuffix("%")) / (100 if part.endswith("%") else 1)
        except ValueError:
            share = -1.0
        if not 0 <= share < 1:
            raise SettingsError(
                f"{flag} {part!r} is no share from 0 to below 1; give for example 0.5,0.7,0.9"
            )
        found.append(share)
    if not found:
        raise SettingsError(f"{flag} names no share; give for example 0.5,0.7,0.9")
    return tuple(found)


def check_plot(plot: Path | None) -> None:
    """Refuse a picture of another kind.

    Raises:
        SettingsError: Its name does not say .svg or .html.
    """
    if plot is not None and plot.suffix.lower() not in (".svg", ".html"):
        raise SettingsError(f"--plot draws .svg or .html, so {plot} has to end so")


def parse_alphas(texts: list[str] | None) -> tuple[tuple[str, float], ...]:
    """Return (pattern, alpha) of every ``PATTERN=0.9``.

    Raises:
        SettingsError: One of them is not of that form.

    >>> parse_alphas(["/layer1/*=0.9"])
    (('/layer1/*', 0.9),)
    """
    found = []
    for text in texts or ():
        pattern, equals, value = text.rpartition("=")
        try:
            found.append((pattern, float(value)))
        except ValueError:
            equals = ""
        if not equals or not pattern:
            raise SettingsError(
                f"--alpha-layer {text!r} is not PATTERN=ALPHA; give for example '/layer1/*=0.9'"
            )
    return tuple(found)


def parse_shapes(texts: list[str] | None) -> dict[str, tuple[int, ...]]:
    """Return the shape of every ``NAME=1x3x48x320``; ``NAME=`` is a single number.

    Raises:
        SettingsError: One of them is not of that form.

    >>> parse_shapes(["x=1x3x8x8", "rate="])
    {'x': (1, 3, 8, 8), 'rate': ()}
    """
    found = {}
    for text in texts or ():
        name, equals, sizes = text.rpartition("=")
        parts = sizes.lower().split("x") if sizes else []
        if not equals or not all(part.isascii() and part.isdigit() for part in parts):
            raise SettingsError(
                f"--shape {text!r} is not NAME=SIZES; give for example x=1x3x48x320"
            )
        found[name] = tuple(map(int, parts))
    return found
