"""The working tree as git would commit it now: the id of its tree, and the diff that makes it from the commit.

Nothing of the repository changes: a temporary index and a temporary object folder take what git writes. Therefore the
repository may be read-only, and the user's index may hold anything.

To restore what ran, in a clone: `git checkout COMMIT && git apply --index git.diff`; then `git write-tree` prints the
same id.
"""

import os
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

from .redaction import redacted

_BRANCH: Final = ("--abbrev-ref", "HEAD")
_SECONDS: Final = 20.0  # for each call of git
_MOST_FILE: Final = 2**20  # bytes of an untracked file
_MOST_UNTRACKED: Final = 5 * 2**20  # bytes of all untracked files
_MOST_NAMES: Final = 20
# params.yaml is the composed configuration, which is logged separately; the pipeline itself rewrites dvc.lock
_SCOPE: Final = ("--", ".", ":(exclude)dvc.lock", ":(exclude)params.yaml")
_SECRETS: Final = (".env", ".env.*", ".netrc", ".pypirc", "*.pem", "*.key", "*.p12", "id_rsa*", "id_ed25519*")
_SECRET_WORDS: Final = ("*credential*", "*secret*", "*password*")
_SETTINGS: Final = ("core.fsmonitor=false", "core.safecrlf=false", "core.splitIndex=false", "core.quotePath=false")
_ADD: Final = ("update-index", "--add", "--remove", "--replace", "-z", "--stdin")
_DIFF: Final = (
    *("diff-tree", "-r", "-p", "--binary", "--full-index", "--find-renames", "--no-color", "--unified=3"),
    *("--no-ext-diff", "--no-textconv", "--src-prefix=a/", "--dst-prefix=b/"),  # whatever the user's settings are
    *("--submodule=short", "--ignore-submodules=none", "--no-relative", "--no-indent-heuristic"),
)


class GitError(Exception):
    """Git cannot tell the state of this folder; the message says why, and the way out."""


@dataclass(frozen=True)
class WorkingTree:
    """The state of the working folder and its repository."""

    commit: str | None
    """None: there is no commit yet."""
    branch: str
    """`HEAD` if no branch is checked out."""
    tree: str
    """The id of the tree: of the commit, with the changed, new and deleted files of the working folder."""
    diff: bytes
    """What `git apply --index` makes `tree` with, from the commit or from nothing; empty if they are equal.

    Credentials in it are hidden, see `left_out`; then it makes another tree.
    """
    left_out: tuple[str, ...]
    """Files that are not in `tree`, each with the reason; the last entry may say how many more there are."""

    @property
    def diff_files(self) -> int:
        """Number of files in `diff`."""
        return sum(line.startswith(b"diff --git ") for line in self.diff.splitlines())

    @property
    def missing(self) -> str:
        """`left_out` in one line; empty if nothing is."""
        return f"not kept with runs: {', '.join(self.left_out)}" if self.left_out else ""

    @property
    def dirty(self) -> bool:
        """Whether the working folder differs from the commit."""
        return bool(self.diff or self.left_out)


def read() -> WorkingTree:
    """Return the state of the current folder. Raises `GitError`."""
    base = _run("rev-parse", "--verify", "--quiet", "HEAD^{commit}", check=False).decode().strip()
    objects = Path(os.fsdecode(_run("rev-parse", "--git-path", "objects").removesuffix(b"\n"))).absolute()
    branch = _run("rev-parse", "--abbrev-ref", "HEAD", check=False) if base else _run("symbolic-ref", "--short", "HEAD")
    with tempfile.TemporaryDirectory(prefix="git-", ignore_cleanup_errors=True) as scratch:
        temporary = {
            "GIT_INDEX_FILE": f"{scratch}/index",
            "GIT_OBJECT_DIRECTORY": scratch,
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": _alternates(objects),
        }
        _run("read-tree", base or "--empty", environment=temporary)
        left_out = _add(temporary)
        tree = _run("write-tree", environment=temporary).decode().strip()
        start = base or _run("hash-object", "-t", "tree", "--stdin", environment=temporary).decode().strip()
        diff, hidden = _without_secrets(_run(*_DIFF, start, tree, environment=temporary))
        left_out = (*left_out, *hidden)
    return WorkingTree(base or None, _shown(branch.strip()), tree, diff, left_out)


