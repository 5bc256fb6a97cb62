"""What deploy/ calls is there: commands, options, files and metrics."""

import json
import re
import shlex
from pathlib import Path

import pytest
import typer
from optional import needs

from diffusion_engine.cli import app

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def text(name):
    return (DEPLOY / name).read_text()


def serving(words):
    """Parses the words of a `serve`, without running it."""
    command = typer.main.get_command(app.app).commands["serve"]
    return command.make_context("serve", list(words)).params


def container():
    """ENTRYPOINT and CMD of the Dockerfile."""
    found = re.findall(r"^(ENTRYPOINT|CMD) (\[.*\])$", text("Dockerfile"), re.MULTILINE)
    return {name: json.loads(words) for name, words in found}


def unit():
    """The keys of the systemd unit."""
    lines = [line for line in text("diffusion-engine.service").splitlines() if "=" in line]
    return dict(line.split("=", 1) for line in lines if not line.startswith("#"))


def test_the_container_starts_the_server():
    made = container()
    assert made["ENTRYPOINT"] == ["diffusion-engine", "serve"]
    given = serving(made["CMD"])
    assert given["host"] == "0.0.0.0" and str(given["key_file"]) == "/run/secrets/key"


def test_the_image_has_what_the_readme_installs():
    (torch,) = re.findall(r"'torch==[\d.*]+'", text("Dockerfile"))
    assert torch in (ROOT / "README.md").read_text()
    assert "[serve]" in text("Dockerfile") and "USER 1000" in text("Dockerfile")


def test_the_composition_builds_that_image_and_keeps_its_key_in_a_file():
    yaml = needs("yaml")
    made = yaml.safe_load(text("compose.yaml"))
    (service,) = made["services"].values()
    context = (DEPLOY / service["build"]["context"]).resolve()
    assert (context / service["build"]["dockerfile"]).is_file() and (context / "setup.py").is_file()
    assert service["read_only"] and service["cap_drop"] == ["ALL"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert set(service["secrets"]) == set(made["secrets"]) == {"key"}
    assert "key" in (DEPLOY / ".gitignore").read_text().split()


def test_the_unit_starts_the_server_and_waits_for_it_to_drain():
    made = unit()
    program, command, *words = shlex.split(made["ExecStart"])
    assert program.endswith("/diffusion-engine") and command == "serve"
    assert serving(words)["key_file"].name == made["LoadCredential"].partition(":")[0]
    settings = needs("diffusion_engine.server.settings").Settings()
    assert float(made["TimeoutStopSec"]) > settings.drain
    assert made["KillMode"] == "mixed"  # a worker that got SIGTERM would be replaced


def test_grace_is_longer_than_draining():
    settings = needs("diffusion_engine.server.settings").Settings()
    (grace,) = re.findall(r"stop_grace_period: (\d+)s", text("compose.yaml"))
    assert float(grace) > settings.drain


def test_the_dashboard_asks_for_metrics_that_the_server_has():
    needs("fastapi")
    from fake_service import FakeService

    from diffusion_engine.server.front import Front
    from diffusion_engine.server.metrics import exposition
    from diffusion_engine.server.settings import Settings

    shown = exposition(Front(FakeService(), Settings())).decode()
    known = set(re.findall(r"^# TYPE (\w+)", shown, re.MULTILINE))
    asked = set(re.findall(r"(diffusion_engine_\w+|process_\w+)", text("grafana.json")))
    assert len(asked) > 12
    missing = {a for a in asked if re.sub(r"_bucket$", "", a) not in known}
    assert not missing, missing


@pytest.mark.parametrize("kind", ["title", "expr"])
def test_the_dashboard_says_everything_once(kind):
    panels = json.loads(text("grafana.json"))["panels"]
    said = [p["title"] for p in panels]
    if kind == "expr":
        said = [t["expr"] for p in panels for t in p["targets"]]
    assert len(said) == len(set(said)) and all(said)


def test_the_page_names_every_setting():
    fields = needs("diffusion_engine.server.settings").Settings.model_fields
    page = (ROOT / "docs/serving.md").read_text()
    assert not [name for name in fields if f"`{name}`" not in page]
