"""Whatever opens a store to MLflow's client opens it to this project, and none of its secrets is kept or shown."""

import contextlib
import datetime
import errno
import ipaddress
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from servers import Mlflow, answering, gate, nobody, served

from pipeline import describe
from pipeline.config.compose import compose
from pipeline.config.schema.tracking import TrackingConfig
from pipeline.core.errors import UserError
from pipeline.core.redaction import redacted, without_credentials
from pipeline.tracking import address, health
from pipeline.tracking.outbox import find, send
from pipeline.tracking.reachable import RefusedError, unreachable_reason
from pipeline.tracking.store import configured_store, ensure_store
from pipeline.tracking.tracker import Tracker

PASSWORD = "s3cr3t/pw@home"
IN_URL = "s3cr3t%2Fpw%40home"
TOKEN = "t0ken-of-a-team"


@pytest.fixture(scope="module")
def tracking() -> TrackingConfig:
    return compose().tracking


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server without a login, which the gates below stand before."""
    server = Mlflow(tmp_path_factory.mktemp("server"))
    server.start()
    yield server.url
    server.kill()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A main root, and an environment that names no store, no credentials and no home folder with such."""
    monkeypatch.chdir(tmp_path)
    for name in ("URI", "USERNAME", "PASSWORD", "TOKEN", "INSECURE_TLS", "SERVER_CERT_PATH", "CLIENT_CERT_PATH"):
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", "")  # so that the present state comes back afterwards
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("_pairs", "_whole", "_before"):
        monkeypatch.setattr(address, name, {})
    return tmp_path


def logged(tracking: TrackingConfig, root: Path) -> list[str]:
    """The texts of a run, read back through the gate after it was logged through the gate."""
    tracker = Tracker(tracking, root)
    with tracker.run("r", tags={"said": "x"}) as run:
        run.log_text("hello", "a/hello.txt")
    assert not list((root / "journal").iterdir())
    return [item.path for item in tracker.client.list_artifacts(run.reference, "a")]


def everything(root: Path) -> str:
    return "".join(path.read_bytes().decode(errors="replace") for path in root.rglob("*") if path.is_file())


def in_file(root: Path) -> dict[str, str]:
    file = root / "home/.mlflow/credentials"
    file.parent.mkdir(parents=True)
    file.write_text(f"[mlflow]\nmlflow_tracking_username = ann\nmlflow_tracking_password = {PASSWORD}\n")
    return {}


CREDENTIALS = {
    "in the URL": lambda url, _: {"URI": url.replace("//", f"//ann:{IN_URL}@")},
    "in variables": lambda url, _: {"URI": url, "USERNAME": "ann", "PASSWORD": PASSWORD},
    "a token": lambda url, _: {"URI": url, "TOKEN": TOKEN},
    "in the file": lambda url, root: {"URI": url, **in_file(root)},
}


