"""Most of a test's time is compiling; each of these flags of XLA halves it."""

from importlib.metadata import version

FAST = "--xla_backend_optimization_level=0"
if version("jaxlib").startswith("0.10."):  # later ones do not know it
    FAST += " --xla_cpu_use_fusion_emitters=false"
