"""Halves what importing transformers takes, and so the start of a worker.

At its import transformers (5.x) reads the source of its 3,300 modules for models, to see what they export,
and once more for `transformers.models`. Each file is split into lines from its beginning, though the list of
names stands near its end. What is found here is the same, after one reading.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType

_MODULE = "transformers.utils.import_utils"
_LIST = "__all__"


def read_sources_once() -> None:
    """Change how transformers reads itself; to be called before it is imported."""
    if _MODULE not in sys.modules:
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds the one module that is changed as it is loaded."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _MODULE:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        read, names = (
            getattr(module, name, None) for name in ("create_import_structure_from_path", "fetch__all__")
        )
        if read is None or names is None:  # another transformers
            return

        def of_folder(module_path: str | os.PathLike[str]) -> object:
            # It remembers what it was asked: as a Path, and then by a file of the folder.
            folder = os.fspath(module_path)
            return read(os.path.dirname(folder) if os.path.isfile(folder) else folder)

        def of_source(file_content: str) -> object:
            at = file_content.rfind("\n" + _LIST)  # the last one counts
            return names(file_content[at + 1 :]) if at >= 0 or file_content.startswith(_LIST) else []

        vars(module).update(create_import_structure_from_path=of_folder, fetch__all__=of_source)
