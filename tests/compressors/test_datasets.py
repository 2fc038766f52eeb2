"""Rows come out exactly as a model takes them, decoded once, the same in every process."""

from __future__ import annotations

import hashlib
import io
import multiprocessing
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from safetensors.numpy import save_file

from compressors import decoded_columns
from compressors.columns import describe_dataset
from compressors.datasets import InputColumn, Rows, TargetColumn, open_rows
from compressors.descriptions import TensorDescription
from compressors.errors import InvalidData
from tests.files import encode_image, random_images, write_parquet


def tensor(*shape: int | None, dtype: str = "float32", name: str = "x") -> TensorDescription:
    return TensorDescription(name=name, shape=(None, *shape), dtype=dtype)


def rows_of(path: Path, inputs: Sequence[InputColumn], expected: Sequence[TensorDescription], cache: Path) -> Rows:
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return open_rows(path, describe_dataset(path), inputs, TargetColumn(column="y"), cache, sha256, expected)


def open_one(
    folder: Path, values: Any, expected: TensorDescription, *, scale: float | None = None, pad_to: int | None = None
) -> Rows:
    path = write_parquet(folder / "data.parquet", {"x": values, "y": [i % 2 for i in range(len(values))]})
    return rows_of(path, [InputColumn(column="x", scale=scale, pad_to=pad_to)], [expected], folder / "cache")


def everything(rows: Rows) -> np.ndarray[Any, Any]:
    return rows.inputs(np.arange(len(rows)))[0]


def test_images_are_value_over_255_in_float32(tmp_path: Path) -> None:
    images = random_images(600)
    rows = open_one(tmp_path, images, tensor(3, 8, 8))
    expected = np.stack(
        [
            np.asarray(Image.open(io.BytesIO(i)).convert("RGB"), dtype=np.float32).transpose(2, 0, 1) / 255
            for i in images
        ]
    )
    assert len(rows) == 600
    assert everything(rows).dtype == np.float32
    assert np.array_equal(everything(rows), expected)


