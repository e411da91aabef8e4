"""TensorFlow's formats of production: SavedModel, and LiteRT (`.tflite`). Both take uint8 images and give logits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..models.backend import Classifier, unit_scale
from ..models.tensorflow.start import keras, tf


def write_saved_model(classifier: Classifier, path: Path) -> None:
    """Write a SavedModel: signature `serving_default`, uint8 `images` to float `logits` and `probabilities`."""
    network, precision = classifier.export(), classifier.train.precision
    images = tf.TensorSpec((None, *classifier.architecture.image_shape), tf.uint8, name="images")

    class Served(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        @tf.function(input_signature=[images])
        def serve(self, images: Any) -> dict[str, Any]:
            logits = self.network(tf.cast(images, precision) * unit_scale(precision), training=False)
            return {"logits": logits, "probabilities": tf.nn.softmax(logits)}

    served = Served()
    tf.saved_model.save(served, str(path), signatures={"serving_default": served.serve})


def open_saved_model(path: Path, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from uint8 images to logits."""
    _limit(threads)
    loaded = tf.saved_model.load(str(path))

    def predict(images: np.ndarray) -> np.ndarray:  # keeps `loaded`, which owns the variables
        return np.asarray(loaded.signatures["serving_default"](images=tf.constant(images))["logits"])

    return predict


def write_litert(classifier: Classifier, path: Path) -> None:
    """Write a `.tflite` file. It is made from a Keras model: made from the SavedModel, it has no weights, unsaid."""
    network, precision = classifier.export(), classifier.train.precision
    inputs = keras.Input(classifier.architecture.image_shape, dtype="uint8", name="images")
    scaled = keras.layers.Rescaling(unit_scale(precision), dtype=precision)(inputs)
    converter = tf.lite.TFLiteConverter.from_keras_model(keras.Model(inputs, network(scaled)))
    path.write_bytes(converter.convert())


def open_litert(path: Path, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from uint8 images to logits."""
    interpreter = tf.lite.Interpreter(str(path), num_threads=threads)

    def predict(images: np.ndarray) -> np.ndarray:
        entry = interpreter.get_input_details()[0]["index"]
        if tuple(interpreter.get_input_details()[0]["shape"]) != images.shape:
            interpreter.resize_tensor_input(entry, images.shape)
            interpreter.allocate_tensors()
        interpreter.set_tensor(entry, images)
        interpreter.invoke()
        return np.array(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))

    interpreter.allocate_tensors()
    return predict


def _limit(threads: int) -> None:
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
