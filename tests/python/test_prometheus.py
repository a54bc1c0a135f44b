"""A real Prometheus scrapes the real binary: native histograms give the true P99, and promtool
finds nothing to say about the text. scripts/test.sh puts both programs on the PATH, and says when
the tests may not be skipped for want of them."""

import json
import math
import os
import re
import shutil
import subprocess

import httpx
import pytest
import sluice

pytestmark = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool"))
    and "SLUICE_TEST_REQUIRE_PROMETHEUS" not in os.environ,
    reason="prometheus and promtool are not on the PATH",
)

CONFIG = """
global:
  scrape_interval: 1s
scrape_configs:
  - job_name: sluice
    static_configs:
      - targets: ["127.0.0.1:{port}"]
"""


@pytest.fixture
def logged(start, tmp_path):
    """A server of the test's own, so that its log has this test's requests and no others."""
    log = tmp_path / "access.log"
    server = start(
        [{"name": "helpdesk", "path": sluice.HELPDESK / "v2", "slots": 8}],
        sections={"log": {"format": "json", "file": log}},
    )
    server.access_log = log
    return server


@pytest.fixture
def prometheus(logged, tmp_path):
    """A Prometheus that takes native histograms, scraping the server; its query API."""
    config = tmp_path / "prometheus.yml"
    config.write_text(CONFIG.format(port=logged.port))
    address = f"127.0.0.1:{sluice.free_port()}"
    output = tmp_path / "prometheus.log"
    with output.open("w") as sink:
        process = subprocess.Popen(
            [
                "prometheus",
                "--enable-feature=native-histograms",
                f"--config.file={config}",
                f"--storage.tsdb.path={tmp_path / 'tsdb'}",
                f"--web.listen-address={address}",
            ],
            stdout=sink,
            stderr=subprocess.STDOUT,
        )

    def query(expression: str) -> list:
        assert process.poll() is None, output.read_text()
        try:
            answer = httpx.get(f"http://{address}/api/v1/query", params={"query": expression})
        except httpx.TransportError:
            return []  # still starting
        return answer.json()["data"]["result"] if answer.status_code == 200 else []

    yield query
    process.terminate()
    try:
        process.wait(30)
    finally:
        process.kill()
        process.wait()


def generate(server, count: int) -> None:
    """Requests of many lengths, so that their times spread."""
    for index in range(count):
        answer = server.client.post(
            "/v1/completions",
            json={"model": "helpdesk", "prompt": "Where is my order?", "max_tokens": 1 + index % 40},
        )
        assert answer.status_code == 200, answer.text


def times(server) -> list[float]:
    """The seconds that the access log says each generation took, ascending."""
    lines = [json.loads(line) for line in server.access_log.read_text().splitlines()]
    return sorted(line["total_ms"] / 1000 for line in lines if line["route"] == "completions")


def test_native_histograms_give_the_true_p99(logged, prometheus):
    count = 150
    generate(logged, count)
    series = 'sluice_request_duration_seconds{deployment="helpdesk"}'

    def scraped():
        found = prometheus(f"histogram_count({series})")
        return found and float(found[0]["value"][1]) == count

    logged.wait_until(scraped, seconds=60, what="a scrape of all requests as a native histogram")
    logged.wait_until(lambda: len(times(logged)) == count, what="all lines of the access log")
    exact = times(logged)
    for quantile in (0.5, 0.9, 0.99):
        found = float(prometheus(f"histogram_quantile({quantile}, {series})")[0]["value"][1])
        true = exact[math.ceil(quantile * count) - 1]
        assert found == pytest.approx(true, rel=0.01), f"the quantile {quantile} of {exact}"
    # Only native ones were taken: classic buckets would stand beside them as series.
    assert prometheus("sluice_request_duration_seconds_bucket") == []
    assert float(prometheus(f"histogram_sum({series})")[0]["value"][1]) == pytest.approx(sum(exact), rel=0.01)


def test_counters_and_gauges_come_over_protobuf_too(logged, prometheus):
    generate(logged, 3)

    def successes():
        found = prometheus('sum(vllm:request_success_total{model_name="helpdesk"})')
        return found and float(found[0]["value"][1]) == 3

    logged.wait_until(successes, seconds=60, what="a scrape of the counter")
    assert float(prometheus("vllm:num_requests_running")[0]["value"][1]) == 0


def test_promtool_finds_no_fault_with_the_text(logged):
    generate(logged, 3)
    answer = logged.client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    checked = subprocess.run(["promtool", "check", "metrics"], input=answer.text, capture_output=True, text=True)
    # It parses all, and then lints names; those of Triton and vLLM are not ours to choose.
    assert "error while linting" not in checked.stderr, checked.stderr
    said = [line for line in checked.stderr.splitlines() if not re.match(r"(vllm:|nv_)", line)]
    assert said == [], checked.stderr
