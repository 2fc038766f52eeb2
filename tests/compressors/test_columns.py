"""Every row is read, whatever the format; what is wrong with a row is counted and located."""

from __future__ import annotations

import contextlib
import io
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import save_file

from compressors.columns import describe_dataset
from compressors.descriptions import ColumnDescription, DatasetDescription
from compressors.errors import InvalidData
from compressors.tables import TableLimits
from tests.files import encode_image, random_images, write_parquet


def column(description: DatasetDescription, name: str) -> ColumnDescription:
    return next(c for c in description.columns if c.name == name)


def describe(path: Path, name: str, values: Any) -> ColumnDescription:
    return column(describe_dataset(write_parquet(path / "data.parquet", {name: values})), name)


def test_images_are_decoded_and_labels_counted(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "d", {"image": random_images(700, 6, 9), "label": [i % 7 for i in range(700)]})
    description = describe_dataset(path)
    assert (description.format, description.rows) == ("parquet", 700)
    image, label = description.columns
    assert (image.kind, image.dtype, image.shape) == ("image", "uint8", (3, 6, 9))
    assert (label.kind, label.dtype, label.shape) == ("integer", "int64", ())
    assert (label.minimum, label.maximum, label.distinct) == (0, 6, 7)
    assert image.first_bad_row is None


def test_images_as_hugging_face_writes_them(tmp_path: Path) -> None:
    values = [{"bytes": image, "path": "x.png"} for image in random_images(5, channels=1)]
    found = describe(tmp_path, "image", values)
    assert (found.kind, found.shape) == ("image", (1, 8, 8))


def test_bad_images_are_counted_and_located(tmp_path: Path) -> None:
    images: list[bytes | None] = list(random_images(1000))
    images[700] = images[0][:40]  # type: ignore[index]
    images[800] = None
    images[900] = b"not an image"
    found = describe(tmp_path, "image", images)
    assert (found.kind, found.unreadable, found.nulls, found.first_bad_row) == ("image", 2, 1, 700)


def test_images_of_different_sizes_have_no_shape(tmp_path: Path) -> None:
    assert describe(tmp_path, "image", [*random_images(3, 8, 8), *random_images(3, 9, 8)]).shape is None


def test_a_few_gray_images_among_colour_are_colour(tmp_path: Path) -> None:
    assert describe(tmp_path, "image", [*random_images(3, channels=1), *random_images(3)]).shape == (3, 8, 8)


def test_binary_that_is_no_image(tmp_path: Path) -> None:
    assert describe(tmp_path, "blob", [b"abc", b"def"]).kind == "other"