def test_jpeg_decodes_as_pillow_does(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    encoded = encode_image(pixels, "JPEG")
    rows = open_one(tmp_path, [encoded] * 3, tensor(3, 16, 16))
    expected = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB")).transpose(2, 0, 1).astype(np.float32) / 255
    assert np.array_equal(everything(rows)[2], expected)


def test_colour_becomes_gray_and_gray_becomes_colour_as_the_model_takes_it(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    gray = everything(open_one(tmp_path, [encode_image(pixels)] * 2, tensor(1, 8, 8)))
    assert np.array_equal(gray[0, 0], pixels.astype(np.float32) / 255)
    colour = everything(open_one(tmp_path, [encode_image(pixels)] * 2, tensor(3, 8, 8)))
    assert np.array_equal(colour[0], np.repeat(gray[0], 3, axis=0))


def test_scale_multiplies(tmp_path: Path) -> None:
    images = random_images(2)
    plain = everything(open_one(tmp_path, images, tensor(3, 8, 8)))
    scaled = everything(open_one(tmp_path, images, tensor(3, 8, 8), scale=255.0))
    assert np.array_equal(scaled, plain * np.float32(255))
    pixels = [[0, 16], [8, 4]]
    assert everything(open_one(tmp_path, pixels, tensor(2), scale=1 / 16)).tolist() == [[0, 1], [0.5, 0.25]]


def test_integers_become_token_ids(tmp_path: Path) -> None:
    ids = everything(open_one(tmp_path, pa.array([[1, 2], [3, 4]], pa.list_(pa.int16())), tensor(None, dtype="int64")))
    assert ids.dtype == np.int64
    assert ids.tolist() == [[1, 2], [3, 4]]


def test_lists_are_padded_and_cut(tmp_path: Path) -> None:
    ids = [[1, 2, 3, 4, 5], [], [6], [7, 8, 9]]
    rows = open_one(tmp_path, ids, tensor(None, dtype="int64"), pad_to=3)
    assert everything(rows).tolist() == [[1, 2, 3], [0, 0, 0], [6, 0, 0], [7, 8, 9]]
    assert everything(open_one(tmp_path, [[1, 2], [3, 4]], tensor(3, dtype="int64"), pad_to=3)).tolist() == [
        [1, 2, 0],
        [3, 4, 0],
    ]


def test_floats_of_any_width_become_float32(tmp_path: Path) -> None:
    values = [[[0.1, 0.2]], [[0.3, 0.4]]]
    found = everything(open_one(tmp_path, values, tensor(1, 2)))
    assert np.array_equal(found, np.array(values, np.float32))


def test_a_channel_of_length_one_may_be_missing(tmp_path: Path) -> None:
    digits = np.arange(32, dtype=np.float32).reshape(2, 4, 4)
    np.savez(tmp_path / "d.npz", x=digits, y=np.arange(2))
    rows = rows_of(tmp_path / "d.npz", [InputColumn(column="x")], [tensor(1, 4, 4)], tmp_path / "cache")
    assert np.array_equal(everything(rows), digits[:, None])


def test_two_inputs_and_other_formats(tmp_path: Path) -> None:
    ids = np.arange(12, dtype=np.int32).reshape(4, 3)
    save_file({"a": ids, "b": ids.astype(np.float64) / 2, "y": np.arange(4)}, tmp_path / "d")
    inputs = [InputColumn(column="b"), InputColumn(column="a", pad_to=4)]
    expected = [tensor(3), tensor(4, dtype="int32")]
    rows = rows_of(tmp_path / "d", inputs, expected, tmp_path / "cache")
    b, a = rows.inputs(np.array([2, 0]))
    assert (str(b.dtype), str(a.dtype)) == ("float32", "int32")
    assert b.tolist() == [[3.0, 3.5, 4.0], [0.0, 0.5, 1.0]]
    assert a.tolist() == [[6, 7, 8, 0], [0, 1, 2, 0]]
    assert rows.target(np.array([3, 1])).tolist() == [3, 1]


def test_subsets_are_views_of_views(tmp_path: Path) -> None:
    rows = open_one(tmp_path, [[float(i)] for i in range(10)], tensor(1))
    some = rows.subset(np.array([9, 7, 5, 3])).subset(np.array([2, 0]))
    assert len(some) == 2
    assert everything(some).tolist() == [[5.0], [9.0]]
    assert some.targets.tolist() == [1, 1]
    for wrong in ([2], [-1]):
        with pytest.raises(InvalidData, match=r"there are rows 0\.\.1"):
            some.inputs(np.array(wrong))
    with pytest.raises(InvalidData, match="a list of integers"):
        rows.inputs(np.array([0.5]))


def test_rows_travel_to_other_processes_as_paths(tmp_path: Path) -> None:
    rows = open_one(tmp_path, random_images(300), tensor(3, 8, 8)).subset(np.arange(100))
    before = everything(rows)
    sent = pickle.dumps(rows)
    assert len(sent) < 5000
    assert np.array_equal(everything(pickle.loads(sent)), before)


def test_the_second_opening_decodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = random_images(5)
    before = everything(open_one(tmp_path, images, tensor(3, 8, 8)))

    def refuse(*_: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(decoded_columns, "_write", refuse)
    assert np.array_equal(everything(open_one(tmp_path, images, tensor(3, 8, 8))), before)
    with pytest.raises(AssertionError, match="decoded again"):  # gray is another address
        open_one(tmp_path, images, tensor(1, 8, 8))


def test_a_failed_decoding_leaves_nothing_behind(tmp_path: Path) -> None:
    images = random_images(5)
    path = write_parquet(tmp_path / "data.parquet", {"x": images, "y": [0, 1, 0, 1, 0]})
    description = describe_dataset(path)
    write_parquet(path, {"x": [*images[:3], images[3][:50], images[4]], "y": [0, 1, 0, 1, 0]})
    with pytest.raises(InvalidData, match=r"column 'x', row 3: .*remove or replace the row"):
        open_rows(
            path,
            description,
            [InputColumn(column="x")],
            TargetColumn(column="y"),
            tmp_path / "c",
            "0" * 64,
            [tensor(3, 8, 8)],
        )
    assert sorted(p.suffix for p in (tmp_path / "c").iterdir()) == [".lock", ".lock", ".npy"]


def _open_in_process(folder: Path, results: Any) -> None:
    path = folder / "data.parquet"
    rows = rows_of(path, [InputColumn(column="x")], [tensor(3, 8, 8)], folder / "cache")
    results.put(float(everything(rows).sum()))


def test_processes_that_open_at_once_agree(tmp_path: Path) -> None:
    write_parquet(tmp_path / "data.parquet", {"x": random_images(400), "y": [i % 2 for i in range(400)]})
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=_open_in_process, args=(tmp_path, results)) for _ in range(3)]
    for process in processes:
        process.start()
    sums = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
    assert len(set(sums)) == 1
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 2
    assert not list((tmp_path / "cache").glob("*.part"))


@pytest.mark.parametrize(
    ("values", "expected", "options", "message"),
    [
        ([b"x"], tensor(3, 8, 8), {}, "holds binary"),
        (random_images(2, 9, 8), tensor(3, 8, 8), {}, r"rows of shape \(3, 9, 8\).*takes \(3, 8, 8\); resize"),
        (random_images(2), tensor(64), {}, "become 1 or 3 channels"),
        (random_images(2), tensor(3, 8, 8, dtype="int64"), {}, "takes int64"),
        ([*random_images(1), *random_images(1, 9, 9)], tensor(3, 8, 8), {}, "resize the images to one size"),
        ([[1, 2], [3]], tensor(None, dtype="int64"), {}, "set pad_to"),
        ([1.5, 2.5], tensor(dtype="int64"), {}, "store token ids as integers"),
        ([1, 2], tensor(), {}, "store it as float32, or give a scale"),
        ([1, 2], tensor(dtype="int64"), {"scale": 2.0}, "leave scale out"),
        (["a", "b"], tensor(None, dtype="int64"), {}, "token ids first"),
        ([1.0, 2.0], tensor(dtype="bfloat16"), {}, "export the model with float32"),
        ([1.0, None], tensor(), {}, "missing values"),
        ([[1.0], [2.0]], tensor(5), {}, r"shape \(1,\).*takes \(5\)"),
    ],
)
def test_columns_that_do_not_fit(
    values: Any, expected: TensorDescription, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidData, match=message):
        open_one(tmp_path, values, expected, **options)


def test_channels_last_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros((2, 8, 6, 3), np.float32), y=np.arange(2))
    with pytest.raises(InvalidData, match="store channels first"):
        rows_of(tmp_path / "d.npz", [InputColumn(column="x")], [tensor(3, 8, 6)], tmp_path / "cache")


