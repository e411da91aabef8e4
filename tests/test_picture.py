"""What a user's images become: formats, sizes, colours, orientation; and those that cannot be decoded."""

import io
import re
import struct
import warnings
import zlib
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


@pytest.mark.parametrize("bits", [8, 9, 10, 12, 14, 16])
@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_deep_grey_is_scaled_by_the_largest_value_of_all_splits(
    capsys: pytest.CaptureFixture[str], bits: int, suffix: str
) -> None:
    """Whatever split the largest value is in."""
    values = np.arange(30, dtype=np.uint16).reshape(5, 6) << (bits - 5)
    for part in ("train", "test"):
        for number in range(8):
            put(f"images/{part}/{'ab'[number % 2]}/{number}.{suffix}", values + number)
    bright = values.copy()
    bright[0, 0] = 2**bits - 1
    put(f"images/test/b/bright.{suffix}", bright)
    dataset = run()
    wanted = {((v >> (bits - 8)).astype(np.uint8)[..., None].tobytes(), k) for v, k in [(values, "a"), (bright, "b")]}
    assert wanted <= set(held(dataset, *SPLITS))
    line = f"Images of more than 8 bits, divided by {2 ** (bits - 8)}, as no value in the data reaches 2^{bits} (17)"
    assert line in capsys.readouterr().out
    says = [remark.says for remark in dataset.facts.remarks]
    assert says[0] in line
    sets = f"The largest value of more than 8 bits, {2**bits - 1:,}, in test/b/bright.{suffix}, sets the range of all"
    assert [sets in each for each in says[1:]] == [True] * (bits > 8)


@pytest.mark.parametrize("bright", [["test/b/7"], ["train/a/0"], [f"train/{k}/{n}" for n in range(8) for k in "ab"]])
def test_grey_of_which_a_bright_pixel_leaves_few_levels_is_refused(
    capsys: pytest.CaptureFixture[str], bright: list[str]
) -> None:
    """One such pixel in the data, or one in each image, of other values."""
    grey = np.random.default_rng(1).integers(0, 4096, (2, 2, 8, 32, 32)).astype(np.uint16)
    for path in (f"{part}/{kind}/{number}" for part in ("train", "test") for kind in "ab" for number in range(8)):
        part, kind, number = path.split("/")
        image = grey[int(part == "test"), "ab".index(kind), int(number)]
        if path in bright:
            image[0, 0] = 65535 - 1000 * bright.index(path)
        put(f"images/{path}.png", image)
    told = refusal(capsys)
    assert f"Images of more than 8 bits (32): The largest value of more than 8 bits, 65,535, in {bright[0]}.png" in told
    assert re.search("half of the training images keep 1[67] levels or fewer, of grey: fewer than 64 of 256", told)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_images_that_are_as_good_as_black_are_said(capsys: pytest.CaptureFixture[str], dtype: type) -> None:
    for number in range(8):
        put(f"images/a/{number}.png", (CONTENT[number, ..., 0] % 2).astype(dtype))
        put(f"images/b/{number}.png", (CONTENT[number, ..., 1] % 2).astype(dtype))
    line = "The largest value of all images is 1 of 255: they are as good as black"
    assert line in [remark.says for remark in run().facts.remarks]
    assert line in capsys.readouterr().out


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I"])
def test_the_order_of_bytes_does_not_matter(mode: str) -> None:
    values = GREY.astype(np.uint16) * 16
    raw = {"I;16": values, "I;16B": values.astype(">u2"), "I": values.astype(np.int32)}[mode]
    for number in range(8):
        put(f"images/a/{number}.tiff", Image.frombytes(mode, (6, 5), raw.tobytes()))
        put(f"images/b/{number}.tiff", Image.frombytes(mode, (6, 5), raw.tobytes()))
    assert np.array_equal(pixels(run(), "a")[0, ..., 0], GREY)


def test_negative_values_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    fill(a=8, b=8)
    put("images/a/ct.tiff", Image.fromarray(np.full((5, 6), -1000, np.int32)))
    assert "a/ct.tiff: holds values from -1000 to -1000; allowed: whole numbers from 0 on" in refusal(capsys)


