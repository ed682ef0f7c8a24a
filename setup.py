"""What pyproject.toml cannot say: the folder configs/ lies beside the package in a checkout and inside it in the wheel."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["mutual3d", "mutual3d.*"]), "mutual3d.configs"],
    package_dir={"mutual3d.configs": "configs"},
    package_data={"mutual3d": ["py.typed", "report/page.html.j2", "deploy/serve/page/*"], "mutual3d.configs": ["*/*.yaml"]},
)
