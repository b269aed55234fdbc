"""What nvcc made of the CUDA operators: registers, memory and machine instructions of every kernel.

`python tests/cuda/cubin.py` prints the table of the built library, an architecture a column.
"""

import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import advkernels

PATHS = ("floats", "halves", "mixed", "strided")
REACHES = ("alike", "channels", "anywhere")


@dataclass(frozen=True)
class Kernel:
    """One kernel for one architecture (sm_90, ...)."""

    architecture: str
    name: str
    registers: int
    shared_bytes: int
    stack_bytes: int
    local_bytes: int


def library() -> Path | None:
    """The built CUDA operators."""
    return next(Path(advkernels.__file__).parent.glob("_operators_cuda*.so"), None)


def cuobjdump() -> str | None:
    """NVIDIA's disassembler: on the PATH, or in Triton's package."""
    triton = find_spec("triton")
    packaged = Path(triton.origin or "").parent / "backends" / "nvidia" / "bin" if triton else None
    return shutil.which("cuobjdump") or (shutil.which("cuobjdump", path=str(packaged)) if packaged else None)


def kernels(file: Path) -> list[Kernel]:
    """Every kernel of every architecture in a library."""
    found, architecture = [], ""
    name = ""
    for line in _run("-res-usage", file).splitlines():
        if match := re.search(r"arch = (sm_\w+)", line):
            architecture = match[1]
        elif match := re.search(r"Function (\S+):", line):
            name = readable(match[1])
        elif match := re.search(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", line):
            registers, stack, shared, local = map(int, match.groups())
            found.append(Kernel(architecture, name, registers, shared, stack, local))
    return found


def instructions(file: Path, architecture: str) -> dict[str, list[str]]:
    """The opcodes of every kernel, in order."""
    parts = _run("-sass", "-arch", architecture, file).split("Function : ")[1:]
    opcodes = r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)"
    return {readable(part.split("\n")[0]): re.findall(opcodes, part, re.M) for part in parts}


def portable(file: Path) -> str:
    """The portable code (PTX) of a library, or nothing."""
    return _run("-ptx", file).partition(".version")[2]


def readable(mangled: str) -> str:
    """sign_step_kernel<floats, alike> from the linker's name; strided kernels have no other reach than anywhere."""
    names = re.finditer(r"(?=(\d{1,2})([a-z][a-z0-9_]*?(?:kernel|packet)))", mangled)
    whole = [match[2] for match in names if int(match[1]) == len(match[2])]
    name = min(whole, key=len, default=mangled)  # a longer one begins in the file's digits
    argument = re.search(r"PathE(\d)|ILi(\d+)E", mangled)
    if argument is None:
        return name
    if argument[1] is None:
        return f"{name}<{argument[2]}>"
    path, reach = PATHS[int(argument[1])], re.search(r"ReachE(\d)", mangled)
    return f"{name}<{path}>" if reach is None or path == "strided" else f"{name}<{path}, {REACHES[int(reach[1])]}>"


def table(found: list[Kernel]) -> str:
    """Registers of every kernel as a Markdown table."""
    architectures = list(dict.fromkeys(kernel.architecture for kernel in found))
    lines = [f"| kernel | {' | '.join(architectures)} |", "| --- |" + " ---: |" * len(architectures)]
    for name in sorted({kernel.name for kernel in found}):
        cells = [next(k.registers for k in found if (k.name, k.architecture) == (name, a)) for a in architectures]
        lines.append(f"| `{name}` | {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def _run(*arguments: str | Path) -> str:
    tool = cuobjdump()
    assert tool is not None
    return subprocess.run([tool, *map(str, arguments)], capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    file = library()
    assert file is not None, "the CUDA operators are not built"
    print(table(kernels(file)))
