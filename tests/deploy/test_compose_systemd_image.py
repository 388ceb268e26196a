"""The Compose file, the systemd unit and the Dockerfile: what they must say, whatever else they do."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPOSE = DEPLOY / "compose"


@pytest.fixture(scope="module")
def compose() -> dict:
    return yaml.safe_load((COMPOSE / "compose.yaml").read_text())


# --- Compose ----------------------------------------------------------------------------------------


def test_compose_understands_the_file(tmp_path):
    """By Compose itself: its schema, its variables, its files."""
    if not shutil.which("docker") or subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("no Docker Compose")
    environment = tmp_path / "env"
    command = ["docker", "compose", "-f", COMPOSE / "compose.yaml", "--env-file", environment, "config", "--format", "json"]
    environment.write_text("STORE_USER=a\nSTORE_PASSWORD=b\nGRAFANA_PASSWORD=c\n")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["services"]) == {"minio", "owner", "quarr", "prometheus", "grafana"}
    environment.write_text("STORE_USER=a\nSTORE_PASSWORD=\nGRAFANA_PASSWORD=c\n")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "STORE_PASSWORD" in done.stderr, "an empty password is accepted"


def test_compose_knows_every_word(compose):
    """By the schema that the Compose Specification publishes; see schemas/README.md."""
    schema = json.loads((Path(__file__).parent / "schemas" / "compose-spec.json").read_text())
    # The project's name came into the specification later.
    without_name = {key: value for key, value in compose.items() if key != "name"}
    errors = [f"{list(error.path)}: {error.message}" for error in jsonschema.Draft7Validator(schema).iter_errors(without_name)]
    assert not errors, errors
    wrong = without_name | {"services": {"quarr": {"imagee": "a"}}}
    assert not jsonschema.Draft7Validator(schema).is_valid(wrong)


def test_containers_have_no_rights_they_do_not_need(compose):
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"] and "privileged" not in service, name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "mem_limit" in service, name
        if name not in ("owner", "quarr"):
            assert re.match(r"[1-9]\d*:", service["user"]), f"{name} is root"
    assert not any("docker.sock" in str(service.get("volumes", "")) for service in compose["services"].values())


def test_only_this_machine_reaches_the_ports(compose):
    for name, service in compose["services"].items():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name}: {port}"
    assert compose["networks"]["store"]["internal"] and compose["networks"]["metrics"]["internal"]
    assert compose["services"]["minio"]["networks"] == ["store"]


def test_secrets_are_given_and_never_written_down(compose):
    for name, service in compose["services"].items():
        for key, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|ACCESS_KEY", key):
                assert re.fullmatch(r"\$\{\w+:\?.*\}", value), f"{name}: {key}"
    assert re.findall(r"^\w+PASSWORD=(.*)$", (COMPOSE / "example.env").read_text(), re.M) == ["", ""]


def test_images_are_pinned(compose):
    for name, service in compose["services"].items():
        tag = service["image"].rpartition(":")[2]
        assert tag == "local" and "build" in service or re.search(r"\d", tag), f"{name}: {service['image']}"


def test_files_that_are_mounted_are_there(compose):
    mounted = [entry.split(":") for service in compose["services"].values() for entry in service.get("volumes", [])]
    files = [(COMPOSE / source, mode) for source, _, *mode in mounted if source.startswith(".")]
    assert files and all(path.exists() and mode == ["ro"] for path, mode in files)
    prometheus = yaml.safe_load((COMPOSE / "prometheus.yaml").read_text())
    inside = [target for _, target, *_ in mounted]
    assert set(prometheus["rule_files"]) <= set(inside)
    assert prometheus["scrape_configs"][0]["static_configs"][0]["targets"] == ["quarr:8686"]


def test_grafana_finds_the_dashboard_and_its_source(compose):
    folder = COMPOSE / "grafana" / "provisioning"
    source = yaml.safe_load((folder / "datasources" / "prometheus.yaml").read_text())["datasources"][0]
    assert source["url"] == "http://prometheus:9090" and source["isDefault"]
    path = yaml.safe_load((folder / "dashboards" / "quarr.yaml").read_text())["providers"][0]["options"]["path"]
    assert f"../grafana:{path}:ro" in compose["services"]["grafana"]["volumes"]


# --- systemd ----------------------------------------------------------------------------------------


def test_the_unit_is_understood_and_confined(tmp_path):
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze")
    # It checks that the program is there; here it is another one.
    text = (DEPLOY / "systemd" / "quarr.service").read_text()
    unit = tmp_path / "quarr.service"
    unit.write_text(text.replace("/usr/local/bin/quarr ", "/bin/true "))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "quarr.service" not in done.stderr, done.stderr
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=15", unit]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-400:]


def test_the_unit_ends_gently_and_needs_no_root():
    text = (DEPLOY / "systemd" / "quarr.service").read_text()
    assert "DynamicUser=yes" in text and "ProtectSystem=strict" in text and "CapabilityBoundingSet=\n" in text
    assert int(re.search(r"TimeoutStopSec=(\d+)s", text)[1]) > 30
    settings = (DEPLOY / "systemd" / "quarr.toml").read_text()
    folders = set(re.findall(r"\"(/var/[^\"]*)\"", settings))
    assert folders and all(re.match(r"/var/(lib|cache|log)/quarr", folder) for folder in folders)


# --- Dockerfile -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stages() -> list[list[tuple[str, str]]]:
    """The instructions of each stage of the Dockerfile; first, those before any."""
    text = (DEPLOY / "image" / "Dockerfile").read_text()
    text = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", text, flags=re.M))
    found: list[list[tuple[str, str]]] = [[]]
    for line in filter(None, map(str.strip, text.splitlines())):
        name, _, rest = line.partition(" ")
        if name == "FROM":
            found.append([])
        found[-1].append((name, " ".join(rest.split())))
    return found


def test_both_stages_have_one_pinned_base(stages):
    assert [stage[0][1].split()[0] for stage in stages[1:]] == ["${DEBIAN}", "${DEBIAN}"]
    (argument,) = [rest for name, rest in stages[0] if name == "ARG"]
    assert re.fullmatch(r"DEBIAN=debian:12\.\d+-slim(@sha256:[0-9a-f]{64})?", argument)


def test_the_image_is_not_root_s(stages):
    last = dict(stages[-1])
    assert last["USER"] == "65532:65532" and last["VOLUME"] == '["/var/cache/quarr"]'
    # Nothing after it is done as root, and the entry point is the program, not a shell.
    names = [name for name, _ in stages[-1]]
    assert not {"RUN", "COPY", "ADD"} & set(names[names.index("USER") :])
    assert json.loads(last["ENTRYPOINT"]) == ["/usr/local/bin/quarr"] and json.loads(last["CMD"]) == ["serve"]
    assert 'CMD ["/usr/local/bin/quarr-health"]' in last["HEALTHCHECK"] and last["STOPSIGNAL"] == "SIGTERM"


def test_the_image_has_the_steps_that_are_tested(stages):
    """The same script that the test of the image runs."""
    (run,) = [rest for name, rest in stages[-1] if name == "RUN"]
    assert run.endswith("/steps/install.sh /in/quarr") and "source=deploy/image,target=/steps" in run
    assert subprocess.run(["sh", "-n", DEPLOY / "image" / "install.sh"], check=False).returncode == 0


def test_no_secret_is_in_the_image(stages):
    for stage in stages:
        for name, rest in stage:
            assert name != "ADD"
            assert not (name in ("ENV", "ARG") and re.search("PASSWORD|SECRET|TOKEN|ACCESS_KEY", rest)), rest
    ignored = (DEPLOY / "image" / "Dockerfile.dockerignore").read_text().splitlines()
    assert ignored[1] == "*", "what is not named is sent to the builder"


def test_the_build_gets_all_it_needs(stages):
    """Every crate of the workspace, and what `COPY` names, is let through to the builder."""
    root = DEPLOY.parent
    through = {line[1:] for line in (DEPLOY / "image" / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")}
    members = re.findall(r'^    "(.*)",$', (root / "Cargo.toml").read_text().partition("members = [")[2].partition("]")[0], re.M)
    assert members and set(members) <= through
    assert all((root / name).exists() for name in through)
    copied = [word for name, rest in stages[1] if name == "COPY" for word in rest.split()[:-1] if word != "."]
    assert {word.split("/")[0] for word in copied} <= {name.split("/")[0] for name in through}