def png_of_16_bits(values: np.ndarray) -> bytes:
    """Encode uint16 (height, width, 3), which Pillow cannot write."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, 2, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def ppm_of_16_bits(values: np.ndarray) -> bytes:
    return b"P6 %d %d 65535\n" % values.shape[1::-1] + values.astype(">u2").tobytes()


@pytest.mark.parametrize("bits", [12, 16])
@pytest.mark.parametrize("encode", [png_of_16_bits, ppm_of_16_bits])
def test_deep_colour_is_said_and_refused_where_little_would_be_left(
    capsys: pytest.CaptureFixture[str], bits: int, encode: Callable[[np.ndarray], bytes]
) -> None:
    for number in range(8):
        for kind in "ab":
            path = put(f"images/{kind}/{number}.png", 0)
            path.write_bytes(encode(CONTENT[number].astype(np.uint16) << (bits - 8)))
    if bits == 16:
        found = pixels(run(), "a").astype(int)
        assert min(np.abs(image - CONTENT[3]).max() for image in found) <= 1  # Pillow rounds, or cuts off
        told = capsys.readouterr().out
    else:
        told = refusal(capsys)
        assert re.search("these hold 1[67] levels of 256; allowed", told)
    assert "Images with 16 bits of colour, of which Pillow reads the upper 8 (16): " in told


def test_a_bright_pixel_does_not_hide_how_dark_deep_colours_are(capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(8):
        for kind in "ab":
            values = CONTENT[number].astype(np.uint16) << 4
            values[0, 0, 0] = 65535 if (number, kind) == (0, "a") else 0
            put(f"images/{kind}/{number}.png", 0).write_bytes(png_of_16_bits(values))
    assert re.search("these hold 1[67] levels of 256; allowed", refusal(capsys))


def test_what_is_not_kept_of_an_image_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    fill(a=8, b=8)
    alpha = np.full((5, 6), 255, np.uint8)
    put("images/a/opaque.png", Image.fromarray(np.dstack([CONTENT[20], alpha])))
    put("images/a/clear.png", Image.fromarray(np.dstack([CONTENT[21], alpha // 2])))
    put("images/a/grey.png", Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(GREY)]))
    put("images/a/index.png", Image.fromarray(GREY).convert("P"), transparency=8)
    frames = [Image.fromarray(CONTENT[number]) for number in (30, 31)]
    for suffix in ("gif", "tiff", "webp", "png"):
        put(f"images/b/moving.{suffix}", frames[0], save_all=True, append_images=frames[1:])
    dataset = run()
    told = capsys.readouterr().out
    assert sum(dataset.facts.examples.values()) == 24
    assert "Images whose transparency is dropped: the hidden colours count (3): a/clear" in told
    assert "Images of which only the first frame or page is read (4): b/moving.gif, b/moving.png" in told
    assert {remark.count for remark in dataset.facts.remarks} == {3, 4}


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV", "LAB"])
def test_other_colours_are_read_or_named(capsys: pytest.CaptureFixture[str], mode: str) -> None:
    fill(a=8, b=8)
    put("images/a/other.tiff", Image.new(mode, (6, 5), (10, 20, 30, 40)[: len(mode)])) if mode != "HSV" else None
    dataset = run("corrupt=skip")
    assert sum(dataset.facts.examples.values()) + len(dataset.facts.skipped) == 16 + (mode != "HSV")


def test_the_number_of_pixels_is_bounded_by_a_key(capsys: pytest.CaptureFixture[str]) -> None:
    fill(a=8, b=8)
    put("images/a/large.png", Image.new("RGB", (1500, 1000)))
    told = refusal(capsys, "size=4", "max_megapixels=1")
    assert "a/large.png: Image size (1500000 pixels) exceeds limit of 1000000 pixels" in told
    assert "data.max_megapixels = 1" in told
    assert sum(run("size=4", "max_megapixels=2").facts.examples.values()) == 17


def test_a_huge_image_is_said_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    fill(a=8, b=8)
    put("images/a/huge.png", Image.new("1", (11_000, 10_000)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = run("size=4")
    assert sum(dataset.facts.examples.values()) == 17
    captured = capsys.readouterr()
    assert "Images of more than 89 megapixels, which data.max_megapixels bounds (1): a/huge.png" in captured.out
    assert not captured.err


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
