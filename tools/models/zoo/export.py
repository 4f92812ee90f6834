"""Export one model of the zoo.

Run by tools/make_zoo.py: python -m models.zoo.export NAME OUT dynamo|script
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor, nn

from models.zoo import convolutional, decoder, mobile, sequence

SEED: Final = 2109
Inputs = tuple[Tensor, ...]


def _picture() -> Inputs:
    return (torch.randn(2, 3, 96, 96),)


def _large_picture() -> Inputs:
    return (torch.randn(2, 3, 224, 224),)


def _frames() -> Inputs:
    return (torch.randn(2, 24, 40),)


def _words(table: int) -> Callable[[], Inputs]:
    return lambda: (torch.randint(0, table, (2, 16)),)


def _masked_words() -> Inputs:
    return (*_words(500)(), torch.ones(2, 16, dtype=torch.int64))


# The model, its inputs and their names.
MODELS: Final[dict[str, tuple[Callable[[], nn.Module], Callable[[], Inputs], tuple[str, ...]]]] = {
    "mobilenet-v2": (mobile.mobilenet_v2, _picture, ("x",)),
    "mobilenet-v3": (mobile.mobilenet_v3, _picture, ("x",)),
    "efficientnet": (mobile.efficientnet, _picture, ("x",)),
    "shufflenet-v2": (mobile.shufflenet_v2, _picture, ("x",)),
    "resnet50": (convolutional.resnet_50, _large_picture, ("x",)),
    "convnext": (convolutional.convnext, _picture, ("x",)),
    "unet": (convolutional.UNet, _picture, ("x",)),
    "c2f": (convolutional.Detector, _picture, ("x",)),
    "lstm-tagger": (sequence.Tagger, _words(2000), ("ids",)),
    "bert": (sequence.Bert, _masked_words, ("ids", "mask")),
    "encoder": (sequence.Encoder, _frames, ("x",)),
    "vit": (sequence.Vit, _picture, ("x",)),
    "mixer": (sequence.Mixer, _picture, ("x",)),
    "decoder": (decoder.Decoder, _words(1000), ("ids",)),
}


def main() -> None:
    """Write one model."""
    name, out, how = sys.argv[1:]
    torch.manual_seed(SEED)
    make, inputs, names = MODELS[name]
    model, example = settled(make()), inputs()
    if how == "dynamo":
        batch = torch.export.Dim("batch", min=1, max=64)
        torch.onnx.export(
            model, example, out, dynamo=True, external_data=False, input_names=list(names),
            dynamic_shapes=tuple({0: batch} for _ in names), verbose=False,
        )  # fmt: skip
        return
    torch.onnx.export(
        model, example, out, dynamo=False, opset_version=17, input_names=list(names),
        output_names=_outputs(model, example), dynamic_axes={n: {0: "batch"} for n in names},
    )  # fmt: skip


def settled(model: nn.Module) -> nn.Module:
    """Return a model ready for use, with statistics, scales and shifts that differ by channel."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0.0, 0.1)
            module.running_var.uniform_(0.8, 1.2)
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            nn.init.normal_(module.weight, 1.0, 0.1)
            nn.init.normal_(module.bias, 0.0, 0.1)
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if isinstance(module, nn.TransformerEncoder):  # its layers start as copies of each other
            for weight in module.parameters():
                (nn.init.xavier_normal_ if weight.dim() > 1 else nn.init.normal_)(weight)
    return model.eval()


def _outputs(model: nn.Module, example: Inputs) -> list[str]:
    with torch.no_grad():
        found = model(*example)
    return [f"y{at}" for at in range(len(found))] if isinstance(found, tuple) else ["y"]


if __name__ == "__main__":
    main()
