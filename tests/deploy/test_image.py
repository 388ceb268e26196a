"""The steps of the image, without a container engine: the script that the Dockerfile runs makes a bare
Debian one that serves, as a user without rights, on a root file system that is read only.

`QUARR_DEBIAN_ROOT` may name a tree that debootstrap made; it is copied. Else one is made, which takes
minutes and Debian's packages.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

import quarr
import store_server

STEPS = Path(__file__).parents[2] / "deploy" / "image"
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
USER = 65532

pytestmark = pytest.mark.long


def inside(root: Path, script: str, **options) -> subprocess.Popen:
    """Runs a shell script in a mount namespace of its own, in which `$root` is the tree."""
    command = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "sh", "-euc", script]
    return subprocess.Popen(command, env={**os.environ, "root": str(root)}, text=True, **options)


# Devices and processes are the machine's, as they are the container engine's.
SYSTEM = 'mount -t proc proc "$root/proc"; mount --rbind /dev "$root/dev"; '


def done(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=1800)
    assert process.returncode == 0, output
    return output


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """The root file system of the image."""
    if os.geteuid() != 0:
        pytest.skip("needs root, for chroot and mount")
    binary = quarr.binary()
    made = os.environ.get("QUARR_DEBIAN_ROOT")
    root = tmp_path_factory.mktemp("image") / "root"
    if made:
        subprocess.run(["cp", "-a", made, root], check=True)
    elif shutil.which("debootstrap"):
        places = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Codename: bookworm"]
        mirrors = subprocess.run(places, capture_output=True, text=True, check=False).stdout.split()
        subprocess.run(["debootstrap", "--variant=minbase", "bookworm", root, *sorted(set(mirrors))[:1]], check=True, capture_output=True)
    else:
        pytest.skip("needs debootstrap")
    (root / "in").mkdir()
    shutil.copy(STEPS / "install.sh", root / "in")
    shutil.copy(binary, root / "in" / "quarr")
    shutil.copy("/etc/resolv.conf", root / "etc" / "resolv.conf")
    steps = inside(root, f'{SYSTEM} exec chroot "$root" env -i {PATH} /in/install.sh /in/quarr', stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert "quarr " in done(steps)
    shutil.rmtree(root / "in")
    return root


def run_as_container(root: Path, command: str, **settings: str) -> subprocess.Popen:
    """As a container engine would run it: read only but for the cache, no rights, a clean environment."""
    environment = " ".join(f"{name}={value}" for name, value in {"QUARR_CACHE_DIR": "/var/cache/quarr", "TMPDIR": "/var/cache/quarr", **settings}.items())
    script = (
        'mount --bind "$root" "$root"; cd "$root/.."; '
        + SYSTEM
        + f'mount -t tmpfs -o uid={USER},gid={USER},mode=0750,nosuid,nodev cache "$root/var/cache/quarr"; '
        + 'mount -o remount,bind,ro "$root"; '
        + f'exec chroot "$root" setpriv --reuid={USER} --regid={USER} --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all env -i {PATH} {environment} {command}'
    )
    return inside(root, script, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@dataclass(frozen=True)
class Served:
    url: str
    pid: int


@pytest.fixture
def served(root) -> Iterator[Served]:
    port = store_server.free_port()
    listen = f"127.0.0.1:{port}"
    process = run_as_container(root, "/usr/local/bin/quarr serve --store /var/cache/quarr/store", QUARR_LISTEN=listen)
    try:
        until = time.monotonic() + 60
        while True:
            assert process.poll() is None and time.monotonic() < until, process.stdout.read() if process.stdout else ""
            try:
                if requests.get(f"http://{listen}/readyz", timeout=5).ok:
                    break
            except requests.ConnectionError:
                time.sleep(0.1)
        # `unshare` passes no signals on; each step of its child was an `exec`.
        (pid,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        yield Served(f"http://{listen}", int(pid))
        os.kill(int(pid), signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, output
    finally:
        process.kill()
        process.wait()


def test_it_serves_as_a_user_without_rights_on_a_read_only_root(root, served, tmp_path):
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{served.pid}/status").read_text().splitlines() if ":\t" in line)
    assert status["Uid"].split() == [str(USER)] * 4 and status["Gid"].split() == [str(USER)] * 4
    assert int(status["CapEff"], 16) == 0 and int(status["CapBnd"], 16) == 0 and status["NoNewPrivs"].strip() == "1"
    # Data in and out.
    (tmp_path / "a.npy").write_bytes(quarr.npy([1.0, 2.0, 3.0]))
    quarr.run("import", tmp_path / "a.npy", "--to", "climate", "--server", served.url, env={})
    answer = requests.get(f"{served.url}/v1/repos/climate/refs/main/data/a", params={"f": "json"}, timeout=60)
    assert answer.json()["values"] == [1.0, 2.0, 3.0]
    # Through the HDF5 library of the image, both ways.
    (tmp_path / "b.nc").write_bytes(requests.get(f"{served.url}/v1/repos/climate/refs/main/data/a", params={"f": "netcdf"}, timeout=60).content)
    quarr.run("import", tmp_path / "b.nc", "--to", "again", "--server", served.url, env={})
    answer = requests.get(f"{served.url}/v1/repos/again/refs/main/data/a", params={"f": "json"}, timeout=60)
    assert answer.json()["values"] == [1.0, 2.0, 3.0]
    health = f"QUARR_LISTEN={served.url.removeprefix('http://')} /usr/local/bin/quarr-health"
    done(run_as_container(root, health))


def test_nothing_but_the_cache_is_written_to(root):
    script = "for at in / /etc /usr/local/bin /var /tmp /home; do touch $at/x 2>/dev/null && echo wrote $at; done; touch /var/cache/quarr/x && echo wrote the cache"
    assert done(run_as_container(root, f"sh -c '{script}'")).splitlines() == ["wrote the cache"]


def test_health_is_bad_where_nothing_answers(root):
    process = run_as_container(root, f"QUARR_LISTEN=127.0.0.1:{store_server.free_port()} /usr/local/bin/quarr-health")
    process.communicate(timeout=60)
    assert process.returncode != 0


def test_the_image_has_no_compiler_and_no_package_lists(root):
    assert not [name for name in ("cc", "gcc", "make", "cargo", "python3") if (root / "usr" / "bin" / name).exists()]
    assert not list((root / "var" / "lib" / "apt" / "lists").glob("*"))
    passwd = (root / "etc" / "passwd").read_text()
    assert f"quarr:x:{USER}:{USER}:" in passwd and "/usr/sbin/nologin" in passwd.split("quarr:x:")[1]
