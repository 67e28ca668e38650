"""Things by the name that ``params.yaml`` uses: detectors, models, objectives, sources, colour and blend methods.

    MODELS: Registry[Builder] = Registry("model", __name__)

    @MODELS.register("autoencoder")      # in autoencoder.py, a module of that package
    def build(...): ...

A registry over a package finds the thing called `name` in the module of that file name, and imports it only when it is
asked for: adding one touches no other file, and a machine without dlib can still use what does without.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Generic, TypeVar

from facemill.errors import FacemillError

T = TypeVar("T")


class Registry(Generic[T]):
    """Names and what they stand for. `what` is the word for one of them in messages; `package` is where they lie."""

    def __init__(self, what: str, package: str | None = None) -> None:
        self._what, self._package = what, package
        self._known: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that makes what it decorates known under `name`."""

        def keep(thing: T) -> T:
            self._known[name] = thing
            return thing

        return keep

    def __getitem__(self, name: str) -> T:
        """What is registered under `name`. Raises FacemillError with the names that there are."""
        if name not in self._known and name in self._modules():
            importlib.import_module(f"{self._package}.{name}")
        if name not in self._known:
            raise FacemillError(f"no {self._what} {name!r}; there are {', '.join(self.names())}")
        return self._known[name]

    def module(self, name: str) -> ModuleType:
        """The module of what is registered under `name`. Raises as `[name]`."""
        return sys.modules[self[name].__module__]

    def names(self) -> list[str]:
        """All names that this machine can offer, sorted; modules whose packages are not installed are left out."""
        for module in self._modules():
            try:
                importlib.import_module(f"{self._package}.{module}")
            except ModuleNotFoundError as error:
                if (error.name or "").partition(".")[0] == __name__.partition(".")[0]:
                    raise  # a module of our own that is misspelt: a defect, and no package to install
        return sorted(self._known)

    def values(self) -> list[T]:
        """What the names stand for, in the order of `names`."""
        return [self._known[name] for name in self.names()]

    def _modules(self) -> list[str]:
        if self._package is None:
            return []
        path = importlib.import_module(self._package).__path__
        return [module.name for module in pkgutil.iter_modules(path) if not module.name.startswith("_")]
