"""A real control plane for the tests that want one: etcd and kube-apiserver, as envtest runs them."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.k8s.crds import VARIABLE, definitions
from tests.k8s.manifests import need_kubectl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Kubectl = Callable[..., subprocess.CompletedProcess[str]]

START_TIMEOUT_S = 60


def _program(name: str) -> str:
    # setup-envtest names the folder in this variable.
    folders = os.pathsep.join(filter(None, [os.environ.get("KUBEBUILDER_ASSETS"), os.environ.get("PATH")]))
    found = shutil.which(name, path=folders)
    if found is None:
        pytest.skip(f"no {name}: the folder that setup-envtest makes goes into KUBEBUILDER_ASSETS")
    return found


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in sockets:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in sockets]


@pytest.fixture(scope="session")
def kubectl(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    """``kubectl`` with a control plane of its own behind it."""
    need_kubectl()
    programs = {name: _program(name) for name in ("etcd", "kube-apiserver", "openssl")}
    folder = tmp_path_factory.mktemp("control-plane")
    client, peer, port = _free_ports(3)
    key = folder / "service-accounts.key"
    subprocess.run([programs["openssl"], "genrsa", "-out", key, "2048"], check=True, capture_output=True)
    (folder / "tokens.csv").write_text("token,admin,admin,system:masters\n")
    etcd: list[str | Path] = [
        *(programs["etcd"], "--data-dir", folder / "etcd", "--unsafe-no-fsync"),
        *(
            "--listen-client-urls",
            f"http://127.0.0.1:{client}",
            "--advertise-client-urls",
            f"http://127.0.0.1:{client}",
        ),
        *("--listen-peer-urls", f"http://127.0.0.1:{peer}"),
    ]
    server: list[str | Path] = [
        *(programs["kube-apiserver"], "--etcd-servers", f"http://127.0.0.1:{client}"),
        *("--bind-address", "127.0.0.1", "--secure-port", str(port), "--cert-dir", folder / "certificates"),
        *("--token-auth-file", folder / "tokens.csv", "--authorization-mode", "RBAC"),
        *("--service-account-issuer", "https://kubernetes.default.svc", "--service-account-key-file", key),
        *("--service-account-signing-key-file", key, "--service-cluster-ip-range", "10.96.0.0/16"),
    ]
    options = ("--server", f"https://127.0.0.1:{port}", "--insecure-skip-tls-verify", "--token", "token")

    def run(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        command = ["kubectl", *options, *arguments]
        environment = {**os.environ, "KUBECONFIG": "/dev/null", "HOME": str(folder)}
        return subprocess.run(
            command, input=stdin, capture_output=True, text=True, check=False, timeout=60, env=environment
        )

    with ExitStack() as stack:
        for name, command in (("etcd", etcd), ("kube-apiserver", server)):
            log = stack.enter_context((folder / f"{name}.log").open("wb"))
            process = stack.enter_context(subprocess.Popen(command, stdout=log, stderr=log, cwd=folder))
            stack.callback(process.terminate)
        deadline = time.monotonic() + START_TIMEOUT_S
        # Its readiness is all there is to wait for: it has no way to call back.
        while (answer := run("get", "--raw", "/readyz")).stdout != "ok":
            if time.monotonic() > deadline:
                log_tail = (folder / "kube-apiserver.log").read_text()[-2000:]
                pytest.fail(f"the control plane did not start: {answer.stderr}\n{log_tail}")
            time.sleep(0.2)
        if folder_of_crds := os.environ.get(VARIABLE):
            text = yaml.safe_dump_all(definitions(Path(folder_of_crds)))
            for arguments in (["create"], ["wait", "--for=condition=established"]):
                done = run(*arguments, "-f", "-", stdin=text)
                assert done.returncode == 0, done.stderr
        yield run
