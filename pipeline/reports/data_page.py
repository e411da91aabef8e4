"""The page that describes the prepared data, before anything is trained on them."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from filelock import FileLock
from jinja2 import Environment, StrictUndefined
from PIL import Image

from ..config.schema.tracking import TrackingConfig
from ..core import provenance
from ..core.files import atomic_file, write_json, write_text
from ..core.paths import main_root, shown
from ..data.dataset import Dataset, DatasetFacts, balance, missing
from ..data.pixels import Pixels, survey
from ..tracking import views
from ..tracking.delivery import EXPERIMENT_ID, RUN_ID
from ..tracking.journal import is_local
from ..tracking.reader import described
from ..tracking.tracker import Tracker
from .figures import data as figures
from .figures.data import Row
from .figures.style import data_uri, save

_TEMPLATE: Final = Path(__file__).with_name("describe.html.j2")
_MOST_CLASSES: Final = 100
"""Classes with images on the page."""
_MOST_NAMED: Final = 50
"""Skipped images that the page names; the JSON file names all."""
_MOST_REMARKED: Final = 5
"""Names in a note; the JSON file has more."""
_LOSSLESS_VALUES: Final = 4096
"""Pixel values of the largest image that the page holds as PNG; JPEG makes larger ones a fraction of the bytes."""
_PARAGRAPH: Final = 1500
"""Characters of a paragraph in MLflow, which cuts a description at 8,000."""
_CHANNELS: Final = {1: ("grey",), 3: ("red", "green", "blue")}


def describe(dataset: Dataset, output: Path, tracking: TrackingConfig) -> None:
    """Write the page, its figures and `description.json` into `output`; log them to MLflow once for these data."""
    output.mkdir(parents=True, exist_ok=True)
    labels = shown_labels(len(dataset.classes))
    pixels = survey(dataset.split("train"), labels)
    rows = _rows(dataset, labels, pixels)
    description = _description(dataset, pixels, rows)
    write_json(output / "description.json", description)
    size = figures.tile_size(*dataset.image_shape[:2])
    with atomic_file(output / "samples.png") as part:
        figures.sheet(rows, size).save(part)
    pictures = {}
    drawn = {
        "classes": figures.class_counts(dataset.facts.class_counts, dataset.classes),
        "pixels": figures.pixel_values(pixels.histogram),
    }
    for name, figure in drawn.items():
        pictures[name] = data_uri(figure)
        save(figure, output / f"{name}.png")
    write_text(output / "index.html", _page(dataset, description, rows, size, pictures))
    print(f"Data: {output / 'index.html'}")
    print(_track(dataset, description, output, tracking))


def shown_labels(classes: int) -> list[int]:
    """Return the labels whose images the page shows: all, or `_MOST_CLASSES` of them, evenly spread."""
    return np.linspace(0, classes - 1, min(classes, _MOST_CLASSES)).round().astype(int).tolist()  # type: ignore[no-any-return]


def _rows(dataset: Dataset, labels: Sequence[int], pixels: Pixels) -> list[Row]:
    """Take the first images of each class.

    Prepared images are ordered by content, a random order that is the same on every machine.
    """
    train = dataset.split("train")
    wanted = figures.images_in_a_row(*dataset.image_shape[:2], len(dataset.classes))
    rows = []
    for label in labels:
        members = np.flatnonzero(train.labels == label)
        examples = {example: figures.thumbnail(train.images[example]) for example in members[:wanted].tolist()}
        mean = figures.thumbnail(pixels.means[label]) if label in pixels.means else None
        rows.append(Row(label, dataset.classes[label], len(members), mean, examples))
    return rows


def _description(dataset: Dataset, pixels: Pixels, rows: Sequence[Row]) -> dict[str, Any]:
    """Return the content of `description.json`: every number on the page."""
    return dataset.facts.model_dump() | {
        "balance": balance(dataset.facts),
        "notes": notes(dataset.facts),
        "pixel_histogram": pixels.histogram.tolist(),
        "shown": {row.name: list(row.examples) for row in rows},
    }


def notes(facts: DatasetFacts) -> list[str]:
    """Return caveats in sentences: duplicates across splits, empty classes, what was left out or not kept."""
    sentences = []
    if copies := facts.test_images_in_train:
        total = facts.examples["test"]
        sentences.append(
            f"{copies:,} of {total:,} test images ({copies / total:.1%}) are in the training split as well, pixel by "
            "pixel, under the same label or another: a network may have memorised them."
        )
    sentences += missing(facts)
    if skipped := facts.skipped:
        sentences.append(f"Images left out, as they cannot be decoded: {len(skipped):,}.")
    return [*sentences, *(f"{remark.sentence(_MOST_REMARKED)}." for remark in facts.remarks)]


def _page(
    dataset: Dataset,
    description: Mapping[str, Any],
    rows: Sequence[Row],
    size: tuple[int, int],
    pictures: Mapping[str, str],
) -> str:
    """Render the HTML; `size`: width and height of an image on the page; `pictures`: `data:` addresses by name."""
    jinja = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    histogram = np.array(description["pixel_histogram"])
    share = histogram / histogram.sum(axis=1, keepdims=True)
    moments = zip(_CHANNELS[len(share)], description["channel_mean"], description["channel_std"], share, strict=True)
    return jinja.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        data=description,
        total=sum(description["examples"].values()),
        imbalanced=description["balance"].endswith("of the rare classes"),
        rows=[(row, _uri(row.mean), [(example, _uri(x)) for example, x in row.examples.items()]) for row in rows],
        letters=max(8, min(18, *(len(row.name) for row in rows))),
        columns=1 if len(rows) <= figures.COLUMN else 2,
        size=size,
        pictures=pictures,
        channels=[(name, mean, std, values[0], values[255]) for name, mean, std, values in moments],
        skipped=list(description["skipped"].items())[:_MOST_NAMED],
        settings={key: value for key, value in description["source"].items() if value not in (None, {}, [])},
    )


def _uri(picture: Image.Image | None) -> str | None:
    """Encode a picture as a `data:` address: small ones as PNG, large ones as JPEG."""
    if picture is None:
        return None
    lossless = picture.width * picture.height * len(picture.getbands()) <= _LOSSLESS_VALUES
    buffer = io.BytesIO()
    picture.save(buffer, **({"format": "PNG"} if lossless else {"format": "JPEG", "quality": 90}))
    kind = "png" if lossless else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _track(dataset: Dataset, description: Mapping[str, Any], output: Path, tracking: TrackingConfig) -> str:
    """Log the page unless a run of these data has one already; return its address."""
    root = main_root()
    with FileLock(root / "mlflow.db.describe.lock"):  # else two jobs of DVC's queue could both log it
        tracker = Tracker(tracking, root)
        existing = None if tracker.unreachable else described(tracker, dataset.fingerprint)
        reference = existing.id if existing else _log(tracker, dataset, description, output)
    if is_local(reference):
        return f"{output / 'index.html'}"
    where = tracker.link(views.run_page(tracker.experiment_id, reference, "index.html"))
    return f"MLflow{'' if tracker.uri.startswith('http') else ' (`make ui` serves it)'}: {where}"


def _log(tracker: Tracker, dataset: Dataset, description: Mapping[str, Any], output: Path) -> str:
    tags = {
        "stage": "describe",
        "folder": shown(output),
        "data": dataset.name,
        "data.fingerprint": dataset.fingerprint,
        **provenance.origin(),
    }
    source = provenance.data_source(str(dataset.folder), dataset.name)
    numbers = {f"data/{split}_images": count for split, count in description["examples"].items()} | {
        "data/classes": len(dataset.classes),
        "data/test_images_in_train": description["test_images_in_train"],
        "data/skipped_images": len(description["skipped"]),
    }
    with tracker.run(f"data {dataset.name}", tags=tags) as run:
        run.log_params({"data": description["source"]})
        run.log_metrics(numbers, step=0)
        run.log_dataset(name=dataset.name, fingerprint=dataset.fingerprint, context="description", source=source)
        for path in sorted(output.iterdir()):
            run.log_file(path)
        run.describe(_markdown(description, views.run_page(EXPERIMENT_ID, RUN_ID, "index.html"), RUN_ID))
    return run.reference


def _markdown(description: Mapping[str, Any], page: str, run_id: str) -> str:
    """Describe the data for MLflow, with a link to the page and two figures."""
    height, width, channels = description["image_shape"]
    counts = " | ".join(f"{count:,}" for count in description["examples"].values())
    table = [
        f"| image | {' | '.join(description['examples'])} |",
        "|--|--|--|--|",
        f"| {width}x{height} {'grey' if channels == 1 else 'colour'} | {counts} |",
    ]
    paragraphs = [
        f"[The page]({page.removeprefix('/')}) \u00b7 **{_plain(description['balance'])}**",
        "\n".join(table),
        *(_plain(note) for note in description["notes"]),
        *(f"![{name}](get-artifact?run_uuid={run_id}&path={name}.png)" for name in ("samples", "classes")),
    ]
    return "\n\n".join(paragraphs)


def _plain(text: str) -> str:
    """Escape markup, as names come from the user, and cut the text to `_PARAGRAPH` characters."""
    signs = (f"\\{sign}" if sign in "\\`*_[]|#~" else sign for sign in html.escape(" ".join(text.split())))
    return "".join(signs)[:_PARAGRAPH]
