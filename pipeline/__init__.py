"""The same network in TensorFlow and in PyTorch: one declaration, two doors, one judge."""
