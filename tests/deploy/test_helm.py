"""The chart, rendered by Helm itself and checked against the schemas of Kubernetes."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

CHART = Path(__file__).parents[2] / "deploy" / "helm" / "quarr"
VALUES = sorted((CHART / "ci").glob("*.yaml"))
# The oldest and the newest Kubernetes whose schemas are checked.
VERSIONS = ("1.29", "1.34")
# Of the Prometheus operator: their schemas are not Kubernetes's.
FOREIGN = {"ServiceMonitor", "PrometheusRule"}


@pytest.fixture(scope="session")
def helm() -> str:
    found = shutil.which("helm") or shutil.which("helm", path=Path.home() / "go" / "bin")
    if not found:
        pytest.skip("Helm is not installed")
    return found


def render(helm: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [helm, "template", "data", CHART, "--namespace", "quarr", "--kube-version", "1.31.0", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def manifests(text: str) -> list[dict]:
    return [document for document in yaml.safe_load_all(text) if document]


@pytest.fixture(scope="session")
def rendered(helm) -> dict[str, list[dict]]:
    """What each file of values becomes."""
    found = {}
    for values in VALUES:
        done = render(helm, "-f", values)
        assert done.returncode == 0, f"{values.name}: {done.stderr}"
        found[values.stem] = manifests(done.stdout)
    return found


def pods(documents: list[dict]) -> list[dict]:
    """The specifications of the pods of all workloads."""
    found = []
    for document in documents:
        if document["kind"] == "Deployment":
            found.append(document["spec"]["template"]["spec"])
        if document["kind"] == "CronJob":
            found.append(document["spec"]["jobTemplate"]["spec"]["template"]["spec"])
    return found


def of_kind(documents: list[dict], kind: str) -> dict:
    (found,) = [document for document in documents if document["kind"] == kind]
    return found


def environment(pod: dict) -> dict[str, str]:
    return {entry["name"]: entry.get("value", "") for entry in pod["containers"][0]["env"]}


def test_helm_finds_nothing_wrong(helm):
    for values in VALUES:
        done = subprocess.run([helm, "lint", "--strict", CHART, "-f", values], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("values", [path.stem for path in VALUES])
def test_manifests_are_kubernetes(rendered, values, version):
    for document in rendered[values]:
        if document["kind"] not in FOREIGN:
            kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("values", [path.stem for path in VALUES])
def test_pods_have_no_rights_they_do_not_need(rendered, values):
    """The profile `restricted` of the Pod Security Standards, and a root file system that is read only."""
    for pod in pods(rendered[values]):
        assert pod["automountServiceAccountToken"] is False and not pod.get("hostNetwork")
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True and security["runAsUser"] == 65532
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False and context["privileged"] is False
            assert context["readOnlyRootFilesystem"] is True and context["capabilities"] == {"drop": ["ALL"]}
        for volume in pod["volumes"]:
            assert "hostPath" not in volume
            assert "emptyDir" not in volume or re.fullmatch(r"\d+(Mi|Gi)", volume["emptyDir"]["sizeLimit"])


@pytest.mark.parametrize("values", [path.stem for path in VALUES])
def test_resources_are_bounded_and_quarr_knows(rendered, values):
    for pod in pods(rendered[values]):
        container = pod["containers"][0]
        limit = mebibytes(container["resources"]["limits"]["memory"])
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        told = environment(pod)
        assert int(told["QUARR_MEMORY_LIMIT"].removesuffix("MiB")) == limit * 75 // 100
        (cache,) = [volume["emptyDir"] for volume in pod["volumes"] if volume["name"] == "cache"]
        assert int(told["QUARR_CACHE_DISK"].removesuffix("MiB")) <= mebibytes(cache["sizeLimit"]) * 9 // 10
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounts["cache"] == told["QUARR_CACHE_DIR"] == told["TMPDIR"]


def mebibytes(quantity: str) -> int:
    return int(quantity[:-2]) * {"Mi": 1, "Gi": 1024}[quantity[-2:]]


@pytest.mark.parametrize("values", [path.stem for path in VALUES])
def test_probes_ask_what_they_mean(rendered, values):
    """A failing store must not restart the process: /livez does not ask it, /readyz does."""
    deployment = of_kind(rendered[values], "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    paths = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "liveness", "readiness")}
    assert paths == {"startup": "/livez", "liveness": "/livez", "readiness": "/readyz"}
    scheme = "HTTPS" if "QUARR_TLS_CERT" in environment(pod) else "HTTP"
    assert all(container[f"{name}Probe"]["httpGet"]["scheme"] == scheme for name in paths)
    # Draining and 30 s for requests in flight.
    drain = int(environment(pod)["QUARR_DRAIN_DELAY"].removesuffix("s"))
    assert pod["terminationGracePeriodSeconds"] > drain + 30
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


@pytest.mark.parametrize("values", [path.stem for path in VALUES])
def test_selectors_find_the_pods_of_the_service_alone(rendered, values):
    documents = rendered[values]
    labels = of_kind(documents, "Deployment")["spec"]["template"]["metadata"]["labels"]
    selectors = [of_kind(documents, "Deployment")["spec"]["selector"]["matchLabels"], of_kind(documents, "Service")["spec"]["selector"]]
    selectors += [of_kind(documents, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"]]
    spread = of_kind(documents, "Deployment")["spec"]["template"]["spec"]["topologySpreadConstraints"]
    assert {constraint["topologyKey"] for constraint in spread} == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}
    selectors += [constraint["labelSelector"]["matchLabels"] for constraint in spread]
    collectors = [
        document["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["labels"] for document in documents if document["kind"] == "CronJob"
    ]
    for selector in selectors:
        assert selector.items() <= labels.items()
        assert not any(selector.items() <= of_gc.items() for of_gc in collectors)


def test_scaling_goes_by_bytes_in_flight_and_cpu(rendered):
    scaler = of_kind(rendered["everything"], "HorizontalPodAutoscaler")["spec"]
    cpu, bytes_in_flight = scaler["metrics"]
    assert cpu["resource"]["name"] == "cpu" and cpu["resource"]["target"]["averageUtilization"] == 60
    assert bytes_in_flight["pods"] == {
        "metric": {"name": "quarr_work_bytes"},
        "target": {"type": "AverageValue", "averageValue": "1Gi"},
    }
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (3, 20)
    assert "replicas" not in of_kind(rendered["everything"], "Deployment")["spec"]
    fixed = rendered["self-hosted"]
    assert of_kind(fixed, "Deployment")["spec"]["replicas"] == 3
    assert not [document for document in fixed if document["kind"] == "HorizontalPodAutoscaler"]


def test_pods_reach_the_store_and_nothing_else(rendered):
    spec = of_kind(rendered["self-hosted"], "NetworkPolicy")["spec"]
    assert set(spec["policyTypes"]) == {"Ingress", "Egress"}
    names, store = spec["egress"]
    assert {port["port"] for port in names["ports"]} == {53}
    assert store["ports"] == [{"port": 9000, "protocol": "TCP"}]
    assert store["to"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "storage"}}}]
    clients = of_kind(rendered["everything"], "NetworkPolicy")["spec"]["ingress"][0]["from"]
    assert clients == [{"podSelector": {"matchLabels": {"quarr-client": "true"}}}]


def test_identities_are_apart_and_secrets_by_reference(rendered):
    documents = rendered["everything"]
    accounts = {d["metadata"]["name"]: d["metadata"]["annotations"] for d in documents if d["kind"] == "ServiceAccount"}
    service, *collectors = [pod["serviceAccountName"] for pod in pods(documents)]
    assert accounts[service] != accounts[collectors[0]] and len(set(collectors)) == 1
    assert not [document for document in documents if document["kind"] == "Secret"]
    entry = next(e for e in pods(documents)[0]["containers"][0]["env"] if e["name"] == "QUARR_SIGNING")
    assert entry["valueFrom"]["secretKeyRef"] == {"name": "quarr-signing", "key": "value"}
    service, collector = pods(rendered["self-hosted"])
    assert service["containers"][0]["envFrom"] == [{"secretRef": {"name": "quarr-store"}}]
    assert collector["containers"][0]["envFrom"] == [{"secretRef": {"name": "quarr-store-gc"}}]


def test_garbage_is_collected_one_at_a_time(rendered):
    jobs = [document["spec"] for document in rendered["everything"] if document["kind"] == "CronJob"]
    arguments = [job["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["args"] for job in jobs]
    assert arguments == [["gc", "climate", "--retention", "7d"], ["gc", "ocean.v2", "--retention", "7d"]]
    assert all(job["concurrencyPolicy"] == "Forbid" for job in jobs)


def test_the_operator_gets_the_alerts(rendered):
    rule = of_kind(rendered["everything"], "PrometheusRule")
    assert rule["spec"] == yaml.safe_load((CHART / "alerts.yaml").read_text())
    monitor = of_kind(rendered["everything"], "ServiceMonitor")["spec"]
    service = of_kind(rendered["everything"], "Service")
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]


def test_settings_reach_the_service(rendered):
    told = environment(pods(rendered["everything"])[0])
    assert told["QUARR_AUTH"] == "true" and told["QUARR_LISTEN"] == "0.0.0.0:8686"
    assert told["QUARR_OIDC_ISSUER"] == "https://issuer.example/realm"
    assert told["QUARR_OIDC_ROLE"] == "groups=staff:reader groups=ops:admin"
    assert told["QUARR_RATE_LIMIT"] == "50"
    assert environment(pods(rendered["self-hosted"])[0])["AWS_ALLOW_HTTP"] == "true"
    assert pods(rendered["minimal"])[0]["containers"][0]["args"] == ["serve"]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ("image.tag=latest", "tag"),
        ("image.tag=", "image"),
        ("store.url=/data", "url"),
        ("imgae.tag=1", "imgae"),
        ("cache.size=unlimited", "size"),
        ("resources.limits.memory=4000M", "memory"),
        ("environment.AWS_SECRET_ACCESS_KEY=x", "AWS_SECRET_ACCESS_KEY"),
        ("ingress.enabled=true", "ingress"),
        ("auth.oidc.issuer=http://issuer.example", "issuer"),
        ("autoscaling.min=11", "autoscaling.min"),
        ("gc.repositories={UPPER}", "repositories"),
        ("replicas=0", "replicas"),
    ],
)
def test_values_that_make_no_sense_are_refused(helm, wrong, named):
    done = render(helm, "-f", CHART / "ci" / "minimal.yaml", "--set", wrong)
    assert done.returncode != 0 and named in done.stderr, done.stderr
