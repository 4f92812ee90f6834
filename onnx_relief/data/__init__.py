"""Sample data of any form, as batches by the model's input names, with labels if there are some."""

from onnx_relief.data.batch import Batch, Dataset, first_sample
from onnx_relief.data.preprocess import PRESETS, Preprocess
from onnx_relief.data.sources import open_data

__all__ = ["PRESETS", "Batch", "Dataset", "Preprocess", "first_sample", "open_data"]
