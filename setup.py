"""Maps the folders at the root to sub-packages of the namespace package `modalign` (see pyproject.toml for everything else)."""

from setuptools import find_namespace_packages, setup

ROOTS = ("zoo", "trainers", "datasets", "configs")
EXCLUDE = ["*.__pycache__*", "*.__pycache__"]
packages = [name for root in ROOTS for name in find_namespace_packages(include=[root, f"{root}.*"], exclude=EXCLUDE)]
setup(packages=[f"modalign.{name}" for name in packages], package_dir={f"modalign.{root}": root for root in ROOTS})
