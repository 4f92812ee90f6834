"""Train a small Keras network on Fashion-MNIST and convert it with tf2onnx.

Run by tools/make_models.py: python fashion_keras.py DATA.npz OUT.onnx NAME
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any, Final

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"

import keras  # type: ignore[import-not-found, unused-ignore]
import numpy as np
import tensorflow as tf  # type: ignore[import-not-found, import-untyped, unused-ignore]
import tf2onnx  # type: ignore[import-not-found, import-untyped, unused-ignore]

SEED: Final = 0
EPOCHS: Final = 8
BATCH: Final = 64


def build() -> Any:  # noqa: ANN401 - keras is not installed where types are checked
    """Return the untrained network: pictures (n, 28, 28, 1) in, class probabilities out."""
    layers = keras.layers

    def normalise(tensor: Any) -> Any:  # noqa: ANN401
        return layers.ReLU()(layers.BatchNormalization()(tensor))

    image = keras.Input((28, 28, 1), name="image")
    tensor = normalise(layers.Conv2D(32, 3, padding="same", use_bias=False)(image))
    tensor = layers.MaxPooling2D()(tensor)
    tensor = normalise(layers.SeparableConv2D(64, 3, padding="same", use_bias=False)(tensor))
    tensor = normalise(layers.DepthwiseConv2D(3, padding="same", use_bias=False)(tensor))
    tensor = normalise(layers.Conv2D(96, 1, use_bias=False)(tensor))
    tensor = layers.MaxPooling2D()(tensor)
    tensor = normalise(layers.Conv2D(96, 3, padding="same", use_bias=False)(tensor))
    tensor = layers.GlobalAveragePooling2D()(tensor)
    tensor = layers.Dropout(0.2, seed=SEED)(tensor)
    return keras.Model(image, layers.Dense(10, activation="softmax", name="probabilities")(tensor))


def train(network: Any, images: Any, labels: Any) -> None:  # noqa: ANN401
    """Train in place; the step size falls along a cosine."""
    steps = EPOCHS * -(-len(images) // BATCH)
    network.compile(
        optimizer=keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-3, steps)),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    network.fit(images, labels, batch_size=BATCH, epochs=EPOCHS, verbose=2)


def number_constants(graph: Any) -> None:  # noqa: ANN401
    """Number the constants in order of use: tf2onnx's own counter differs from run to run."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    renamed: dict[str, str] = {}
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name in constants and re.search(r"__\d+$", name):
                renamed.setdefault(name, re.sub(r"\d+$", str(len(renamed)), name))
                node.input[place] = renamed[name]
    for name, new_name in renamed.items():
        constants[name].name = new_name
    graph.initializer.sort(key=lambda tensor: tensor.name)


def main() -> None:
    """Train and convert, on one thread and with deterministic kernels."""
    data_file, onnx_file = sys.argv[1:3]
    keras.utils.set_random_seed(SEED)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.experimental.enable_op_determinism()
    with np.load(data_file) as data:
        images = data["train_images"].reshape(-1, 28, 28, 1).astype(np.float32) / 255
        labels = data["train_labels"].astype(np.int64)
    network = build()
    network.summary()
    train(network, images, labels)
    signature = [tf.TensorSpec((None, 28, 28, 1), tf.float32, name="image")]
    function = tf.function(
        lambda image: {"probabilities": network(image, training=False)}, input_signature=signature
    )
    model, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=17)
    number_constants(model.graph)
    Path(onnx_file).write_bytes(model.SerializeToString())


if __name__ == "__main__":
    main()
