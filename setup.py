"""The extension list and its environment switches; everything else is in pyproject.toml."""

import os
import runpy
import shutil
import subprocess
from pathlib import Path

import torch
from pybind11.setup_helpers import Pybind11Extension
from setuptools import setup
from torch.utils.cpp_extension import BuildExtension, CppExtension

ROOT = Path(__file__).parent
ENV = runpy.run_path(str(ROOT / "advkernels" / "env.py"))
STABLE_ABI = (2, 11)  # the oldest torch that the operators run on
# No fused multiply-add: every backend rounds every operation.
FLAGS = ["-O3", "-std=c++20", "-ffp-contract=off", "-fno-trapping-math", "-fno-math-errno", "-fvisibility=hidden"]
COMPILER = os.environ.get("CXX", "c++")


def reason_not_to_build() -> str | None:
    """Why this install is pure Python, or None."""
    choice = ENV["build_native"]()
    if choice == "0":
        return "ADVKERNELS_BUILD_NATIVE=0 at install time"
    if shutil.which(COMPILER.split()[0]) is None:
        if choice == "1":
            raise SystemExit(f"ADVKERNELS_BUILD_NATIVE=1, but no C++ compiler {COMPILER!r} was found")
        return f"no C++ compiler {COMPILER!r} was found at install time"
    return None


def compiler_version() -> str:
    output = subprocess.run([*COMPILER.split(), "--version"], capture_output=True, text=True, check=True).stdout
    return output.splitlines()[0]


def extensions() -> list:
    stable = f"0x{STABLE_ABI[0]:02x}{STABLE_ABI[1]:02x}000000000000ULL"
    operators = CppExtension(
        "advkernels._operators_cpu",
        sorted(str(path.relative_to(ROOT)) for path in (ROOT / "csrc" / "cpu").glob("*.cpp")),
        extra_compile_args=[*FLAGS, f"-DTORCH_TARGET_VERSION={stable}"],
        py_limited_api=True,
    )
    bindings = Pybind11Extension(
        "advkernels._bindings",
        ["csrc/bindings.cpp"],
        cxx_std=20,
        extra_compile_args=FLAGS,
        define_macros=[
            ("AK_BUILD_TORCH", f'"{torch.__version__}"'),
            ("AK_BUILD_COMPILER", f'"{compiler_version()}"'),
            ("AK_STABLE_ABI", f'"{STABLE_ABI[0]}.{STABLE_ABI[1]}"'),
        ],
    )
    return [operators, bindings]


reason = reason_not_to_build()
note = ROOT / "advkernels" / "not_built.txt"
note.unlink(missing_ok=True)
if reason is not None:
    note.write_text(reason + "\n")

setup(
    ext_modules=[] if reason else extensions(),
    cmdclass={} if reason else {"build_ext": BuildExtension},
)
