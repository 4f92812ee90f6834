"""The Python API: what the commands do, with values instead of files.

>>> import onnx_relief as relief
>>> result = relief.prune("model.onnx", {"image": pictures}, alpha=0.95)  # doctest: +SKIP
>>> result.save("smaller.onnx")  # doctest: +SKIP

No function changes the model it is given.
"""
