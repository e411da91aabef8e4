"""What a user's images become: formats, sizes, colours, orientation; and those that cannot be decoded."""

import io
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from own_images import CONTENT, fill, held, pixels, put, refusal, run
from PIL import Image, ImageOps

from pipeline.data.dataset import SPLITS
from pipeline.data.images import Form


@pytest.fixture(autouse=True)
def _workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current folder is an empty one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)


# what an image becomes ----------------------------------------------------------------------------

FORMATS = ("png", "PNG", "bmp", "gif", "tiff", "webp", "ppm", "jpeg", "jpg")


def test_every_usual_format_gives_the_same_pixels() -> None:
    content = np.kron(np.array([[0, 255], [255, 85]], np.uint8), np.ones((8, 8), np.uint8))
    for suffix in FORMATS:
        put(f"images/a/{suffix}.{suffix}", content, **({"lossless": True} if suffix == "webp" else {}))
        put(f"images/b/{suffix}.{suffix}", 255 - content, **({"lossless": True} if suffix == "webp" else {}))
    found = pixels(run("channels=1"), "a").astype(int)
    assert found.shape == (len(FORMATS), 16, 16, 1)
    assert np.abs(found[..., 0] - content).max() <= 12  # JPEG
    assert sum(np.array_equal(image[..., 0], content) for image in found) >= len(FORMATS) - 2


RED, GREEN, BLUE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0)
FLAG = np.repeat(np.repeat(np.array([[RED, GREEN, BLUE]], np.uint8), 40, axis=1), 40, axis=0)  # 120 x 40


@pytest.mark.parametrize("turned", [False, True], ids=["wide", "high"])
@pytest.mark.parametrize(
    ("fit", "wanted"),
    {
        "crop": [[GREEN] * 3] * 3,
        "pad": [[BLACK] * 3, [RED, GREEN, BLUE], [BLACK] * 3],
        "stretch": [[RED, GREEN, BLUE]] * 3,
    }.items(),
)
def test_an_image_of_another_shape_is_cropped_padded_or_stretched(
    fit: str, wanted: list[list[tuple[int, int, int]]], turned: bool
) -> None:
    fill(a=0, b=8)
    flag, expected = FLAG, np.array(wanted, np.uint8)
    if turned:
        flag, expected = flag.transpose(1, 0, 2), expected.transpose(1, 0, 2)
    for number in range(8):
        put(f"images/a/{number}.png", flag)
    found = pixels(run("size=30", f"fit={fit}"), "a")
    assert found.shape == (8, 30, 30, 3)
    assert np.array_equal(found[0, 5::10, 5::10], expected)


def test_height_and_width_may_differ_and_come_in_this_order() -> None:
    fill(a=8, b=8)
    assert run("size=[4,9]").image_shape == (4, 9, 3)


def test_images_of_several_sizes_ask_for_one(capsys: pytest.CaptureFixture[str]) -> None:
    fill(a=8, b=8)
    put("images/b/9.png", CONTENT[0][:, :4])
    told = refusal(capsys)
    assert "data.size = None: images of several sizes: a/0.png has 6x5 pixels, b/9.png 4x5" in told
    assert "data.size=32" in told
    assert "data.fit=crop, pad or stretch" in told
    assert run("size=4").image_shape == (4, 4, 3)


GREY = np.arange(0, 240, 8, dtype=np.uint8).reshape(5, 6)
KINDS: dict[str, tuple[Image.Image, np.ndarray]] = {
    "grey": (Image.fromarray(GREY), GREY[..., None]),
    "black and white": (Image.fromarray(GREY > 100), np.where(GREY > 100, 255, 0)[..., None]),
    "grey and alpha": (Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(GREY)]), GREY[..., None]),
    "16 bits": (Image.fromarray(GREY.astype(np.uint16) * 256 + 255), GREY[..., None]),
    "colour": (Image.fromarray(CONTENT[0]), CONTENT[0]),
    "palette": (Image.fromarray(GREY).convert("P"), np.repeat(GREY[..., None], 3, axis=2)),
    "colour and alpha": (Image.fromarray(np.dstack([CONTENT[0], GREY])), CONTENT[0]),
}


@pytest.mark.parametrize(("image", "wanted"), KINDS.values(), ids=KINDS)
def test_every_kind_of_pixels_becomes_8_bits_of_grey_or_colour(image: Image.Image, wanted: np.ndarray) -> None:
    for number in range(8):
        put(f"images/a/{number}.png", image)
        put(f"images/b/{number}.png", image)
    dataset = run()
    assert dataset.image_shape == wanted.shape
    assert all(np.array_equal(found, wanted) for found in pixels(dataset, "a"))


