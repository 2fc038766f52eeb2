from __future__ import annotations

import jsonschema
import pytest
from prometheus_client.parser import text_string_to_metric_families

from compressors.recipe import Distillation, Quantization, Recipe, StructuredPruning
from service.database import Database
from service.routes.trials import prefers_html
from tests.service.api import MODEL_BYTES, RunningApi


def test_techniques_come_with_schemas_that_fit_real_recipes(shared_api: RunningApi) -> None:
    items = shared_api.client.get("/v1/techniques").json()["items"]
    schemas = {item["name"]: item["parameters"] for item in items}
    assert {"structured_pruning", "distillation", "quantization"} <= schemas.keys()
    recipe = Recipe((StructuredPruning(keep={"conv1": 8}), Distillation(samples=100), Quantization()))
    for step in recipe.to_json()["steps"]:
        schema = schemas[step.pop("technique")]
        jsonschema.Draft202012Validator.check_schema(schema)
        jsonschema.validate(step, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"importance": "magic"}, schemas["structured_pruning"])


def test_targets_and_tasks_say_what_a_job_may_name(shared_api: RunningApi) -> None:
    (target,) = shared_api.client.get("/v1/targets").json()["items"]
    assert (target["runtime"], target["device"]) == ("onnxruntime", "cpu")
    assert target["version"]
    jsonschema.validate({"runtime": "onnxruntime", "threads": 2}, target["parameters"])
    tasks = {task["name"]: task for task in shared_api.client.get("/v1/tasks").json()["items"]}
    assert tasks["classification"]["metric"] == "accuracy"
    assert {"binary", "regression", "segmentation", "language_modelling"} < set(tasks)
    for task in tasks.values():
        assert task["higher_is_better"] and task["outputs"] and task["target"]
        assert task["metric"] in [metric["name"] for metric in task["metrics"]]
        jsonschema.validate({"train": "d", "inputs": ["x"], "target": "y"}, task["parameters"])
    job = shared_api.open.get("/openapi.json").json()["components"]["schemas"]["JobSpec"]
    assert set(job["properties"]["task"]["enum"]) == set(tasks)


def test_openapi_lists_the_whole_contract_with_its_problems(shared_api: RunningApi) -> None:
    document = shared_api.open.get("/openapi.json").json()
    calls = {(m.upper(), p) for p, methods in document["paths"].items() for m in methods}
    job = "/v1/jobs/{job_id}"
    expected = {("POST", "/v1/jobs"), ("GET", "/v1/jobs"), ("GET", job)}
    expected |= {("POST", f"{job}/{verb}") for verb in ("cancel", "pause", "resume")}
    expected |= {("GET", f"{job}/{what}") for what in ("trials", "front", "events", "artifact", "report", "logs")}
    expected |= {("GET", f"{job}/trials/{{number}}"), ("POST", "/v1/schedules/{schedule_id}/run")}
    expected |= {(m, f"/v1/{kind}") for kind in ("models", "datasets", "schedules") for m in ("GET", "POST")}
    expected |= {("GET", f"/v1/{kind}") for kind in ("techniques", "targets", "tasks")}
    expected |= {("GET", probe) for probe in ("/healthz", "/readyz", "/metrics")}
    assert expected <= calls
    upload = document["paths"]["/v1/models"]["post"]["requestBody"]["content"]["multipart/form-data"]
    assert "file" in upload["schema"]["properties"]


def test_metrics_count_jobs_uploads_and_requests(sqlite_api: RunningApi) -> None:
    sqlite_api.submit()
    sqlite_api.upload("models", MODEL_BYTES)
    text = sqlite_api.client.get("/metrics").text
    samples = {
        (s.name, *sorted(s.labels.values())): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }
    assert samples["bantam_jobs", "queued"] == 1
    assert samples["bantam_uploads_total", "model", "new"] == 1
    assert samples["bantam_upload_bytes_total", "model"] == len(MODEL_BYTES)
    assert samples["bantam_request_seconds_count", "/v1/jobs", "202", "POST"] == 1


def test_readiness_needs_the_right_schema(sqlite_api: RunningApi) -> None:
    database: Database = sqlite_api.database
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0000'")
    response = sqlite_api.open.get("/readyz")
    assert response.status_code == 503
    assert "bantam db upgrade" in response.json()["detail"]
    assert sqlite_api.open.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    ("accept", "html"),
    [
        ("*/*", False),
        ("text/html", True),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", True),
        ("application/json", False),
        ("text/html;q=0.3, application/json;q=0.8", False),
        ("text/html, application/json", False),
        ("text/html;q=odd", False),
    ],
)
def test_accept_decides_between_page_and_json(accept: str, html: bool) -> None:
    assert prefers_html(accept) is html
