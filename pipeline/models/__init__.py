"""The declared network and its two doors, TensorFlow and PyTorch."""
