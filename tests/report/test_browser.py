"""Reports in a real browser."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Error, Page, expect, sync_playwright

import nnctl
import nnctl as api
from nnctl.data.dataset import open_dataset
from nnctl.nn.activations import Activation, LeakyReLU, Maxout, PReLU, ReLU, Sigmoid, Softmax
from nnctl.nn.network import Network
from nnctl.nn.types import Array
from nnctl.report.html_report import report as write_report
from nnctl.report.weights import describe_network
from tests.conftest import CONFIGS, Nnctl
from tests.export.helpers import HIDDEN, OUTPUT, images, largest_difference, named
from tests.export.helpers import trained as trained_with
from tests.report.browsers import QUIET, Strokes, draw, find_chromium
from tests.runs.helpers import ignore

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser")]

Open = Callable[..., Page]

ZERO: Strokes = [
    [
        *((0.5, 0.2), (0.35, 0.3), (0.3, 0.5), (0.35, 0.7), (0.5, 0.8), (0.65, 0.7), (0.7, 0.5)),
        *((0.65, 0.3), (0.5, 0.2)),
    ]
]
ONE: Strokes = [[(0.52, 0.2), (0.48, 0.8)]]
FOUR: Strokes = [[(0.35, 0.2), (0.3, 0.5), (0.65, 0.5)], [(0.65, 0.2), (0.62, 0.8)]]
SEVEN: Strokes = [[(0.3, 0.25), (0.7, 0.25), (0.45, 0.8)]]

UNIT = "Number(document.querySelector('.units').ariaValueNow)"
"""The unit of the first layer that is shown, from 1."""

DIGITS = {"0": ZERO, "1": ONE, "4": FOUR, "7": SEVEN}


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium; tests are skipped if it is not installed."""
    path = find_chromium()
    if path is None:
        pytest.skip("needs Chromium: on Debian, apt-get install chromium")
    with sync_playwright() as playwright:
        try:
            chromium = playwright.chromium.launch(executable_path=path, args=QUIET)
        except Error as error:
            pytest.skip(f"{path} does not start: {error}")
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Open an HTML file; the test fails if the page has an error or sends a request."""
    errors: list[str] = []
    contexts = []

    def note_message(message: ConsoleMessage) -> None:
        if message.type == "error":
            errors.append(message.text)

    def note_request(url: str) -> None:
        if not url.startswith(("data:", "file:")):
            errors.append(url)

    def visit(file: Path, *, width: int = 1200, dark: bool = False, touch: bool = False) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": 800},
            color_scheme="dark" if dark else "light",
            has_touch=touch,
            offline=True,
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", note_message)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("dialog", lambda dialog: errors.append(dialog.message))
        page.on("request", lambda request: note_request(request.url))
        page.goto(file.resolve().as_uri())
        return page

    yield visit
    for context in contexts:
        context.close()
    assert errors == []


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that recognizes digits drawn with a mouse."""
    folder = tmp_path_factory.mktemp("runs") / "smoke"
    return api.train(CONFIGS / "smoke.yaml", run_dir=folder).directory


