"""The MLflow UI in a real browser, over a real store: what people find there without a click."""

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from playwright.sync_api import Page, expect, sync_playwright
from project_copy import start

from pipeline.config.compose import compose
from pipeline.config.schema.search import TRIAL
from pipeline.tracking import views
from pipeline.tracking.tracker import Tracker

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.xdist_group("browser"),
    pytest.mark.skipif(not CHROMIUM, reason="no chromium on PATH: apt install chromium, or set CHROMIUM"),
]
_ARGUMENTS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
_BEEN_HERE = "localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')"  # else a panel opens
FRAMEWORKS = ("tensorflow", "pytorch")
_COLOURS = {"TensorFlow": "#be501e", "PyTorch": "#2272b4"}  # of MLflow's palette, see views.SIDE
_DRAWN = "plots => plots.map(p => p.data.length ? JSON.stringify(p.data.map(t => [t.line, t.marker])) : '')"
_PATIENCE = 60_000


@pytest.fixture(scope="module")
def client(finished: tuple[Path, str, str]) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(f"sqlite:///{finished[0] / 'mlflow.db'}")


@pytest.fixture(scope="module")
def links(finished: tuple[Path, str, str], client: mlflow.MlflowClient) -> Iterator[dict[str, str]]:
    """A server as `make ui` starts it; the addresses that it prints, by name."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    found: dict[str, str] = {}
    with start(finished[0], "pipeline.ui", "--port", str(port), stderr=subprocess.DEVNULL) as ui:
        assert ui.stdout is not None
        for line in ui.stdout:
            if "http" in line:
                name, address = line.split(": ", 1)
                found[name] = address.strip()
            if line.startswith("End it"):
                break
        try:
            yield found
        finally:
            ui.terminate()
            ui.stdout.read()


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_ARGUMENTS.split())
        context = browser.new_context(viewport={"width": 1600, "height": 1000})
        context.add_init_script(_BEEN_HERE)
        yield context.new_page()
        browser.close()


def _open(page: Page, address: str) -> None:
    page.goto("about:blank")  # from one `#` address to the next the UI would keep its state
    page.goto(address, wait_until="commit")


def _expect_table(page: Page, names: list[str], headers: list[str]) -> None:
    """Exactly these runs are rows, and these columns are within the window."""
    rows = page.locator(".ag-row a[href*='/runs/']")
    expect(rows).to_have_count(len(names), timeout=_PATIENCE)
    assert sorted(rows.all_inner_texts()) == sorted(names)
    for header in headers:
        cell = page.locator(".ag-header-cell").filter(has_text=header).first
        expect(cell).to_be_visible()
        box = cell.bounding_box()
        assert box
        assert box["x"] + box["width"] <= 1600, header


def test_the_leaderboard_shows_a_row_per_training_with_its_results(page: Page, links: dict[str, str]) -> None:
    _open(page, links["Leaderboard"])
    _expect_table(page, list(FRAMEWORKS), ["test/accuracy", "test/loss", "throughput/", "train.epochs"])


def test_every_seed_has_a_row(page: Page, links: dict[str, str]) -> None:
    _open(page, links["Seeds"])
    names = [f"{framework} s{seed}" for framework in FRAMEWORKS for seed in (0, 1)]
    _expect_table(page, names, ["test/accuracy", "validation/accuracy"])


def test_the_first_page_links_to_where_the_numbers_are(page: Page, links: dict[str, str]) -> None:
    _open(page, links["Leaderboard"].split("&viewState")[0])
    for name in ("Leaderboard", "Seeds", "Curves", "Models", "Data", "Report"):
        expect(page.locator("a").filter(has_text=name).first).to_be_visible(timeout=_PATIENCE)
    with page.expect_popup() as opened:
        page.locator("a[href*='viewStateShareKey=leaderboard']").click()
    column = opened.value.locator(".ag-header-cell").filter(has_text="test/accuracy").first
    expect(column).to_be_visible(timeout=_PATIENCE)
    opened.value.close()


def test_both_frameworks_are_on_one_chart_in_their_colours(page: Page, links: dict[str, str]) -> None:
    _open(page, links["Curves"])
    plots = page.locator(".js-plotly-plot:has(.main-svg)")
    expect(plots).to_have_count(8, timeout=_PATIENCE)
    drawn: list[str] = []
    for _ in range(200):  # a chart comes before its lines
        drawn = plots.evaluate_all(_DRAWN)
        if all(drawn):
            break
        page.wait_for_timeout(100)
    assert all(colour in one for one in drawn for colour in _COLOURS.values())
    for side in _COLOURS:
        expect(page.get_by_text(f"{side} (validation/accuracy)")).to_be_visible()


def test_a_sweep_has_a_view_of_its_own(
    page: Page,
    links: dict[str, str],
    client: mlflow.MlflowClient,
    finished: tuple[Path, str, str],
) -> None:
    groups = [json.loads((finished[0] / "results" / name / "runs.json").read_text())["group"] for name in FRAMEWORKS]
    tracker = Tracker(compose().tracking, finished[0])
    with tracker.run("seen", tags={"stage": "test"}) as run:
        run.show(sweeps={"seen": ["train.optimizer.learning_rate"]})
        run.show(sweeps={"sought": ["train.optimizer.learning_rate"]}, trials=True)
    tags = views.sweep_tags(["seen", "sought"])
    for run_id in groups:
        for name, value in tags.items():
            client.set_tag(run_id, name, value)
    client.set_tag(groups[0], TRIAL, 0)  # the other was chosen by the search, and is no trial
    server = links["Leaderboard"].split("/#")[0]
    try:
        _open(page, server + views.view_page(tracker.experiment_id, views.sweep_key("seen")))
        _expect_table(page, list(FRAMEWORKS), ["validation/accuracy", "validation/loss", "framework"])
        expect(page.locator(".ag-header-cell").filter(has_text="test/accuracy")).to_have_count(0)
        _open(page, server + views.view_page(tracker.experiment_id, views.sweep_key("seen"), charts=True))
        expect(page.get_by_text("Parallel Coordinates")).to_be_visible(timeout=_PATIENCE)
        _open(page, server + views.view_page(tracker.experiment_id, views.sweep_key("sought")))
        _expect_table(page, [next(iter(FRAMEWORKS))], ["validation/accuracy", "framework", "search.trial"])
    finally:
        client.delete_tag(groups[0], TRIAL)
        for run_id in groups:
            for name in tags:
                client.delete_tag(run_id, name)


def test_the_report_is_rendered_among_the_artifacts(
    page: Page, links: dict[str, str], finished: tuple[Path, str, str]
) -> None:
    assert links["Report"].split("/#")[1] in finished[1]  # `dvc repro` ends with the same page
    _open(page, links["Report"])
    frame = page.frame_locator("iframe.mlflow-html-iframe")
    expect(frame.locator("h1")).to_contain_text("TensorFlow and PyTorch", timeout=_PATIENCE)
    document = json.loads((finished[0] / "results/comparison/comparison.json").read_text())
    expect(frame.locator("#verdict")).to_contain_text(document["sentence"].split(". ")[0])
    whole = frame.locator("img[src^='data:']").evaluate_all("all => all.map(i => i.complete && i.naturalWidth > 0)")
    assert whole
    assert all(whole)


def test_a_model_shows_its_test_results(page: Page, links: dict[str, str], client: mlflow.MlflowClient) -> None:
    _open(page, links["Models"])
    expect(page.locator(".ag-row a[href*='/models/m-']")).to_have_count(4, timeout=_PATIENCE)
    experiment = client.get_experiment_by_name("tensorflow-vs-pytorch").experiment_id
    model = client.search_logged_models([experiment])[0]
    _open(page, links["Models"].split("/#")[0] + views.model_page(experiment, model.model_id))
    expect(page.get_by_role("heading", name=model.name)).to_be_visible(timeout=_PATIENCE)
    expect(page.get_by_text("test/accuracy", exact=True).first).to_be_attached()
    assert not [metric for metric in model.metrics if metric.key == "train/step_loss"]  # of a step in between


def test_the_report_opens_from_the_disk_alone(page: Page, finished: tuple[Path, str, str]) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"file://{finished[0]}/results/comparison/report.html")
    expect(page.locator("#verdict")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 1600
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
