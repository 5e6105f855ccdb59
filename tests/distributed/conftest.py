"""One Ray cluster for all tests that ask for it."""

from __future__ import annotations

import importlib.util
import sys

import pytest
import ray_cluster


@pytest.fixture(scope="session")
def cluster():
    """(address of the head, address for clients)."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("ray is not installed: phikit[ray]")
    if sys.platform != "linux":
        pytest.skip("Ray is tested on Linux")
    with ray_cluster.cluster() as addresses:
        yield addresses
