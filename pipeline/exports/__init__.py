"""Write a trained network for production, and prove in a process of its own that each file computes the same.

May import `core`, `config`, `data`, `models`, `evaluation`, `tracking`, `comparison`. Offers `export` (all formats of
one network) and `result` (what came of it). Inside: `declared` (ONNX written from the declaration, without a
framework), `int8`, `formats` (what writes and reads each format), `tensorflow_files` and `pytorch_files`, `process`
(the processes), `timing`, `proof`, `table`; `candidate` (which side of a comparison) and `promotion` (its way to the
champion).
"""
