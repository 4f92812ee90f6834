"""A graph in ONNX text that grows line by line, as Hypothesis draws it."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from text_models import random

SIDE = 4
"""Height and width of images, and number of tokens."""
ACTIVATIONS = ("Relu", "HardSwish", "Tanh", "LeakyRelu", "Sigmoid", "Softplus", "Neg", "Abs")


class Sketch:
    """A graph in ONNX text that grows line by line; `draw` chooses."""

    def __init__(self, draw):
        self.draw, self.lines, self.constants, self.outputs = draw, [], {}, []
        self.count = 0

    def pick(self, *choices):
        return self.draw(st.sampled_from(choices))

    def flip(self):
        return self.draw(st.booleans())

    def width(self, least=2):
        return self.draw(st.integers(least, 8))

    def name(self, letter="t"):
        self.count += 1
        return f"{letter}{self.count}"

    def constant(self, array, letter="c"):
        name = self.name(letter)
        self.constants[name] = np.asarray(array)
        return name

    def weight(self, *shape):
        return self.constant(
            random(*shape, seed=self.count) / np.float32(shape[-1] + 1) ** 0.5, "w"
        )

    def ints(self, *numbers):
        return self.constant(np.array(numbers, np.int64), "i")

    def add(self, op, *inputs, settings="", outputs=1):
        """Add a node and return the name of what it makes."""
        names = [self.name() for _ in range(outputs)]
        what = f"<{settings}>" if settings else ""
        self.lines.append(f"{', '.join(names)} = {op} {what} ({', '.join(inputs)})")
        return names[0] if outputs == 1 else names


def divisors(number):
    return [n for n in range(1, number + 1) if number % n == 0]
