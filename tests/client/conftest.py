import pytest
from client_cases import Clients


@pytest.fixture(params=["Client", "AsyncClient"])
def clients(request):
    """Makes clients of each kind."""
    made = Clients(request.param)
    yield made
    made.close()
