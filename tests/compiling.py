"""Most of a test's time is compiling; each of these flags of XLA halves it."""

from importlib.metadata import version

FAST = "--xla_backend_optimization_level=0"
# Later ones do not know it. In 0.12 nothing takes its place: not opt_preset,
# emitter_verification_level, disable_expensive_passes nor parallel_codegen_split_count.
if version("jaxlib").startswith("0.10."):
    FAST += " --xla_cpu_use_fusion_emitters=false"
