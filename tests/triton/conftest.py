"""Triton's interpreter: quicker, and its oldest version beside the newest numpy."""

import functools
import inspect
import os
from typing import Any

if os.environ.get("TRITON_INTERPRET") == "1":
    from triton.language.core import is_builtin
    from triton.runtime import interpreter

    _patch_tensor = interpreter._patch_lang_tensor

    @functools.cache
    def _builtins(module: Any) -> list[str]:
        """Searched for once, and not at every call of a device function."""
        return [name for name, member in inspect.getmembers(module) if is_builtin(member)]

    def _patch_builtin(module: Any, *where: Any) -> None:
        for name in _builtins(module):
            member = getattr(module, name)
            if is_builtin(member):
                interpreter._patch_attr(module, name, member, *where)

    def _patch_lang_tensor(tensor: Any, *where: Any) -> None:
        _patch_tensor(tensor, *where)
        tensor.__index__ = lambda self: int(self.handle.data.item())  # numpy takes arrays of one element no more

    interpreter._patch_builtin = _patch_builtin
    interpreter._patch_lang_tensor = _patch_lang_tensor
