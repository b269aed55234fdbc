"""The extension list and its environment switches; everything else is in pyproject.toml."""

import os
import runpy
import shutil
import subprocess
from pathlib import Path

import torch
from pybind11.setup_helpers import Pybind11Extension
from setuptools import Extension, setup
from setuptools.errors import CompileError, LinkError
from torch.utils.cpp_extension import BuildExtension, CppExtension, include_paths, library_paths

ROOT = Path(__file__).parent
ENV = runpy.run_path(str(ROOT / "advkernels" / "env.py"))
STABLE_ABI = (2, 11)  # the oldest torch that the operators run on
STABLE_ABI_MACRO = f"-DTORCH_TARGET_VERSION=0x{STABLE_ABI[0]:02x}{STABLE_ABI[1]:02x}000000000000ULL"
# No fused multiply-add: every backend rounds every operation.
FLAGS = ["-O3", "-std=c++20", "-ffp-contract=off", "-fno-trapping-math", "-fno-math-errno", "-fvisibility=hidden"]
FLAGS += [f"-ffile-prefix-map={ROOT.resolve()}/="]  # messages name a file of the sources, wherever they were built
NVCC_FLAGS = [
    "-O3",
    "-std=c++20",
    "--fmad=false",
    f"-Xcompiler=-fPIC,-fvisibility=hidden,{FLAGS[-1]}",
    "-diag-suppress=20013,20015",
]
CUDA_ARCHITECTURES = ("7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0")
COMPILER = (os.environ.get("CXX") or "c++").split()
HOST_COMPILER = [word for word in COMPILER if not word.startswith("-")][-1]  # without a launcher as in "ccache g++"
OPERATORS, CUDA_OPERATORS = "advkernels._operators_cpu", "advkernels._operators_cuda"
NOTES = {OPERATORS: "not_built.txt", CUDA_OPERATORS: "not_built_cuda.txt"}


def find_nvcc() -> str | None:
    home = os.environ.get("CUDA_HOME")
    return shutil.which("nvcc", path=f"{home}/bin" if home else f"{os.environ.get('PATH', '')}:/usr/local/cuda/bin")


def reason_not_to_build(switch: str, tool: str, found: bool) -> str | None:
    """Why a part of this install is left out, or None."""
    choice = ENV[f"build_{switch.lower()}"]()
    if choice == "0":
        return f"ADVKERNELS_BUILD_{switch}=0 at install time"
    if not found and choice == "1":
        raise SystemExit(f"ADVKERNELS_BUILD_{switch}=1, but no {tool} was found")
    return None if found else f"no {tool} was found at install time"


def default_architectures() -> str:
    """Those of ours that this nvcc knows, the newest as portable code too."""
    answer = subprocess.run([find_nvcc(), "--list-gpu-arch"], capture_output=True, text=True, check=True)
    known = answer.stdout.split()
    return ";".join(one for one in CUDA_ARCHITECTURES if f"compute_{one.replace('.', '')}" in known) + "+PTX"


def cuda_architectures() -> list[str]:
    """nvcc's options for TORCH_CUDA_ARCH_LIST: machine code for each entry, for one with +PTX portable code too."""
    options = []
    for entry in (os.environ.get("TORCH_CUDA_ARCH_LIST") or default_architectures()).replace(";", " ").split():
        number = entry.removesuffix("+PTX").replace(".", "")
        codes = f"sm_{number},compute_{number}" if entry.endswith("+PTX") else f"sm_{number}"
        options.append(f"-gencode=arch=compute_{number},code=[{codes}]")
    return options


