from __future__ import annotations

import gzip
import hashlib
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest

from jobs import datasets as data
from jobs.datasets.idx import IDX_FILES, MNIST_SHA256, TRAIN_IMAGES, TRAIN_LABELS
from jobs.errors import BadInput, DatasetRefused
from jobs.exit_codes import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def refusal(dataset: Path | str) -> str:
    with pytest.raises(DatasetRefused) as caught:
        data.load(str(dataset))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_load_folder_is_named_after_the_folder(small_folder: Path) -> None:
    digits = data.load(str(small_folder))
    assert digits.name == "idx:digits"
    assert digits.location == str(small_folder)
    assert digits.train_images.shape == (30, 28, 28)
    assert digits.train_labels.shape == (30,)
    assert digits.test_images.shape == (20, 28, 28)
    assert digits.test_labels.shape == (20,)


def test_load_folder_hash_is_made_of_the_file_hashes(small_folder: Path, small_files: dict[str, bytes]) -> None:
    hashes = [hashlib.sha256(small_files[spec.stem]).hexdigest() for spec in IDX_FILES]
    digits = data.load(str(small_folder))
    assert [file.sha256 for file in digits.files] == hashes
    assert digits.sha256 == hashlib.sha256("".join(hashes).encode()).hexdigest()


def test_load_folder_compression_and_spelling_do_not_change_the_hash(small_folder: Path) -> None:
    before = data.load(str(small_folder))
    for spec, name in zip(IDX_FILES, ("{0}", "{0}.gz", "{1}", "{1}.gz"), strict=True):
        raw = small_folder / spec.stem
        content = raw.read_bytes()
        raw.unlink()
        path = small_folder / name.format(spec.stem, spec.stem.replace("-idx", ".idx"))
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    after = data.load(str(small_folder))
    assert after.sha256 == before.sha256
    np.testing.assert_array_equal(after.test_images, before.test_images)


def test_load_folder_arrays_are_read_only(small_folder: Path) -> None:
    digits = data.load(str(small_folder))
    for array in (digits.train_images, digits.train_labels, digits.test_images, digits.test_labels):
        assert array.flags.c_contiguous
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_load_folder_files_have_name_size_and_path(small_folder: Path) -> None:
    first = data.load(str(small_folder)).files[0]
    assert first.name == "train-images-idx3-ubyte"
    assert first.content_bytes == 16 + 30 * 784
    assert first.path == small_folder / "train-images-idx3-ubyte"


def test_load_folder_missing_file_is_named(small_folder: Path) -> None:
    (small_folder / "t10k-labels-idx1-ubyte").unlink()
    message = refusal(small_folder)
    assert message.startswith(f"{small_folder}: expected a file t10k-labels-idx1-ubyte or t10k-labels.idx1-ubyte or ")
    assert "found none" in message


def test_load_folder_fewer_labels_than_images_is_refused(small_folder: Path) -> None:
    shutil.copy(small_folder / "t10k-labels-idx1-ubyte", small_folder / "train-labels-idx1-ubyte")
    assert refusal(small_folder) == (
        f"{small_folder / 'train-labels-idx1-ubyte'}: expected 30 labels, as many as there are images in "
        "train-images-idx3-ubyte, found 20; take both files from the same set"
    )


@pytest.mark.parametrize("unknown", ["mnits", "", "/no/such/folder", "~no-such-user/x", "x" * 5000, "a\0b"])
def test_load_unknown_name_is_bad_input(unknown: str) -> None:
    with pytest.raises(BadInput) as caught:
        data.load(unknown)
    assert caught.value.exit_code is ExitCode.BAD_INPUT
    assert "choose mnist, synthetic or a folder of IDX files" in str(caught.value)


def test_load_path_of_a_file_is_bad_input(small_folder: Path) -> None:
    with pytest.raises(BadInput, match="no such data set or folder"):
        data.load(str(small_folder / "train-images-idx3-ubyte"))


