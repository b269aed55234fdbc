"""Compile every Triton kernel for the compute capabilities given and print facts about the code as JSON.

A script, not a test: it runs in a process of its own, where TRITON_INTERPRET is not set.
"""

import itertools
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from advkernels.backends.triton import bounds, geometry, rows
from advkernels.backends.triton.augment import _augment_kernel
from advkernels.backends.triton.column_sums import (
    _gradient_sums_kernel,
    _merge_gradient_sums_kernel,
    _merge_moments_kernel,
    _moments_kernel,
)
from advkernels.backends.triton.l2_init import _l2_init_kernel
from advkernels.backends.triton.l2_step import _l2_step_kernel
from advkernels.backends.triton.normalization import _normalize_relu_backward_kernel, _normalize_relu_kernel
from advkernels.backends.triton.sgd_step import _sgd_step_kernel
from advkernels.backends.triton.sign_step import _sign_step_kernel
from advkernels.backends.triton.uniform_init import _uniform_init_kernel

IMAGES = ("delta", "grad", "x", "out")
TYPES = {"mask": "*i1", "state": "*i64", "sample_index": "*i64", "step": "*i64", "images": "*u8", "index": "*i64"}
COLUMNS = ("mean", "variance", "weight", "bias", "sums", "running_mean", "running_var")
TYPES |= {**dict.fromkeys(COLUMNS, "*fp32"), "partials": "*fp64", "batches": "*i64"}
ROWS_READ, ROWS_WRITTEN = ("x", "residual", "grad", "grad_total"), ("out", "total", "grad_x")
SCALARS = {"momentum": "fp32", "undamped": "fp32", "weight_decay": "fp32", "eps": "fp32", "kept": "fp32"}
ELSEWHERE = ("grouped channels bf16", "strided bf16", "grouped bf16 master", "channels_last bf16", "grouped rows bf16")
POINTERS_OF_ONE = {"lr": "*fp32", "inv_scale": "*fp32", "found_inf": "*fp32"}
ALIGNED = ("groups", "places", "height", "width")


def signature(kernel: Any, element: dict[str, str], constants: dict[str, Any]) -> tuple[dict, dict, dict]:
    """Argument types, constants and 16-byte alignment, as a launch on aligned tensors has them."""
    types, values, attributes = {}, {}, {}
    for number, name in enumerate(kernel.arg_names):
        if name in constants:
            types[name], values[(number,)] = "constexpr", constants[name]
            continue
        known = element | TYPES | SCALARS | POINTERS_OF_ONE
        types[name] = known.get(name, "fp32" if name[-1].isdigit() else "i32")
        if types[name].startswith("*") or name in ALIGNED:
            attributes[(number,)] = [["tt.divisibility", 16]]
    return types, values, attributes


