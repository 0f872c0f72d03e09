"""Trained networks for other programs. The only room that knows ONNX and safetensors."""
