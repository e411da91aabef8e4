"""In CI, whatever is skipped has failed, a whole module as well as a test."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from project_copy import ROOT, clean_environment

MODULES = {
    "test_module.py": "import pytest\npytest.skip('why', allow_module_level=True)\n",
    "test_missing.py": "import pytest\npytest.importorskip('no_such_module')\n",
    "test_unittest.py": "import unittest\nraise unittest.SkipTest('why')\n",
    "test_mark.py": "import pytest\npytestmark = pytest.mark.skip('why')\ndef test_it(): pass\n",
    "test_late.py": "import pytest\ndef test_it(): pytest.skip('why')\n",
    "test_none.py": "import pytest\n@pytest.mark.parametrize('a', [])\ndef test_it(a): pass\n",
}


@pytest.mark.parametrize("ci", ["true", ""])
def test_every_way_to_skip_is_a_failure_in_ci(tmp_path: Path, ci: str) -> None:
    for name, text in MODULES.items():
        (tmp_path / name).write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "conftest", "-p", "no:cacheprovider", "-p", "no:xdist"]
    environment = clean_environment(warm=False) | {"PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), str(ROOT)])}
    done = subprocess.run(
        [*command, "--continue-on-collection-errors", str(tmp_path)],
        cwd=tmp_path,
        env=environment | {"CI": ci},
        capture_output=True,
        text=True,
    )
    assert done.returncode == (1 if ci else 0), done.stdout + done.stderr
    assert all((f"ERROR {name}" in done.stdout or f"FAILED {name}" in done.stdout) == bool(ci) for name in MODULES)
    assert done.stdout.count("skips.txt does not allow") >= (len(MODULES) if ci else 0)
