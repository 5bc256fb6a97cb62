"""The OpenAPI description is what the server does: requests made from it, right ones and wrong ones."""

import pytest
from fake_service import FakeService, about
from hypothesis import HealthCheck, settings
from optional import needs
from server_cases import KEY, WITH_KEY

from diffusion_engine.server.app import make_app
from diffusion_engine.server.settings import Settings

schemathesis = needs("schemathesis")


def application():
    service = FakeService(about(), about("field", (5,), 0, False))
    service.models, service.reason = service.about, None
    return make_app(service, Settings(models={"digits": "digits", "field": "a:b"}, key=KEY))


schema = schemathesis.openapi.from_asgi("/openapi.json", application(), headers=WITH_KEY)
# A schema cannot say all: a class that a model lacks, seeds and n that differ. Keys have tests of their own.
UNSAID = schemathesis.checks.CHECKS.get_by_names(["positive_data_acceptance", "ignored_auth"])
QUIET = {
    "deadline": None, "database": None, "derandomize": True, "suppress_health_check": list(HealthCheck),
}  # fmt: skip


@schema.parametrize()
@settings(max_examples=15, **QUIET)
def test_each_route_does_what_is_described(case):
    case.call_and_validate(headers=WITH_KEY, excluded_checks=UNSAID)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@schema.parametrize()
@settings(max_examples=1000, **QUIET)
def test_each_route_does_what_is_described_at_length(case):
    case.call_and_validate(headers=WITH_KEY, excluded_checks=UNSAID)


def test_the_description_is_whole():
    described = application().openapi()
    assert described["components"]["securitySchemes"] == {
        "key": {"type": "http", "scheme": "bearer"}
    }
    for path, methods in described["paths"].items():
        for about_route in methods.values():
            assert ("security" in about_route) == (path not in ("/livez", "/readyz", "/health"))
            assert about_route["summary"] and about_route["description"]
