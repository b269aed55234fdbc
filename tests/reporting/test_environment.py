import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from datetime import datetime, timedelta, timezone

import pytest
import torch
import torchvision

import advkernels
from freefast.reporting import environment


def git(folder, *arguments):
    identity = ["-c", "user.name=n", "-c", "user.email=n@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def commit_everything(folder):
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "first")
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def installed(tmp_path):
    """The module as installed outside every checkout."""
    path = shutil.copy(environment.__file__, tmp_path / "installed_environment.py")
    spec = importlib.util.spec_from_file_location("installed_environment", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def checkout(tmp_path):
    folder = tmp_path / "clone"
    (folder / "python" / "freefast" / "reporting").mkdir(parents=True)
    (folder / "python" / "freefast" / "reporting" / "a.py").write_text("1")
    return folder


def test_versions_and_machine():
    found = environment.describe()
    assert found["torch"] == torch.__version__
    assert found["torchvision"].split("+")[0] == torchvision.__version__.split("+")[0]
    assert found["advkernels"] == advkernels.__version__
    assert found["python"] == platform.python_version()
    assert found["threads"] == torch.get_num_threads()
    assert found["cpu"]
    assert json.loads(json.dumps(found)) == found


def test_date_is_now_in_utc():
    date = datetime.fromisoformat(environment.describe()["date"])
    assert date.utcoffset() == timedelta(0)
    assert abs(datetime.now(timezone.utc) - date) < timedelta(minutes=1)


def test_device_is_named(device):
    name = environment.describe(device)["device"]
    assert name == ("cpu" if torch.device(device).type == "cpu" else torch.cuda.get_device_name(device))


def test_tf32_is_of_convolutions_on_a_gpu(device):
    can = torch.device(device).type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    for allowed in (True, False):
        with torch.backends.cudnn.flags(allow_tf32=allowed):
            assert environment.describe(device)["tf32"] == (can and allowed)


@pytest.mark.parametrize(
    ("argv", "wanted"),
    [
        (["/venv/bin/freefast", "train", "fast", "--out", "a b"], "freefast train fast --out 'a b'"),
        (["/site/freefast/__main__.py", "info"], "python -m freefast info"),
    ],
)
def test_command_line(monkeypatch, argv, wanted):
    monkeypatch.setattr(sys, "argv", argv)
    assert environment.describe()["command"] == wanted


def test_commit_of_the_checkout_run_from(installed, checkout, monkeypatch):
    commit = commit_everything(checkout)
    monkeypatch.chdir(checkout / "python")
    assert installed.describe()["commit"] == commit
    (checkout / "python" / "freefast" / "reporting" / "a.py").write_text("2")
    assert installed.describe()["commit"] == f"{commit}-dirty"


def test_no_commit_outside_a_checkout(installed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert installed.describe()["commit"] is None


def test_another_projects_commit_is_not_taken(installed, tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.txt").write_text("1")
    commit_everything(other)
    monkeypatch.chdir(other)
    assert installed.describe()["commit"] is None


def test_no_commit_without_git(installed, checkout, monkeypatch):
    commit_everything(checkout)
    monkeypatch.chdir(checkout)
    monkeypatch.setenv("PATH", os.devnull)
    assert installed.describe()["commit"] is None
