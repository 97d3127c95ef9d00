"""What the one who calls may know of: the only place that decides what lists leave out.

Whether a call may be made at all is decided before, by a step of the calls.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator
from typing import Any

from pydotcompute.access.roles import Role
from pydotcompute.ring_kernels.declaration import KernelType
from pydotcompute.ring_kernels.kernel import RingKernel
from pydotcompute.ring_kernels.runtime import RingKernelRuntime
from pydotcompute_server.catalog import Catalog
from pydotcompute_server.principals import current

__all__ = ["Visible"]


class Visible:
    """What there is in the daemon, without what is hidden from the one who calls.

    A kernel type is hidden if its name is, and each of its kernels. A service or a file of types is hidden if it is of
    hidden types only.
    """

    def __init__(self, runtime: RingKernelRuntime, catalog: Catalog) -> None:
        self._runtime = runtime
        self._catalog = catalog

    @property
    def sight(self) -> Hashable:
        """What differs between principals from whom different things are hidden."""
        return current().rights.grants

    def kernel(self, kernel_id: str) -> bool:
        """Return True if a kernel of this id is not hidden."""
        return current().rights.see(kernel_id)

    def failures(self, kernel_id: str) -> bool:
        """Return True if the texts of this kernel's failures are not hidden."""
        return current().rights.have(Role.OPERATOR, kernel_id)

    def kernel_ids(self) -> Iterator[str]:
        """Yield the ids of the kernels that are not terminated, in the order of their launch."""
        rights = current().rights
        kernel_ids = self._runtime.kernel_ids
        return iter(kernel_ids if rights.see_everything else [each for each in kernel_ids if rights.see(each)])

    def kernels_after(self, number: int) -> Iterator[RingKernel[Any, Any]]:
        """Yield the kernels of `kernel_ids` whose `number` is larger."""
        rights, kernels = current().rights, self._runtime.kernels_after(number)
        return kernels if rights.see_everything else (each for each in kernels if rights.see(each.kernel_id))

    def kernel_count(self) -> int:
        """Return the number of `kernel_ids`."""
        return self._runtime.kernel_count if current().rights.see_everything else sum(1 for _ in self.kernel_ids())

    def types(self) -> dict[str, KernelType]:
        """Return the kernel types by their names."""
        rights, types = current().rights, self._runtime.kernel_types
        if rights.see_everything:
            return dict(types)
        launched = {each.type.name for each in self.kernels_after(-1)}
        return {name: each for name, each in types.items() if name in launched or rights.see_type(name)}

    def services(self) -> list[str]:
        """Return the full names of all services, in alphabetical order."""
        services = self._catalog.pool.services()
        if current().rights.see_everything:
            return services
        types = self.types()
        return [each for each in services if self._is_of(each, types)]

    def service(self, name: str) -> bool:
        """Return True if a service of this name is not hidden."""
        return current().rights.see_everything or self._is_of(name, self.types())

    def _is_of(self, service: str, types: Collection[str]) -> bool:
        kernel_type = self._catalog.services.get(service)
        return kernel_type is None or kernel_type.name in types

    def files(self, own: Collection[str]) -> frozenset[str] | None:
        """Return the names of the files of types that are not hidden. None if no file is.

        Args:
            own: the names of the files that are of no kernel type.
        """
        if current().rights.see_everything:
            return None
        files = set(own)
        for kernel_type in self.types().values():
            names = [self._catalog.codec(cls).descriptor.full_name for cls in _classes(kernel_type)]
            if kernel_type.service in self._catalog.services:
                names.append(kernel_type.service)
            for name in names:
                files.update(file.name for file in self._catalog.pool.file_set(name).file)
        return frozenset(files)


def _classes(kernel_type: KernelType) -> list[type]:
    return [cls for cls in (kernel_type.input_type, kernel_type.output_type) if cls is not None]