@pytest.mark.parametrize("where", ["images/train/b", "images/test/b"])
def test_one_colour_image_makes_all_of_them_colour(where: str) -> None:
    for number in range(300):  # more than are decoded at once
        put(f"images/train/{'ab'[number % 2]}/{number}.png", CONTENT[number % 50, ..., 0])
        put(f"images/test/{'ab'[number % 2]}/{number}.png", CONTENT[number % 50, ..., 1])
    put(f"{where}/last.png", 0)
    dataset = run()
    assert dataset.image_shape == (5, 6, 3)
    assert (CONTENT[0].tobytes(), "b") in held(dataset, *SPLITS)
    grey = pixels(dataset, "a")
    assert np.array_equal(grey[..., 0], grey[..., 2])


@pytest.mark.parametrize("channels", [1, 3])
def test_the_channels_can_be_chosen(channels: int) -> None:
    for number in range(8):
        put(f"images/a/{number}.png", number)
        put(f"images/b/{number}.png", CONTENT[number, ..., 0])
    dataset = run(f"channels={channels}")
    assert dataset.image_shape == (5, 6, channels)
    wanted = np.array(Image.fromarray(CONTENT[3]).convert("L"))[..., None] if channels == 1 else CONTENT[3]
    assert (wanted.tobytes(), "a") in held(dataset, *SPLITS)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_as_its_camera_was_held(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.open(put("turned.png", 0, exif=exif))
    assert np.array_equal(Form(None, "crop", None).apply(stored), np.asarray(ImageOps.exif_transpose(stored)))


def test_damaged_camera_data_do_not_make_an_image_unreadable() -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E], exif[0x011A] = 6, "a picture", 72.0
    content, refused = put("whole.jpg", 0, exif=exif).read_bytes(), 0
    start = content.index(b"Exif\0\0") + 6
    for position in range(start + 8, content.index(b"a picture")):
        image = Image.open(io.BytesIO(content[:position] + b"\0" + content[position + 1 :]))
        assert sorted(Form(None, "crop", None).apply(image).shape) == [3, 5, 6]
        try:
            ImageOps.exif_transpose(image)
        except Exception:
            refused += 1
    assert refused


# images that cannot be decoded --------------------------------------------------------------------


def truncated(suffix: str, share: float = 0.6) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.kron(CONTENT[0], np.ones((9, 9, 1), np.uint8))).save(out, suffix)
    return out.getvalue()[: int(len(out.getvalue()) * share)]


def bomb() -> bytes:
    out = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(out, "png")
    return out.getvalue()


CORRUPT: dict[str, Callable[[], bytes]] = {
    "empty.png": lambda: b"",
    "text.jpg": lambda: b"<html>not found</html>",
    "float.tiff": lambda: put("f.tiff", Image.fromarray(np.zeros((5, 6), np.float32))).read_bytes(),
    "bomb.png": bomb,
    **{
        f"cut.{suffix}": lambda suffix=suffix: truncated(suffix)
        for suffix in ("png", "jpeg", "gif", "tiff", "webp", "avif")
    },  # type: ignore[misc]
}


def test_images_that_cannot_be_decoded_are_all_named_with_the_way_out(capsys: pytest.CaptureFixture[str]) -> None:
    fill(a=8, b=8)
    for name, content in CORRUPT.items():
        Path("images/b", name).write_bytes(content())
    told = refusal(capsys)
    assert "cannot be decoded" in told
    assert "data.corrupt=skip" in told
    assert all(f"b/{name}: " in told for name in CORRUPT)


def test_images_that_cannot_be_decoded_can_be_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    wanted = Counter((CONTENT[n].tobytes(), "ab"[n // 8]) for n, _ in enumerate(fill(a=8, b=8)))
    for name, content in CORRUPT.items():
        Path("images/b", name).write_bytes(content())
    dataset = run("corrupt=skip")
    assert held(dataset, *SPLITS) == wanted
    assert set(dataset.facts.skipped) == {f"b/{name}" for name in CORRUPT}
    said = capsys.readouterr().out
    assert "left out, as they cannot be decoded" in said
    assert all(f"b/{name}: " in said for name in CORRUPT)


def test_of_many_images_that_cannot_be_decoded_ten_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    fill(a=8, b=8)
    for number in range(1_234):
        Path(f"images/a/bad{number:04}.png").touch()
    told = refusal(capsys)
    assert told.count("a/bad") == 10
    assert "and 1,224 more" in told


def test_a_part_of_which_nothing_can_be_decoded_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    fill("images/train", a=8, b=8)
    for kind in "ab":
        put(f"images/test/{kind}/1.png", 0).write_bytes(b"")
    told = refusal(capsys, "corrupt=skip")
    assert "data.name = folder: no image for test" in told


def test_a_class_of_which_nothing_can_be_decoded_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    fill(a=8, b=8)
    for path in Path("images/b").iterdir():
        path.write_bytes(b"")
    run("corrupt=skip")
    assert "the smallest b (0): none to learn from; imbalanced" in capsys.readouterr().out