def branch_at(folder: Path, commit: str | None) -> str:
    """Return the branch that a folder has checked out, if it is at this commit, else the only branch that is.

    DVC checks out none while an experiment runs. Empty: no branch is at the commit, or several are.
    """
    if not commit:
        return ""
    head, name = (_run("-C", str(folder), "rev-parse", *asked, check=False) for asked in (["HEAD"], _BRANCH))
    found = _shown(name.strip())
    if head.decode().strip() == commit and found != "HEAD":
        return found
    asked = ["for-each-ref", "--points-at", commit, "--format=%(refname:short)", "refs/heads"]
    branches = _run("-C", str(folder), *asked, check=False).splitlines()
    return _shown(branches[0]) if len(branches) == 1 else ""


def is_commit(revision: str) -> bool:
    """Return whether a text names a commit of the current repository."""
    named = not revision.startswith("-") and _run("rev-parse", "--verify", "-q", f"{revision}^{{commit}}", check=False)
    return bool(named)


def experiment_commits(name: str) -> list[str]:
    """Return the commits of DVC's experiments of this name, in the current repository."""
    listed = _run("for-each-ref", "--format=%(refname) %(objectname)", "refs/exps", check=False).decode(
        errors="replace"
    )
    pairs = (line.rpartition(" ") for line in listed.splitlines())
    return [commit for reference, _, commit in pairs if reference.rpartition("/")[2] == name]


def locks() -> list[Path]:
    """Return the lock files that git commands hold, or have left behind. Raises `GitError`."""
    names = ("index.lock", "HEAD.lock", "config.lock", "packed-refs.lock", "shallow.lock")
    paths = [os.fsdecode(_run("rev-parse", "--git-path", name).removesuffix(b"\n")) for name in names]
    return [Path(path).absolute() for path in paths if os.path.lexists(path)]


def _without_secrets(diff: bytes) -> tuple[bytes, tuple[str, ...]]:
    """Hide credentials in a diff, which everyone who opens the run can read; say so, as it then gives another tree."""
    text = diff.decode("utf-8", "surrogateescape")
    if (shown := redacted(text)) == text:
        return diff, ()
    return shown.encode("utf-8", "surrogateescape"), ("credentials in changed files (*** in git.diff)",)


def _add(temporary: dict[str, str]) -> tuple[str, ...]:
    """Add the working folder to the temporary index, which holds the commit; return what is left out."""
    entries = [entry.split(b"\t", 1) for entry in _names(_run("ls-files", "--stage", "-z", environment=temporary))]
    committed = {path for _, path in entries}
    # the user's own index also knows files that .gitignore names and `git add --force` or `--intent-to-add` took
    present = set(_names(_run("ls-files", "-z", "--full-name", "--cached", "--others", "--exclude-standard", *_SCOPE)))
    top = os.fsencode(_run("rev-parse", "--show-toplevel").removesuffix(b"\n"))
    if not present:
        raise GitError(f"the repository {os.fsdecode(top)} ignores this folder, so runs record no commit")
    _run("add", "--update", *_SCOPE, environment=temporary)
    added, left_out = _chosen(top, present - committed)
    if added:
        _run("-C", top, *_ADD, environment=temporary, given=b"\0".join(added))
    submodules = [path for facts, path in entries if facts.startswith(b"160000") and path in present]
    return _shortened([*left_out, *_changed_submodules(top, submodules)])


