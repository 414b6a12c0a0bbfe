"""Lets the published pysc2, smac and smacv2 work, as they are, with today's protobuf.

The messages of StarCraft II (package `s2clientprotocol`) were generated for protobuf 3; with protobuf 4 or
newer their import fails ("Descriptors cannot be created directly"). Each generated module holds the
description of its messages as bytes, though, and protobuf builds messages from such bytes. So a finder in
front of the usual ones builds these modules that way. Modules of another form are left to the usual ones.
"""

import ast
import importlib
import re
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Any

_PACKAGE = "s2clientprotocol"
_IMPORTED = re.compile(rf"^from {_PACKAGE} import (\w+) as", re.MULTILINE)
_DESCRIPTION = re.compile(r"serialized_pb=_b\(('(?:[^'\\]|\\.)*')\)")


def install() -> None:
    """Put the finder in its place, once. To be called before pysc2 is imported."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    def find_spec(self, name: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        if not (name.startswith(f"{_PACKAGE}.") and name.endswith("_pb2")):
            return None
        found = PathFinder.find_spec(name, path)
        if found is None or found.origin is None:
            return None
        source = Path(found.origin).read_text(encoding="latin1")
        if _DESCRIPTION.search(source) is None:
            return None
        return spec_from_loader(name, _Builder(source), origin=found.origin)


class _Builder(Loader):
    """Fills a module with the messages that its source describes."""

    def __init__(self, source: str) -> None:
        self._source = source

    def create_module(self, spec: ModuleSpec) -> None:
        """The usual kind of module."""

    def exec_module(self, module: ModuleType) -> None:
        from google.protobuf import descriptor_pool
        from google.protobuf.internal import builder

        for needed in _IMPORTED.findall(self._source):
            importlib.import_module(f"{_PACKAGE}.{needed}")
        (literal,) = _DESCRIPTION.findall(self._source)
        description = ast.literal_eval(literal).encode("latin1")
        descriptor = descriptor_pool.Default().AddSerializedFile(description)
        names = vars(module)
        names["DESCRIPTOR"] = descriptor
        builder.BuildMessageAndEnumDescriptors(descriptor, names)
        builder.BuildTopDescriptorsAndMessages(descriptor, module.__name__, names)
