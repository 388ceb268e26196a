"""Every module and example: format, schema, their own tests, pins, documentation."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import provider
import terraform

FOLDERS = terraform.folders()
MODULES = [folder for folder in FOLDERS if folder.parent.name == "modules"]


def each(folders: list[Path]):
    return pytest.mark.parametrize("folder", folders, ids=lambda folder: folder.name)


def test_files_are_formatted(tf):
    done = tf.call(terraform.ROOT, tf.environment, "fmt", "-check", "-recursive", "-diff", check=False)
    assert done.returncode == 0, done.stdout


@each(FOLDERS)
def test_names_and_types_are_those_of_the_providers(tf, folder):
    answer = json.loads(tf.run(folder, "validate", "-json", check=False).stdout)
    assert answer["valid"] and not answer["diagnostics"], answer["diagnostics"]


@each([folder for folder in FOLDERS if (folder / "tests").is_dir() and list((folder / "tests").glob("*.hcl"))])
def test_its_own_tests_pass(tf, folder):
    done = tf.run(folder, "test", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"[1-9]\d* passed, 0 failed", done.stdout), done.stdout


def test_a_wrong_name_or_type_is_found(tf, tmp_path):
    """The check can fail: the schemas are really asked."""
    pins = (terraform.ROOT / "modules/storage-aws/versions.tf").read_text()
    wrong = {
        "name": 'resource "aws_s3_bucket" "it" { bukket = "a" }',
        "type": 'resource "aws_s3_bucket" "it" { force_destroy = [] }',
        "missing": 'resource "aws_s3_bucket_policy" "it" { bucket = "a" }',
        "block": 'resource "aws_s3_bucket_versioning" "it" {\n  bucket = "a"\n}',
        "twice": 'resource "aws_s3_bucket_versioning" "it" {\n  bucket = "a"\n'
        + '  versioning_configuration {\n    status = "Enabled"\n  }\n' * 2
        + "}",
        "resource": 'resource "aws_s3_buckets" "it" {}',
    }
    for name, text in wrong.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / "main.tf").write_text(f"{pins}\n{text}\n")
        answer = json.loads(tf.run(folder, "validate", "-json", check=False).stdout)
        assert not answer["valid"], name


@each(FOLDERS)
def test_variables_and_outputs_are_typed_and_described(folder):
    text = "".join(path.read_text() for path in sorted(folder.glob("*.tf")))
    found = re.findall(r'^(variable|output) "(\w+)" \{\n(.*?)^\}', text, re.M | re.S)
    assert len(found) == len(re.findall(r'^ *(?:variable|output) "', text, re.M))
    for kind, name, body in found:
        assert re.search(r'^  description *= ".*\."$', body, re.M), f"{kind} {name} is not described"
        assert kind == "output" or re.search(r"^  type *= ", body, re.M), f"variable {name} has no type"


@each(FOLDERS)
def test_versions_are_pinned_to_what_was_checked(folder):
    """Each provider from the version whose schema is here, to the end of its major version."""
    text = (folder / "versions.tf").read_text()
    assert 'required_version = ">= 1.9.0, < 2.0.0"' in text
    for name, least, below in re.findall(r'source  = "hashicorp/(\w+)"\s+version = ">= ([\d.]+), < (\d+)\.0\.0"', text):
        checked = [int(part) for part in provider.extract(name)["provider_version"].split(".")]
        assert [int(part) for part in least.split(".")] <= checked and checked[0] == int(below) - 1
    used = {kind.split("_")[0] for kind in re.findall(r'^(?:resource|data) "(\w+)"', (folder / "main.tf").read_text(), re.M)}
    assert used <= set(re.findall(r"hashicorp/(\w+)", text))


def test_documentation_is_up_to_date():
    script = terraform.ROOT.parent / "scripts" / "generate-terraform-docs.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_schemas_are_no_larger_than_what_is_used():
    text = "".join(path.read_text() for path in terraform.ROOT.rglob("*.tf"))
    for name in provider.NAMES:
        schemas = provider.extract(name)
        unused = [kind for kind in schemas["resource_schemas"] if f'resource "{kind}"' not in text]
        unused += [kind for kind in schemas["data_source_schemas"] if f'data "{kind}"' not in text]
        assert not unused


def test_there_is_no_key_and_no_static_credential():
    """Credentials are workload identity alone."""
    text = "".join(path.read_text() for path in terraform.ROOT.rglob("*.tf"))
    for word in ("aws_iam_access_key", "aws_iam_user", "google_service_account_key", "access_key =", "secret_key ="):
        assert word not in text
