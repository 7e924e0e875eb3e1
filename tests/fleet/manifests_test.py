#!/usr/bin/python3
"""The manifests of docs/fleet against themselves, the image and the program; against Kubernetes' schemas too where
PyPI's kubernetes-validate is importable (scripts/test-fleet installs it)."""

import os
import re
import subprocess
import sys

try:
    import yaml
except ImportError:
    print("skipped: no python3-yaml here")
    sys.exit(77)

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
failures = []


def check(condition, text):
    print(("ok: " if condition else "FAILED: ") + text)
    if not condition:
        failures.append(text)


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return file.read()


def documents(path):
    return [document for document in yaml.safe_load_all(read(path)) if document]


def of_kind(all_documents, kind):
    return [document for document in all_documents if document["kind"] == kind]


fleet, envoy = documents("docs/fleet/thimble.yaml"), documents("docs/fleet/envoy.yaml")
try:
    import kubernetes_validate
    for document in fleet + envoy:
        kubernetes_validate.validate(document, "1.31", strict=True)
    broken = dict(of_kind(fleet, "DaemonSet")[0], spec={"selectr": {}})
    try:
        kubernetes_validate.validate(broken, "1.31", strict=True)
        check(False, "the schema finds a key that is none")
    except kubernetes_validate.ValidationError:
        check(True, f"{len(fleet + envoy)} manifests fit Kubernetes' schemas")
except ImportError:
    print("not checked: Kubernetes' schemas (scripts/test-fleet does)")

daemon_set = of_kind(fleet, "DaemonSet")[0]
pod = daemon_set["spec"]["template"]["spec"]
thimbled = pod["containers"][0]
environment = {entry["name"]: entry["value"] for entry in thimbled["env"]}
labels = daemon_set["spec"]["template"]["metadata"]["labels"]
port = thimbled["ports"][0]["containerPort"]
check(thimbled["resources"]["limits"]["memory"] == thimbled["resources"]["requests"]["memory"] == "64Mi",
      "the ceiling is asked for and limited")
check(environment["THIMBLE_LISTEN"].endswith(f":{port}"), "the port that thimbled listens on is the pod's")
for probe, service in (("startupProbe", None), ("livenessProbe", None), ("readinessProbe", "thimble.v1.Thimble")):
    grpc = thimbled[probe]["grpc"]
    check(grpc["port"] == port and grpc.get("service") == service, f"{probe} asks {service or 'the process'}")
check("package thimble.v1;" in read("proto/thimble/v1/thimble.proto") and
      "service Thimble " in read("proto/thimble/v1/thimble.proto"), "which is the service's name in the API")
check(daemon_set["spec"]["selector"]["matchLabels"].items() <= labels.items(), "the DaemonSet selects its pods")
headless = of_kind(fleet, "Service")[0]
check(headless["spec"]["clusterIP"] == "None" and headless["spec"]["selector"].items() <= labels.items(),
      "the Service resolves to all of them")
policy = of_kind(fleet, "NetworkPolicy")[0]
client = policy["spec"]["ingress"][0]["from"][0]["podSelector"]["matchLabels"]
deployment = of_kind(envoy, "Deployment")[0]
check(client.items() <= deployment["spec"]["template"]["metadata"]["labels"].items(), "Envoy may connect to them")
user = int(re.search(r"useradd .*--uid (\d+)", read("docker/Dockerfile")).group(1))
check(thimbled["securityContext"]["runAsUser"] == user and str(user) in pod["initContainers"][0]["command"],
      f"the user is the image's, {user}")

config = yaml.safe_load(of_kind(envoy, "ConfigMap")[0]["data"]["envoy.yaml"])["static_resources"]
cluster = config["clusters"][0]
target = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]
check(target == {"address": f"{headless['metadata']['name']}.{headless['metadata']['namespace']}.svc.cluster.local",
                 "port_value": port}, "Envoy resolves the Service")
check(cluster["health_checks"][0]["grpc_health_check"]["service_name"] == "thimble.v1.Thimble",
      "and asks for the service's health")

# The options are those of the program.
if len(sys.argv) > 1:
    done = subprocess.run([sys.argv[1], "--check-config", "--config", "/dev/null"], capture_output=True, text=True,
                          env=environment, timeout=30, check=False)
    check(done.returncode == 0, f"thimbled takes the pod's options: {done.stderr.strip()}")
    for name in environment:
        check(f"# {name}\n" in done.stdout, f"{name} is one of them")

sys.exit(1 if failures else 0)
