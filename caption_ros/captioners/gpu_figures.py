# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Memory, load and temperature of a GPU, for diagnostics; nothing here raises or waits.

AMD's own library amdsmi tells them where it is installed (it comes with ROCm); without it torch
tells the memory.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable
from typing import Any

from caption_ros.captioners.devices import torch_build

_UNKNOWN = 'unknown'
_LOAD, _TEMPERATURE, _MEMORY, _OWN = ('GPU load %', 'GPU temperature C', 'GPU memory MiB',
                                      'GPU memory of this process MiB')
_SENSORS = ('JUNCTION', 'EDGE')  # the hottest spot; what APUs have


class GpuFigures:
    """Looks at a GPU on a thread of its own, since a driver in trouble may not answer.

    Args:
        device: torch's name of the device, such as cuda:0.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._amdsmi: Any = None
        self._handle: Any = None
        self._why_not = ''
        self._figures: dict[str, str] = {}
        self._thread: threading.Thread | None = None
        self._silent = 0

    def read(self) -> dict[str, str]:
        """Return what was seen last, and look again meanwhile; to be called once a second."""
        if self._device == 'cpu':
            return {}
        if self._thread is not None and self._thread.is_alive():
            self._silent += 1
            return self._figures | {'GPU answer': f'none to the last {self._silent} question(s)'}
        self._silent = 0
        self._thread = threading.Thread(target=self._look, name='gpu figures', daemon=True)
        self._thread.start()
        return self._figures

    def _look(self) -> None:
        figures: dict[str, str] = {}
        for look in (self._by_torch, self._by_amdsmi):
            try:
                figures |= look()
            except Exception as error:  # drivers and bindings raise anything
                figures['GPU sensors'] = f'{_UNKNOWN}: {_one_line(error)}'
        self._figures = figures

    def _by_torch(self) -> dict[str, str]:
        import torch

        free, total = torch.cuda.mem_get_info(self._device)
        return {_MEMORY: _of(total - free, total),
                _OWN: str(torch.cuda.memory_reserved(self._device) >> 20)}

    def _by_amdsmi(self) -> dict[str, str]:
        """Return load, temperature and memory; why not, where amdsmi cannot be used at all."""
        if torch_build() != 'rocm':
            return {}
        if self._handle is None and not self._why_not:
            self._why_not = self._find()
        if self._why_not:
            return {'GPU sensors': self._why_not}
        smi, handle = self._amdsmi, self._handle
        figures = {}
        figures[_LOAD] = _asked(lambda: smi.amdsmi_get_gpu_activity(handle)['gfx_activity'])
        for sensor in _SENSORS:
            kind = getattr(smi.AmdSmiTemperatureType, sensor)
            figures[_TEMPERATURE] = _asked(lambda kind=kind: smi.amdsmi_get_temp_metric(
                handle, kind, smi.AmdSmiTemperatureMetric.CURRENT))
            if not figures[_TEMPERATURE].startswith(_UNKNOWN):
                break
        memory = _asked(lambda: _of(*(smi.amdsmi_get_gpu_vram_usage(handle)[name] << 20
                                      for name in ('vram_used', 'vram_total'))))
        if not memory.startswith(_UNKNOWN):
            figures[_MEMORY] = memory
        return figures

    def _find(self) -> str:
        """Find amdsmi's name of the GPU; return why that cannot be."""
        try:
            self._amdsmi = importlib.import_module('amdsmi')
        except ImportError:
            return 'amdsmi is not installed: no load and no temperature'
        except Exception as error:  # without its library it raises KeyError or OSError
            return f'amdsmi cannot be imported: {_one_line(error)}'
        import torch

        try:
            self._amdsmi.amdsmi_init()
            handles = self._amdsmi.amdsmi_get_processor_handles()
            places = [self._amdsmi.amdsmi_get_gpu_device_bdf(handle) for handle in handles]
        except Exception as error:
            return f'amdsmi does not work: {_one_line(error)}'
        wanted = _place(torch.cuda.get_device_properties(self._device))
        fitting = [handle for handle, place in zip(handles, places)
                   if place.lower().startswith(wanted)]
        if wanted and not fitting:
            return f'amdsmi shows GPUs at {", ".join(places) or "no place"} and none at {wanted}*'
        if len(fitting) != 1 and not wanted:
            return f'amdsmi shows {len(handles)} GPUs, and this torch does not tell which is its'
        self._handle = fitting[0]
        return ''


def _place(properties: Any) -> str:
    """Return a GPU's place on the bus as amdsmi writes it; empty when this torch is too old."""
    if not hasattr(properties, 'pci_bus_id'):
        return ''
    domain = getattr(properties, 'pci_domain_id', 0)
    return f'{domain:04x}:{properties.pci_bus_id:02x}:{properties.pci_device_id:02x}.'


def _asked(ask: Callable[[], Any]) -> str:
    try:
        value = ask()
    except Exception as error:  # amdsmi's own types, and those of what a driver leaves out
        return f'{_UNKNOWN}: {_one_line(error)}'
    return f'{_UNKNOWN}: amdsmi says N/A' if value in (None, 'N/A') else str(value)


def _of(used: int, total: int) -> str:
    """Return bytes as MiB of MiB."""
    return f'{used >> 20} of {total >> 20}'


def _one_line(error: Exception) -> str:
    return ' '.join(str(error).split())[:120] or type(error).__name__
