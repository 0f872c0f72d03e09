"""Export of trained networks. The only package that imports onnx and safetensors."""