def image_variants(kernel: Any, absent: dict[str, Any]) -> dict[str, tuple[dict, dict]]:
    """Element types and constants of the variants of an image kernel."""
    variants = {}
    contiguous, last, strided = (
        order.value for order in (geometry.CONTIGUOUS, geometry.CHANNELS_LAST, geometry.STRIDED)
    )
    for dtype, width in (("fp32", 4), ("bf16", 8)):
        element = dict.fromkeys(IMAGES, f"*{dtype}")
        for label, order, size, form in (
            ("grouped", contiguous, width, bounds.SCALAR),
            ("grouped channels", contiguous, width, bounds.VALUES),
            ("grouped channels traced", contiguous, width, bounds.VALUES),
            ("grouped samples", contiguous, width, bounds.TABLE_SAMPLES),
            ("grouped tables", contiguous, width, bounds.TABLE_BOTH),
            ("channels_last channels", last, 1, bounds.VALUES),
            ("strided", strided, 1, bounds.VALUES),
        ):
            forms = {name: form.value for name in ("ALPHA", "EPSILON", "LOWER", "UPPER") if name in kernel.arg_names}
            table = form in (bounds.TABLE_SAMPLES, bounds.TABLE_BOTH)
            tables = {f"{name.lower()}0": "*fp32" for name in forms} if table else {}
            if "traced" in label:  # torch.compile passes every float as float64
                tables = dict.fromkeys((name for name in kernel.arg_names if name[-1].isdigit()), "fp64")
            sizes = {"ORDER": order, "WIDTH": size, "ROWS": geometry.PROGRAM // size, "WIDE": False, "CHANNELS": 3}
            variants[f"{label} {dtype}"] = (element | tables, forms | sizes | ({} if table else absent))
    return variants


def sample_variants(kernel: Any, absent: dict[str, Any]) -> dict[str, tuple[dict, dict]]:
    """Some of `image_variants`; a program that goes through a sample walks channels last by strides."""
    chosen = ("grouped fp32", "grouped channels", "grouped samples", "strided")
    left_out = ("channels traced fp32", "channels fp32")
    return {
        name: variant
        for name, variant in image_variants(kernel, absent).items()
        if name.startswith(chosen) and not name.endswith(left_out)
    }


def sgd_variants() -> dict[str, tuple[dict, dict]]:
    """Element types and constants of the variants of the SGD kernel."""
    variants = {}
    types = {"fp32": tl.float32, "bf16": tl.bfloat16, "fp16": tl.float16}
    for dtype, master in (("fp32", False), ("bf16", True), ("fp16", True), ("bf16", False)):
        half_state = dtype != "fp32" and not master
        constants = {
            "PARAM_TYPE": types[dtype],
            "GRAD_TYPE": types[dtype],
            "MASTER_TYPE": tl.float32 if master else None,
            "MOMENTUM_TYPE": types[dtype] if half_state else tl.float32,
            **{"ALIGNED": True, "WEIGHT_DECAY": True, "NESTEROV": True, "MAXIMIZE": False},
            **{"ROWS": 64, "WIDTH": 8 if half_state else 4, "CHUNK": 2048},
        }
        variants[f"grouped {dtype}{' master' * master}"] = ({"table": "*i64", "grads": "*i64"}, constants)
    return variants


def augment_variants() -> dict[str, tuple[dict, dict]]:
    """Element types and constants of the variants of the augmentation; 1 is a constant, as in every launch."""
    variants = {}
    last, contiguous, strided = (
        order.value for order in (geometry.CHANNELS_LAST, geometry.CONTIGUOUS, geometry.STRIDED)
    )
    traced = dict.fromkeys((f"{name}{i}" for name in ("mean", "std") for i in range(4)), "fp64")
    tables = {"mean0": "*fp32", "std0": "*fp32"}
    nothing_random = {"FLIP": False, "state": None, "padding": 1, "programs": 1}
    for dtype, (label, order, form, types, others) in itertools.product(
        ("fp32", "bf16"),
        (
            ("channels_last", last, bounds.VALUES, {}, {}),
            ("channels_last traced", last, bounds.VALUES, traced, {}),
            ("channels_last tables", last, bounds.TABLE_CHANNELS, tables, {}),
            ("channels_last plain", last, bounds.SCALAR, {}, nothing_random),
            ("contiguous", contiguous, bounds.VALUES, {}, {}),
            ("strided", strided, bounds.VALUES, {}, {}),
        ),
    ):
        constants = {"ORDER": order, "WIDE": False, "CHANNELS": 3, "BLOCK": geometry.PROGRAM, "FLIP": True}
        constants |= {"MEAN": form.value, "STD": form.value, "image_x": 1} | others
        variants[f"{label} {dtype}"] = ({"out": f"*{dtype}"} | types, constants)
    return variants


ROW_KERNELS = {
    "batch_moments": (_moments_kernel, ("total", "residual")),
    "batch_moments_merge": (_merge_moments_kernel, ("running_mean", "running_var", "batches")),
    "normalize_relu": (_normalize_relu_kernel, ("total", "residual")),
    "normalize_relu_sums": (_gradient_sums_kernel, ()),
    "normalize_relu_sums_merge": (_merge_gradient_sums_kernel, ()),
    "normalize_relu_backward": (_normalize_relu_backward_kernel, ("grad_total", "sums")),
}


def row_variants(kernel: Any, absent: tuple[str, ...]) -> dict[str, tuple[dict, dict]]:
    """Element types and constants of the variants of a kernel of rows; absent: what it may be called without."""
    variants = {}
    traced = {name: "fp64" for name in ("eps", "kept", "momentum") if name in kernel.arg_names}
    without = dict.fromkeys(absent)
    for label, dtype, shape, types, constants in (
        ("grouped rows", "bf16", (131072, 64), {}, {}),
        ("grouped rows traced", "fp32", (32768, 128), traced, {}),
        ("grouped rows alone", "fp16", (2048, 512), {}, without),
        ("uneven rows", "bf16", (1001, 100), {}, {}),
        ("one column", "fp16", (70000, 1), {}, without),
    ):
        if "merge" in kernel.__name__ and label not in ("grouped rows", "one column"):
            continue  # it sees float64 columns, whatever the images are
        x = torch.empty(shape, device="meta")
        summing = rows.summing_tiles(x)
        sizes = rows.elementwise_tiles(x).constants
        if "BLOCKS" in kernel.arg_names:
            sizes = summing.merging
        elif "FLOAT64" in kernel.arg_names:
            sizes = summing.summing
        images = dict.fromkeys(ROWS_READ + ROWS_WRITTEN, f"*{dtype}")
        variants[f"{label} {dtype}"] = (images | types, sizes | constants)
    return variants


def facts(kernel: Any, element: dict[str, str], constants: dict[str, Any], capability: int) -> dict[str, Any]:
    types, values, attributes = signature(kernel, element, constants)
    source = ASTSource(kernel, signature=types, constexprs=values, attrs=attributes)
    # Fusion is allowed here, as in a launch traced by torch.compile.
    built = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"enable_fp_fusion": True})
    ptx, code = built.asm["ptx"], disassemble(built.asm["cubin"])
    wide, narrow = r"\.v4\.[bfu]32|\.v2\.[bfu]64|\.v8\.[bfu]32", r"st\.global\.(v2\.)?[bfu](8|16|32)\b"
    tensors, written = traffic(kernel, types, constants)
    divides = "div.rn" in ptx
    float64 = len(re.findall(r"\b(?:add|sub|mul|div|fma|min|max|setp)\.\S*f64", ptx))
    return {
        "cubin_bytes": len(built.asm["cubin"]),
        "inputs": tensors,
        "outputs": written,
        "wide_loads": len(re.findall(rf"ld\.global\S*({wide})", ptx)),
        "wide_stores": len(re.findall(rf"st\.global\S*({wide})", ptx)),
        "narrow_stores": len(re.findall(narrow, ptx)),
        "local_memory": ".local" in ptx or bool(re.search(r"\b(LDL|STL)\b", code)),
        "shared_bytes": built.metadata.shared,
        # HFMA2 is how ptxas moves constants; a division is made of FFMA and DFMA.
        "fused": len(re.findall(r"\bfma\.", ptx)) + (0 if divides else len(re.findall(r"\bFFMA2?\b", code))),
        "fusible": len(re.findall(r"\bmul\.(?:ftz\.)?f(?:32|64)\b", ptx)),
        "approximate": len(re.findall(r"\b(?:div|rcp|sqrt|rsqrt)\.(?:approx|full)", ptx)),
        "float64": float64,
        "flushes_subnormals": ".ftz" in ptx,
    }


