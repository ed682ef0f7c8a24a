"""Image files of every kind of pixel: what they show is what is read, or the cause is told."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from mutual3d.data.datasets.images import ImageFiles
from mutual3d.data.video.decode import open_video
from mutual3d.data.video.frame_list_reader import FrameListReader
from mutual3d.data.video.reader import VideoError
from mutual3d.data.video.stills import has_image_name, image_size, is_still, read_image

# Every grey once, in 16 rows of 16.
GREY_HW = np.arange(256, dtype=np.uint8).reshape(16, 16)
FINE_HW = (GREY_HW.astype(np.uint16) << 8) + 77


def grey_of(path):
    """The grey that an image shows, the same in all three channels, by all the ways that the project reads images."""
    image_HWC = np.asarray(read_image(path))
    assert image_HWC.dtype == np.uint8 and image_HWC.shape[2] == 3
    assert np.array_equal(FrameListReader([str(path)], 30).read([0])[0], image_HWC)
    assert np.array_equal(np.asarray(ImageFiles([path], [0], ["a"])[0][0]), image_HWC)
    assert (image_HWC == image_HWC[..., :1]).all()
    return image_HWC[..., 0]


def save_tiff(path, array_HW, **tags):
    """A TIFF of raw numbers with tags of one's choice."""
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in tags.items():
        info[int(tag[1:])] = value
    Image.fromarray(array_HW).save(path, tiffinfo=info)
    return path


@pytest.mark.parametrize("name", ["fine.png", "fine.tif", "fine.pgm"])
def test_grey_of_16_bits_keeps_its_picture(tmp_path, name):
    Image.fromarray(FINE_HW).save(tmp_path / name)
    assert np.abs(grey_of(tmp_path / name).astype(int) - GREY_HW).max() <= 0


def test_grey_of_16_bits_from_the_other_end(tmp_path):
    """Big-endian numbers, and TIFF files in which zero is white."""
    path = tmp_path / "big.tif"
    little = save_tiff(tmp_path / "little.tif", FINE_HW)
    with Image.open(little) as image:
        offset = image.tag_v2[273][0]
    content = little.read_bytes()
    assert np.array_equal(np.frombuffer(content, "<u2", 256, offset).reshape(16, 16), FINE_HW)
    # The photometric interpretation is a short of its own in the directory: 1 (black is zero) becomes 0.
    entry = b"\x06\x01\x03\x00\x01\x00\x00\x00"
    assert content.count(entry + b"\x01") == 1
    path.write_bytes(content.replace(entry + b"\x01", entry + b"\x00"))
    assert np.array_equal(grey_of(path), 255 - GREY_HW)


