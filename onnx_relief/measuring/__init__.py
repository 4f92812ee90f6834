"""What data shows of a model: it is run, and statistics of it are brought together.

The arithmetic of activity is in `onnx_relief.activity`, and knows neither models nor runs.
"""
