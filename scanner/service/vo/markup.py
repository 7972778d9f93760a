"""XML by hand, for documents that are written as they come.

In: names, attributes, text. Out: XML. Refused: nothing; characters that XML cannot hold become U+FFFD.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from xml.sax.saxutils import escape, quoteattr

#: Characters that no XML 1.0 document can hold.
NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def element(name: str, attributes: Mapping[str, str], content: str = "", keep: tuple[str, ...] = ()) -> str:
    """An XML element; attributes that are empty are left out, but for those to ``keep``; ``content`` is XML already."""
    written = "".join(f" {key}={_attribute(value)}" for key, value in attributes.items() if value or key in keep)
    return f"<{name}{written}>{content}</{name}>" if content else f"<{name}{written}/>"


def text(content: str) -> str:
    """Text as XML: escaped."""
    return escape(NOT_XML.sub("\ufffd", content))


def _attribute(value: str) -> str:
    return quoteattr(NOT_XML.sub("\ufffd", value))
