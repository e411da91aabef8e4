"""The processes of an export. Each format is written and read by a process of its own.

  python -m pipeline.exports.process write FORMAT FRAMEWORK MODEL PATH IMAGES RESULT
  python -m pipeline.exports.process read FORMAT FRAMEWORK PATH IMAGES RESULT

`write`: writes the saved classifier MODEL as PATH, and times the framework itself; `read`: opens PATH as a stranger
would. Both write logits and times to RESULT (`.npz`). Two frameworks in one process crash each other.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np

from ..config.schema.export import Format
from ..core.exits import command
from ..models import backend
from .formats import Predict, format_of, load
from .timing import measure


@command
def main(arguments: Sequence[str]) -> None:
    """Write or read one format."""
    verb, name, framework, *paths = arguments
    found = format_of(cast(Format, name), framework)
    assert found
    if verb == "write":
        model, path, images, result = map(Path, paths)
        classifier = backend.load(model, found.framework, threads=1)
        load(found.writer)(classifier, path)
        predict: Predict = classifier.predict
    else:
        path, images, result = map(Path, paths)
        predict = load(found.reader)(path, 1)
    batch = np.load(images, allow_pickle=False)
    parts = [part for part in (batch[:1], batch[1:8], batch[8:]) if len(part)]  # batches of several sizes
    logits = np.concatenate([predict(part) for part in parts])
    np.savez(result, logits=logits, timing=json.dumps(measure(predict, batch).model_dump()))


if __name__ == "__main__":
    main(sys.argv[1:])
