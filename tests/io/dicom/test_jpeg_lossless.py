"""Lossless JPEG, bit by bit, and against GDCM on sound pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGLossless

from aide_monai.errors import InputError
from aide_monai.io.dicom import jpeg_lossless
from aide_monai.io.dicom.jpeg_lossless import decode_jpeg_lossless
from tests.io.dicom.dicom_files import write_series


def segment(mark: int, content: bytes) -> bytes:
    return bytes([0xFF, mark]) + (len(content) + 2).to_bytes(2, "big") + content


def frame(rows: int, columns: int, precision: int = 16, components: int = 1) -> bytes:
    size = bytes([precision]) + rows.to_bytes(2, "big") + columns.to_bytes(2, "big")
    return segment(0xC3, size + bytes([components]) + bytes([1, 0x11, 0]) * components)


# 17 codes of five bits: the code of a size is the size itself
TABLE = segment(0xC4, bytes([0, 0, 0, 0, 0, 17, *[0] * 11, *range(17)]))


def scan(predictor: int, bits: str, *, shift: int = 0) -> bytes:
    return segment(0xDA, bytes([1, 1, 0, predictor, 0, shift])) + packed(bits)


def packed(bits: str) -> bytes:
    bits += "1" * (-len(bits) % 8)
    return bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)).replace(b"\xff", b"\xff\0")


def code(difference: int) -> str:
    """Size of the difference in five bits, then its bits; a negative one counts up from all zeros."""
    difference = (difference + 32767) % 65536 - 32767
    size = abs(difference).bit_length()
    if size in (0, 16):
        return f"{size:05b}"
    return f"{size:05b}" + f"{difference if difference > 0 else difference + 2**size - 1:0{size}b}"


def encode(
    picture: np.ndarray, *, predictor: int = 1, precision: int = 16, shift: int = 0, rows_per_piece: int = 0
) -> bytes:
    """The plainest encoder: one pixel after the other."""
    values = (picture >> shift).astype(int)
    rows, columns = values.shape
    height = rows_per_piece or rows
    pieces = []
    for top in range(0, rows, height):
        bits = ""
        for y in range(top, min(top + height, rows)):
            for x in range(columns):
                a, b, c = (
                    values[y, x - 1] if x else 0,
                    values[y - 1, x] if y > top else 0,
                    values[y - 1, x - 1] if x and y > top else 0,
                )
                if y == top:
                    predicted = a if x else 1 << (precision - shift - 1)
                elif not x:
                    predicted = b
                else:
                    guesses = (a, b, c, a + b - c, a + ((b - c) >> 1), b + ((a - c) >> 1), (a + b) >> 1)
                    predicted = guesses[predictor - 1]
                bits += code(int(values[y, x]) - int(predicted))
        pieces.append(packed(bits))
    body = b"".join(
        piece + (bytes([0xFF, 0xD0 + number % 8]) if number + 1 < len(pieces) else b"")
        for number, piece in enumerate(pieces)
    )
    restart = segment(0xDD, (rows_per_piece * columns).to_bytes(2, "big")) if rows_per_piece else b""
    return (
        b"\xff\xd8"
        + frame(rows, columns, precision)
        + TABLE
        + restart
        + scan(predictor, "", shift=shift)
        + body
        + b"\xff\xd9"
    )


def test_four_pixels_by_hand() -> None:
    """The first pixel is predicted as 128; then 130, 130, and below the first one 127."""
    bits = "00010" + "10" + "00000" + "00010" + "00" + "00010" + "10"  # +2, 0, -3, +2
    data = b"\xff\xd8" + frame(2, 2, precision=8) + TABLE + scan(1, bits) + b"\xff\xd9"
    picture = decode_jpeg_lossless(data, rows=2, columns=2)
    assert picture.tolist() == [[130, 130], [127, 129]]
    assert picture.dtype == np.uint16


@pytest.mark.parametrize("predictor", range(1, 8))
@pytest.mark.parametrize("options", [{}, {"rows_per_piece": 3}, {"precision": 12, "shift": 2}])
def test_all_predictors_agree_with_gdcm(tmp_path: Path, predictor: int, options: dict[str, int]) -> None:
    rng = np.random.default_rng(predictor)
    high = 2 ** options.get("precision", 16)
    picture = rng.integers(0, high, (11, 13)).astype(np.uint16) >> options.get("shift", 0) << options.get("shift", 0)
    data = encode(picture, predictor=predictor, **options)
    assert np.array_equal(decode_jpeg_lossless(data, rows=11, columns=13), picture)

    file = write_series(tmp_path, picture.T[..., None], bits_stored=options.get("precision", 16)).files[0]
    dataset = pydicom.dcmread(file)
    dataset.file_meta.TransferSyntaxUID = JPEGLossless
    dataset.PixelData = encapsulate([data])
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(file)
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(file)))[0], picture)


def test_long_pictures_are_read_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = np.random.default_rng(0).integers(0, 65536, (20, 30)).astype(np.uint16)
    for size in (1, 2, 7, 64):
        monkeypatch.setattr(jpeg_lossless, "_CHUNK_BYTES", size)
        assert np.array_equal(decode_jpeg_lossless(encode(picture), rows=20, columns=30), picture)


@pytest.mark.parametrize("first", [0, 32768, 65535])
def test_the_largest_differences(first: int) -> None:
    picture = np.array([[first, 65535 - first, first, (first + 32768) % 65536]], dtype=np.uint16)
    assert decode_jpeg_lossless(encode(picture), rows=1, columns=4).tolist() == picture.tolist()


def test_every_cut_is_told() -> None:
    data = encode(np.random.default_rng(0).integers(0, 65536, (5, 6)).astype(np.uint16))
    for size in range(len(data) - 2):  # the end mark may be missing
        with pytest.raises(InputError, match="JPEG picture"):
            decode_jpeg_lossless(data[:size], rows=5, columns=6)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xff\xd8" + frame(3, 2), "a compressed picture of 3 x 2 pixels; expected 2 x 2 as in the header"),
        (b"\xff\xd8" + frame(2, 2, components=3), "not one component of 2 to 16 bits"),
        (b"\xff\xd8" + frame(2, 2, precision=176), "not one component of 2 to 16 bits"),
        (b"\xff\xd8" + segment(0xC0, bytes(9)), "that is not lossless; expected process 14"),
        (b"\xff\xd8" + segment(0xC4, bytes([0, 3, *[0] * 15, 1, 2, 3])), "with a damaged Huffman table"),
        (b"\xff\xd8" + segment(0xC4, bytes([0, 1, *[0] * 15, 17])), "with a damaged Huffman table"),
        (b"\xff\xd8" + segment(0xC4, bytes([0, 0, 9])), "with a damaged Huffman table"),
        (b"\xff\xd8" + scan(1, ""), "with a damaged scan header"),
        (b"\xff\xd8" + frame(2, 2) + TABLE + scan(9, ""), "unknown predictor or restart interval"),
        (b"\xff\xd8" + frame(2, 2) + TABLE + segment(0xDD, b"\0\3") + scan(1, ""), "unknown predictor or restart"),
        (b"\xff\xd8" + frame(2, 2) + scan(1, ""), "without its Huffman table"),
        (b"\xff\xd8" + frame(2, 2) + TABLE + segment(0xDD, b"\0\2") + scan(1, ""), "1 pieces in a lossless"),
        (b"\xff\xd8" + frame(2, 2) + TABLE + scan(1, "11111" * 9), "truncated or damaged"),
        (b"\x89PNG", "no start of a JPEG picture"),
    ],
)
def test_what_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        decode_jpeg_lossless(data, rows=2, columns=2)