def test_colours_of_16_bits_are_those_of_8(tmp_path):
    """A PNG of 16 bits a channel, written by hand: Pillow writes none."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + np.repeat(row, 3).astype(">u2").tobytes() for row in FINE_HW)
    header = struct.pack(">IIBBBBB", 16, 16, 16, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    assert np.array_equal(grey_of(tmp_path / "a.png"), GREY_HW)


@pytest.mark.parametrize("dtype, words", [(np.float32, "floating-point numbers"), (np.int32, "32 bits")])
def test_numbers_of_no_known_range_are_refused_and_never_black(tmp_path, dtype, words):
    path = save_tiff(tmp_path / "depth.tif", (GREY_HW / 255).astype(dtype))
    with pytest.raises(VideoError, match=f"depth.tif': its pixels are .*{words}.*save it with 8 or 16 bits"):
        read_image(path)
    with pytest.raises(VideoError, match="depth.tif.*line 7 of its frame list"):
        FrameListReader([str(path)], 30, lines=[7]).read([0])


def colours():
    """Red, green, blue and grey quarters."""
    image_HWC = np.full((16, 16, 3), 100, np.uint8)
    for place, channel in (((0, 0), 0), ((0, 8), 1), ((8, 0), 2)):
        image_HWC[place[0] : place[0] + 8, place[1] : place[1] + 8] = np.eye(3, dtype=np.uint8)[channel] * 255
    return image_HWC


def test_palettes_and_inks_show_their_colours(tmp_path):
    image = Image.fromarray(colours())
    image.quantize(4).save(tmp_path / "palette.png")
    image.quantize(4).save(tmp_path / "palette.gif")
    image.convert("CMYK").save(tmp_path / "inks.tif")
    image.convert("CMYK").save(tmp_path / "inks.jpg", quality=100, subsampling=0)
    for name, error in (("palette.png", 0), ("palette.gif", 0), ("inks.tif", 1), ("inks.jpg", 8)):
        assert np.abs(np.asarray(read_image(tmp_path / name)).astype(int) - colours()).max() <= error, name


def test_what_is_transparent_is_shown_on_white(tmp_path):
    """Black letters on nothing would otherwise become a black picture."""
    letters = np.zeros((16, 16, 4), np.uint8)
    letters[4:8, :, 3] = 255
    letters[8:12, :, 3] = 51
    expected = np.full((16, 16), 255)
    expected[4:8], expected[8:12] = 0, 204
    Image.fromarray(letters).save(tmp_path / "rgba.png")
    Image.fromarray(letters).save(tmp_path / "rgba.webp", lossless=True, exact=True)
    Image.fromarray(letters[..., 2:]).save(tmp_path / "la.png")
    for name in ("rgba.png", "rgba.webp", "la.png"):
        assert np.abs(grey_of(tmp_path / name).astype(int) - expected).max() <= 1, name
    palette = Image.fromarray(np.repeat([[0], [1]], 8, 0).repeat(16, 1).astype(np.uint8), mode="P")
    palette.putpalette([0, 0, 0, 90, 90, 90])
    palette.save(tmp_path / "palette.png", transparency=0)
    assert grey_of(tmp_path / "palette.png")[[0, 15], 0].tolist() == [255, 90]


def save_animation(path, count=3):
    pictures = [Image.fromarray(np.full((16, 20, 3), 60 * k, np.uint8)) for k in range(count)]
    options = {"lossless": True} if path.suffix == ".webp" else {}
    pictures[0].save(path, save_all=True, append_images=pictures[1:], **options)
    return path


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.tif"])
def test_several_pictures_are_a_video_and_no_still(tmp_path, name):
    assert has_image_name(name) and not is_still(save_animation(tmp_path / name))
    with pytest.raises(VideoError, match="holds several images, which makes it a video"):
        read_image(tmp_path / name)
    save_animation(tmp_path / name, count=1)
    assert is_still(tmp_path / name) and not grey_of(tmp_path / name).any()


def test_previews_are_no_further_pictures(tmp_path):
    pages = [Image.fromarray(np.full((16, 20, 3), shade, np.uint8)) for shade in (90, 200)]
    pages[0].save(tmp_path / "camera.mpo", format="MPO", save_all=True, append_images=pages[1:])
    with TiffImagePlugin.AppendingTiffWriter(tmp_path / "preview.tif", new=True) as file:
        for page, kind in zip(pages, (0, 1)):
            page.save(file, format="TIFF", tiffinfo={254: kind})
            file.newFrame()
    with Image.open(tmp_path / "preview.tif") as image:
        image.seek(1)
        assert image.n_frames == 2 and image.tag_v2[254] == 1
    for name in ("camera.mpo", "preview.tif"):
        assert is_still(tmp_path / name) and np.abs(grey_of(tmp_path / name).astype(int) - 90).max() <= 1


@pytest.mark.parametrize("content, cause", [(b"%!PS-Adobe-3.0 EPSF-3.0\n", "not an image"), (b"GIF89a", "not an image|damaged")])
def test_what_is_no_image_is_named(tmp_path, content, cause):
    """PostScript, which Pillow would hand to another program, among them."""
    (tmp_path / "a.jpg").write_bytes(content)
    assert is_still(tmp_path / "a.jpg")
    with pytest.raises(VideoError, match=f"a.jpg': .*({cause})"):
        read_image(tmp_path / "a.jpg")
    assert not is_still("clip.mp4") and not has_image_name("clip.mp4")


@pytest.mark.parametrize("name", ["photo.jpg", "photo.png", "photo.tif", "photo.webp"])
@pytest.mark.parametrize("orientation", range(10))
def test_a_photograph_stands_upright(tmp_path, name, orientation):
    """As its EXIF data say, in all eight ways, and as it is for numbers that mean nothing."""
    picture = np.zeros((16, 24, 3), np.uint8)
    picture[:8, :12], picture[:8, 12:], picture[8:, :12] = 60, 120, 180
    image = Image.fromarray(picture)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / name, exif=exif, **({"lossless": True} if "webp" in name else {}))
    assert image_size(tmp_path / name) == read_image(tmp_path / name).size
    turn = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270", 7: "TRANSVERSE",
            8: "ROTATE_90"}.get(orientation)  # fmt: skip
    expected = np.asarray(image.transpose(Image.Transpose[turn]) if turn else image).astype(int)
    found = np.asarray(read_image(tmp_path / name)).astype(int)
    assert found.shape == expected.shape and np.abs(found - expected).max() <= 4
    assert np.array_equal(FrameListReader([name], 30, tmp_path).read([0])[0], found)
    with open_video(tmp_path / name) as reader:
        assert np.array_equal(reader.read([0])[0], found)
