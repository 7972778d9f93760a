"""Manifests against the schemas of what they are: Kubernetes' own of two versions, and those of custom resources.

Kubernetes' schemas are the strict ones of ``kubernetes-validate``; those of custom resources are closed here, because an API
server prunes what they do not name, or refuses it. A kind without a schema raises ``KeyError``: nothing passes unseen.
"""

import importlib
import json
import re
from functools import cache
from importlib.metadata import distribution
from pathlib import Path

import jsonschema
import referencing
import yaml
from kubernetes_validate import utils as kubernetes_validate

#: Custom resource → the module of pydantic models that was generated from its definition.
MODELS = {
    ("monitoring.coreos.com/v1", "PodMonitor"): "cloudcoil.models.prometheus_operator.v1",
    ("monitoring.coreos.com/v1", "PrometheusRule"): "cloudcoil.models.prometheus_operator.v1",
    ("keda.sh/v1alpha1", "ScaledObject"): "cloudcoil.models.keda.v1alpha1",
    ("keda.sh/v1alpha1", "TriggerAuthentication"): "cloudcoil.models.keda.v1alpha1",
    ("cert-manager.io/v1", "Certificate"): "cloudcoil.models.cert_manager.v1",
}
DASK = "kubernetes.dask.org/v1"
#: The Gateway API's own definitions come in no package.
HTTP_ROUTE = Path(__file__).parent / "http_route.json"


def problems(manifest, version):
    """What the schema of a manifest has against it: path and reason, in one text each."""
    validator = _validator(manifest["apiVersion"], manifest["kind"], version)
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(manifest)]


@cache
def _validator(api_version, kind, version):
    if api_version == DASK:
        return jsonschema.Draft202012Validator(_closed(_dask_schemas()[kind]))
    if (api_version, kind) == ("gateway.networking.k8s.io/v1", "HTTPRoute"):
        return jsonschema.Draft202012Validator(_closed(json.loads(HTTP_ROUTE.read_text())))
    if (api_version, kind) in MODELS:
        model = getattr(importlib.import_module(MODELS[api_version, kind]), kind)
        return jsonschema.Draft202012Validator(_closed(model.model_json_schema()))
    group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api_version)
    schema = f"kubernetes-json-schema/v{version}.0-local-strict/{kind.lower()}-{group}.json"
    try:
        content = kubernetes_validate.schema_contents(schema, version)
    except FileNotFoundError:
        raise KeyError(f"{api_version} {kind} of Kubernetes {version}") from None
    return jsonschema.Draft202012Validator(content, registry=_definitions(version))


@cache
def _definitions(version):
    content = kubernetes_validate.schema_contents(
        f"kubernetes-json-schema/v{version}.0-local-strict/_definitions.json", version
    )
    return referencing.Resource.from_contents(content) @ referencing.Registry()


@cache
def _dask_schemas():
    files = [file for file in distribution("dask-kubernetes").files if re.search(r"operator/crds/dask\w+\.yaml$", str(file))]
    definitions = [yaml.load(file.read_text(), Loader=yaml.CSafeLoader) for file in files]
    return {
        definition["spec"]["names"]["kind"]: definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        for definition in definitions
    }


def _closed(schema, top=True):
    """The schema, with nothing allowed that it does not name."""
    if isinstance(schema, list):
        return [_closed(part, False) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value, False) for key, value in schema.items()}
    if schema.get("x-kubernetes-int-or-string"):
        closed.pop("type", None)
    if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema:
        closed["additionalProperties"] = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    if top:
        # Definitions leave out what every resource has.
        closed["properties"] |= {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}}
    return closed