def test_load_folder_with_content_of_mnist_is_named_mnist(small_mnist: Path) -> None:
    assert data.load(str(small_mnist)).name == "mnist"


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["raw", "gz"])
def test_load_folder_mnist_with_one_changed_byte_is_refused(
    small_mnist: Path, small_files: dict[str, bytes], pack: Callable[[bytes], bytes]
) -> None:
    content = bytearray(small_files[TRAIN_IMAGES.stem])
    content[1000] ^= 1
    damaged = small_mnist / f"{TRAIN_IMAGES.stem}.gz"
    damaged.write_bytes(pack(bytes(content)))
    wanted, found = MNIST_SHA256[TRAIN_IMAGES.stem][:12], hashlib.sha256(content).hexdigest()[:12]
    assert refusal(small_mnist) == (
        f"{damaged}: expected MNIST's train-images-idx3-ubyte (content sha256 {wanted}…), found other content "
        f"({found}…): a damaged copy of MNIST; copy the file again from its source"
    )


def test_load_mnist_data_dir_is_used_before_the_cache(
    small_mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").mkdir()
    monkeypatch.setenv("MNIST_DATA_DIR", str(small_mnist))
    digits = data.load("mnist")
    assert digits.name == "mnist"
    assert digits.location == str(small_mnist)


def test_load_mnist_wrong_data_dir_is_refused_though_the_cache_is_valid(
    small_mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(small_mnist, tmp_path / "cache")
    monkeypatch.setenv("MNIST_DATA_DIR", str(tmp_path / "nowhere"))
    assert refusal("mnist").startswith(f"MNIST_DATA_DIR is set, but {tmp_path / 'nowhere'}: expected a folder with")
    monkeypatch.setenv("MNIST_DATA_DIR", str(tmp_path))
    assert "expected a file train-images-idx3-ubyte or" in refusal("mnist")


def test_load_mnist_data_dir_with_another_set_is_refused(small_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MNIST_DATA_DIR", str(small_folder))
    message = refusal("mnist")
    assert message.startswith("MNIST_DATA_DIR is set, but ")
    assert "expected MNIST's train-images-idx3-ubyte (content sha256 ba891046e650…)" in message


def test_load_mnist_empty_data_dir_counts_as_unset(
    small_mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(small_mnist, tmp_path / "cache")
    monkeypatch.setenv("MNIST_DATA_DIR", "")
    assert data.load("mnist").location == str(tmp_path / "cache")


@pytest.mark.mnist
def test_load_mnist_real_files_have_the_known_counts(real_mnist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MNIST_DATA_DIR", str(real_mnist))
    digits = data.load("mnist")
    train_counts = np.bincount(digits.train_labels).tolist()
    assert train_counts == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(digits.test_labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert data.load(str(real_mnist)).sha256 == digits.sha256


@pytest.mark.parametrize("beside", ["{}.gz", "dotted", "dotted.gz"])
def test_load_folder_two_files_for_one_name_must_have_the_same_content(small_folder: Path, beside: str) -> None:
    stem = TRAIN_LABELS.stem
    content = (small_folder / stem).read_bytes()
    other = small_folder / (stem.replace("-idx", ".idx") if "dotted" in beside else stem)
    other = other.with_name(other.name + (".gz" if beside.endswith(".gz") else ""))
    pack = gzip.compress if beside.endswith(".gz") else bytes
    other.write_bytes(pack(content))
    alone = data.load(str(small_folder))
    assert alone.files[1].path == small_folder / stem
    other.write_bytes(pack(content[:-1] + b"\x00"))
    with pytest.raises(
        DatasetRefused, match=f"expected the content of {stem} beside it, found other content"
    ) as refusal:
        data.load(str(small_folder))
    assert other.name in str(refusal.value)


def test_load_mnist_damaged_copy_in_the_cache_is_removed(small_mnist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MNIST_CACHE_DIR", str(small_mnist))
    damaged = small_mnist / TRAIN_LABELS.stem.replace("-idx", ".idx")
    packed = small_mnist / f"{damaged.name}.gz"
    for path in (damaged, packed):
        path.write_bytes(b"damaged")
    assert data.load("mnist").name == "mnist"
    assert not damaged.exists()
    assert not packed.exists()


@pytest.mark.parametrize("variable", ["MNIST_DATA_DIR", "MNIST_CACHE_DIR"])
def test_load_mnist_from_the_home_of_an_unknown_user_is_refused(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MNIST_DATA_DIR", raising=False)
    monkeypatch.setenv(variable, "~nobody-has-this-name/mnist")
    with pytest.raises(DatasetRefused, match="there is no such user"):
        data.load("mnist")