def test_targets_and_names_are_checked(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "d", {"x": [1.0, 2.0], "y": ["a", "b"]})
    with pytest.raises(InvalidData, match="'y' holds text; integer or float is needed"):
        rows_of(path, [InputColumn(column="x")], [tensor()], tmp_path / "cache")
    with pytest.raises(InvalidData, match="column 'z' is not in the dataset; it has 'x', 'y'"):
        open_rows(
            path, describe_dataset(path), [InputColumn(column="x")], TargetColumn(column="z"), tmp_path, "0", [tensor()]
        )
    with pytest.raises(InvalidData, match="2 input columns for a model with 1 inputs"):
        rows_of(path, [InputColumn(column="x")] * 2, [tensor()], tmp_path / "cache")


def opened(path: Path, target: TargetColumn, cache: Path, group: str | None = None) -> Rows:
    return open_rows(
        path, describe_dataset(path), [InputColumn(column="x")], target, cache, "0" * 64, [tensor()], group
    )


def test_masks_keep_their_class_ids(tmp_path: Path) -> None:
    """Gray pixels are the ids, palette images hold them as indices, whatever colours the palette has."""
    ids = np.random.default_rng(0).integers(0, 5, (6, 4, 3)).astype(np.uint8)
    encoded = []
    for i, mask in enumerate(ids):
        image = Image.fromarray(mask)
        if i % 2:
            image = image.convert("P")
            image.putdata(mask.ravel().tolist())
            image.putpalette([(7 * k) % 256 for k in range(768)])
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        encoded.append(buffer.getvalue())
    path = write_parquet(tmp_path / "d.parquet", {"x": [1.0] * 6, "y": encoded})
    column = next(c for c in describe_dataset(path).columns if c.name == "y")
    assert (column.minimum, column.maximum) == (ids.min(), ids.max())
    rows = opened(path, TargetColumn(column="y", class_ids=True), tmp_path / "c")
    assert rows.targets.dtype == np.int64
    np.testing.assert_array_equal(rows.targets, ids)