@pytest.mark.parametrize("way", CREDENTIALS)
def test_a_login_is_passed_as_mlflow_passes_it(
    server: str,
    root: Path,
    tracking: TrackingConfig,
    way: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with gate(server, user=f"ann:{PASSWORD}", token=TOKEN, prefix="/team/mlflow") as url:
        for name, value in CREDENTIALS[way](url, root).items():
            monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", value)
        ((mark, said),) = health.store(root)
        assert (mark, said.split(", ")[0]) == ("ok", f"{url}: answers")
        assert logged(tracking, root) == ["a/hello.txt"]
    output = capfd.readouterr()
    assert not [secret for secret in (PASSWORD, IN_URL, TOKEN) if secret in output.out + output.err]


def test_a_password_in_the_url_is_neither_kept_nor_shown_while_the_server_is_away(
    server: str,
    root: Path,
    tracking: TrackingConfig,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """And finds what waits in the journal again when it is back, also if the password has changed meanwhile."""
    away = nobody()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", away.replace("//", f"//ann:{IN_URL}@"))
    tracker = Tracker(tracking, root)
    with tracker.run("r", tags={"where": f"https://ann:{PASSWORD[:6]}@x.org/y"}) as run:
        run.log_text(f"origin = https://{TOKEN}@github.com/a/b", "git.diff")
    tracker.close()
    with pytest.raises(UserError):
        tracker.client  # noqa: B018
    output = capfd.readouterr()
    for secret in (PASSWORD[:6], TOKEN):
        assert secret not in output.out + output.err + everything(root)
    (waiting,) = find(root)
    assert waiting.store == away
    with gate(server, user="ann:another") as url:
        assert "refuses the credentials" in send(root, [waiting], to=url.replace("//", f"//ann:{IN_URL}@"))[0]
        assert send(root, [waiting], to=url.replace("//", "//ann:another@")) == []
    assert "another" not in everything(root)


@pytest.mark.parametrize("given", ["", "ann:wrong@"], ids=["none", "wrong"])
def test_credentials_that_are_refused_are_named_before_any_work(
    server: str, root: Path, tracking: TrackingConfig, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with gate(server, user=f"ann:{PASSWORD}") as url:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", url.replace("//", f"//{given}"))
        wanted = f"{url}: refuses the credentials: HTTP 401 .who are you.*set MLFLOW_TRACKING_USERNAME and"
        with pytest.raises(UserError, match=wanted):
            Tracker(tracking, root)
        ((mark, said),) = health.store(root)
        assert mark == "FAIL"
        assert "refuses the credentials" in said


def test_the_credentials_of_one_server_are_not_sent_to_another(
    server: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, dict[str, str]]] = []
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "own")
    with gate(server, user=f"ann:{PASSWORD}") as one, gate(server, seen=seen) as other:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", one.replace("//", f"//ann:{IN_URL}@"))
        assert unreachable_reason(configured_store(root)) == ""
        assert os.environ["MLFLOW_TRACKING_PASSWORD"] == PASSWORD
        assert unreachable_reason(other) == ""
    assert [headers.get("Authorization") for _, headers in seen] == [None]
    assert os.environ["MLFLOW_TRACKING_USERNAME"] == "own"
    assert "MLFLOW_TRACKING_PASSWORD" not in os.environ


# TLS ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate, signed by itself, of 127.0.0.1, with its key in the same file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "team")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(
            name, name, key.public_key(), x509.random_serial_number(), now, now.replace(year=now.year + 1)
        )
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "team.pem"
    form = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    pem = serialization.Encoding.PEM
    path.write_bytes(made.public_bytes(pem) + key.private_bytes(pem, *form))
    return path


