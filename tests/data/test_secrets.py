"""Passwords and tokens in the URLs of mirrors are sent, and never printed."""

from __future__ import annotations

import base64
import importlib.util
import logging
import ssl
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import certifi
import pytest

from nnctl.data.download import DownloadEvent, fetch
from nnctl.errors import DataError, UsageError
from nnctl.text import without_secrets
from tests.conftest import Nnctl
from tests.data import mirrors
from tests.data.mirrors import Handler, MakeMirror, Mirror, closed_port, known, known_file

FILE, PACKED = known_file("a-labels", b"the labels")
CONTENTS = {FILE.gzip_name: PACKED}
SECRET = "hunter2"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; the only known mirror is a closed port."""
    monkeypatch.setattr(mirrors, "KNOWN_MIRRORS", [f"http://127.0.0.1:{closed_port()}/"])
    return tmp_path / "cache"


def printed(cache: Path, mirror: str) -> str:
    """Return the complete output of a download from a mirror."""
    events: list[DownloadEvent] = []
    error = ""
    try:
        fetch(cache, known([FILE]), mirrors=[mirror], notify=events.append)
    except (DataError, UsageError) as caught:
        error = f"{caught!r} {caught.message} {caught.hint}"
    return f"{events} {error}"


# Output ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://host/mnist/", "http://host/mnist/"),
        ("http://me:hunter2@host/mnist/", "http://***@host/mnist/"),
        ("https://hunter2@host/mnist/", "https://***@host/mnist/"),
        ("HTTPS://me:hunter2@host:80/", "HTTPS://***@host:80/"),
        ("http://me:hun@ter2@host/", "http://***@host/"),
        ("http://me:hunter2/x@host/", "http://***@host/"),
        ("http://me:12/hunter2@host/", "http://***@host/"),
        ("http://me:hunter2?x@host/", "http://***@host/"),
        ("http://me:hunter2#x@host/", "http://***@host/"),
        ("http://me:hunter2\n@host/", "http://***@host/"),
        ("http:/me:hunter2@host/", "http:/***@host/"),
        ("http:me:hunter2@host/", "***@host/"),
        ("http//me:hunter2@host/", "***@host/"),
        ("htp://me:hunter2@host/", "htp://***@host/"),
        ("me:hunter2@host/", "***@host/"),
        ("hunter2@host", "***@host"),
        ("hunter2:@host", "***@host"),
        ("http://host/mnist@1/", "http://host/mnist@1/"),
        ("http://host/?token=hunter2", "http://host/?token=***"),
        ("http://host/?a=hunter2&b=hunter2", "http://host/?a=***&b=***"),
        ("http://host/?a=1;b=hunter2", "http://host/?a=***"),
        ("http://host/?", "http://host/?***"),
        ("http://host/?hunter2", "http://host/?***"),
        ("http://host/?a=hunter2#hunter2", "http://host/?a=***"),
        ("http://host/#hunter2", "http://host/"),
        ("http://host/?user=me@hunter2", "http://host/?user=***"),
        ("", ""),
    ],
)
def test_an_address_is_shown_without_its_secrets(address: str, shown: str) -> None:
    assert without_secrets(address) == shown


MISTYPED = [
    f"htp://me:{SECRET}@host/",
    f"http:/me:{SECRET}@host/",
    f"http//me:{SECRET}@host/",
    f"me:{SECRET}@host/",
    f"http://me:{SECRET}/x@host/",
    f"http://me:{SECRET}#x@host/",
    f"http://me:{SECRET}@host:99999/",
    f"http://me:{SECRET}@[::1/",
    f"http://me:{SECRET}@/",
    f"http://?token={SECRET}",
    f"ftp://host/?token={SECRET}",
]


@pytest.mark.parametrize("address", MISTYPED)
def test_a_mistyped_address_is_refused_without_its_secrets(cache: Path, address: str) -> None:
    shown = printed(cache, address)
    assert "a mirror must be an http:// or https:// URL, not " in shown
    assert SECRET not in shown


@pytest.mark.parametrize("variable", [True, False])
@pytest.mark.parametrize("address", MISTYPED[::4])
def test_the_command_line_does_not_print_secrets(
    nnctl: Nnctl, address: str, variable: bool
) -> None:
    options = [] if variable else ["--mirror", address]
    env = {"NNCTL_MIRROR": address} if variable else None
    assert SECRET not in nnctl("download", *options, env=env, code=2).stderr


@pytest.mark.parametrize(
    "words",
    [
        ("download", "--from"),
        ("download", "--data-dir", "new", "--from"),
        ("train", "--epochs", "1"),
        ("eval",),
        ("train", "--resume"),
        ("check",),
        ("download",),
    ],
)
def test_an_address_in_the_wrong_place_is_refused_without_its_secrets(
    nnctl: Nnctl, words: tuple[str, ...]
) -> None:
    address = f"https://me:{SECRET}@host/x?token={SECRET}"
    output = nnctl(*words, address, code=2).stderr
    assert "***@host/x?token=***" in output
    assert SECRET not in output


def test_an_option_in_the_environment_is_listed_without_its_secrets(nnctl: Nnctl) -> None:
    env = {"NNCTL_TRAIN_DATASET": f"https://me:{SECRET}@host/x?token={SECRET}"}
    output = nnctl("train", "no-such.yaml", env=env, code=2).stderr
    assert "NNCTL_TRAIN_DATASET" in output
    assert SECRET not in output


def test_a_very_long_address_is_shortened(cache: Path) -> None:
    assert len(printed(cache, "x" * 100_000)) < 1_000


@pytest.mark.parametrize("option", ["--from", "--data-dir"])
def test_a_very_long_argument_is_shortened(nnctl: Nnctl, option: str) -> None:
    code = 3 if option == "--data-dir" else 2
    output = nnctl("download", "--verify", option, f"begin{'x' * 50_000}end", code=code).stderr
    assert "beginxxx" in output
    assert "xxxend" in output
    assert len(output) < 3_000


# Mirrors that repeat secrets ---------------------------------------------------------------------


def echo(part: bytes) -> Callable[[Handler, bytes], None]:
    """Answer with bytes in which %s is replaced by the complete request."""

    def answer(to: Handler, _: bytes) -> None:
        sent = f"{to.path} {to.headers['Authorization']} {SECRET}"
        to.wfile.write(part.replace(b"%s", sent.encode()))

    return answer


@pytest.mark.parametrize(
    "part",
    [
        b"HTTP/1.1 404 %s\r\n\r\n",
        b"HTTP/1.1 599 %s\r\n\r\n",
        b"%s\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n%s\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: %s\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%s\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: ftp://me:%s@host/x?token=%s\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://me:%s@[host/\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://me:hunter2@host:hunter2/\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://me:hunter2@\x01/\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://me:hunter2@127.0.0.1:1/?hunter2\r\n\r\n",
    ],
)
def test_secrets_in_the_response_of_a_mirror_are_not_printed(
    cache: Path, mirror: MakeMirror, part: bytes
) -> None:
    hostile = mirror(CONTENTS, echo(part))
    url = hostile.url.replace("//", f"//me:{SECRET}@") + f"?token={SECRET}"
    shown = printed(cache, url)
    assert hostile.requests
    assert "MirrorFailed" in shown
    assert SECRET not in shown
    assert base64.b64encode(f"me:{SECRET}".encode()).decode() not in shown


@pytest.mark.parametrize("scheme", ["http", "ftp", "socks5", "nonsense"])
@pytest.mark.parametrize("rest", ["127.0.0.1:9", "host:hunter2", "[host"])
def test_the_password_of_a_proxy_is_not_shown(
    cache: Path, monkeypatch: pytest.MonkeyPatch, scheme: str, rest: str
) -> None:
    monkeypatch.delenv("no_proxy")
    monkeypatch.setenv("http_proxy", f"{scheme}://me:{SECRET}@{rest}")
    shown = printed(cache, "http://mnist.invalid/")
    assert "MirrorFailed" in shown
    assert SECRET not in shown


@pytest.mark.parametrize("part", [b"HTTP/1.1 200 OK\r\n%s\r\n\r\n", b"HTTP/1.1 404 %s\r\n\r\n"])
def test_the_log_of_a_download_is_without_secrets(
    cache: Path, mirror: MakeMirror, caplog: pytest.LogCaptureFixture, part: bytes
) -> None:
    url = mirror(CONTENTS, echo(part)).url.replace("//", f"//me:{SECRET}@") + f"?token={SECRET}"
    with caplog.at_level(logging.DEBUG), caplog.at_level(logging.DEBUG, "urllib3"):
        assert "MirrorFailed" in printed(cache, url)
    assert SECRET not in caplog.text


# Requests ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("slash", ["", "/"])
def test_the_file_name_is_added_to_the_path_and_not_to_the_query(
    cache: Path, mirror: MakeMirror, slash: str
) -> None:
    def serve(to: Handler, _: bytes) -> None:
        to.reply(PACKED)

    class Named(dict[str, bytes]):
        """Every file."""

        def __contains__(self, name: object) -> bool:
            return True

        def __missing__(self, name: str) -> bytes:
            return PACKED

    good: Mirror = mirror(Named(), serve)
    shown = printed(cache, f"{good.url}mnist{slash}?token={SECRET}&v=1#part")
    [request] = map(urlsplit, good.requests)
    assert request.path == f"/mnist/{FILE.gzip_name}"
    assert parse_qs(request.query) == {"token": [SECRET], "v": ["1"]}
    assert f"{good.url}mnist/{FILE.gzip_name}?token=***&v=***" in shown
    assert (cache / FILE.gzip_name).read_bytes() == PACKED


def test_user_and_password_are_sent(cache: Path, mirror: MakeMirror) -> None:
    seen: list[str | None] = []

    def serve(to: Handler, right: bytes) -> None:
        seen.append(to.headers["Authorization"])
        to.reply(right)

    good = mirror(CONTENTS, serve)
    printed(cache, good.url.replace("//", "//me:p%2Fw@"))
    assert seen == ["Basic " + base64.b64encode(b"me:p/w").decode()]
    assert (cache / FILE.gzip_name).read_bytes() == PACKED


def test_a_redirect_to_another_host_does_not_get_the_password(
    cache: Path, mirror: MakeMirror
) -> None:
    seen: list[str | None] = []

    def serve(to: Handler, right: bytes) -> None:
        seen.append(to.headers["Authorization"])
        to.reply(right)

    other = mirror(CONTENTS, serve)

    def move(to: Handler, _: bytes) -> None:
        to.send_response(302)
        to.send_header("Location", f"{other.url}{FILE.gzip_name}")
        to.end_headers()

    printed(cache, mirror(CONTENTS, move).url.replace("//", f"//me:{SECRET}@"))
    assert seen == [None]


@pytest.mark.parametrize("redirected", [False, True])
def test_the_password_in_a_netrc_file_is_sent_only_to_its_host(
    cache: Path,
    tmp_path: Path,
    mirror: MakeMirror,
    monkeypatch: pytest.MonkeyPatch,
    redirected: bool,
) -> None:
    seen: list[str | None] = []

    def serve(to: Handler, right: bytes) -> None:
        seen.append(to.headers["Authorization"])
        to.reply(right)

    def move(to: Handler, _: bytes) -> None:
        to.send_response(302)
        to.send_header("Location", other.url.replace("127.0.0.1", "localhost") + FILE.gzip_name)
        to.end_headers()

    other = mirror(CONTENTS, serve)
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine 127.0.0.1 login me password {SECRET}\n", encoding="utf-8")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    shown = printed(cache, mirror(CONTENTS, move).url if redirected else other.url)
    known = "Basic " + base64.b64encode(f"me:{SECRET}".encode()).decode()
    assert seen == [None if redirected else known]
    assert SECRET not in shown


def test_the_certificates_of_the_environment_are_trusted(
    cache: Path, mirror: MakeMirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = Path(__file__).with_name("self_signed.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    url = mirror(CONTENTS, secure=context).url
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", f"/no-such/{SECRET}")
    assert "check its URL, and http_proxy, " in printed(cache, url)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    assert "MirrorFailed" not in printed(cache, url)
    assert (cache / FILE.gzip_name).read_bytes() == PACKED


def test_the_certificates_of_openssl_are_trusted_too(
    cache: Path, mirror: MakeMirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = Path(__file__).with_name("self_signed.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    url = mirror(CONTENTS, secure=context).url
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", "/no/such/file")
    assert "set REQUESTS_CA_BUNDLE to their file" in printed(cache, url)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setenv("CURL_CA_BUNDLE", certifi.where())
    assert "failed the TLS check" in printed(cache, url)
    monkeypatch.delenv("CURL_CA_BUNDLE")
    assert "MirrorFailed" not in printed(cache, url)
    assert (cache / FILE.gzip_name).read_bytes() == PACKED


@pytest.mark.skipif(bool(importlib.util.find_spec("socks")), reason="PySocks is installed")
def test_the_library_that_a_socks_proxy_needs_is_named(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("http_proxy", f"socks5://me:{SECRET}@127.0.0.1:9")
    shown = printed(cache, "http://mnist.invalid/")
    assert 'pip install "requests[socks]"' in shown
    assert SECRET not in shown


# Informational responses -------------------------------------------------------------------------


def before(informational: bytes) -> Callable[[Handler, bytes], None]:
    """Send three informational responses, and then the final one."""

    def answer(to: Handler, right: bytes) -> None:
        to.wfile.write((b"HTTP/1.1 " + informational + b"\r\nLink: </x>\r\n\r\n") * 3)
        to.reply(right)

    return answer


def test_the_status_100_is_skipped(cache: Path, mirror: MakeMirror) -> None:
    shown = printed(cache, mirror(CONTENTS, before(b"100 Continue")).url)
    assert "MirrorFailed" not in shown
    assert (cache / FILE.gzip_name).read_bytes() == PACKED


@pytest.mark.parametrize("status", ["102 Processing", "103 Early Hints", "199"])
def test_other_informational_responses_are_reported_and_the_next_mirror_is_tried(
    cache: Path, mirror: MakeMirror, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = mirror(CONTENTS)
    monkeypatch.setattr(mirrors, "KNOWN_MIRRORS", [good.url])
    shown = printed(cache, mirror(CONTENTS, before(status.encode())).url)
    assert f"reason='answered {status}'" in shown
    assert good.requests == [f"/{FILE.gzip_name}"]
    assert (cache / FILE.gzip_name).read_bytes() == PACKED
