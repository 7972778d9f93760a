import importlib.metadata
import os
import platform
import subprocess
import sys

import pytest

from scanner.survey.scan import machine
from scanner.survey.scan.machine import cores, machine_fingerprint

CPU_INFO = """processor\t: 0
cpu family\t: 25
model\t\t: 1
model name\t: AMD EPYC 7B13
stepping\t: 0
flags\t\t: fpu avx2 fma avx
bogomips\t: 4890.8

processor\t: 1
model name\t: another
"""


@pytest.fixture
def made_up(tmp_path, monkeypatch):
    """A machine whose facts are known."""
    cpu, nvidia = tmp_path / "cpuinfo", tmp_path / "nvidia"
    cpu.write_text(CPU_INFO)
    card = nvidia / "gpus" / "0000:01:00.0"
    card.mkdir(parents=True)
    (card / "information").write_text("Model: \t\t NVIDIA H100 80GB HBM3\nIRQ: 7\n")
    (nvidia / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15\nGCC version: 12\n")
    monkeypatch.setattr(machine, "CPU_INFO", cpu)
    monkeypatch.setattr(machine, "NVIDIA", nvidia)
    machine_fingerprint.cache_clear()
    yield tmp_path
    machine_fingerprint.cache_clear()


def test_processor_instructions_provider_and_libraries(made_up):
    parts = machine_fingerprint("cpu").split("; ")
    assert parts[:3] == [platform.machine(), "AMD EPYC 7B13 cpu family 25 model 1 stepping 0 avx fma avx2", "provider cpu"]
    assert f"numpy {importlib.metadata.version('numpy')}" in parts
    assert not any("H100" in part for part in parts)


def test_the_gpu_where_it_computes(made_up):
    parts = machine_fingerprint("cuda").split("; ")
    assert parts[2:4] == ["provider cuda", "NVIDIA H100 80GB HBM3 NVIDIA UNIX x86_64 Kernel Module  570.86.15"]


def test_what_cannot_be_found_out_is_left_out(made_up):
    (made_up / "cpuinfo").unlink()
    parts = machine_fingerprint("tensorrt").split("; ")
    assert parts[0] == platform.machine()
    assert "" not in parts


def test_this_machine_always_says_the_same():
    first = machine_fingerprint("cpu")
    machine_fingerprint.cache_clear()
    assert machine_fingerprint("cpu") == first


def test_cores_are_those_that_the_process_may_use():
    one = min(os.sched_getaffinity(0))
    program = f"import os; os.sched_setaffinity(0, {{{one}}}); from scanner.survey.scan.machine import cores; print(cores())"
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout == "1\n"
    assert 1 <= cores() <= len(os.sched_getaffinity(0))
