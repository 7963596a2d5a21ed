"""Worker processes of a script that does not guard what it does."""

import subprocess
import sys

import pytest

SCRIPT = """
import os
from electra_jax.system.workers import worker_pool
print("script", os.getpid(), flush=True)
with worker_pool(2, os.nice, (1,)) as pool:
    assert list(pool.map(abs, [-1, -2])) == [1, 2]
    assert pool.submit(os.nice, 0).result() == os.nice(0) + 1
"""


@pytest.mark.slow
def test_a_script_is_not_run_again_by_its_workers(tmp_path):
    """Without an `if __name__ == "__main__"` it would be, and fail."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("script") == 1
