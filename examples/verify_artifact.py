"""Checks a winner without any of Bantam's code: top-1 on a test table, and latency against the uncompressed export.

python verify_artifact.py winner.onnx baseline.onnx test.parquet [--image-column image --label-column label]
Needs only onnxruntime, numpy, pyarrow and Pillow.
"""

import argparse
import io
import time

import numpy as np
import onnxruntime as ort
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image


def session(path: str) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def decoded(image: bytes) -> NDArray[np.float32]:
    """Encoded bytes -> float32 CHW in [0, 1]."""
    return np.asarray(Image.open(io.BytesIO(image)).convert("RGB"), dtype=np.float32).transpose(2, 0, 1) / np.float32(
        255
    )


def top1(model: ort.InferenceSession, images: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    name = model.get_inputs()[0].name
    parts = [model.run(None, {name: images[i : i + 256]})[0] for i in range(0, len(images), 256)]
    return float((np.concatenate(parts).argmax(1) == labels).mean())


def p50(model: ort.InferenceSession, row: NDArray[np.float32], repeats: int) -> float:
    name, times = model.get_inputs()[0].name, []
    for _ in range(repeats):
        start = time.perf_counter()
        model.run(None, {name: row})
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("winner", "baseline", "test"):
        parser.add_argument(name)
    parser.add_argument("--image-column", default="image")
    parser.add_argument("--label-column", default="label")
    parser.add_argument("--rounds", type=int, default=31)
    args = parser.parse_args()

    table = pq.read_table(args.test, columns=[args.image_column, args.label_column])
    images = np.stack([decoded(value) for value in table[args.image_column].to_pylist()])
    labels = table[args.label_column].to_numpy()
    winner, baseline = session(args.winner), session(args.baseline)
    for name, model in (("winner", winner), ("baseline", baseline)):
        print(f"{name:8} top-1 {top1(model, images, labels):.6f} on {len(labels)} rows")

    # Rounds alternate the two models, so that a noisy machine moves both; the first round warms up and is dropped.
    pairs = np.array([[p50(model, images[:1], 40) for model in (winner, baseline)] for _ in range(args.rounds + 1)])[1:]
    ratios = pairs[:, 0] / pairs[:, 1]
    draws = np.random.default_rng(0).choice(ratios, (2000, len(ratios)))
    low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    ms = np.median(pairs, axis=0) * 1e3
    print(f"latency  {ms[0]:.4f} ms against {ms[1]:.4f} ms, one thread, batch 1")
    print(f"ratio    {np.median(ratios):.4f}, 95 % interval {low:.4f} to {high:.4f}")


if __name__ == "__main__":
    main()
