"""The same small network with its weights in every place that a file can keep them."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from text_models import build, function, random

W1, B1, W2 = random(6, 5, seed=1), random(5, seed=2), random(5, 3, seed=3)
FLOATS = ", ".join(f"{value:.6f}" for value in W2.reshape(-1))


def initializers():
    return build(
        """(float[N,6] x) => (float[N,3] y) {
            h = Gemm (x, fc.w1, fc.b1)  a = Relu (h)  y = MatMul (a, fc.w2)
        }""".replace("fc.", "fc_"),
        fc_w1=W1,
        fc_b1=B1,
        fc_w2=W2,
    )


def constant_nodes():
    return build(
        f"""(float[N,6] x) => (float[N,3] y) {{
            h = MatMul (x, w1)  a = Relu (h)  flat = Constant <value_floats = [{FLOATS}]> ()
            shape = Constant <value_ints = [5, 3]> ()  w2 = Reshape (flat, shape)
            y = MatMul (a, w2)
        }}""",
        w1=W1,
    )


def behind_views():
    return build(
        """(float[N,6] x) => (float[N,3] y) {
            w1t = Transpose <perm = [1, 0]> (w1)  w = Identity (w1t)
            h = Gemm <transB = 1> (x, w)  a = Relu (h)  y = MatMul (a, w2)
        }""",
        w1=W1,
        w2=W2,
    )


def in_branches():
    then, halves = "t = MatMul (x, w1)", ", ".join(["0.5"] * 30)
    other = f"c = Constant <value_floats = [{halves}]> () s = Reshape (c, six5) e = MatMul (x, s)"
    return build(
        f"""(float[N,6] x, bool p) => (float[N,5] y) {{
            y = If (p) <then_branch = a () => (float[N,5] t) {{ {then} }},
                        else_branch = b () => (float[N,5] e) {{ {other} }}>
        }}""",
        w1=W1,
        six5=np.array([6, 5]),
    )


def in_a_function():
    body = f"""
        w = Constant <value_floats = [{FLOATS}]> ()
        s = Constant <value_ints = [5, 3]> ()
        m = Reshape (w, s)
        q = MatMul (p, m)
    """
    twice = "y = my.f (x)  n = Neg (x)  z = my.f (n)"
    return build(
        f"(float[N,5] x) => (float[N,3] y, float[N,3] z) {{ {twice} }}",
        functions=function("f", "(p) => (q)", body),
    )


def shared():
    return build(
        """(float[N,5] x) => (float[N,5] y) {
            h = MatMul (x, w)  a = Relu (h)  y = MatMul (a, w)
        }""",
        w=random(5, 5),
    )


def float16():
    return build(
        """(float16[N,6] x) => (float16[N,3] y) {
            h = Gemm (x, w1, b1)  a = Relu (h)  y = MatMul (a, w2)
        }""",
        w1=W1.astype(np.float16),
        b1=B1.astype(np.float16),
        w2=W2.astype(np.float16),
    )


def bfloat16():
    """ONNX Runtime's CPU computes nothing in bfloat16, so it only stores the weights."""
    return build(
        """(float[N,6] x) => (float[N,3] y) {
            w1 = Cast <to = 1> (k1)  b1 = Cast <to = 1> (c1)  w2 = Cast <to = 1> (k2)
            h = Gemm (x, w1, b1)  a = Relu (h)  y = MatMul (a, w2)
        }""",
        k1=numpy_helper.from_array(W1.astype(ml_dtypes.bfloat16), "k1"),
        c1=numpy_helper.from_array(B1.astype(ml_dtypes.bfloat16), "c1"),
        k2=numpy_helper.from_array(W2.astype(ml_dtypes.bfloat16), "k2"),
    )


def float64():
    return build(
        """(double[N,6] x) => (double[N,3] y) {
            h = Gemm (x, w1, b1)  a = Relu (h)  y = MatMul (a, w2)
        }""",
        **{"w1": W1.astype(float), "b1": B1.astype(float), "w2": W2.astype(float)},
    )


def filled():
    return build(
        """(float[N,6] x) => (float[N,5] y) {
            w = ConstantOfShape <value = float[1] {0.25}> (shape)  h = MatMul (x, w)
            y = Add (h, b1)
        }""",
        shape=np.array([6, 5]),
        b1=B1,
    )


def quantised():
    return build(
        """(float[N,6] x) => (float[N,3] y) {
            w = DequantizeLinear <axis = 1> (q, s)  h = MatMul (x, w)  b = Add (h, b1)
            a = Relu (b)  y = MatMul (a, w2)
        }""",
        q=np.random.default_rng(0).integers(-127, 127, (6, 5)).astype(np.int8),
        s=np.full(5, 0.02, np.float32),
        b1=B1,
        w2=W2,
    )


def sparse():
    model = build("(float[N,6] x) => (float[N,5] y) { h = MatMul (x, w)  y = Add (h, b1) }", b1=B1)
    places = np.array([0, 3, 7, 11, 29])
    values = numpy_helper.from_array(W1.reshape(-1)[places], "w")
    indices = numpy_helper.from_array(places, "w_indices")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [6, 5]))
    return model


def outside(folder):
    """Write the network with its weights in another file and return the path."""
    path = folder / "outside.onnx"
    onnx.save_model(
        initializers(), path, save_as_external_data=True, location="w.bin", size_threshold=0
    )
    return path


KINDS = (
    *(initializers, constant_nodes, behind_views, in_branches, in_a_function, shared),
    *(float16, bfloat16, float64, filled, quantised, sparse),
)


def feed_for(model, *, rows=4, seed=0):
    """Return random inputs that the model takes."""
    rng = np.random.default_rng(seed)
    found = {}
    for value in model.graph.input:
        kind = value.type.tensor_type
        if kind.elem_type == TensorProto.BOOL:
            found[value.name] = np.array(True)
            continue
        sizes = [axis.dim_value or rows for axis in kind.shape.dim]
        dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
        found[value.name] = rng.standard_normal(sizes).astype(dtype)
    return found
