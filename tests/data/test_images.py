"""Every way that pixels are stored comes out as upright RGB; what is damaged is refused in one line."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from daptune.data import DatasetItem, ImageTable, check_readable, decode, drop_unreadable
from daptune.errors import DataError

RAMP = np.add.outer(np.arange(20), 3 * np.arange(30)).astype(np.uint8)  # (20, 30), 0 to 106
COLOURS = np.stack([RAMP, 2 * RAMP, 255 - RAMP], axis=2)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def pixels(source) -> np.ndarray:
    image = decode(source)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def grey(values) -> np.ndarray:
    return np.repeat(np.asarray(values, dtype=int)[..., None], 3, axis=2)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_keep_the_pixels(kind):
    assert np.array_equal(pixels(encoded(Image.fromarray(COLOURS), kind)), COLOURS)


def test_webp_keeps_the_pixels_when_lossless():
    assert np.array_equal(pixels(encoded(Image.fromarray(COLOURS), "WEBP", lossless=True)), COLOURS)


def test_jpeg_is_close():
    assert np.abs(pixels(encoded(Image.fromarray(COLOURS), "JPEG", quality=95)) - COLOURS).mean() < 4


def test_paths_bytes_and_rows_are_the_same(tmp_path):
    data = encoded(Image.fromarray(COLOURS), "PNG")
    path = tmp_path / "ünïcode 名.png"
    path.write_bytes(data)
    rows = [{"image": cell} for cell in (str(path), data, {"bytes": data, "path": None}, COLOURS)]
    sources = [path, str(path), data, *(DatasetItem(rows, i, "image") for i in range(len(rows)))]
    for source in sources:
        assert np.array_equal(pixels(source), COLOURS)


def test_animations_give_their_first_frame():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "WEBP", "PNG"):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)
        assert np.abs(pixels(data) - [255, 0, 0]).max() <= 2, kind


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_exif_turns_the_image_upright(orientation, kind):
    # where row 0 and column 0 of the stored image lie in the upright one (EXIF 2.3, 4.6.4 A)
    stored = {
        1: COLOURS, 2: COLOURS[:, ::-1], 3: COLOURS[::-1, ::-1], 4: COLOURS[::-1],
        5: COLOURS.transpose(1, 0, 2), 6: np.rot90(COLOURS, 1), 7: np.rot90(COLOURS, 2).transpose(1, 0, 2),
        8: np.rot90(COLOURS, -1),
    }[orientation]  # fmt: skip
    image = Image.fromarray(np.ascontiguousarray(stored))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"exif": exif} if kind == "PNG" else {"tiffinfo": {0x0112: orientation}}
    data = encoded(image, kind, **options)
    assert np.array_equal(pixels(data), COLOURS)
    assert np.array_equal(ImageOps.exif_transpose(Image.open(io.BytesIO(data))), COLOURS)


def test_unknown_or_damaged_exif_is_no_reason_to_refuse():
    exif = Image.Exif()
    exif[0x0112] = 99
    assert np.array_equal(pixels(encoded(Image.fromarray(COLOURS), "PNG", exif=exif)), COLOURS)
    damaged = encoded(Image.fromarray(COLOURS), "PNG", exif=b"Exif\0\0MM\0\x2a\xff\xff\xff\xff")
    assert np.array_equal(pixels(damaged), COLOURS)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_and_not_clipped(kind):
    wide = np.linspace(0, 65535, 600).round().astype(np.uint16).reshape(20, 30)
    expected = np.floor(wide / 65535 * 255 + 0.5)
    assert np.array_equal(pixels(encoded(Image.fromarray(wide), kind)), grey(expected))


def test_sixteen_bits_of_the_other_byte_order():
    image = Image.frombytes("I;16B", (2, 1), struct.pack(">2H", 65535, 257))
    assert pixels(image).tolist() == [[[255] * 3, [1] * 3]]


def test_sixteen_bit_colour_keeps_its_high_bytes():
    """Written by hand: Pillow reads such files but does not write them."""
    rows = b"".join(b"\0" + np.repeat(row.astype(">u2") * 257, 1).tobytes() for row in COLOURS.astype(int))

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">2I5B", 30, 20, 16, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    assert np.array_equal(pixels(b"\x89PNG\r\n\x1a\n" + data), COLOURS)


def test_one_bit_grey_and_palette():
    bits = RAMP > 50
    assert np.array_equal(pixels(encoded(Image.fromarray(bits), "PNG")), grey(bits * 255))
    assert np.array_equal(pixels(encoded(Image.fromarray(RAMP), "PNG")), grey(RAMP))
    palette = Image.fromarray(RAMP // 4).convert("P")
    palette.putpalette([value for i in range(256) for value in (i, 255 - i, 7)])
    expected = np.stack([RAMP // 4, 255 - RAMP // 4, np.full_like(RAMP, 7)], axis=2)
    for kind in ("PNG", "GIF", "BMP", "TIFF"):
        assert np.array_equal(pixels(encoded(palette, kind)), expected), kind


def test_transparency_lies_on_white():
    red = np.zeros((1, 3, 4), dtype=np.uint8)
    red[..., 0], red[..., 3] = 200, [0, 128, 255]
    expected = [[255, 255, 255], [227, 127, 127], [200, 0, 0]]
    for data in (red, Image.fromarray(red), encoded(Image.fromarray(red), "PNG")):
        assert np.abs(pixels(data)[0] - expected).max() <= 1
    shades = np.array([[[0, 0], [0, 255]]], dtype=np.uint8)
    bands = [Image.fromarray(np.ascontiguousarray(shades[..., i])) for i in range(2)]
    assert pixels(encoded(Image.merge("LA", bands), "PNG"))[0].tolist() == [[255] * 3, [0] * 3]


@pytest.mark.parametrize("mode", ["P", "L", "RGB", "1"])
def test_a_transparent_colour_becomes_white(mode):
    image = Image.new("RGB", (2, 1), "black")
    image.putpixel((1, 0), (255, 0, 0) if mode in ("P", "RGB") else (255, 255, 255))
    image = image.convert(mode)
    key = image.getpixel((0, 0))
    result = pixels(encoded(image, "PNG", transparency=key))[0]
    assert result[0].tolist() == [255, 255, 255]
    assert result[1].tolist() == ([255, 0, 0] if mode in ("P", "RGB") else [255, 255, 255])


def test_palette_with_graded_alpha():
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    assert pixels(encoded(image, "PNG", transparency=bytes([0, 255])))[0].tolist() == [[255] * 3, [0, 0, 255]]


def test_cmyk_is_converted():
    inks = Image.merge("CMYK", [Image.new("L", (8, 8), value) for value in (0, 255, 255, 0)])
    for kind in ("JPEG", "TIFF"):
        assert np.abs(pixels(encoded(inks, kind)) - [255, 0, 0]).max() <= 3, kind


def test_arrays_of_every_accepted_shape():
    assert np.array_equal(pixels(COLOURS), COLOURS)
    assert np.array_equal(pixels(COLOURS[::-1, ::2]), COLOURS[::-1, ::2])  # strided
    assert np.array_equal(pixels(RAMP), grey(RAMP))
    assert np.array_equal(pixels(RAMP[..., None]), grey(RAMP))


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (COLOURS / 255, "uint8 pixels"),
        (COLOURS.astype(np.int64), "uint8 pixels"),
        (COLOURS.transpose(2, 0, 1), "height x width"),
        (np.zeros((0, 4, 3), np.uint8), "height x width"),
        (np.zeros(9, np.uint8), "height x width"),
    ],
)
def test_other_arrays_are_refused_in_a_sentence(array, reason):
    with pytest.raises(DataError, match=reason) as caught:
        decode(array)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_truncated_files_are_refused(kind, tmp_path):
    rng = np.random.default_rng(0)
    data = encoded(Image.fromarray(rng.integers(0, 256, (64, 64, 3)).astype(np.uint8)), kind)
    for part in (0.9, 0.5, 0.1):
        path = tmp_path / f"cut {part}.{kind.lower()}"
        path.write_bytes(data[: int(len(data) * part)])
        with pytest.raises(DataError) as caught:
            decode(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"not an image at all", b"%PDF-1.7", b"\xff\xd8\xff" + b"\0" * 99])
def test_what_is_no_image_is_refused(data):
    with pytest.raises(DataError):
        decode(data)


def test_missing_files_and_folders_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"gone\.png: No such file"):
        decode(tmp_path / "gone.png")
    with pytest.raises(DataError, match=r"directory"):
        decode(tmp_path)


def test_bombs_are_refused_by_their_header():
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">2I5B", 50_000, 50_000, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    with pytest.raises(DataError, match=r"50000 x 50000 pixels are over the limit of 100 million"):
        decode(bomb)
    with pytest.raises(DataError, match=r"limit of 0\.0005 million"):
        decode(encoded(Image.fromarray(COLOURS), "PNG"), max_pixels=500)


def test_thirty_two_bits_are_refused():
    with pytest.raises(DataError, match="32 bits"):
        decode(encoded(Image.fromarray(np.full((4, 4), 10**6, np.int32)), "TIFF"))
    with pytest.raises(DataError, match="floats"):
        decode(encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"))


def made_table(tmp_path, sound=(0, 1, 2, 3)):
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    for i, path in enumerate(paths):
        path.write_bytes(encoded(Image.fromarray(COLOURS), "PNG") if i in sound else b"broken")
    return ImageTable(tuple(paths), np.array([0, 0, 1, 1]), ("cat", "dog"))


def test_unreadable_images_are_listed_together_and_left_out(tmp_path, caplog):
    table = made_table(tmp_path, sound=(0, 3))
    report = check_readable(table)
    assert [bad.index for bad in report.unreadable] == [1, 2] and report and report.checked == 4
    assert str(report).startswith("2 of 4 images cannot be read\n") and "1.png" in str(report)
    rest = drop_unreadable(table, report)
    assert [path.name for path in rest.images] == ["0.png", "3.png"] and rest.labels.tolist() == [0, 1]
    assert len(caplog.records) == 1


def test_a_class_left_empty_is_an_error(tmp_path):
    table = made_table(tmp_path, sound=(0, 1))
    with pytest.raises(DataError, match=r"no image of dog can be read \(.*2.png"):
        drop_unreadable(table, check_readable(table, workers=0))
    assert drop_unreadable(table, check_readable(table), every_class=False).counts().tolist() == [2, 0]
    nothing = made_table(tmp_path, sound=())
    with pytest.raises(DataError, match="no image of cat, dog can be read"):
        drop_unreadable(nothing, check_readable(nothing), every_class=False)


def test_a_sound_table_gives_an_empty_report(tmp_path):
    table = made_table(tmp_path)
    report = check_readable(table)
    assert not report and drop_unreadable(table, report) is table
