from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from scanner.report.self_contained import QUALITIES, data_uri


def decode(uri: str) -> np.ndarray:
    head, _, body = uri.partition(",")
    assert head == "data:image/webp;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(body))).convert("RGB"))


def test_the_first_row_of_the_array_is_the_bottom_of_the_picture() -> None:
    image = np.zeros((66, 66, 3), np.uint8)
    image[:10, :10] = (255, 0, 0)
    shown = decode(data_uri(image, (90,)))
    assert shown.shape == (66, 66, 3)
    assert shown[-5, 5, 0] > 200
    assert shown[5, 5].max() < 20


def test_grey_images_stay_grey_and_close_to_what_they_were() -> None:
    image = np.tile(np.linspace(0, 255, 200).astype(np.uint8), (200, 1))
    shown = decode(data_uri(image)).astype(int)
    assert np.abs(shown[..., 0] - image).max() <= 6
    assert np.abs(shown[..., 0] - shown[..., 2]).max() <= 2


def test_same_image_same_bytes() -> None:
    image = np.random.default_rng(2).integers(0, 255, (200, 200, 3)).astype(np.uint8)
    assert data_uri(image) == data_uri(image.copy())


def test_noise_is_compressed_harder() -> None:
    noise = np.random.default_rng(2).integers(0, 90, (200, 200)).astype(np.uint8)
    galaxy = (255 * np.exp(-np.hypot(*(np.indices((200, 200)) - 100)) / 20)).astype(np.uint8)
    assert data_uri(noise) == data_uri(noise, QUALITIES[-1:])
    assert data_uri(galaxy) == data_uri(galaxy, QUALITIES[:1])
