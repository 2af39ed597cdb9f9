"""Clients that others wrote: Triton's stock client, and schemathesis on the API's own description."""

from __future__ import annotations

import numpy as np
import pytest

from engine.release.bundle import Release
from tests.serving.conftest import Served
from tests.serving.releases import SIZE


@pytest.mark.parametrize("binary", [False, True])
def test_the_stock_triton_client(live: Served, release: Release, binary: bool) -> None:
    from tritonclient import http as triton

    batch = np.random.default_rng(2).normal(size=(3, 3, SIZE, SIZE)).astype(np.float32)
    client = triton.InferenceServerClient(f"127.0.0.1:{live.port}")
    try:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("understudy")
        assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
        assert client.get_model_metadata("understudy")["versions"] == [release.id]
        given = triton.InferInput("image", list(batch.shape), "FP32")
        given.set_data_from_numpy(batch, binary_data=binary)
        wanted = triton.InferRequestedOutput("probabilities", binary_data=binary)
        found = client.infer("understudy", [given], request_id="7", outputs=[wanted])
        assert found.get_response()["id"] == "7"
        row = found.as_numpy("probabilities")
        assert row.shape == (3, 4)
        np.testing.assert_allclose(row.sum(1), 1, atol=1e-5)
        with pytest.raises(triton.InferenceServerException, match="there is no model"):
            client.infer("other", [given])
    finally:
        client.close()


def test_schemathesis_finds_nothing_that_the_description_does_not_say(live: Served) -> None:
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import (
        content_type_conformance,
        response_schema_conformance,
        status_code_conformance,
    )

    base = f"http://127.0.0.1:{live.port}"
    schema = schemathesis.openapi.from_url(f"{base}/openapi.json")
    checks = [
        not_a_server_error,
        status_code_conformance,
        content_type_conformance,
        response_schema_conformance,
    ]
    seen = set()
    for found in schema.get_all_operations():
        operation = found.ok()

        @settings(
            max_examples=12, deadline=None, database=None, derandomize=True, phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(case=operation.as_strategy())
        def send(case: schemathesis.Case) -> None:
            case.call_and_validate(base_url=base, checks=checks)

        send()
        seen.add(operation.path)
    assert {"/predict", "/model", "/metrics"} <= seen
    assert live.http.get("/health/ready").status_code == 200
