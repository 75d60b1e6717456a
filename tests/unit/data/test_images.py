"""Images of every kind become 8 bits of grey or colour; what is no whole image is refused."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from atoll.data import load
from atoll.data.arrays import read_arrays
from atoll.data.images import open_image, placed_image
from atoll.data.partition import iid
from atoll.data.pixels import eight_bits
from atoll.data.rows import canonical
from atoll.data.tables import Table
from atoll.errors import DataError
from tests.support.images import file_bytes, painted, save_picture

RED = painted("red", 1)


def kept(image: Any, folder: Path | None = None) -> Any:
    return placed_image({"image": image, "label": "a"}, folder)["image"]


def seen(image: Any) -> np.ndarray:
    return np.asarray(open_image(kept(image)))


def test_every_way_to_write_an_image_gives_the_same_pixels(tmp_path: Path) -> None:
    content = file_bytes(RED)
    (tmp_path / "a.png").write_bytes(content)
    marked = base64.b64encode(content).decode()
    ways = [
        content, {"bytes": content, "path": None}, {"bytes": None, "path": str(tmp_path / "a.png")},
        str(tmp_path / "a.png"), marked, f"data:image/png;base64,{marked}", RED, RED.tolist(),
        np.moveaxis(RED, -1, 0),
    ]  # fmt: skip
    for way in ways:
        assert np.array_equal(seen(way), RED)
    assert kept("a.png", tmp_path) == str(tmp_path / "a.png"), "a path stays a path"
    assert kept(content) is content


def test_modes() -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(seen(file_bytes(grey)), grey)
    assert np.array_equal(seen(grey[:, :, None]), grey)
    # 16 bits: by scale, where Pillow's own conversion would cut at 255.
    deep = (grey.astype(np.uint16) * 257) + np.uint16(100) * (grey < 255)
    assert np.array_equal(seen(file_bytes(Image.fromarray(deep))), grey)
    wide = file_bytes(Image.fromarray(deep), kind="TIFF")
    assert np.array_equal(seen(wide), grey)
    palette = Image.fromarray(RED).quantize(4)
    assert np.array_equal(seen(file_bytes(palette)), np.asarray(palette.convert("RGB")))
    assert np.asarray(open_image(file_bytes(Image.new("1", (3, 2), 1)))).tolist() == [[255] * 3] * 2
    cmyk = file_bytes(Image.fromarray(RED).convert("CMYK"), kind="JPEG", quality=95)
    assert open_image(cmyk).mode == "RGB"


def test_transparent_images_lie_on_white() -> None:
    clear = np.zeros((2, 2, 4), np.uint8)
    clear[0, 0] = (200, 10, 30, 255)
    clear[0, 1] = (0, 0, 0, 128)
    found = seen(clear)
    assert found[0, 0].tolist() == [200, 10, 30]
    assert abs(int(found[0, 1, 0]) - 127) <= 1
    assert found[1].tolist() == [[255] * 3] * 2
    single = Image.fromarray(np.asarray([[0, 1]], np.uint8), "P")
    single.putpalette([0, 0, 0, 9, 9, 9])
    found = seen(file_bytes(single, transparency=0))
    assert found.tolist() == [[[255] * 3, [9] * 3]]


def test_photos_stand_upright() -> None:
    turned = Image.Exif()
    turned[0x0112] = 6  # shown turned by a quarter to the right
    content = file_bytes(Image.fromarray(RED), kind="PNG", exif=turned)
    assert np.array_equal(seen(content), np.rot90(RED, -1))


def png_of(width: int, height: int) -> bytes:
    """The beginning of a file that promises so many pixels."""
    content = file_bytes(np.zeros((1, 1), np.uint8))
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return content[:12] + head + struct.pack(">I", zlib.crc32(head)) + content[33:]


@pytest.mark.parametrize(("image", "says"), [
    (b"not an image", "`image` is no image; replace the file or remove the row."),
    (file_bytes(RED)[:200], "`image` cannot be read as an image"),
    (file_bytes(RED, kind="JPEG")[:400], "`image` cannot be read as an image"),
    (png_of(30_000, 30_000), "`image` is too large"),
    ({"bytes": b"", "path": None}, "is NoneType; give a path, bytes, base64 or pixels"),
    ("", "`image` is str; give a path"),
    ("x" * 5000, "this image is named in the rows but is not there"),
    ("a\0b", "this image is named in the rows but is not there"),
    ("data:image/png;base64,???", "is a data: URI that is not base64"),
    ([[0, 256]], "whole numbers from 0 to 255"),
    ([[0, -1]], "whole numbers from 0 to 255"),
    ([[0.5]], "whole numbers from 0 to 255"),
    ([], "whole numbers from 0 to 255"),
    ([["a"]], "whole numbers from 0 to 255"),
    ([[1, 2], [3]], "rows of pixels of different lengths"),
    ([1, 2, 3], r"has the shape \(3,\)"),
    (np.zeros((2, 2, 2), np.uint8), r"has the shape \(2, 2, 2\)"),
    (np.zeros((0, 2), np.uint8), r"has the shape \(0, 2\)"),
    (np.zeros((1, 2, 3, 3), np.uint8), r"has the shape \(1, 2, 3, 3\)"),
    (np.full((2, 2), np.nan), "pixels from nan"),
    (np.full((2, 2), -0.5), "pixels from -0.5 to 0"),
    (np.full((2, 2), 70000), "pixels from 70000"),
    (np.full((2, 2), "a"), "pixels are numbers"),
    (file_bytes(Image.fromarray(np.ones((2, 2), np.float32)), kind="TIFF"), "32 bits, mode F"),
])  # fmt: skip
def test_what_is_no_image_is_refused_with_its_place(image: Any, says: str) -> None:
    table = Table("a.jsonl", [{"image": image, "label": "a"}], [7])
    with pytest.raises(DataError, match=says) as caught:
        canonical(table, columns={})
    assert str(caught.value).startswith("a.jsonl:7: ")


def test_a_broken_file_is_named_before_anything_trains(tmp_path: Path) -> None:
    for client in ("ada", "bob"):
        save_picture(tmp_path / client / "1.png", "red", 0)
        save_picture(tmp_path / client / "2.png", "blue", 0)
        rows = ['{"image": "1.png", "label": "r"}', '{"image": "2.png", "label": "b"}']
        (tmp_path / client / "train.jsonl").write_text("\n".join(rows))
    assert load(tmp_path).kind == "image/label"
    broken = tmp_path / "bob" / "2.png"
    broken.write_bytes(broken.read_bytes()[:300])
    with pytest.raises(DataError, match=r"bob/train\.jsonl:2: `image` .*bob/2\.png cannot be read"):
        load(tmp_path)


def test_a_column_of_another_kind_of_row_may_hold_anything(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    rows = '{"messages": [{"role": "user", "content": "x"}], "image": "nowhere.png"}'
    (tmp_path / "a" / "train.jsonl").write_text(rows)
    assert load(tmp_path).kind == "messages"


@given(st.lists(st.integers(0, 255), min_size=1, max_size=9))
def test_number_formats_agree(values: list[int]) -> None:
    plain = np.asarray(values, dtype=np.uint8)
    assert np.array_equal(eight_bits(plain.astype(np.int64)), plain)
    assert np.array_equal(eight_bits(plain.astype(np.uint16) * 257, 65535), plain)
    assert np.array_equal(eight_bits(plain / 255, 1.0), plain)
    assert np.array_equal(eight_bits(plain.astype(np.float32), 255.0), plain)
    assert np.array_equal(eight_bits(plain > 127), np.where(plain > 127, 255, 0))


def test_the_arrays_of_a_file_share_one_scale(tmp_path: Path) -> None:
    dark, bright = np.zeros((2, 3, 3)), np.full((1, 3, 3), 1.0)
    dark[1] = 0.5
    np.savez(tmp_path / "a.npz", x_train=dark, y_train=[0, 1], x_test=bright, y_test=[1])
    tables = read_arrays(tmp_path / "a.npz")
    assert [int(row["image"].max()) for row in tables["train"].rows] == [0, 128]
    np.savez(tmp_path / "b.npz", x_train=dark * 255, y_train=[0, 1], x_test=bright, y_test=[1])
    assert int(read_arrays(tmp_path / "b.npz")["test"].rows[0]["image"].max()) == 1
    np.savez(tmp_path / "c.npz", x_train=dark - 1, y_train=[0, 1])
    with pytest.raises(DataError, match=r"c\.npz, x_train: `image` holds pixels from -1"):
        read_arrays(tmp_path / "c.npz")


@pytest.mark.parametrize(("dtype", "top"), [("uint8", 16), ("uint16", 4095), ("float32", 16)])
def test_a_set_on_a_scale_of_its_own_is_not_read_as_darkness(
    tmp_path: Path, dtype: str, top: int
) -> None:
    images = np.linspace(0, top, 32).reshape(2, 4, 4).astype(dtype)
    np.savez(tmp_path / "a.npz", x_train=images, y_train=[0, 1])
    with pytest.raises(
        DataError, match=rf"a\.npz, x_train: the brightest .* is {top} .*255 / {top}"
    ):
        read_arrays(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", x_train=images * (255 / top), y_train=[0, 1])
    assert int(read_arrays(tmp_path / "a.npz")["train"].rows[1]["image"].max()) == 255
    np.savez(tmp_path / "a.npz", x_train=images * 0, y_train=[0, 1])
    assert not read_arrays(tmp_path / "a.npz")["train"].rows[1]["image"].any()


def test_images_with_texts_from_an_npz_file(tmp_path: Path) -> None:
    texts = np.asarray(["a red thing", "another"])
    np.savez(tmp_path / "a.npz", x_train=np.stack([RED, RED]), text_train=texts)
    data = load(tmp_path / "a.npz", partition=iid(num_clients=1), holdout=0.0)
    assert data.kind == "image/text"
    assert [row["text"] for row in data.rows("client-00", "train")] == texts.tolist()


def test_an_image_that_changes_is_looked_at_again(tmp_path: Path) -> None:
    save_picture(tmp_path / "a.png", "red", 0)
    assert kept("a.png", tmp_path)
    (tmp_path / "a.png").write_bytes(b"something else")
    with pytest.raises(DataError, match="is no image"):
        kept("a.png", tmp_path)


def test_the_first_picture_of_a_film_counts() -> None:
    film = io.BytesIO()
    frames = [Image.new("L", (2, 2), value) for value in (7, 200)]
    frames[0].save(film, "GIF", save_all=True, append_images=frames[1:])
    assert seen(film.getvalue()).reshape(-1)[0] == 7
