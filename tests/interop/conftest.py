"""What is missing here is named in the closing line; worlds are shared by the tests of a module."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sipnemo.lab import namespace

from .programs import PACKAGES, missing

os.environ["PATH"] += ":/usr/local/sbin:/usr/sbin:/sbin"
"Where Kamailio is, and ordinary users do not look."


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs programs or namespaces that this machine does not have."""
    here = Path(__file__).parent
    ours = [item for item in items if here in item.path.parents]
    if not ours:
        return
    forbidden = namespace.available().splitlines()[:1]
    for item in ours:
        marker = item.get_closest_marker("programs")
        absent = missing(marker.args) if marker else []
        if forbidden:
            item.add_marker(pytest.mark.skip(reason=forbidden[0]))
        elif absent:
            packages = " ".join(PACKAGES[name] for name in absent if PACKAGES[name])
            how = f"apt install {packages}" if packages else "pip install pjsua2-python, where it has a wheel"
            item.add_marker(pytest.mark.skip(reason=f"{', '.join(absent)} not installed ({how})"))


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """Where the programs of this module write; kept by pytest for the last three runs."""
    return tmp_path_factory.mktemp(request.module.__name__.rpartition(".")[2])
