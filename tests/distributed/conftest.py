"""Image files, and a Dask cluster of two processes."""

import pytest
from PIL import Image

from sktransfer.datasets import make_shapes


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """Paths of forty small images."""
    folder = tmp_path_factory.mktemp("files")
    for number, pixels in enumerate(make_shapes(40, image_size=24, random_state=0).data):
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    return sorted(map(str, folder.iterdir()))


@pytest.fixture
def dask_client(dask_cluster):
    dask_cluster.wait_for_workers(2, timeout=60)  # a test before may have killed one
    return dask_cluster


@pytest.fixture(scope="module")  # it would disturb tests that measure memory
def dask_cluster(tmp_path_factory, quick_cluster):
    distributed = pytest.importorskip("distributed", reason="needs the extra dask")
    with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            dashboard_address="127.0.0.1:0",
            local_directory=str(tmp_path_factory.mktemp("dask")),
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client
