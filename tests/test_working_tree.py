"""What ran can be restored: the commit and the logged diff give the same tree."""

import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from servers import nobody

from pipeline.config.compose import compose
from pipeline.core import provenance, working_tree
from pipeline.core.working_tree import GitError, WorkingTree
from pipeline.tracking.tracker import Tracker
from pipeline.training.run_logging import log_code

_IDENTITY = ("-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "protocol.file.allow=always")


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *_IDENTITY, *arguments], cwd=folder, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode(errors="surrogateescape").strip()


@pytest.fixture(autouse=True)
def _git_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Settings of a user that change what `git diff` prints, and what `git add` does."""
    settings = ("noprefix=true", "mnemonicPrefix=true", "external=/bin/true", "renames=copies", "submodule=log")
    text = "[color]\nui = always\n[core]\nsafecrlf = true\n[diff]\n" + "\n".join(settings) + "\n"
    (tmp_path / "gitconfig").write_text(text, encoding="utf-8")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    for name in ("code.py", "other.py", "long.py", "dvc.lock", "params.yaml", "data.bin"):
        (folder / name).write_text("".join(f"{name} {line}\n" for line in range(40)), encoding="utf-8")
    (folder / "data.bin").write_bytes(bytes(range(256)) * 8)
    (folder / "crlf.txt").write_bytes(b"one\r\ntwo\r\n")
    (folder / ".gitignore").write_text("ignored/\n", encoding="utf-8")
    (folder / "conf").mkdir()
    (folder / "conf/a.yaml").write_text("a: 1\n", encoding="utf-8")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "start")
    return folder


def _read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> WorkingTree:
    monkeypatch.chdir(folder)
    return working_tree.read()


def _restore(repository: Path, commit: str | None, diff: bytes, clone: Path) -> str:
    """Do what the documentation says, and return the id of the tree."""
    git(clone.parent, "clone", "-q", "--no-checkout", str(repository), str(clone))
    if commit:
        git(clone, "checkout", "-q", commit)
    (clone.parent / "git.diff").write_bytes(diff)
    if diff:
        git(clone, "apply", "--index", "../git.diff")
    return git(clone, "write-tree")


def _content(folder: Path) -> dict[bytes, tuple[int, bytes]]:
    """Mode and content of every file, by name in bytes."""
    files = {}
    for top, folders, names in os.walk(os.fsencode(folder)):
        folders[:] = [name for name in folders if name != b".git"]
        for name in [*names, *(f for f in folders if os.path.islink(os.path.join(top, f)))]:  # noqa: PTH114, PTH118
            path = os.path.join(top, name)  # noqa: PTH118
            mode = os.lstat(path).st_mode
            content = os.readlink(path) if stat.S_ISLNK(mode) else Path(os.fsdecode(path)).read_bytes()  # noqa: PTH115
            files[os.path.relpath(path, os.fsencode(folder))] = (mode & 0o100, content)
    return files


def _modified(r: Path) -> None:
    (r / "code.py").write_text("changed, and without a newline at the end", encoding="utf-8")


def _staged(r: Path) -> None:
    (r / "code.py").write_text("staged\n", encoding="utf-8")
    git(r, "add", "code.py")
    (r / "code.py").write_text("changed after that\n", encoding="utf-8")


def _untracked(r: Path) -> None:
    (r / "conf/model").mkdir()
    (r / "conf/model/mine.yaml").write_text("a: 2\n", encoding="utf-8")
    (r / "empty.py").touch()


def _in_the_index_though_ignored(r: Path) -> None:
    (r / "ignored").mkdir()
    (r / "ignored/code.py").write_text("forced\n", encoding="utf-8")
    (r / "intended.py").write_text("intended\n", encoding="utf-8")
    git(r, "add", "--force", "ignored/code.py")
    git(r, "add", "--intent-to-add", "intended.py")


def _hidden(r: Path) -> None:
    git(r, "update-index", "--assume-unchanged", "code.py")
    git(r, "update-index", "--skip-worktree", "other.py")
    (r / "code.py").write_text("changed\n", encoding="utf-8")
    (r / "other.py").write_text("changed\n", encoding="utf-8")


def _deleted(r: Path) -> None:
    (r / "code.py").unlink()
    git(r, "rm", "-q", "other.py")
    git(r, "rm", "-q", "--cached", "long.py")


def _renamed(r: Path) -> None:
    (r / "code.py").rename(r / "renamed.py")
    git(r, "mv", "other.py", "conf/other.py")


def _binary(r: Path) -> None:
    (r / "data.bin").write_bytes(bytes(reversed(range(256))) * 9)
    (r / "new.bin").write_bytes(b"\0\1\2" * 5000)


def _not_utf_8(r: Path) -> None:
    (r / "code.py").write_bytes(b"# caf\xe9\n")
    (r / "new.py").write_bytes(b"# caf\xe9 \xff\xfe\n")


def _line_ends(r: Path) -> None:
    (r / "crlf.txt").write_bytes(b"one\r\nthree\r\n")
    (r / "mixed.txt").write_bytes(b"one\r\ntwo\nthree\rfour\r\n \r\n")


def _modes(r: Path) -> None:
    (r / "code.py").chmod(0o755)
    (r / "script.sh").write_text("#!/bin/sh\n", encoding="utf-8")
    (r / "script.sh").chmod(0o755)


def _links(r: Path) -> None:
    (r / "link").symlink_to("code.py")
    (r / "broken").symlink_to("nowhere/é")
    (r / "other.py").unlink()
    (r / "other.py").symlink_to("conf")


def _kinds(r: Path) -> None:
    """A file becomes a folder, and a folder a file."""
    (r / "code.py").unlink()
    (r / "code.py").mkdir()
    (r / "code.py/inner.py").write_text("inner\n", encoding="utf-8")
    (r / "conf/a.yaml").unlink()
    (r / "conf").rmdir()
    (r / "conf").write_text("file\n", encoding="utf-8")


def _names(r: Path) -> None:
    names = ("with blanks and 'quotes\"", "naïve é 漢字.py", "tab\tnew\nline", "-n", ":(exclude)x", "back\\slash")
    for name in names:
        (r / name).write_text("x\n", encoding="utf-8")
    with open(os.fsencode(r) + b"/caf\xe9.py", "wb") as file:  # noqa: PTH123
        file.write(b"x\n")


def _large(r: Path) -> None:
    """Larger than what used to be cut, in a file that git tracks."""
    (r / "long.py").write_text("".join(f"line {line}\n" for line in range(200_000)), encoding="utf-8")


def _unmerged(r: Path) -> None:
    git(r, "checkout", "-q", "-b", "side")
    (r / "code.py").write_text("side\n", encoding="utf-8")
    git(r, "commit", "-qam", "side")
    git(r, "checkout", "-q", "main")
    (r / "code.py").write_text("main\n", encoding="utf-8")
    git(r, "commit", "-qam", "main")
    subprocess.run(["git", *_IDENTITY, "merge", "-q", "side"], cwd=r, capture_output=True, check=False)


CHANGES: dict[str, Callable[[Path], None]] = {
    **{"modified": _modified, "staged": _staged, "untracked": _untracked, "deleted": _deleted, "renamed": _renamed},
    **{"in the index though ignored": _in_the_index_though_ignored, "hidden from status": _hidden, "binary": _binary},
    **{"not UTF-8": _not_utf_8, "line ends": _line_ends, "modes": _modes, "links": _links, "kinds": _kinds},
    **{"names": _names, "large": _large, "unmerged": _unmerged},
}


@pytest.mark.parametrize("change", CHANGES)
def test_commit_and_diff_give_back_what_ran(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    CHANGES[change](repository)
    before = git(repository, "status", "--porcelain", "-z"), sorted((repository / ".git/objects").rglob("*"))
    found = _read(repository, monkeypatch)
    assert found.dirty
    assert found.left_out == ()
    assert _restore(repository, found.commit, found.diff, tmp_path / "clone") == found.tree
    assert _content(tmp_path / "clone") == _content(repository)
    after = git(repository, "status", "--porcelain", "-z"), sorted((repository / ".git/objects").rglob("*"))
    assert after == before


def test_a_clean_folder_is_the_tree_of_its_commit(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("params.yaml", "dvc.lock"):  # which the pipeline writes
        (repository / name).write_text("changed\n", encoding="utf-8")
    (repository / "ignored").mkdir()
    (repository / "ignored/a.py").touch()
    found = _read(repository, monkeypatch)
    assert (found.dirty, found.diff, found.branch) == (False, b"", "main")
    assert (found.commit, found.tree) == (git(repository, "rev-parse", "HEAD"), git(repository, "rev-parse", "HEAD:"))


def test_without_a_commit_the_diff_is_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = tmp_path / "repository"
    repository.mkdir()
    git(repository, "init", "-q", "-b", "main")
    _names(repository)
    found = _read(repository, monkeypatch)
    assert (found.commit, found.branch) == (None, "main")
    assert _restore(repository, None, found.diff, tmp_path / "clone") == found.tree
    assert _content(tmp_path / "clone") == _content(repository)


def test_a_folder_of_another_repository_takes_nothing_from_beside_it(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / "conf/new é.yaml").write_text("a: 2\n", encoding="utf-8")
    (repository / "beside.py").write_text("of somebody else\n", encoding="utf-8")
    git(repository, "add", "beside.py")
    found = _read(repository / "conf", monkeypatch)
    assert b"beside" not in found.diff
    assert _restore(repository, found.commit, found.diff, tmp_path / "clone") == found.tree
    assert (tmp_path / "clone/conf/new é.yaml").exists()


def test_a_worktree_with_a_detached_head(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "work:tree"
    git(repository, "worktree", "add", "-q", "--detach", str(place))
    (place / "new.py").write_text("new\n", encoding="utf-8")
    found = _read(place, monkeypatch)
    assert found.branch == "HEAD"
    assert _restore(repository, found.commit, found.diff, tmp_path / "clone") == found.tree
    assert (tmp_path / "clone/new.py").exists()


def test_a_repository_whose_path_has_a_colon(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = repository.rename(tmp_path / 'a:b"c')
    _modified(repository)
    found = _read(repository, monkeypatch)
    assert _restore(repository, found.commit, found.diff, tmp_path / "clone") == found.tree


def test_a_submodule_counts_by_its_commit(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(tmp_path, "clone", "-q", str(repository), str(tmp_path / "inner"))
    git(repository, "submodule", "--quiet", "add", str(tmp_path / "inner"), "sub")
    git(repository, "commit", "-qm", "submodule")
    assert not _read(repository, monkeypatch).dirty
    _modified(repository / "sub")
    assert _read(repository, monkeypatch).left_out == ("sub (changes inside a submodule)",)
    git(repository / "sub", "commit", "-qam", "moved on")
    found = _read(repository, monkeypatch)
    assert found.left_out == ()
    assert _restore(repository, found.commit, found.diff, tmp_path / "clone") == found.tree


def test_what_is_large_or_secret_is_left_out_by_name(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / "images.npy").write_bytes(bytes(3 * 2**20))
    (repository / ".env").write_text("PASSWORD=x\n", encoding="utf-8")
    (repository / "secrets.py").write_text("import secrets\n", encoding="utf-8")  # code is code
    git(tmp_path, "clone", "-q", str(repository), str(repository / "nested"))
    found = _read(repository, monkeypatch)
    assert sorted(found.left_out) == [
        ".env (may hold a secret)",
        "images.npy (3.0 MiB)",
        "nested/ (a repository of its own)",
    ]
    assert b"PASSWORD" not in found.diff
    assert _restore(repository, found.commit, found.diff, tmp_path / "clone") == found.tree
    (repository / "many").mkdir()
    for number in range(30):
        (repository / f"many/{number:02}.npy").write_bytes(bytes([number]) * 2**20)
    assert _read(repository, monkeypatch).left_out[-1] == "and 9 more"


def test_credentials_in_a_changed_file_are_hidden_and_that_is_said(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = b"url = 'https://jane:hunter22@example.org/x'  # caf\xe9\n"
    with (repository / "code.py").open("ab") as file:
        file.write(changed)
    state = _read(repository, monkeypatch)
    assert b"hunter22" not in state.diff
    assert b"+url = 'https://***@example.org/x'  # caf\xe9\n" in state.diff
    assert state.missing == "not kept with runs: credentials in changed files (*** in git.diff)"


def test_reasons_without_a_state_name_the_way_out(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "zip").mkdir()
    with pytest.raises(GitError, match="not a git repository, so runs record no commit; clone"):
        _read(tmp_path / "zip", monkeypatch)
    (repository / "ignored").mkdir()
    (repository / "ignored/train.py").touch()
    with pytest.raises(GitError, match="ignores this folder"):
        _read(repository / "ignored", monkeypatch)
    with monkeypatch.context() as foreign:
        foreign.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
        with pytest.raises(GitError, match=r"git config --global --add safe\.directory"):
            _read(repository, monkeypatch)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GitError, match="git is not installed"):
        _read(repository, monkeypatch)


def test_the_diff_is_logged_byte_by_byte(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracking = compose().tracking
    _not_utf_8(repository)
    monkeypatch.chdir(repository)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", nobody())
    provenance.code.cache_clear()
    try:
        with Tracker(tracking, tmp_path).run("r", tags=provenance.origin()) as run:
            log_code(run)
            (kept,) = tmp_path.glob("journal/*/files/*/git.diff")
            assert b"caf\xe9" in kept.read_bytes()
            commit, tree = run.journal.begin["tags"]["git.commit"], run.journal.begin["tags"]["git.tree"]
        assert _restore(repository, commit, kept.read_bytes(), tmp_path / "clone") == tree
    finally:
        provenance.code.cache_clear()
