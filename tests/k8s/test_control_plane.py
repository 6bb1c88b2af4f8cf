"""The manifests before a real API server: admitted with no warning by ``restricted``, and unchanged when applied again.

Slow, and skipped where there is no kube-apiserver: see ``conftest.py``.
"""

from __future__ import annotations

import copy
import os
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.k8s.crds import VARIABLE, need_crds, uses_custom_kinds
from tests.k8s.manifests import APPLIED, K8S, ROOT, SETS, documents, jobs, label
from tests.k8s.test_documentation import commands

if TYPE_CHECKING:
    from tests.k8s.conftest import Kubectl

pytestmark = pytest.mark.slow

each_set = pytest.mark.parametrize("name", SETS)


def source(name: str) -> tuple[str, str]:
    """How ``kubectl apply`` takes a set, as the documentation says it."""
    if uses_custom_kinds(name):
        need_crds()
    return ("-f", f"{K8S}/") if name == APPLIED else ("-k", f"{K8S / 'overlays' / name}/")


@pytest.fixture
def namespace(kubectl: Kubectl) -> str:
    """The namespace that enforces ``restricted``, and the service account that only a controller would make."""
    assert kubectl("apply", "-f", f"{K8S}/00-namespace.yaml").returncode == 0
    account = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: default, namespace: mnist-jobs}\n"
    assert kubectl("apply", "-f", "-", stdin=account).returncode == 0
    return "mnist-jobs"


@each_set
def test_apply_client_dry_run_is_accepted(kubectl: Kubectl, name: str) -> None:
    done = kubectl("apply", "--dry-run=client", *source(name))
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == len(documents(name))


@each_set
def test_apply_twice_has_no_warning_and_no_change(kubectl: Kubectl, name: str) -> None:
    first = kubectl("apply", *source(name))
    assert (first.returncode, first.stderr) == (0, "")
    again = kubectl("apply", *source(name))
    assert (again.returncode, again.stderr) == (0, "")
    assert [line.rsplit(maxsplit=1)[1] for line in again.stdout.splitlines()] == ["unchanged"] * len(documents(name))


@each_set
def test_pods_are_admitted_without_a_warning(kubectl: Kubectl, namespace: str, name: str) -> None:
    for job in jobs(name):
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": job.name, "namespace": namespace, **job.spec["template"]["metadata"]},
            "spec": job.pod,
        }
        done = kubectl("create", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump(pod))
        assert (done.returncode, done.stderr) == (0, ""), label(job.document)


def test_pod_with_capabilities_is_refused(kubectl: Kubectl, namespace: str) -> None:
    """Or the tests above could not fail."""
    spec = copy.deepcopy(jobs(APPLIED)[0].pod)
    del spec["containers"][0]["securityContext"]["capabilities"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "more", "namespace": namespace}, "spec": spec}
    done = kubectl("create", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump(pod))
    assert done.returncode != 0
    assert 'violates PodSecurity "restricted' in done.stderr


def test_apply_changed_job_is_refused_until_replaced(kubectl: Kubectl) -> None:
    """What docs/kubernetes.md says of running again."""
    assert kubectl("apply", *source(APPLIED)).returncode == 0
    changed = copy.deepcopy(jobs(APPLIED)[0].document)
    changed["spec"]["template"]["spec"]["containers"][0]["args"] += ["--epochs", "1"]
    text = yaml.safe_dump(changed)
    refused = kubectl("apply", "-f", "-", stdin=text)
    assert refused.returncode != 0
    assert "field is immutable" in refused.stderr
    assert kubectl("replace", "--force", "-f", "-", stdin=text).returncode == 0
    assert kubectl("delete", "job", "-n", "mnist-jobs", "-l", "app.kubernetes.io/instance=default").returncode == 0
    again = kubectl("apply", *source(APPLIED))
    assert again.returncode == 0
    assert "persistentvolumeclaim/reports-tf unchanged" in again.stdout
    assert "job.batch/mnist-tf created" in again.stdout


def test_documented_commands_succeed(kubectl: Kubectl, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of the pages; without those that want a node: nothing runs here."""
    monkeypatch.chdir(ROOT)
    known = [name for name in SETS if os.environ.get(VARIABLE) or not uses_custom_kinds(name)]
    for name in known:
        assert kubectl("apply", *source(name)).returncode == 0
    unknown = set(SETS) - set(known)
    run = [words for words in commands() if words[1] not in {"wait", "logs"}]
    run = [words for words in run if not any(name in word for word in words for name in unknown)]
    assert {"apply", "delete", "describe", "get", "patch"} <= {words[1] for words in run}
    for words in run:
        done = kubectl(*words[1:], *(["--wait=false"] if words[1] == "delete" else []))
        assert done.returncode == 0, f"{words}: {done.stderr}"