TLS = {
    "unknown authority": ({}, False, "TLS fails.*MLFLOW_TRACKING_SERVER_CERT_PATH"),
    "own authority": ({"SERVER_CERT_PATH": "{}"}, False, ""),
    "unchecked": ({"INSECURE_TLS": "true"}, False, ""),
    "both": ({"INSECURE_TLS": "true", "SERVER_CERT_PATH": "{}"}, False, "cannot be asked"),
    "no such file": ({"SERVER_CERT_PATH": "/no/such.pem"}, False, "TLS fails.*/no/such.pem"),
    "no certificate of the client": ({"SERVER_CERT_PATH": "{}"}, True, "CLIENT_CERT_PATH"),
    "certificate of the client": ({"SERVER_CERT_PATH": "{}", "CLIENT_CERT_PATH": "{}"}, True, ""),
}


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
@pytest.mark.parametrize("case", TLS)
def test_tls_as_mlflow_is_told(
    server: str, root: Path, tracking: TrackingConfig, certificate: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables, asks, wanted = TLS[case]
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    if asks:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(certificate)
    with gate(server, tls=context) as url:
        for name, value in {"URI": url, **variables}.items():
            monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", value.format(certificate))
        if case == "no certificate of the client":  # or an alert, or an end of the connection: as time goes
            with contextlib.suppress(RefusedError):
                assert wanted in unreachable_reason(url)
        elif wanted:
            try:
                raise OSError(errno.EFBIG, "what the caller is at")
            except OSError:  # is no reason why a server cannot be asked
                with pytest.raises(UserError, match=wanted):
                    Tracker(tracking, root)
        else:
            assert logged(tracking, root) == ["a/hello.txt"]


# other ways, and other answers --------------------------------------------------------------------


def test_a_proxy_is_used_and_left_out_where_the_environment_says_so(
    server: str, root: Path, tracking: TrackingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.team.invalid")
    with gate(server) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy)
        assert logged(tracking, root) == ["a/hello.txt"]
        monkeypatch.setenv("NO_PROXY", "team.invalid")
        assert "does not answer" in unreachable_reason("http://mlflow.team.invalid")


def test_a_header_of_a_plugin_is_sent(server: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.tracking.request_header.abstract_request_header_provider import RequestHeaderProvider
    from mlflow.tracking.request_header.registry import _request_header_provider_registry as registry

    class Header(RequestHeaderProvider):
        def in_context(self) -> bool:
            return True

        def request_headers(self) -> dict[str, str]:
            return {"X-Team": "red"}

    monkeypatch.setattr(registry, "_registry", [*registry._registry, Header()])
    seen: list[tuple[str, dict[str, str]]] = []
    with gate(server, seen=seen) as url:
        assert unreachable_reason(url) == ""
    assert seen[0][1]["X-Team"] == "red"


@pytest.mark.parametrize("status", [500, 502, 503, 429])
def test_a_server_that_cannot_answer_now_is_waited_for(root: Path, status: int) -> None:
    with answering(f"HTTP/1.1 {status} x\r\nContent-Length: 4\r\n\r\nbusy".encode()) as url:
        assert unreachable_reason(url) == f"does not answer: HTTP {status} (busy)"


def test_who_is_no_mlflow_server_is_told_so(server: str, root: Path) -> None:
    (root / "index.html").write_text("<html>")
    with served(root) as url, pytest.raises(RefusedError, match="no MLflow server at this address: HTTP 404"):
        unreachable_reason(url)
    with (
        answering(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>") as url,
        pytest.raises(RefusedError, match="no ML"),
    ):
        unreachable_reason(url)
    with gate(server, prefix="/team") as url, pytest.raises(RefusedError, match="with its path"):
        unreachable_reason(url.removesuffix("/team"))
    with answering(b"nonsense\r\n\r\n") as url:
        assert "does not answer" in unreachable_reason(url)


def test_a_server_that_says_nothing_is_given_up(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with answering(None) as url:
        assert "does not answer" in unreachable_reason(url)


def test_a_database_is_asked_through_its_driver(root: Path) -> None:
    port = nobody().rpartition(":")[2]
    shown = address.remember(f"postgresql+psycopg2://ann:{IN_URL}@127.0.0.1:{port}/runs?sslpassword=abc")
    assert shown == f"postgresql+psycopg2://ann@127.0.0.1:{port}/runs"
    assert address.whole(shown).endswith("sslpassword=abc")
    assert "Connection refused" in unreachable_reason(shown)
    socket = "postgresql+psycopg2:///runs?host=/run/no%20such&user=ann"
    assert address.remember(f"{socket}&password={IN_URL}") == address.remember(socket) == socket
    assert "/run/no such" in unreachable_reason(socket)
    with pytest.raises(RefusedError, match=r"cannot be asked.*postgresql.nosuch"):
        unreachable_reason("postgresql+nosuch://x/y")


# secrets ------------------------------------------------------------------------------------------

HIDDEN = {
    "http://u:p@h:5000/x failed": "http://***@h:5000/x failed",
    "https://token@github.com/a/b.git": "https://***@github.com/a/b.git",
    "a http://u:p@h and https://t@i/": "a http://***@h and https://***@i/",
    "http://u:p@q@h/": "http://***@h/",
    "postgresql+psycopg2://u:p/q@h/db": "postgresql+psycopg2://u@h/db",
    "postgresql://u:p@q@h/db": "postgresql://u@h/db",
    "mysql://:p@h/db": "mysql://@h/db",
    "https://s3/x?X-Amz-Signature=abc&a=1": "https://s3/x?X-Amz-Signature=***&a=1",
    "https://blob/x?sv=1&sig=abc": "https://blob/x?sv=1&sig=***",
    "https://h/?api_key=k&access-token=t#f": "https://h/?api_key=***&access-token=***#f",
    "redis://:p@h": "redis://***@h",
    # and nothing else
    "ssh://git@github.com/a/b": "ssh://git@github.com/a/b",
    "git@github.com:a/b": "git@github.com:a/b",
    "postgresql://u@h/db": "postgresql://u@h/db",
    "http://h:80/@user/x@y": "http://h:80/@user/x@y",
    '<a href="https://h">me@x.org</a>': '<a href="https://h">me@x.org</a>',
    "http://h/x\nme@x.org": "http://h/x\nme@x.org",
    "https://h/?design=a&tokens=b&keys=c": "https://h/?design=a&tokens=b&keys=c",
    "sqlite:////a/b@c/mlflow.db": "sqlite:////a/b@c/mlflow.db",
}


@pytest.mark.parametrize("text", HIDDEN)
def test_credentials_are_hidden_and_nothing_else(text: str) -> None:
    assert without_credentials(text) == HIDDEN[text]
    assert without_credentials(HIDDEN[text]) == HIDDEN[text]


def test_passwords_and_tokens_of_the_environment_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", TOKEN)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "abc")  # any word may contain it
    assert redacted(f"Bearer {TOKEN}, abcd") == "Bearer ***, abcd"


def test_a_deleted_experiment_on_a_server_is_told_before(
    root: Path, monkeypatch: pytest.MonkeyPatch, server: str
) -> None:
    client = mlflow.MlflowClient(server)
    client.delete_experiment(client.create_experiment("gone & lost"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    assert [mark for mark, _ in health.store(root, "never made")] == ["ok"]
    (_, (mark, said)) = health.store(root, "gone & lost")
    assert mark == "FAIL"
    assert said.startswith("tracking.experiment = gone & lost: is deleted in ")


MALFORMED = {
    "http://bob:s3c/retPW@127.0.0.1:9": "http://***@127.0.0.1:9",
    "http://bob:123/retPW@127.0.0.1:9": "http://***@127.0.0.1:9",
    "http://bob:s3c#retPW@127.0.0.1:9": "http://***@127.0.0.1:9",
    "http://bob:s3c?retPW@127.0.0.1:9": "http://***@127.0.0.1:9",
    "http://bob:s3[c]retPW@127.0.0.1:9": "http://***@127.0.0.1:9",
    "http://bob:s3c\\retPW@127.0.0.1:9": "http://***@127.0.0.1:9",
    'http://bob:s3c"retPW@127.0.0.1:9': "http://***@127.0.0.1:9",
    "http://bob:s3c retPW@127.0.0.1:9": "http://***@127.0.0.1:9",
    "http:// bob:s3c-retPW@127.0.0.1:9": "http://***@127.0.0.1:9",
    "http://bob:s3c-retPW@127.0.0.1:port": "http://***@127.0.0.1:port",
    "http://bob:s3c-retPW@": "http://***@",
    "http://bob:s3c://retPW@127.0.0.1:9": "http://***@127.0.0.1:9",
    "bob:s3c-retPW@127.0.0.1:9": "***@127.0.0.1:9",
    "//bob:s3c-retPW@127.0.0.1:9": "***@127.0.0.1:9",
    "http:bob:s3c-retPW@127.0.0.1:9": "***@127.0.0.1:9",
    "ftp://bob:s3c/retPW@h": "ftp://***@h",
    "postgresql:bob:s3c-retPW@h/db": "***@h/db",
    "postgresql://bob:s3c'retPW@h/db": "postgresql://***@h/db",
    "postgresql://bob:s3c retPW@h/db": "postgresql://***@h/db",
    "postgresql://bob:x@s3c/retPW@h/db": "postgresql://***@h/db",
    "http://127.0.0.1 :9": "http://127.0.0.1 :9",
}


@pytest.mark.parametrize("uri", MALFORMED)
def test_a_malformed_uri_is_refused_without_its_password(root: Path, monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    shown = MALFORMED[uri]
    with pytest.raises(UserError) as to:
        ensure_store(root, uri)
    assert str(to.value).startswith(f"--to = {shown}: ")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    for use in (configured_store, ensure_store, lambda root: list(health.store(root))):
        with pytest.raises(UserError) as error:
            use(root)
        assert str(error.value).startswith(f"MLFLOW_TRACKING_URI = {shown}: ")
        if "@" in uri:
            assert "percent-encode" in str(error.value)
        assert "s3c" not in str(error.value)
        assert "retPW" not in str(error.value)
    password = uri.rpartition("@")[0].partition("bob:")[2]
    assert "retPW" not in redacted(f"refused: {uri}, {password} is wrong")
    assert not list(root.iterdir())


@pytest.mark.parametrize(
    "uri",
    [
        f"http://ann:{IN_URL}@h:5000/p",
        "https://token@h",
        "http://[::1]:5000",
        "postgresql://u:p/q@h/db",
        "mysql+pymysql://u:p#q?@h/db",
        "postgresql:///runs?host=/run/x&user=a@b",
        "mssql+pyodbc://u:p@h\\I/db?driver=ODBC+Driver+18",
    ],
)
def test_a_good_uri_is_not_refused(root: Path, monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert configured_store(root)


def test_describe_asks_for_the_store_before_its_work(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://bob:s3c/retPW@h")
    with pytest.raises(SystemExit) as end:
        describe.main(["data=mnist_sample"])
    assert "http://***@h: is malformed" in capsys.readouterr().err
    assert end.value.code == 2
    assert not list(root.iterdir())


def test_the_same_store_has_one_name_whoever_asks(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for uri in ("http://h/p", "http://h/p/", f"http://ann:{IN_URL}@h/p", "http://bob:x@h/p/ "):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        assert configured_store(root) == "http://h/p"
    assert mlflow.__version__


def test_a_traceback_shows_no_credentials() -> None:
    script = (
        "from pipeline.core.exits import command\n"
        "@command\ndef main(arguments): raise RuntimeError('API request to http://ann:pw-1234@h/ failed')\n"
        "main([])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 1
    assert "RuntimeError: API request to http://***@h/ failed" in done.stderr
    assert "pw-1234" not in done.stderr