def traffic(kernel: Any, types: dict[str, str], constants: dict[str, Any]) -> tuple[int, int]:
    """How many tensors a kernel reads and writes."""
    if "COLUMNS" in constants:
        given = [name for name in types if types[name] != "constexpr"]
        return len(set(given) & set(ROWS_READ)), len(set(given) & set(ROWS_WRITTEN))
    if "PARAM_TYPE" in constants:
        return 3, 2 + (constants["MASTER_TYPE"] is not None)
    if kernel is _l2_step_kernel:  # grad; grad and delta; grad, delta and x
        return 6, 1 + (types["out"] != "constexpr")
    if kernel is _augment_kernel:  # single bytes; groups of elements
        return 0, 1
    out = types.get("out", "constexpr") != "constexpr"
    return (3 if "grad" in kernel.arg_names else 1), 1 + out


@triton.jit
def _fused_kernel(x, y):
    """What the search for fused products must find."""
    i = tl.arange(0, 128)
    a = tl.load(x + i)
    tl.store(y + i, a * a + a)


def disassemble(cubin: bytes) -> str:
    """SASS of a cubin."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "nvdisasm"
        return subprocess.run([str(tool), "-c", "-ndf", str(path)], capture_output=True, text=True, check=True).stdout


def main() -> None:
    image = {"mask": None, "mask_stride": 0, "out": None}
    kernels = {
        "sign_step": (_sign_step_kernel, image_variants(_sign_step_kernel, image)),
        "uniform_init": (
            _uniform_init_kernel,
            image_variants(_uniform_init_kernel, {"sample_index": None, "out": None}),
        ),
        "l2_step": (_l2_step_kernel, sample_variants(_l2_step_kernel, image)),
        "l2_init": (_l2_init_kernel, sample_variants(_l2_init_kernel, {"sample_index": None, "out": None})),
        "augment": (_augment_kernel, augment_variants()),
        "sgd_step": (_sgd_step_kernel, sgd_variants()),
        **{name: (kernel, row_variants(kernel, absent)) for name, (kernel, absent) in ROW_KERNELS.items()},
    }
    report = {
        "control": facts(_fused_kernel, {"x": "*fp32", "y": "*fp32"}, {}, 90),
        "control 64": facts(_fused_kernel, {"x": "*fp64", "y": "*fp64"}, {}, 90),
    }
    for capability, (name, (kernel, variants)) in itertools.product(map(int, sys.argv[1:]), kernels.items()):
        for variant, (element, constants) in variants.items():
            # Every variant for one architecture, the others' own code generation on some.
            if capability == 90 or variant in ELSEWHERE:
                report[f"{name} {variant} sm_{capability}"] = facts(kernel, element, constants, capability)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
