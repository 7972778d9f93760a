"""Only what pyproject.toml cannot say: packages that are found, one that lies in another folder, and links for the index."""

import re
from pathlib import Path

from setuptools import find_packages, setup

REPOSITORY = "https://github.com/scanner-lenses/scanner"
IMAGE = re.compile(r"!\[([^\]]*)\]\((?!https?:)([^)]+)\)")
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?!https?:|#)([^)]+)\)")


def long_description() -> str:
    """The README with absolute links: a package index shows it without the repository."""
    text = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
    text = IMAGE.sub(rf"![\1]({REPOSITORY}/raw/main/\2)", text)
    return LINK.sub(rf"[\1]({REPOSITORY}/blob/main/\2)", text)


setup(
    packages=[*find_packages(include=["scanner", "scanner.*"]), "scanner.models"],
    long_description=long_description(),
    long_description_content_type="text/markdown",
)