def _chosen(top: bytes, candidates: Iterable[bytes]) -> tuple[list[bytes], list[str]]:
    """Split new files into those to add and those to leave out, these with a reason. Small files come first."""
    sizes = {path: size for path in candidates if (size := _size(top, path)) is not None}
    added, left_out, total = [], [], 0
    for path, size in sorted(sizes.items(), key=lambda item: (item[1], item[0])):
        name = os.fsdecode(path.rpartition(b"/")[2]).lower()
        full = os.path.join(top, path)  # noqa: PTH118 (pathlib takes no bytes)
        if path.endswith(b"/"):
            reason = "a repository of its own"
        elif any(fnmatch(name, pattern) for pattern in (*_SECRETS, *_SECRET_WORDS)) and not name.endswith(".py"):
            reason = "may hold a secret"
        elif not os.path.islink(full) and not os.access(full, os.R_OK):  # noqa: PTH114
            reason = "cannot be read"
        elif size > _MOST_FILE or total + size > _MOST_UNTRACKED:
            reason = f"{size / 2**20:,.1f} MiB"
        else:
            added.append(path)
            total += size
            continue
        left_out.append(f"{_shown(path)} ({reason})")
    return added, left_out


def _size(top: bytes, path: bytes) -> int | None:
    try:
        return os.lstat(os.path.join(top, path)).st_size  # noqa: PTH118
    except OSError:  # in the user's index, and deleted
        return None


def _changed_submodules(top: bytes, submodules: Iterable[bytes]) -> Iterator[str]:
    for path in submodules:
        folder = os.path.join(top, path)  # noqa: PTH118
        checked_out = os.path.lexists(os.path.join(folder, b".git"))  # noqa: PTH118
        if checked_out and _run("-C", folder, "status", "--porcelain", check=False):
            yield f"{_shown(path)} (changes inside a submodule)"


def _shortened(left_out: list[str]) -> tuple[str, ...]:
    more = len(left_out) - _MOST_NAMES
    return (*left_out[:_MOST_NAMES], f"and {more} more") if more > 0 else tuple(left_out)


def _alternates(objects: Path) -> str:
    """Return the value of GIT_ALTERNATE_OBJECT_DIRECTORIES: a path with a colon or a quote must be quoted as in C."""
    path, others = str(objects), os.environ.get("GIT_ALTERNATE_OBJECT_DIRECTORIES")
    if ":" in path or path.startswith('"'):
        path = '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return os.pathsep.join(filter(None, (path, others)))


def _names(output: bytes) -> list[bytes]:
    return [name for name in output.split(b"\0") if name]


def _shown(name: bytes) -> str:
    return name.decode(errors="backslashreplace")


def _run(
    *arguments: str | bytes, environment: dict[str, str] | None = None, given: bytes = b"", check: bool = True
) -> bytes:
    """Return what git prints. Raises `GitError` where git fails (with `check`), is missing, or takes too long."""
    settings = [part for setting in _SETTINGS for part in ("-c", setting)]
    try:
        done = subprocess.run(
            ["git", *settings, *arguments],
            capture_output=True,
            input=given,
            timeout=_SECONDS,
            env=os.environ | {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"} | (environment or {}),
        )
    except FileNotFoundError as error:
        raise GitError("git is not installed, so runs record no commit; install git") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise GitError(f"git: {error}; runs record no commit") from error
    if done.returncode and check:
        raise GitError(_reason(_shown(done.stderr)))
    return b"" if done.returncode else done.stdout


def _reason(stderr: str) -> str:
    """Say in one line why git failed, and the way out."""
    if "dubious ownership" in stderr:
        advice = next((line.strip() for line in stderr.splitlines() if "safe.directory" in line), "")
        return f"git does not trust this folder, which belongs to another user, so runs record no commit; `{advice}`"
    if "not a git repository" in stderr:
        without = "`dvc repro` without git needs `dvc config --local core.no_scm true`"
        return f"not a git repository, so runs record no commit; clone the repository, or `git init`; {without}"
    first = next((line for line in stderr.splitlines() if line.startswith(("fatal:", "error:"))), stderr.strip())
    return f"git: {first}; runs record no commit"
