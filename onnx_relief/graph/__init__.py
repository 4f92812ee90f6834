"""The only folder that knows ONNX: find layers, instrument, follow units, mask, save."""
