"""A sample over HTTP, whoever else is there and whatever happens to its worker, is the sample made alone."""

import pytest
from served_load import check_load


def test_random_requests_beside_each_other_and_across_a_killed_worker(tmp_path):
    recipes = check_load(tmp_path, 40, 6, "--batch", "fixed", kill=(12,), exact=True)
    (bucket,) = {recipe["bucket"] for recipe in recipes}
    assert bucket >= 8 and {recipe["network_form"] for recipe in recipes} == {None}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_five_hundred_random_requests(tmp_path):
    check_load(tmp_path, 500, 20, "--batch", "fixed", kill=(100, 300), exact=True)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("flags", [
    ("--batch", "fixed", "--accelerate"), ("--batch", "fixed", "--threads", "measured"),
    ("--executor", "native", "--threads", "measured"), ("--batch", "bucket", "--accelerate"),
], ids=["accelerate", "threads", "native", "bucket"])  # fmt: skip
def test_what_was_measured_is_handed_to_the_next_worker(tmp_path, flags):
    """What is on disk goes before the worker does: the server tells the next one what the first chose."""
    chosen = {}
    for recipe in check_load(tmp_path, 100, 12, *flags, kill=(30, 60)):
        threads = recipe["threads"] if isinstance(recipe["threads"], dict) else {}
        for entries, count in threads.items():
            assert chosen.setdefault(entries, count) == count
        form = recipe["network_form"]
        assert chosen.setdefault(("form", recipe["bucket"]), form) == form
