"""Flags of `prune` that do not go together: none is ignored without a word."""

from __future__ import annotations

from dataclasses import fields

from onnx_relief.commands.prune_options import PruneOptions
from onnx_relief.errors import SettingsError

_CHANNELS_ONLY = (
    *("ratio", "target_latency", "min_units", "heads"),
    *("latency_batch", "latency_threads"),
)
_MASKS_ONLY = (
    *("alpha", "alpha_conv", "alpha_fc", "alpha_layer"),
    *("plan", "save_plan", "save_scores", "dump_activations", "sensitivity", "compact"),
)
_MASK_BUDGETS = ("sparsity", "target_bytes", "max_drop")
_ALPHAS = ("alpha_conv", "alpha_fc", "alpha_layer")
_TRAINING = (
    *("repair_epochs", "flip", "crop_padding", "crop_scale"),
    *("color_jitter", "cutmix"),
)
_MEASURED = ("alpha", *_ALPHAS, *_MASK_BUDGETS, "target_params", "target_macs", "criterion")


def check_flags(options: PruneOptions) -> None:
    """Refuse flags that others make meaningless.

    Raises:
        SettingsError: Naming two of them, and which to leave out.
    """
    values = ((field, getattr(options, field.name)) for field in fields(options))
    said = [field.name for field, value in values if value not in (field.default, None, [])]
    for name in _TRAINING:
        if name in said and options.repair != "reconstruct":
            raise SettingsError(
                f"{_flag(name)} is about training; add --repair reconstruct, or leave it out"
            )
    if options.cuts_channels:
        _check_channels(options, said)
        return
    for name in _CHANNELS_ONLY:
        if name in said:
            raise SettingsError(
                f"{_flag(name)} is about whole channels; add --granularity channel, or leave it out"
            )
    if "round_to" in said and not options.compact:
        raise SettingsError(
            "--round-to is about channels that are cut; add --compact or --granularity channel"
        )
    budgets = (*_MASK_BUDGETS, "target_params", "target_macs", "sweep")
    if "scope" in said and not any(name in said for name in budgets):
        raise SettingsError(
            "--scope says how a budget is spread over the layers, and there is none; give for "
            "example --sparsity 0.5, or leave --scope out"
        )
    if options.plan is not None:
        for name in _MEASURED:
            if name in said:
                raise SettingsError(
                    f"--plan says what is kept, and so does {_flag(name)}; give one of them"
                )


def _check_channels(options: PruneOptions, said: list[str]) -> None:
    for name in _MASK_BUDGETS:
        if name in said:
            raise SettingsError(
                f"{_flag(name)} does not go with --granularity channel; say how much with --ratio, "
                "--target-params, --target-macs or --target-latency"
            )
    for name in _MASKS_ONLY:
        if name in said:
            raise SettingsError(
                f"{_flag(name)} does not go with --granularity channel; leave it out"
            )
    if options.store == "sparse":
        raise SettingsError("--store sparse does not go with --granularity channel; leave it out")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
