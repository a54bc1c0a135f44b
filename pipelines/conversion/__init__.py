"""What the converters share: reading checkpoints that nobody vouches for, running ONNX, measuring parity."""
