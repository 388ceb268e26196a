"""Who may do what on the store, decided from the documents that Terraform renders."""

from __future__ import annotations

import json
import re

import celpy
import pytest
from celpy import celtypes

import iam
import terraform

BUCKET = "arn:aws:s3:::quarr-example"
ACCOUNT = "arn:aws:iam::111122223333:role"
GC = f"{ACCOUNT}/quarr-gc"
KEY = "arn:aws:kms:eu-central-1:111122223333:key/0c5e6f0a-0000-4000-8000-000000000000"
ENTRY = "climate/log/00000000000000000007.json"
SHARD = "climate/shards/ab/" + "0" * 62
OBJECT = "climate/objects/ab/" + "0" * 62
CREATED = (
    "climate/repo.json", ENTRY, "climate/checkpoints/00000000000000000128.json", OBJECT, SHARD,
    "climate/staging/5d0c/0-1", "climate/tlog/tile/0/x000/000", "climate/tlog/heads/00000000000000000007",
    ".quarr/auth/keys/0/00000001.json", ".quarr/uploads/5d0c/00000000", ".quarr/requests/5d0c",
    "_probe-5d0c",
)  # fmt: skip
OVERWRITTEN = ("climate/log/_hint.json", "climate/tlog/checkpoint", ".quarr/jobs/5d0c.json", ".quarr/commands/0a")
GARBAGE = (OBJECT, SHARD, "climate/staging/5d0c/0-1", ".quarr/jobs/5d0c.json", ".quarr/uploads/5d0c/00000000", ".quarr/requests/5d0c", "_probe-5d0c")
KEPT = ("climate/repo.json", ENTRY, "climate/checkpoints/00000000000000000128.json", "climate/tlog/tile/0/x000/000", ".quarr/auth/keys/0/00000001.json")
ROLES = ("reader", "writer", "gc")
ONCE = {"s3:if-none-match": "*"}


@pytest.fixture(scope="module")
def policies(tf) -> dict[str, str]:
    values = {"bucket_arn": BUCKET, "prefix": "data/", "kms_key_arn": KEY, "gc_role_arns": [GC]}
    return tf.outputs(terraform.ROOT / "modules" / "policies-aws", values)


@pytest.fixture(scope="module")
def may(policies):
    """Whether a role may do something, with the bucket's policy."""

    def decide(role: str, action: str, key: str | None, **context: str) -> bool:
        resource = BUCKET if key is None else f"{BUCKET}/data/{key}"
        seen = {
            "aws:securetransport": "true",
            "aws:principalarn": f"{ACCOUNT}/quarr-{role}",
            "s3:tlsversion": "1.3",
            "s3:objectcreationoperation": "true",
        }
        seen |= {name.lower().replace("__", ":").replace("_", "-"): value for name, value in context.items()}
        request = iam.Request(action, resource, {name: value for name, value in seen.items() if value})
        # Somebody with all rights, to see what the bucket itself refuses.
        everything = json.dumps({"Statement": [{"Effect": "Allow", "Action": ["*"], "Resource": ["*"]}]})
        return iam.decide(request, policies.get(role, everything), policies["bucket"])

    return decide


@pytest.mark.parametrize("role", ROLES)
def test_every_role_reads(may, role):
    assert all(may(role, "s3:GetObject", key) for key in CREATED + OVERWRITTEN)
    assert may(role, "s3:ListBucket", None)


def test_a_reader_changes_nothing(may):
    for key in CREATED + OVERWRITTEN:
        assert not may("reader", "s3:PutObject", key, s3__if_none_match="*")
        assert not may("reader", "s3:DeleteObject", key)


@pytest.mark.parametrize("role", ["writer", "gc"])
def test_data_is_created_and_never_overwritten(may, role):
    for key in CREATED:
        assert may(role, "s3:PutObject", key, s3__if_none_match="*"), key
        assert not may(role, "s3:PutObject", key), key
        assert not may(role, "s3:PutObject", key, s3__if_match="0"), key
    for key in OVERWRITTEN:
        assert may(role, "s3:PutObject", key), key


def test_a_writer_deletes_nothing(may):
    for key in CREATED + OVERWRITTEN:
        assert not may("writer", "s3:DeleteObject", key), key
        assert not may("writer", "s3:DeleteObjectVersion", key), key


def test_gc_deletes_garbage_and_no_history(may):
    assert all(may("gc", "s3:DeleteObject", key) for key in GARBAGE)
    assert not any(may("gc", "s3:DeleteObject", key) for key in KEPT)


def test_the_bucket_refuses_even_those_with_all_rights(may):
    """An administrator, by mistake or because a key leaked."""
    for key in CREATED:
        assert not may("admin", "s3:PutObject", key), key
        assert may("admin", "s3:PutObject", key, s3__if_none_match="*"), key
        assert not may("admin", "s3:DeleteObject", key), key
    # The parts of a multipart upload cannot carry the condition; the end of it must.
    assert may("admin", "s3:PutObject", SHARD, s3__ObjectCreationOperation="false")


