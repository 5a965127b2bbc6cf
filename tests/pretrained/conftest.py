"""Nothing that tests convert stays on the machine."""

import pytest


@pytest.fixture(autouse=True, scope='session')
def cache_folder(tmp_path_factory):
    """Keeps converted weights in a folder of this run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('MMTL_JAX_CACHE', str(tmp_path_factory.mktemp('cache')))
        yield
