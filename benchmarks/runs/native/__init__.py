"""Calls of recorded networks beside torch, ONNX Runtime and OpenVINO, each at its best setting."""
