"""The interpreter, without its search through all of triton.language at every call of a device function."""

import functools
import inspect
import os
from typing import Any

if os.environ.get("TRITON_INTERPRET") == "1":
    from triton.language.core import is_builtin
    from triton.runtime import interpreter

    @functools.cache
    def _builtins(module: Any) -> list[str]:
        return [name for name, member in inspect.getmembers(module) if is_builtin(member)]

    def _patch_builtin(module: Any, *where: Any) -> None:
        for name in _builtins(module):
            member = getattr(module, name)
            if is_builtin(member):
                interpreter._patch_attr(module, name, member, *where)

    interpreter._patch_builtin = _patch_builtin
