"""The ways to train that are timed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from freefast.config import Method
from freefast.precision import PrecisionName
from freefast.settings import GraphMode


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to train."""

    method: Method
    """standard, free, fast or pgd."""

    who: Literal["ours", "plain"]
    """This project's step, or the loop in plain PyTorch."""

    precision: PrecisionName = "fp32"
    """How the model computes."""

    graph: GraphMode = "off"
    """Whether our step is one CUDA graph."""

    compile: bool = False
    """Whether torch.compile compiles the model."""

    search: bool = False
    """Whether cuDNN searches for algorithms, which need not be deterministic."""

    @property
    def name(self) -> str:
        """As the table and the options call it."""
        return f"{self.method} {self.who} {self.precision} {self.how}"

    @property
    def how(self) -> str:
        """ "graph" or "eager", op by op, and what else is chosen."""
        extra = [word for word, chosen in (("compile", self.compile), ("search", self.search)) if chosen]
        return " ".join(["eager" if self.graph == "off" else "graph", *extra])


def variants(methods: Sequence[Method], precisions: Sequence[PrecisionName], device_type: str) -> list[Variant]:
    """Each method's plain loop, then ours, what takes little time first; then what compiles.

    The plain loop is autocast to float16 on CUDA and float32 on the CPU, where float16 is no way to train.
    """
    on_cuda = device_type == "cuda"
    half: PrecisionName = "amp-fp16" if on_cuda else "fp32"
    found = []
    for method in methods:
        found.append(Variant(method=method, who="plain", precision=half))
        for graph in ("auto", "off") if on_cuda else ("off",):
            found += [Variant(method=method, who="ours", precision=name, graph=graph) for name in precisions]
        if on_cuda:
            found.append(Variant(method=method, who="ours", precision=precisions[0], graph="auto", search=True))
    found += [Variant(method=method, who="plain", precision=half, compile=True) for method in methods]
    if on_cuda:
        found += [
            Variant(method=method, who="ours", precision=precisions[0], graph="auto", search=True, compile=True)
            for method in methods
        ]
    return found


def chosen(found: Sequence[Variant], only: Sequence[str], skip: Sequence[str]) -> list[Variant]:
    """Those whose names have every word of `only` and none of `skip`."""
    words = {variant: set(variant.name.split()) for variant in found}
    return [variant for variant in found if set(only) <= words[variant] and not set(skip) & words[variant]]