@pytest.mark.parametrize("format", ["RGB", "JPEG"])
def test_images_that_hold_no_class_ids_are_refused(tmp_path: Path, format: str) -> None:
    pixels = np.zeros((4, 4, 3) if format == "RGB" else (4, 4), np.uint8)
    encoded = encode_image(pixels, "PNG" if format == "RGB" else format)
    path = write_parquet(tmp_path / "d.parquet", {"x": [1.0] * 2, "y": [encoded] * 2})
    column = next(c for c in describe_dataset(path).columns if c.name == "y")
    assert column.kind == "image" and column.minimum is None and column.maximum is None
    with pytest.raises(InvalidData, match=r"column 'y', row 0: .*whose pixels are no class ids"):
        opened(path, TargetColumn(column="y", class_ids=True), tmp_path / "c")


@pytest.mark.parametrize("format", ["parquet", "npz"])
def test_lists_of_the_target_end_with_what_does_not_count(tmp_path: Path, format: str) -> None:
    """Also in a column of unsigned numbers, which could not hold it."""
    if format == "parquet":
        lists = pa.array([[1, 2, 3], [4], [5, 6]], pa.list_(pa.uint8()))
        path = write_parquet(tmp_path / "d.parquet", {"x": [1.0, 2.0, 3.0], "y": lists})
        expected = [[1, 2], [4, -100], [5, 6]]
    else:
        path = tmp_path / "d.npz"
        np.savez(path, x=np.ones(3, np.float32), y=np.array([[1], [4], [5]], np.uint8))
        expected = [[1, -100], [4, -100], [5, -100]]
    rows = opened(path, TargetColumn(column="y", length=2, fill=-100), tmp_path / "c")
    assert rows.targets.tolist() == expected


@pytest.mark.parametrize("values", [[[0.5, 1], [2, 3]], [0.5, 2.0], [[1, 0], [0, 1]]])
def test_targets_keep_shape_and_kind(tmp_path: Path, values: list[Any]) -> None:
    path = write_parquet(tmp_path / "d.parquet", {"x": [1.0, 2.0], "y": values})
    targets = opened(path, TargetColumn(column="y"), tmp_path / "c").targets
    assert targets.tolist() == values
    assert targets.dtype == (np.int64 if isinstance(np.ravel(values)[0], np.integer) else np.float32)


def test_groups_follow_their_rows(tmp_path: Path) -> None:
    columns = {"x": [1.0, 2.0, 3.0], "y": [0, 1, 0], "q": pa.array([7, 7, 9], pa.int32()), "t": ["a", "b", "c"]}
    path = write_parquet(tmp_path / "d.parquet", columns)
    target = TargetColumn(column="y")
    rows = pickle.loads(pickle.dumps(opened(path, target, tmp_path / "c", "q").subset(np.array([2, 0]))))
    assert rows.groups(np.array([0, 1])).tolist() == [9, 7]
    assert opened(path, target, tmp_path / "c").groups(np.array([0])) is None
    with pytest.raises(InvalidData, match="group column 't' holds text"):
        opened(path, target, tmp_path / "c", "t")


@pytest.mark.parametrize("format", ["npz", "safetensors"])
@pytest.mark.parametrize("shape", [(3, 4, 2), (3, 2), (3,)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_targets_of_arrays_keep_their_rows(tmp_path: Path, format: str, shape: tuple[int, ...], dtype: type) -> None:
    target: np.ndarray[Any, Any] = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    columns: dict[str, Any] = {"x": np.ones(3, np.float32), "y": target}
    path = tmp_path / f"d.{format}"
    if format == "npz":
        np.savez(path, **columns)
    else:
        save_file(columns, path)
    targets = opened(path, TargetColumn(column="y", class_ids=True), tmp_path / "c").targets
    np.testing.assert_array_equal(targets, target)
    assert targets.dtype == (np.int64 if dtype is np.uint8 else np.float32)
