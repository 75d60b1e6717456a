from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from atoll.data import load
from atoll.data.partition import iid, natural
from atoll.errors import DataError


def save(folder: Path, **arrays: object) -> Path:
    np.savez(folder / "data.npz", **arrays)  # type: ignore[arg-type]
    return folder


def test_images_of_a_folder_and_of_a_file(tmp_path: Path) -> None:
    x, y = np.arange(160, dtype=np.uint8).reshape(10, 4, 4), np.arange(10) % 2
    folder = save(tmp_path, x_train=x, y_train=y, x_test=x[:3], y_test=y[:3])
    for path in (folder, folder / "data.npz"):
        data = load(path, partition=iid(num_clients=2))
        assert (data.kind, data.labels) == ("image/label", ("0", "1"))
        assert [row["label"] for row in data.test() or []] == ["0", "1", "0"]
        assert data.rows("client-00", "train")[0]["image"].shape == (4, 4)
    other = load(save(tmp_path, x_train=x + 1, y_train=y), partition=iid(num_clients=2))
    assert other.fingerprint != data.fingerprint


def test_further_arrays_are_columns(tmp_path: Path) -> None:
    x = np.zeros((4, 2, 2), np.uint8)
    folder = save(
        tmp_path, x_train=x, y_train=np.zeros(4, int), client_train=np.array([3, 3, 1, 1])
    )
    assert load(folder, partition=natural()).clients == ("1", "3")


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"images": np.zeros(3)}, "holds the arrays images; images need x_train"),
        ({"x_train": np.zeros(3), "y_train": np.zeros(2)}, "different lengths"),
        ({"x_train": np.zeros(1), "y_train": np.zeros(1), "x_test": np.zeros(1)}, "no y_test"),
        ({"x_train": np.array([{}], object), "y_train": np.zeros(1)}, "not an .npz file of plain"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, arrays: dict[str, object], says: str) -> None:
    with pytest.raises(DataError, match=says):
        load(save(tmp_path, **arrays), partition=iid(num_clients=1))


def test_a_broken_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.npz").write_bytes(b"PK broken")
    with pytest.raises(DataError, match=r"not an \.npz file"):
        load(tmp_path, partition=iid(num_clients=1))
