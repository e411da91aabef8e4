"""`python tests/keras_fit.py MODEL.keras IMAGES.npz BATCH_SIZE THREADS plain|xla`: `keras.Model.fit`, as users call it.

A process of its own: without the determinism that this project switches on, under which Keras does without XLA. For
each line that it reads it trains one epoch and prints images/s, after one epoch that compiles.
"""

import sys
import time

import keras
import numpy as np
import tensorflow as tf


def main(path: str, images: str, batch_size: str, threads: str, way: str) -> None:
    """See the module."""
    tf.config.threading.set_intra_op_parallelism_threads(int(threads))
    tf.config.threading.set_inter_op_parallelism_threads(int(threads))
    model, data = keras.models.load_model(path), np.load(images)
    x, y = data["images"].astype(np.float32) / 255, data["labels"]
    model.trainable = True
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(), loss, metrics=["accuracy"], jit_compile=way == "xla")
    assert model.jit_compile == (way == "xla")
    model.fit(x, y, int(batch_size), verbose=0)
    print("ready", flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        model.fit(x, y, int(batch_size), verbose=0)
        print(len(y) / (time.perf_counter() - began), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
