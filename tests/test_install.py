"""What pip builds where the compiler does not do its work."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_a_compiler_that_fails_leaves_a_pure_package_that_says_why(tmp_path: Path) -> None:
    source, compiler, wheels = tmp_path / "source", tmp_path / "c++", tmp_path / "wheels"
    for name in ("advkernels", "csrc", "python"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("*.so", "not_built*", "__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, source)
    compiler.write_text('#!/bin/sh\n[ "$1" = --version ] && echo 1.0 && exit\nexit 1\n')
    compiler.chmod(0o755)
    command = [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", str(wheels)]
    variables = {"CXX": str(compiler), "ADVKERNELS_BUILD_NATIVE": "auto", "ADVKERNELS_BUILD_CUDA": "0"}

    def build(**changes: str) -> subprocess.CompletedProcess:
        environment = os.environ | variables | changes
        return subprocess.run([*command, str(source)], env=environment, capture_output=True, text=True, check=False)

    result = build()
    assert result.returncode == 0, result.stdout + result.stderr
    (wheel,) = wheels.iterdir()
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        assert not any(name.endswith(".so") for name in names)
        assert {"advkernels/py.typed", "freefast/py.typed", "freefast/recipes/fast-15.toml"} <= set(names)
        assert archive.read("advkernels/not_built.txt").decode().startswith("the compiler failed at install time")
        assert archive.read("advkernels/not_built_cuda.txt").decode().startswith("ADVKERNELS_BUILD_CUDA=0")
        archive.extractall(tmp_path / "site")
    code = "import advkernels; print(advkernels.dispatch.fastest('cpu'))"
    paths = {"PYTHONPATH": str(tmp_path / "site"), "PYTHONSAFEPATH": "1", "ADVKERNELS_BACKEND": "auto"}
    used = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | paths, capture_output=True, text=True, check=True
    )
    assert used.stdout == "reference\n"
    assert "plain PyTorch takes the place of the C++ operators: the compiler failed at install time" in used.stderr
    assert build(ADVKERNELS_BUILD_NATIVE="1").returncode != 0