@pytest.fixture(scope="session")
def page_file(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of `trained`."""
    file = tmp_path_factory.mktemp("pages") / "report.html"
    return write_report([trained], file, notify=ignore).file


@pytest.mark.parametrize("digit", DIGITS)
def test_a_drawn_digit_is_recognized(page_file: Path, open_page: Open, digit: str) -> None:
    page = open_page(page_file)
    for size in (1.0, 0.4):
        draw(page, DIGITS[digit], size)
        assert digit == page.locator("#answer").inner_text()
        probabilities = [float(text) for text in page.locator(".bar output").all_inner_texts()]
        assert len(probabilities) == 10
        assert sum(probabilities) == pytest.approx(1, abs=0.006)
        assert int(digit) == int(np.argmax(probabilities))
        assert page.locator(".units").count() == 2
        page.get_by_role("button", name="Clear").click()
        assert page.locator("#answer").inner_text() == ""


def test_drawings_are_centered_and_scaled_like_mnist(page_file: Path, open_page: Open) -> None:
    page = open_page(page_file)
    seen = []
    for size in (1.0, 0.4):
        draw(page, ZERO, size)
        seen.append(
            np.array(
                page.evaluate(
                    "[...document.getElementById('seen').getContext('2d')"
                    ".getImageData(0, 0, 28, 28).data].filter((_, i) => i % 4 === 0)"
                )
            ).reshape(28, 28)
        )
        page.get_by_role("button", name="Clear").click()
    for image in seen:
        rows, columns = np.nonzero(image > 60)
        assert 19 <= np.ptp(rows) + 1 <= 21
        for axis, along in ((1, rows), (0, columns)):
            center = image.sum(axis=axis) @ (np.arange(28) + 0.5) / image.sum()
            assert center == pytest.approx(14.5, abs=0.15)
            assert along.size
    assert np.abs(seen[0] - seen[1]).mean() < 6  # of 255: the mouse moves by whole pixels


def test_the_canvas_accepts_touch_input(page_file: Path, open_page: Open) -> None:
    page = open_page(page_file, width=360, touch=True)
    page.locator("#draw").scroll_into_view_if_needed()
    before = page.evaluate("scrollY")
    page.locator("#draw").tap(position={"x": 100, "y": 100})
    assert page.locator("#answer").inner_text() in set("0123456789")
    assert before == page.evaluate("scrollY")


def test_a_click_on_a_cell_shows_its_digits(
    page_file: Path, trained: Path, open_page: Open
) -> None:
    page = open_page(page_file)
    confusion = api.evaluate(trained).confusion
    wrong = confusion - np.diag(confusion.diagonal())
    true, decided = np.unravel_index(wrong.argmax(), wrong.shape)
    cell = page.locator(f"#confusion button[data-cell='{true}-{decided}']")
    assert str(wrong.max()) == cell.inner_text()
    title = f"true {true}, predicted {decided}: {wrong.max()} images"
    assert page.locator("#cell h4").inner_text().startswith(title)
    assert wrong.max() == page.locator("#cell figure.example").count()
    page.locator("#confusion button[data-cell='0-0']").click()
    assert page.locator("#cell h4").inner_text().startswith("true 0, predicted 0")
    cell.click()
    page.locator("#cell .digit").first.click()
    expect(page.locator("#answer")).to_have_text(str(decided))
    assert str(decided) == page.locator("#answer").inner_text()
    confidence = float(page.locator(".bar.best output").inner_text())
    caption = page.locator("#cell figcaption").first.inner_text()
    assert caption == f"{100 * confidence:.0f} %"


def test_the_pad_shows_a_test_digit_with_its_answer_at_once(
    page_file: Path, trained: Path, open_page: Open
) -> None:
    page = open_page(page_file)
    expect(page.locator("#answer")).not_to_have_text("")
    true = page.locator("#samples figcaption").first.inner_text()
    assert f"true {true}" in page.locator("#source").inner_text()
    labels = open_dataset("mini", notify=ignore).test.labels
    first = int(np.flatnonzero(labels == int(true))[0])
    predicted = api.evaluate(trained).predictions.predicted[first]
    assert str(predicted) == page.locator("#answer").inner_text()
    assert page.locator("main section").first.locator("#draw").count() == 1


def test_a_unit_shows_its_weights_and_the_digits_that_excite_it_most(
    page_file: Path, trained: Path, open_page: Open
) -> None:
    page = open_page(page_file)
    page.locator(".exciting .digit").first.wait_for()
    network = in_half_precision(api.load(trained).network())
    strip = page.locator(".units").first
    strip.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    unit = int(page.locator(".unit h4").inner_text().split()[-1]) - 1
    outputs = network.activations(images()[:200])[0][:, unit]
    shown = page.locator(".exciting figcaption").all_inner_texts()
    assert shown == [f"{output:.2f}" for output in sorted(outputs, reverse=True)[:6]]
    before = page.locator(".unit h4").inner_text()
    strip.hover(position={"x": 3, "y": 3})
    assert page.locator(".unit h4").inner_text() == "Layer 1, unit 1" != before


@pytest.mark.usefixtures("sketched_reports")
def test_a_dead_unit_and_the_pieces_of_a_maxout_unit_are_shown_as_what_they_are(
    tmp_path: Path, open_page: Open
) -> None:
    run = trained_with([ReLU(), Softmax()])
    network = run.network()
    weights, biases = network.parameters.weights, network.parameters.biases
    biases[0][3] = -1000
    dead = api.save(
        nnctl.Network.from_arrays(weights, biases, [ReLU(), Softmax()]),
        tmp_path / "dead",
        dataset="mini",
    )
    written = write_report([dead.directory], tmp_path / "report.html", notify=ignore)
    page = open_page(written.file)
    strip = page.locator(".units").first
    page.locator(".exciting .digit").first.wait_for()
    strip.focus()
    while not page.locator(".unit h4").inner_text().endswith("unit 4"):
        page.keyboard.press("ArrowRight" if page.evaluate(UNIT) < 4 else "ArrowLeft")
    assert "the same for all 200 test images" in page.locator(".unit").inner_text()

    maxout = page.evaluate(
        """() => {
            const half = (numbers) => btoa(String.fromCharCode(...new Uint8Array(numbers.buffer)));
            const layer = {
                activation: "maxout", parameters: { pieces: 2 },
                weights: half(new Uint16Array([0x3c00, 0x4000, 0x4200, 0x4400])),
                biases: half(new Float32Array([0, 0, 0, 0])),
            };
            const net = new Network({ inputs: 1, layers: [layer] });
            return [[...net.incoming(0, 0, net.forward([1])[0])],
                    [...net.incoming(0, 0, net.forward([-1])[0])]];
        }"""
    )
    assert maxout == [[3], [1]]  # the piece with the largest z


def test_on_a_phone_the_answer_is_beside_the_canvas(page_file: Path, open_page: Open) -> None:
    page = open_page(page_file, width=390)
    canvas, answer = (page.locator(name).bounding_box() for name in ("#draw", "#answer"))
    assert canvas
    assert answer
    assert canvas["x"] + canvas["width"] <= answer["x"]
    assert canvas["y"] <= answer["y"] < canvas["y"] + canvas["height"]


def test_the_evidence_of_a_network_without_hidden_layers_is_w_times_x(
    page_file: Path, open_page: Open
) -> None:
    page = open_page(page_file)
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(784, 10)).astype(np.float16)
    network = nnctl.Network.from_arrays([weights], [np.zeros(10)], [Softmax()])
    image = rng.random(784)
    actual = page.evaluate(
        """([description, image]) => [...new Network(description).contributions(
            Float64Array.from(image), [0, 1, -1, 0, 0, 0, 0, 0, 0, 0])]""",
        [describe_network(network), image.tolist()],
    )
    np.testing.assert_allclose(actual, image * (weights[:, 1] - weights[:, 2]), atol=1e-3)


def test_the_steps_lead_from_the_image_on_the_pad_to_the_answer(
    page_file: Path, trained: Path, open_page: Open
) -> None:
    page = open_page(page_file)
    expect(page.locator("#answer")).not_to_have_text("")
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#steps")).to_be_hidden()
    page.locator("#samples .digit").nth(4).click()
    expect(page.locator("#answer")).not_to_have_text("")
    network = in_half_precision(api.load(trained).network())
    labels = open_dataset("mini", notify=ignore).test.labels
    true = int(page.locator("#samples figcaption").nth(4).inner_text())
    image = images()[int(np.flatnonzero(labels == true)[0])][None]
    hidden, logits = network.activations(image)[0][0], network.logits(image)[0]
    other, answer = np.argsort(logits)[-2:].tolist()
    expect(page.locator("#answer")).to_have_text(str(answer))
    first, last, decision = (
        [row.split("\t") for row in page.locator("#steps tbody").nth(i).inner_text().splitlines()]
        for i in range(3)
    )
    strongest = np.argsort(-hidden)[:5]
    assert [row[0] for row in first] == [str(unit + 1) for unit in strongest]
    assert [float(row[2]) for row in first] == pytest.approx(hidden[strongest].tolist(), rel=1e-3)
    assert [row[0] for row in last[:2]] == [str(answer), str(other)]
    assert float(last[0][1]) == pytest.approx(float(logits[answer]), rel=1e-3)
    difference = float(logits[answer] - logits[other])
    assert decision[-1] == ["sum", "", "", decision[-1][-1]]
    assert float(decision[-1][-1]) == pytest.approx(difference, rel=1e-3)
    assert sum(float(row[-1]) for row in decision[:-1]) == pytest.approx(difference, abs=0.01)
    caption = page.locator("#steps .decision").inner_text()
    assert caption.startswith(f"Why {answer} and not {other}, the second best: z({answer}) - z(")


def test_the_mistakes_are_reached_with_the_keyboard(page_file: Path, open_page: Open) -> None:
    page = open_page(page_file)
    mistake = page.locator("#worst-mistakes ~ .digits .digit").first
    mistake.focus()
    page.keyboard.press("Enter")
    title = mistake.get_attribute("title")
    assert title
    page.wait_for_function(
        "(t) => document.getElementById('source').textContent.includes(t)", arg=title[1:]
    )


def test_charts_and_pictures_are_shown(page_file: Path, open_page: Open) -> None:
    page = open_page(page_file)
    for name in ("Loss", "Accuracy", "Learning rate", "Accuracy by confidence", "Dead units"):
        chart = page.get_by_role("img", name=name, exact=True)
        box = chart.locator("svg").bounding_box()
        assert box
        assert box["width"] > 200
        assert chart.locator("path").count() > 5
    assert page.locator(".weights .picture").count() == 48


@pytest.mark.parametrize("dark", [False, True])
def test_the_page_follows_the_light_and_dark_color_schemes(
    page_file: Path, open_page: Open, dark: bool
) -> None:
    page = open_page(page_file, dark=dark)

    def luminance(selector: str, what: str) -> float:
        color = page.locator(selector).first.evaluate(
            f"(element) => getComputedStyle(element).{what}"
        )
        channels = np.array([float(n) / 255 for n in color.strip("rgb()").split(",")[:3]])
        linear = np.where(
            channels <= 0.03928, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4
        )
        return float(linear @ [0.2126, 0.7152, 0.0722])

    paper = luminance("section", "backgroundColor")
    assert (paper < 0.1) == dark
    for selector, what in (("h2", "color"), (".hint", "color"), (".chart svg text", "fill")):
        pair = sorted([luminance(selector, what), paper])
        assert (pair[1] + 0.05) / (pair[0] + 0.05) > 4.5, selector  # WCAG, AA


def test_the_page_fits_a_screen_of_360_pixels(page_file: Path, open_page: Open) -> None:
    page = open_page(page_file, width=360)
    assert page.evaluate("document.documentElement.scrollWidth") == 360


def test_the_page_can_be_printed(page_file: Path, open_page: Open) -> None:
    page = open_page(page_file, dark=True)
    assert page.pdf().startswith(b"%PDF")
    page.emulate_media(media="print", color_scheme="dark")
    color = page.locator("body").evaluate("(body) => getComputedStyle(body).backgroundColor")
    assert color == "rgb(255, 255, 255)"


def in_half_precision(network: Network) -> Network:
    """Round the weights of a network as on a page."""
    for weights in network.parameters.weights:
        weights[...] = weights.astype(np.float16)
    return network


def outputs_in(page: Page, count: int, network: Network | None = None) -> Array:
    """Return the outputs of a network for the first test images, computed by the page."""
    pixels = open_dataset("mini", notify=ignore).test.inputs[:count]
    outputs = page.evaluate(
        """([description, base64]) => {
            const model = description ? new Network(description) : network;
            const pixels = bytesOf(base64);
            const size = model.inputs;
            return Array.from({ length: pixels.length / size }, (_, i) =>
                [...model.outputs([...pixels.slice(i * size, (i + 1) * size)].map((p) => p / 255))]
            );
        }""",
        [network and describe_network(network), base64.b64encode(pixels.tobytes()).decode()],
    )
    return np.array(outputs)


def test_the_outputs_on_the_page_agree_with_nnctl_for_every_activation(
    page_file: Path, open_page: Open
) -> None:
    page = open_page(page_file)
    networks = [*([hidden, Softmax()] for hidden in HIDDEN), *([ReLU(), out] for out in OUTPUT)]
    normalized: list[Activation] = [PReLU(), Maxout(3), Softmax()]
    runs = [(layers, None) for layers in networks]
    for layers, position in [*runs, (normalized, "before"), (normalized, "after")]:
        run = trained_with(layers, position)
        network = in_half_precision(run.network().folded())
        expected = network.activations(images())[-1]
        actual = outputs_in(page, 1000, network)
        assert actual.shape == expected.shape == (1000, 10)
        assert largest_difference(expected, actual) < 1e-4, list(map(named, layers))


def test_the_page_contains_the_network_of_the_run(
    page_file: Path, trained: Path, open_page: Open
) -> None:
    expected = in_half_precision(api.load(trained).network()).activations(images())[-1]
    assert largest_difference(expected, outputs_in(open_page(page_file), 1000)) < 1e-4


@pytest.mark.usefixtures("sketched_reports")
def test_a_binary_classifier_has_two_bars(tmp_path: Path, open_page: Open) -> None:
    run = trained_with([LeakyReLU(), Sigmoid()], positive_digit=7)
    written = write_report([run.directory], tmp_path / "report.html", notify=ignore)
    page = open_page(written.file)
    draw(page, SEVEN)
    assert page.locator(".bar b").all_inner_texts() == ["other", "7"]
    assert page.locator("#answer").inner_text() == "7"
    assert page.locator("#steps .decision").inner_text().startswith("Why 7 and not other, the sec")
    assert float(page.locator("#steps .answer td").last.inner_text()) > 0  # z of the only unit


@pytest.mark.usefixtures("sketched_reports")
@pytest.mark.parametrize(
    ("units", "note"), [(870, "rounded to 16 bits"), (900, "too large for this page")]
)
def test_the_page_of_a_large_network_is_smaller_than_3_mb(
    scratch: Path, open_page: Open, units: int, note: str
) -> None:
    rng = np.random.default_rng(0)
    sizes = [(784, units), (units, 10)]
    weights = [rng.normal(size=size, scale=size[0] ** -0.5) for size in sizes]
    biases = [np.zeros(units), np.zeros(10)]
    network = nnctl.Network.from_arrays(weights, biases, [ReLU(), Softmax()])
    run = api.save(network, "run", dataset="mini")
    written = write_report([run.directory], scratch / "report.html", notify=ignore)
    assert written.bytes < 3_000_000
    page = open_page(written.file)
    assert note in page.locator("main").inner_text()
    if units == 870:
        expected = network.activations(images()[:50])[-1]
        assert 0 < largest_difference(expected, outputs_in(page, 50)) < 2e-3


@pytest.mark.usefixtures("sketched_reports")
def test_names_and_configurations_are_escaped(nnctl: Nnctl, scratch: Path, open_page: Open) -> None:
    evil = "<script>alert(1)</script>" if not scratch.drive else "&lt;script&gt;"
    name = f"{evil.replace('/', '')} $x_1$ \"'& _run"
    for i in (1, 2):
        run = scratch / f"{name}{i}"
        nnctl("train", CONFIGS / "smoke.yaml", "--epochs", i, "--run-dir", run, "--quiet")
    with (run / "config.yaml").open("a", encoding="utf-8") as config:
        config.write(f"# </pre>{evil} {{{{ 7 * 7 }}}}\n")
    nnctl("report", *(scratch / f"{name}{i}" for i in (1, 2)))
    page = open_page(scratch / "report.html")
    assert f"{name}1" in page.locator(".runs tbody").inner_text()
    assert f"{name}2" in page.locator(".runs tbody").inner_text()
    assert page.locator(".legend").first.inner_text().split() == ["epochs=2", "epochs=1"]
    assert f"</pre>{evil} {{{{ 7 * 7 }}}}" in page.locator("pre").inner_text()
    assert page.locator("script").count() == 8