class Build(BuildExtension):
    """Also builds the CUDA operators, and does without what cannot be built where it is optional."""

    def build_extension(self, ext: Extension) -> None:
        try:
            self.build_cuda(ext) if ext.name == CUDA_OPERATORS else super().build_extension(ext)
        except (CompileError, LinkError, RuntimeError, subprocess.CalledProcessError) as error:
            if not ext.optional:
                raise
            print(f"{ext.name} is left out: {error}")
            if ext.name in NOTES:
                package = Path(self.get_ext_fullpath(ext.name)).parent
                note(package, NOTES[ext.name], "the compiler failed at install time: `pip install -v .` says how")

    def build_cuda(self, ext: Extension) -> None:
        """One call of nvcc, which needs neither a GPU nor torch's idea of CUDA_HOME."""
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        sources = sorted(map(str, (ROOT / "csrc" / "cuda").glob("*.cu")))
        command = [find_nvcc(), "-shared", "-o", str(target), *sources, *NVCC_FLAGS, *cuda_architectures()]
        command += [f"-ccbin={HOST_COMPILER}", f"--threads={os.environ.get('MAX_JOBS', os.cpu_count())}"]
        command += ["-DUSE_CUDA", STABLE_ABI_MACRO, *(f"-I{path}" for path in include_paths())]
        # libtorch.so brings the rest of torch, libtorch_cuda.so too where this torch has one.
        command += ["-cudart=static", *(f"-L{path}" for path in library_paths()), "-Xlinker=--no-as-needed", "-ltorch"]
        print(" ".join(command))
        subprocess.run(command, check=True)


def first_line(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0]


def cuda_facts() -> str:
    """The CUDA version and architectures of this build, for `python -m advkernels.info`."""
    output = subprocess.run([find_nvcc(), "--version"], capture_output=True, text=True, check=True).stdout
    version = output.partition("release ")[2].partition(",")[0]
    names = [option.partition("code=[")[2].rstrip("]").replace(",", " ") for option in cuda_architectures()]
    return f"{version} for {' '.join(names)}"


def extensions(cuda: bool) -> list[Extension]:
    operators = CppExtension(
        OPERATORS,
        sorted(str(path.relative_to(ROOT)) for path in (ROOT / "csrc" / "cpu").glob("*.cpp")),
        extra_compile_args=[*FLAGS, STABLE_ABI_MACRO],
        py_limited_api=True,
    )
    bindings = Pybind11Extension(
        "advkernels._bindings",
        ["csrc/bindings.cpp", "csrc/simulate.cpp", "csrc/simulate_normalization.cpp"],
        cxx_std=20,
        extra_compile_args=FLAGS,
        define_macros=[
            ("AK_BUILD_TORCH", f'"{torch.__version__}"'),
            ("AK_BUILD_COMPILER", f'"{first_line(*COMPILER, "--version")}"'),
            ("AK_BUILD_CUDA", f'"{cuda_facts() if cuda else "none"}"'),
            ("AK_STABLE_ABI", f'"{STABLE_ABI[0]}.{STABLE_ABI[1]}"'),
        ],
    )
    sources = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "csrc").glob("**/*.[chu]*"))
    cuda_operators = Extension(CUDA_OPERATORS, [], depends=sources, py_limited_api=True)
    operators.optional = bindings.optional = ENV["build_native"]() == "auto"
    cuda_operators.optional = ENV["build_cuda"]() == "auto"
    return [operators, bindings, *([cuda_operators] if cuda else [])]


def note(package: Path, name: str, reason: str | None) -> None:
    """Leave the reason why operators are missing in the package, for the error messages."""
    file = package / name
    file.unlink(missing_ok=True)
    if reason is not None:
        file.write_text(reason + "\n")


has_compiler = all(shutil.which(word) for word in (COMPILER[0], HOST_COMPILER))
reason = reason_not_to_build("NATIVE", f"C++ compiler {' '.join(COMPILER)!r}", has_compiler)
cuda_reason = reason_not_to_build("CUDA", "nvcc", find_nvcc() is not None)
if reason and ENV["build_cuda"]() == "1":
    raise SystemExit(f"ADVKERNELS_BUILD_CUDA=1 needs the C++ operators too, but they are left out: {reason}")
note(ROOT / "advkernels", NOTES[OPERATORS], reason)
note(ROOT / "advkernels", NOTES[CUDA_OPERATORS], reason or cuda_reason)

setup(
    ext_modules=[] if reason else extensions(cuda=cuda_reason is None),
    cmdclass={} if reason else {"build_ext": Build},
)
