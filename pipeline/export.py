"""Export the first seed's network for production, each format proven in a process of its own (stages `export@...`).

Writes ONNX, from the declared network, and the framework's own format into `results/<framework>/exports`; further
formats: `export.formats`. Ends with code 1 if a file does not give the same logits. All take uint8 images and run
with any batch size. The key `framework` selects the framework.
"""

import sys
from collections.abc import Sequence

from .config.call import stage
from .config.schema.export import ExportConfig
from .config.schema.tracking import TrackingConfig
from .core.paths import PREPARED, RESULTS, main_root
from .data.dataset import Dataset
from .exports.export import Network, read_logits
from .exports.export import export as run_export
from .exports.table import table_of
from .models import backend
from .tracking.references import RunReferences
from .tracking.store import ensure_store
from .tracking.tracker import Tracker


@stage("export", "framework", "seeds", "export", "tracking", description=__doc__)
def main(*, framework: str, seeds: Sequence[int], export: ExportConfig, tracking: TrackingConfig) -> None:
    """Export, prove, time, print and log."""
    ensure_store(main_root())  # before the work
    output = RESULTS / framework
    seed = seeds[0]  # the first, and never the best: that would be chosen by the test split
    references = RunReferences.read(output / "runs.json", f"run `dvc repro train@{framework}`")
    logits = read_logits(output / "predictions.npz", seed)
    network = Network(framework, seed, backend.model_folder(output, seed), Dataset.open(PREPARED), logits)
    result = run_export(network, export, output / "exports")
    result.write(output / "exports.json")
    print(table_of([result]))
    tracker = Tracker(tracking, main_root())
    if seed in references.seeds:
        values = {
            f"export/{file.format}_{name}": value
            for file in result.files
            for name, value in (
                ("one_image_milliseconds", file.timing.one_image_milliseconds),
                ("images_per_second", file.timing.images_per_second),
                ("mebibytes", file.bytes / 2**20),
                ("largest_difference", file.difference),
            )
        }
        tags = {"stage": "export", "framework": framework, "seed": seed}
        name = f"{framework} s{seed} exported"
        tracker.add_results(references.seeds[seed].run, values, name=name, tags=tags, files=[output / "exports.json"])
    tracker.drain()


if __name__ == "__main__":
    main(sys.argv[1:])