@pytest.mark.parametrize("role", [*ROLES, "admin"])
def test_nobody_comes_without_tls(may, role):
    for action, key in (("s3:GetObject", SHARD), ("s3:ListBucket", None), ("s3:PutObject", SHARD)):
        assert not may(role, action, key, aws__SecureTransport="false", s3__if_none_match="*")
        assert not may(role, action, key, s3__TlsVersion="1.1", s3__if_none_match="*")


@pytest.mark.parametrize("role", ROLES)
def test_no_role_reaches_other_prefixes_or_the_bucket_itself(policies, role):
    def alone(action: str, resource: str) -> bool:
        return iam.decide(iam.Request(action, resource, ONCE), policies[role])

    for action in ("s3:GetObject", "s3:PutObject", "s3:DeleteObject"):
        assert not alone(action, f"{BUCKET}/elsewhere/{SHARD}")
        assert not alone(action, f"arn:aws:s3:::another/data/{SHARD}")
    for action in ("s3:PutBucketPolicy", "s3:PutLifecycleConfiguration", "s3:DeleteBucket", "s3:PutBucketVersioning", "s3:PutObjectAcl"):
        assert not alone(action, BUCKET) and not alone(action, f"{BUCKET}/data/{SHARD}")


@pytest.mark.parametrize("role", ROLES)
def test_roles_use_the_key_and_do_not_manage_it(policies, role):
    def of_key(action: str) -> bool:
        return iam.decide(iam.Request(action, KEY), policies[role])

    assert of_key("kms:Decrypt")
    assert of_key("kms:GenerateDataKey") == (role != "reader")
    assert not any(of_key(action) for action in ("kms:ScheduleKeyDeletion", "kms:PutKeyPolicy", "kms:DisableKey"))


@pytest.mark.parametrize("role", ROLES)
def test_roles_name_each_action_and_their_bucket(policies, role):
    for statement in json.loads(policies[role])["Statement"]:
        assert all(re.fullmatch(r"(s3|kms):[A-Za-z]+", action) for action in statement["Action"])
        assert all(resource in (BUCKET, KEY) or resource.startswith(f"{BUCKET}/data/") for resource in statement["Resource"])


def test_prefixes_that_mean_others_are_refused(tf):
    for prefix in ("a*/", "a", "${aws:username}/"):
        with pytest.raises(AssertionError, match="prefix must be empty or end in a slash"):
            tf.outputs(terraform.ROOT / "modules" / "policies-aws", {"bucket_arn": BUCKET, "prefix": prefix.replace("${", "$${")})


# --- Google Cloud -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def grants(tf) -> dict[str, dict]:
    """The output of the module as its own test sees it: it has resources, so it is not applied here."""
    folder = terraform.ROOT / "modules" / "identity-gcp"
    done = tf.run(folder, "test", "-verbose", "-json", "-filter=tests/roles.tftest.hcl")
    for line in done.stdout.splitlines():
        event = json.loads(line)
        if event["type"] == "test_state" and event["@testrun"] == "each_grant_is_as_said":
            return event["test_state"]["outputs"]["grants"]["value"]
    raise AssertionError(done.stdout)


def extract(text: celtypes.StringType, template: celtypes.StringType) -> celtypes.StringType:
    """As conditions of IAM on Google Cloud have it: the text between two others, or nothing."""
    before, _, rest = str(template).partition("{")
    _, _, after = rest.partition("}")
    start = str(text).find(before)
    if start < 0:
        return celtypes.StringType()
    found = str(text)[start + len(before) :]
    end = len(found) if not after else found.find(after)
    return celtypes.StringType(found[: max(end, 0)])


@pytest.fixture(scope="module")
def may_on_gcp(grants):
    environment = celpy.Environment()
    programs = {
        name: environment.program(environment.compile(grant["condition"]), functions={"extract": extract})
        for name, grant in grants.items()
        if grant["condition"]
    }

    def decide(who: str, permission: str, key: str) -> bool:
        name = f"projects/_/buckets/quarr-example/objects/data/{key}"
        resource = {"resource": celpy.json_to_cel({"name": name})}
        return any(
            grant["who"] == who and permission in grant["permissions"] and (label not in programs or bool(programs[label].evaluate(resource)))
            for label, grant in grants.items()
        )

    return decide


def test_on_google_cloud_a_writer_overwrites_and_deletes_no_data(may_on_gcp):
    """To replace an object takes the permission to delete it."""
    for key in CREATED:
        assert may_on_gcp("writer", "storage.objects.create", key)
        assert not may_on_gcp("writer", "storage.objects.delete", key), key
    assert all(may_on_gcp("writer", "storage.objects.delete", key) for key in OVERWRITTEN)
    for key in CREATED + OVERWRITTEN:
        assert may_on_gcp("reader", "storage.objects.get", key)
        assert not may_on_gcp("reader", "storage.objects.create", key)
        assert not may_on_gcp("reader", "storage.objects.delete", key)


def test_on_google_cloud_gc_deletes_garbage_and_no_history(may_on_gcp):
    assert all(may_on_gcp("gc", "storage.objects.delete", key) for key in GARBAGE)
    assert not any(may_on_gcp("gc", "storage.objects.delete", key) for key in KEPT)
