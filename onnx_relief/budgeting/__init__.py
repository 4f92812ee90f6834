"""From a budget to what every layer keeps: what losing weights costs, and who pays how much.

Read `spending` first, then `targets`. The budget itself is a value, `onnx_relief.budget`; how many
channels a budget leaves is in `onnx_relief.channels`.
"""
