"""Only what pyproject.toml cannot say: packages that are found, and one more that lies in another folder (models/)."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["scanner", "scanner.*"]), "scanner.models"])
