"""From ONNX to a PyTorch module that trains, and back into the same ONNX file."""
