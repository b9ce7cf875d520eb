"""The configurations under `resources/deployments` are what Dagster, Kubernetes and ECS accept."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import kubernetes.client.models as k8s
import pytest
import yaml
from dagster import DagsterRun
from dagster._config import process_config
from dagster._config.config_schema import UserConfigSchema
from dagster._config.field import resolve_to_config_type
from dagster._core.errors import DagsterInvalidConfigError
from dagster._core.instance.config import dagster_instance_config
from dagster._core.storage.config import pg_config
from dagster._serdes import ConfigurableClassData
from dagster_k8s.container_context import K8sContainerContext
from dagster_k8s.job import construct_dagster_k8s_job
from dagster_k8s.launcher import K8sRunLauncher
from dagster_k8s.models import k8s_model_from_dict, k8s_snake_case_dict

from emboflow_dagster.orchestration import instance as dagster_instance

ROOT = Path(__file__).resolve().parents[3]
DEPLOYMENTS = ROOT / "resources" / "deployments"
MANIFESTS = [
    one for one in yaml.safe_load_all((DEPLOYMENTS / "kubernetes" / "emboflow.yaml").read_text()) if one
]
DATA = next(one["data"] for one in MANIFESTS if one["metadata"]["name"] == "emboflow-dagster")
# The parts of an instance that are classes, each with a configuration of its own.
CLASSES = ("compute_logs", "defs_state_storage", "run_coordinator", "run_launcher")
SECRET = ("password", "mongo_uri", "valueFrom", "username")


def configurations() -> dict[str, str]:
    return {
        "of a new home": dagster_instance.config_text(),
        "celery": (DEPLOYMENTS / "celery" / "dagster.yaml").read_text(),
        "ecs": (DEPLOYMENTS / "ecs" / "dagster.yaml").read_text(),
        "kubernetes": DATA["dagster.yaml"],
    }


def variables(value: Any) -> set[str]:
    """The environment variables that a configuration names."""
    if isinstance(value, dict):
        own = {value["env"]} if isinstance(value.get("env"), str) and len(value) == 1 else set()
        return own.union(*(variables(one) for one in value.values()))
    return set().union(*(variables(one) for one in value)) if isinstance(value, list) else set()


def check(text: str, folder: Path) -> None:
    """What Dagster does with `dagster.yaml`, short of connecting to anything."""
    (folder / "dagster.yaml").write_text(text)
    config, _ = dagster_instance_config(str(folder))
    for part in CLASSES:
        if part not in config:
            continue
        found = config[part]
        schema: UserConfigSchema = getattr(import_module(found["module"]), found["class"]).config_type()
        made = process_config(resolve_to_config_type(schema), found.get("config") or {})
        assert made.success, f"{part}: {[error.message for error in made.errors]}"
    if "storage" in config:
        made = process_config(resolve_to_config_type(pg_config()), config["storage"]["postgres"])
        assert made.success, [error.message for error in made.errors]


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in set().union(*(variables(yaml.safe_load(text)) for text in configurations().values())):
        monkeypatch.setenv(name, "x")


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("name", configurations())
def test_dagster_accepts_the_configuration(name: str, tmp_path: Path):
    check(configurations()[name], tmp_path)


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("celery", "max_concurrent_runs:", "max_concurent_runs:"),
        ("celery", "mongo_uri:", "mongo_url:"),
        ("kubernetes", "env_secrets:", "env_secret:"),
        ("kubernetes", "dequeue_interval_seconds:", "dequeue_interval:"),
        ("ecs", "run_resources:", "run_resource:"),
    ],
)
def test_a_misspelt_key_would_be_noticed(name: str, right: str, wrong: str, tmp_path: Path):
    text = configurations()[name]
    assert right in text

    with pytest.raises((DagsterInvalidConfigError, AssertionError)):
        check(text.replace(right, wrong), tmp_path)


def said(value: Any, path: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [pair for key, one in value.items() for pair in [(key, one), *said(one, key)]]
    return [pair for one in value for pair in said(one, path)] if isinstance(value, list) else []


@pytest.mark.parametrize("name", configurations())
def test_no_secret_stands_in_a_configuration(name: str):
    secrets = [(key, value) for key, value in said(yaml.safe_load(configurations()[name])) if key in SECRET]

    assert all(isinstance(value, dict) and set(value) == {"env"} for _, value in secrets), secrets
    assert "://" not in configurations()[name].replace("s3://", "")


# ------------------------------------------------------------------------------------------- Kubernetes


@pytest.mark.parametrize(
    "manifest", MANIFESTS, ids=[f"{m['kind']} {m['metadata']['name']}" for m in MANIFESTS]
)
def test_kubernetes_knows_every_field_of_the_manifests(manifest: dict[str, Any]):
    model = getattr(k8s, "RbacV1Subject" if manifest["kind"] == "Subject" else f"V1{manifest['kind']}")

    made = k8s_model_from_dict(model, k8s_snake_case_dict(model, manifest))

    assert made.kind == manifest["kind"]
    assert made.metadata.namespace in (None, "emboflow")


def test_a_misspelt_field_of_a_manifest_would_be_noticed():
    found = next(one for one in MANIFESTS if one["kind"] == "Deployment")
    broken = {**found, "spec": {**found["spec"], "replica": 2}}

    with pytest.raises(Exception, match="replica"):
        k8s_model_from_dict(k8s.V1Deployment, k8s_snake_case_dict(k8s.V1Deployment, broken))


def test_what_the_manifests_name_is_there():
    names = {(one["kind"], one["metadata"]["name"]) for one in MANIFESTS}
    deployments = [one for one in MANIFESTS if one["kind"] == "Deployment"]
    for one in deployments:
        spec = one["spec"]["template"]["spec"]
        labels = one["spec"]["template"]["metadata"]["labels"]
        assert one["spec"]["selector"]["matchLabels"].items() <= labels.items()
        assert ("ServiceAccount", spec["serviceAccountName"]) in names
        volumes = {volume["name"] for volume in spec["volumes"]}
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            assert container["image"] == deployments[0]["spec"]["template"]["spec"]["containers"][0]["image"]
    workspace = yaml.safe_load(DATA["workspace.yaml"])["load_from"][0]["grpc_server"]
    assert ("Service", workspace["host"]) in names
    launcher = yaml.safe_load(DATA["dagster.yaml"])["run_launcher"]["config"]
    assert ("ServiceAccount", launcher["service_account_name"]) in names
    assert ("ConfigMap", launcher["instance_config_map"]) in names
    assert all(("ConfigMap", one) in names for one in launcher["env_config_maps"])


@pytest.mark.usefixtures("environment")
def test_the_job_of_a_run_has_the_settings_and_secrets_and_the_image_of_the_code_server(tmp_path: Path):
    config = yaml.safe_load(DATA["dagster.yaml"])["run_launcher"]["config"]
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        yaml.safe_dump(
            {
                "current-context": "test",
                "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
                "clusters": [{"name": "test", "cluster": {"server": "http://127.0.0.1:1"}}],
                "users": [{"name": "test", "user": {}}],
            }
        )
    )
    # No cluster is asked for anything: the Job is only written down.
    here = {"load_incluster_config": False, "kubeconfig_file": str(kubeconfig), "job_image": "emboflow:1"}
    processed = process_config(resolve_to_config_type(K8sRunLauncher.config_type()), {**config, **here})
    data = ConfigurableClassData("dagster_k8s", "K8sRunLauncher", "")
    launcher = K8sRunLauncher.from_config_value(data, processed.value)
    run = DagsterRun(job_name="acme__pick_place__triage", tags={"emboflow/workspace": "acme"})
    context = K8sContainerContext.create_for_run(run, launcher, include_run_tags=True)

    job = construct_dagster_k8s_job(
        context.get_k8s_job_config("emboflow:1", launcher),
        ["dagster", "api", "execute_run"],
        "dagster-run-1",
        user_defined_k8s_config=context.run_k8s_config,
    )

    pod = job.spec.template.spec
    sources = pod.containers[0].env_from
    assert [one.config_map_ref.name for one in sources if one.config_map_ref] == ["emboflow-settings"]
    assert [one.secret_ref.name for one in sources if one.secret_ref] == ["emboflow"]
    assert (pod.containers[0].image, pod.service_account_name) == ("emboflow:1", "emboflow")
    assert pod.security_context.run_as_non_root
    assert job.spec.ttl_seconds_after_finished == 3600
    assert pod.containers[0].resources.limits == {"memory": "2Gi"}


# -------------------------------------------------------------------------------------------------- ECS


def problems(task: dict[str, Any]) -> str:
    import botocore.session
    from botocore.validate import ParamValidator

    service = botocore.session.get_session().get_service_model("ecs")
    shape = service.operation_model("RegisterTaskDefinition").input_shape
    return ParamValidator().validate(task, shape).generate_report()


TASKS = sorted((DEPLOYMENTS / "ecs").glob("*.task.json"))


@pytest.mark.parametrize("path", TASKS, ids=lambda path: path.stem)
def test_ecs_takes_the_task_definition(path: Path):
    task = json.loads(path.read_text())

    assert problems(task) == ""
    assert problems({**task, "containerDefinitons": []}) != ""
    container = task["containerDefinitions"][0]
    given = {one["name"] for one in [*container["environment"], *container["secrets"]]}
    assert variables(yaml.safe_load((DEPLOYMENTS / "ecs" / "dagster.yaml").read_text())) <= given
    assert not {"EMBOFLOW_MONGO_URI", "DAGSTER_PG_PASSWORD"} & {
        one["name"] for one in container["environment"]
    }


def test_the_code_server_of_ecs_is_the_one_that_the_others_load():
    task = json.loads((DEPLOYMENTS / "ecs" / "code.task.json").read_text())
    server = yaml.safe_load((DEPLOYMENTS / "ecs" / "workspace.yaml").read_text())["load_from"][0][
        "grpc_server"
    ]

    assert [server["port"]] == [p["containerPort"] for p in task["containerDefinitions"][0]["portMappings"]]
    assert server["location_name"] == "emboflow"
