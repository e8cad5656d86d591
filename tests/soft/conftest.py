import jax
import pytest


@pytest.fixture(autouse=True)
def no_rank_promotion():
    """Broadcasting between different numbers of axes is an error: the mathematics says where its axes are."""
    with jax.numpy_rank_promotion("raise"):
        yield
