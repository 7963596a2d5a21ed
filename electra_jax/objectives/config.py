"""The fields that objectives read."""

import dataclasses

from electra_jax.errors import UsageError


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
    """What is learnt, and how hard."""

    name: str = "electra"
    mask_rate: float = 0.15
    whole_word: bool = False  # mask the tokens of a word together
    generator_weight: float = 1.0
    discriminator_weight: float = 50.0  # of the main network's loss
    temperature: float = 1.0  # of the sampling
    final_temperature: float = 0.0  # that it falls to; 0: it stays
    temperature_steps: int = 20_000  # in which it falls by 63 %
    disallow_correct: bool = False  # never sample the original token

    def __post_init__(self):
        if not 0 < self.mask_rate < 1:
            raise UsageError(f"objective.mask_rate must be in (0, 1), not {self.mask_rate}")
        if self.temperature <= 0:
            raise UsageError(f"objective.temperature must be above 0, not {self.temperature}")
        if self.final_temperature < 0:
            raise UsageError("objective.final_temperature must not be negative")
        if self.temperature_steps < 1:
            raise UsageError("objective.temperature_steps must be at least 1")
