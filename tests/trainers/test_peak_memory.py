"""What is noted of a run's memory is its own, whoever started it."""

import subprocess
import sys

import pytest


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the kernel keeps no such mark")
def test_memory_of_the_starting_process_does_not_count():
    held = bytearray(1_500_000_000)  # zero pages are not resident until they are written
    for place in range(0, len(held), 4096):
        held[place] = 1
    code = "from modalign.trainers.stage_result import peak_memory; print(peak_memory(None))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert 100 < int(said) < 1400
