"""A sample over HTTP, whoever else is there and whatever happens to its worker, is the sample made alone."""

import pytest
from served_load import check_load

CHOSEN = ("--executor", "native", "--accelerate", "--threads", "measured")


def test_random_requests_beside_each_other_and_across_a_killed_worker(tmp_path):
    (form,) = check_load(tmp_path, 40, 6, "--batch", "fixed", kill=(12,), exact=True)
    assert form.startswith("[null, null, ") and not form.endswith("null]")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_five_hundred_random_requests(tmp_path):
    check_load(tmp_path, 500, 20, "--batch", "fixed", kill=(100, 300), exact=True)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("flags", [
    ("--batch", "fixed", "--accelerate"), ("--batch", "fixed", "--threads", "measured"),
    ("--executor", "native", "--threads", "measured"), ("--batch", "bucket", "--accelerate"), CHOSEN,
], ids=["accelerate", "threads", "native", "bucket", "all"])  # fmt: skip
def test_what_was_measured_is_handed_to_the_next_worker(tmp_path, flags):
    """The cache on disk is gone when the worker is: the server tells the next one what the first chose."""
    check_load(tmp_path, 100, 12, *flags, kill=(30, 60))
