"""Every way that pixels are stored comes out as upright RGB; what is damaged is refused in one line."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps, TiffImagePlugin

from daptune.data import DatasetItem, ImageTable, Splits, check_readable, decode, drop_unreadable, formats, images
from daptune.data.check import without_missing
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


def tiff(wide: np.ndarray, tags: dict[int, int] | None = None) -> bytes:
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in (tags or {}).items():
        info[tag] = value
        info.tagtype[tag] = 3
    return encoded(Image.fromarray(wide), "TIFF", tiffinfo=info)


def png(wide: np.ndarray, significant: int | None = None) -> bytes:
    content = encoded(Image.fromarray(wide), "PNG")
    if significant is None:
        return content
    chunk = b"sBIT" + bytes([significant])
    return content[:33] + struct.pack(">I", 1) + chunk + struct.pack(">I", zlib.crc32(chunk)) + content[33:]


TWELVE = np.linspace(0, 4095, 600).round().astype(np.uint16).reshape(20, 30)


@pytest.mark.parametrize(
    "source",
    [png(TWELVE), tiff(TWELVE), tiff(TWELVE, {281: 4095}), png(TWELVE, 12), Image.fromarray(TWELVE),
     Image.fromarray(TWELVE.astype(np.int32))],
)  # fmt: skip
def test_twelve_bits_in_sixteen_are_read_over_their_range(source):
    assert np.array_equal(pixels(source), grey(np.floor(TWELVE / 4095 * 255 + 0.5)))


@pytest.mark.parametrize(
    ("source", "white"),
    [(tiff(TWELVE, {281: 8191}), 8191), (tiff(TWELVE, {281: 65535}), 65535), (png(TWELVE, 16), 65535),
     (png(TWELVE * 16, 12), 65535), (tiff(TWELVE // 16), 255), (tiff(TWELVE * 4), 16383)],
)  # fmt: skip
def test_what_the_file_states_goes_before_what_it_uses(source, white):
    wide = np.asarray(Image.open(io.BytesIO(source))).astype(int)
    assert np.array_equal(pixels(source), grey((wide * 255 + white // 2) // white))


def test_twelve_bits_packed_in_a_tiff():
    """Written by hand: two samples in three bytes, BitsPerSample 12."""
    values = [0, 4095, 2048, 1024]
    data = b"".join(struct.pack(">I", (a << 12) | b)[1:] for a, b in zip(values[::2], values[1::2], strict=True))
    tags = [(256, 4), (257, 1), (258, 12), (259, 1), (262, 1), (273, 134), (277, 1), (278, 1), (279, len(data))]
    entries = b"".join(struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, value) for tag, value in tags)
    head = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    assert pixels(head.ljust(134, b"\0") + data)[0, :, 0].tolist() == [0, 255, 128, 64]


def test_a_range_that_is_guessed_is_told_once(caplog):
    images._say_depth.cache_clear()
    for _ in range(3):
        decode(png(TWELVE))
    decode(png(TWELVE, 12))
    decode(png(np.zeros((2, 2), np.uint16)))
    assert len(caplog.records) == 1 and "that use 12 bits are read as 12 bits, so that white is 4095" in caplog.text


@pytest.mark.skipif(not formats.is_readable_suffix(".avif"), reason="this Pillow was built without libavif")
def test_avif_is_read(tmp_path):
    path = tmp_path / "x.avif"
    path.write_bytes(encoded(Image.fromarray(COLOURS), "AVIF", quality=100))
    assert np.abs(pixels(path) - COLOURS).mean() < 6 and formats.is_image_file(path)


HEIC = b"\0\0\0\x18ftypheic" + bytes(60)
AVIF = b"\0\0\0\x18ftypavif" + bytes(60)


def test_pictures_that_are_not_read_here_say_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "_reads_avif", lambda: False)
    monkeypatch.setattr(formats, "_reads_heic", lambda: False)
    with pytest.raises(DataError, match=r"HEIC pictures are not read here: .* pip install 'daptune\[heic\]'"):
        decode(HEIC)
    with pytest.raises(DataError, match=r"AVIF pictures are not read here: .* pip install -U pillow"):
        decode(AVIF)
    (tmp_path / "x.cr2").write_bytes(b"II*\0")
    (tmp_path / "y.jxl").write_bytes(b"\xff\x0a")
    with pytest.raises(DataError, match=r"y.jxl: .jxl files are not read: save them as JPEG or PNG"):
        decode(tmp_path / "y.jxl")
    files = [tmp_path / name for name in ("a.HEIC", "b.heic", "c.avif", "x.cr2", "notes.txt")]
    assert formats.left_out(files) == [
        "1 .avif files were left out: they need a newer Pillow: pip install -U pillow",
        "1 .cr2 files were left out: save them as JPEG or PNG",
        "2 .heic files were left out: they need pillow-heif: pip install 'daptune[heic]'",
    ]
    assert not any(map(formats.is_image_file, files)) and sum(map(formats.is_picture_file, files)) == 4


def test_heic_is_read_where_its_extra_is():
    heif = pytest.importorskip("pillow_heif")
    stream = io.BytesIO()
    heif.from_pillow(Image.fromarray(COLOURS)).save(stream, quality=100)
    assert np.abs(pixels(stream.getvalue()) - COLOURS).mean() < 6


def test_many_unreadable_images_are_one_list_that_ends(tmp_path):
    table = ImageTable(tuple(tmp_path / f"{n}.png" for n in range(50)), np.arange(50) % 2, ("cat", "dog"))
    text = str(check_readable(table))
    assert text.count("\n") == 21 and text.endswith("and 30 more")


def test_what_is_missing_is_said_in_one_line_with_its_cause(tmp_path, caplog):
    path = tmp_path / "there.png"
    path.write_bytes(encoded(Image.fromarray(COLOURS), "PNG"))
    names = ("ant", "bee", "cat")

    def table(labels, there):
        paths = (path if here else tmp_path / "gone" / f"{n}.png" for n, here in enumerate(there))
        return ImageTable(tuple(paths), np.array(labels), names)

    whole = Splits(table([0, 1, 2], [1, 1, 1]))
    assert without_missing(whole, "x") is whole and not caplog.records
    few = Splits(table([0, 1, 2] * 100, [1] * 299 + [0]))
    assert without_missing(few, "x") is few and not caplog.records
    many = without_missing(Splits(table([0, 1, 2, 2], [1, 1, 1, 0]), None, table([0, 1], [0, 0])), "x")
    assert len(many.train) == 3 and many.test is None and many.train.class_names == names
    assert len(caplog.records) == 1
    assert "x: 3 of 6 images are not there, the first" in caplog.text
    assert "none of the 2 test images is there" in caplog.text
    part = without_missing(Splits(table([0, 1, 2, 2], [1, 0, 1, 1])), "x")
    assert part.train.class_names == ("ant", "cat") and part.train.labels.tolist() == [0, 1, 1]
    assert "1 of 3 classes have none: bee" in caplog.text
    known = without_missing(Splits(table([0, 1, 2, 2], [1, 0, 1, 1])), "x", every_class=True)
    assert known.train.class_names == names and len(known.train) == 3
    with pytest.raises(DataError, match=r"2 of 2 images are not there, .*; put the images where their paths say"):
        without_missing(Splits(table([0, 1], [0, 0])), "x")
    lacking = Splits(table([0, 1, 2], [1, 0, 1]), None, table([1], [1]))
    with pytest.raises(DataError, match=r"1 of 4 images are not there.*; bee have no training image: add some"):
        without_missing(lacking, "x")