def test_sixteen_bit_images_are_unreadable_not_clipped(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(buffer, "PNG")
    found = describe(tmp_path, "image", [encode_image(np.zeros((4, 4), np.uint8)), buffer.getvalue()])
    assert (found.unreadable, found.first_bad_row) == (1, 1)


def _png_header(width: int, height: int) -> bytes:
    """A tiny file that claims to be a huge image."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    chunks = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    )
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize("side", [8_100, 11_000, 60_000])
def test_an_image_bomb_is_refused_before_it_is_decoded(side: int, tmp_path: Path) -> None:
    images = [*random_images(600), _png_header(side, side)]
    with pytest.raises(InvalidData, match=r"column 'image', row 600: .*64000000 pixels; resize the images"):
        describe(tmp_path, "image", images)


def test_missing_and_non_finite_numbers(tmp_path: Path) -> None:
    values: list[float | None] = [0.5] * 20_000
    values[9_000], values[15_000], values[15_001] = float("nan"), float("inf"), None
    values[3] = -2.0
    found = describe(tmp_path, "x", values)
    assert (found.kind, found.nulls, found.non_finite, found.first_bad_row) == ("float", 1, 2, 9_000)
    assert (found.minimum, found.maximum) == (-2.0, 0.5)


def test_missing_integers_stay_integers(tmp_path: Path) -> None:
    found = describe(tmp_path, "x", [3, None, 5])
    assert (found.kind, found.nulls, found.first_bad_row, found.distinct) == ("integer", 1, 1, 2)


def test_lists_of_one_length_have_a_shape(tmp_path: Path) -> None:
    found = describe(tmp_path, "ids", [[1, 2, 3], [4, 5, 6]])
    assert (found.kind, found.shape, found.maximum, found.distinct) == ("integer", (3,), 6, None)


def test_nested_lists_and_where_they_are_bad(tmp_path: Path) -> None:
    rows = [[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]] * 4
    found = describe(tmp_path, "x", rows)
    assert found.shape == (3, 2)
    rows = [*rows, [[1.0, 2.0], [3.0, float("nan")], [5.0, float("nan")]], None]  # type: ignore[list-item]
    found = describe(tmp_path, "x", rows)
    assert (found.shape, found.nulls, found.non_finite, found.first_bad_row) == ((3, 2), 1, 1, 4)


def test_fixed_size_lists_with_missing_rows(tmp_path: Path) -> None:
    values = pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int32(), 2))
    found = describe(tmp_path, "x", values)
    assert (found.shape, found.nulls, found.first_bad_row, found.maximum) == ((2,), 1, 1, 4)


def test_ragged_lists_have_no_shape(tmp_path: Path) -> None:
    found = describe(tmp_path, "ids", [[1, 2], [3], []])
    assert (found.kind, found.shape, found.minimum, found.maximum) == ("integer", None, 1, 3)


def test_text_booleans_and_dates(tmp_path: Path) -> None:
    text = describe(tmp_path, "s", ["a", "b", None, "a"])
    assert (text.kind, text.distinct, text.nulls) == ("text", 2, 1)
    assert describe(tmp_path, "s", pa.array(["a", "b"]).dictionary_encode()).kind == "text"
    assert describe(tmp_path, "b", [True, False]).kind == "integer"
    assert describe(tmp_path, "t", pa.array([0, 1], pa.timestamp("s"))).kind == "other"


def test_many_different_values_are_not_counted(tmp_path: Path) -> None:
    assert describe(tmp_path, "x", list(range(10_000))).distinct == 10_000
    assert describe(tmp_path, "x", list(range(10_001))).distinct is None


@pytest.mark.parametrize("compressed", [False, True])
def test_npz(compressed: bool, tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((9000, 2, 3), np.float32)
    images[8999, 1, 2] = np.nan
    save = np.savez_compressed if compressed else np.savez
    save(tmp_path / "data.npz", x=images, label=np.arange(9000) % 3)
    description = describe_dataset(tmp_path / "data.npz")
    assert (description.format, description.rows) == ("npz", 9000)
    x, label = description.columns
    assert (x.kind, x.dtype, x.shape, x.non_finite, x.first_bad_row) == ("float", "float32", (2, 3), 1, 8999)
    assert (label.minimum, label.maximum, label.distinct) == (0, 2, 3)
    assert x.maximum == pytest.approx(float(np.nanmax(images)))


def test_safetensors(tmp_path: Path) -> None:
    save_file({"x": np.zeros((50, 4), np.float16), "y": np.arange(50, dtype=np.int64)}, tmp_path / "data")
    description = describe_dataset(tmp_path / "data")
    assert (description.format, description.rows) == ("safetensors", 50)
    assert (column(description, "x").shape, column(description, "x").dtype) == ((4,), "float16")
    assert column(description, "y").distinct == 50


def test_the_description_survives_json(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "d", {"image": random_images(3), "x": [[1.0], [2.0], [3.0]]})
    description = describe_dataset(path)
    assert DatasetDescription.from_json(description.to_json()) == description


class _Touch:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.marker), "w"))


def test_a_pickled_array_is_refused_and_not_unpickled(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    np.savez(tmp_path / "data.npz", x=np.array([_Touch(marker)], dtype=object))
    marker.unlink(missing_ok=True)
    with pytest.raises(InvalidData, match="column 'x' holds Python objects"):
        describe_dataset(tmp_path / "data.npz")
    assert not marker.exists()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros((3, 2)), "y": np.zeros(4)}, "'x' has 3 rows and 'y' has 4"),
        ({"x": np.float32(1)}, "single number"),
        ({"x": np.zeros((0, 2))}, "no rows"),
        ({}, "no columns"),
        ({"x": np.asfortranarray(np.zeros((3, 2)))}, "Fortran order"),
    ],
)
def test_arrays_that_are_no_table(arrays: dict[str, Any], message: str, tmp_path: Path) -> None:
    if arrays:
        np.savez(tmp_path / "data.npz", **arrays)
    else:
        save_file({}, tmp_path / "data.npz")
    with pytest.raises(InvalidData, match=message):
        describe_dataset(tmp_path / "data.npz")


def test_foreign_members_and_files_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "data.npz", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(InvalidData, match=r"'readme\.txt' is not an array"):
        describe_dataset(tmp_path / "data.npz")
    for content in (b"", b"a,b\n1,2\n", b"PAR1", bytes(100)):
        (tmp_path / "data").write_bytes(content)
        with pytest.raises(InvalidData, match=r"neither parquet|cannot be read"):
            describe_dataset(tmp_path / "data")


def test_an_npz_bomb_and_too_many_rows_are_refused(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "data.npz", x=np.zeros((100_000, 10)))
    assert (tmp_path / "data.npz").stat().st_size < 100_000
    with pytest.raises(InvalidData, match="the limit is 1000000; take a sample"):
        describe_dataset(tmp_path / "data.npz", TableLimits(bytes=1_000_000))
    with pytest.raises(InvalidData, match="100000 rows; the limit is 10"):
        describe_dataset(tmp_path / "data.npz", TableLimits(rows=10))


def test_a_column_name_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["x", "x"]), tmp_path / "d")
    with pytest.raises(InvalidData, match="'x' occurs twice"):
        describe_dataset(tmp_path / "d")


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """One small file of each format."""
    folder = tmp_path_factory.mktemp("samples")
    write_parquet(folder / "parquet", {"image": random_images(4), "ids": [[1], [2, 3], [], [4]], "y": [0, 1, 0, 1]})
    np.savez_compressed(folder / "npz.npz", x=np.ones((4, 3)), y=np.arange(4))
    save_file({"x": np.ones((4, 3), np.float32), "y": np.arange(4)}, folder / "safetensors")
    return [path.read_bytes() for path in sorted(folder.iterdir())]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    which=st.integers(0, 2),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4),
    keep=st.floats(0, 1),
)
def test_damage_never_raises_anything_else(
    which: int, flips: list[tuple[float, int]], keep: float, samples: list[bytes], tmp_path: Path
) -> None:
    content = bytearray(samples[which])
    for position, value in flips:
        content[int(position * len(content))] = value
    if keep < 0.2:
        content = content[: int(keep * 5 * len(content))]
    (tmp_path / "damaged").write_bytes(content)
    with contextlib.suppress(InvalidData):  # anything else fails the test
        describe_dataset(tmp_path / "damaged")
