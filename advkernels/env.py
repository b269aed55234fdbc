"""Every environment variable that advkernels reads, in one place.

This file imports nothing but the standard library: setup.py reads it before torch is there.
"""

import os

BACKENDS = ("auto", "reference", "native", "triton")
BUILD_CHOICES = ("auto", "0", "1")


def _choice(name: str, default: str, choices: tuple[str, ...]) -> str:
    value = os.environ.get(name, default)
    if value not in choices:
        raise ValueError(f"{name}: wanted one of {', '.join(choices)}, got {value!r}")
    return value


def backend() -> str:
    """ADVKERNELS_BACKEND: the backend of every operation of the process (auto, reference, native, triton)."""
    return _choice("ADVKERNELS_BACKEND", "auto", BACKENDS)


def interprets_triton() -> bool:
    """TRITON_INTERPRET, Triton's own: its kernels run in Python on CPU tensors, which is how they are tested."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "yes", "on", "y")


def build_native() -> str:
    """ADVKERNELS_BUILD_NATIVE, read by setup.py.

    auto: compile where a C++ compiler is found, else install pure Python;
    0: pure Python; 1: compile, and fail where that cannot be done.
    """
    return _choice("ADVKERNELS_BUILD_NATIVE", "auto", BUILD_CHOICES)


def build_cuda() -> str:
    """ADVKERNELS_BUILD_CUDA, read by setup.py, which also honours TORCH_CUDA_ARCH_LIST, CUDA_HOME and MAX_JOBS.

    auto: compile the CUDA operators where nvcc is found, with a GPU or without;
    0: leave them out; 1: compile them, and fail where that cannot be done.
    """
    return _choice("ADVKERNELS_BUILD_CUDA", "auto", BUILD_CHOICES)
