"""Small pictures that live inside a web page.

In: 8-bit images of :mod:`scanner.report.colour`, y upwards. Out: WebP as ``data:`` URIs, right way up on a screen; the same
image gives the same bytes with the same version of Pillow.
"""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from scanner.report.colour import UInt8

#: WebP qualities to try in turn until a picture takes no more than :data:`MOST_BYTES`. Chosen by eye at three-fold
#: magnification: the noise hides what the compression does, at a third of the lossless size. Deep noise alone needs the lower.
QUALITIES = (55, 45, 35)
MOST_BYTES = 7_800
#: NISP is small and shown pixel by pixel, where compression shows soonest.
NISP_QUALITIES = (88,)


def data_uri(image: UInt8, qualities: tuple[int, ...] = QUALITIES) -> str:
    """Encode one image (y, x) grey or (y, x, 3) red, green, blue, uint8, as a ``data:image/webp`` URI."""
    picture = Image.fromarray(np.ascontiguousarray(image[::-1]))
    data = b""
    for quality in qualities:
        stream = io.BytesIO()
        picture.save(stream, "WEBP", quality=quality, method=6)
        data = stream.getvalue()
        if len(data) <= MOST_BYTES:
            break
    return "data:image/webp;base64," + base64.b64encode(data).decode("ascii")
