"""The fields that objectives read."""

import dataclasses

from electra_jax.errors import above, at_least, check_fields, checked, within


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
    """The objective of a run, and its settings."""

    name: str = "electra"  # of an objective, perhaps of a plugin
    mask_rate: float = checked(0.15, within("(0, 1)"))  # share of the tokens that are masked
    final_mask_rate: float = checked(0.0, within("[0, 1)"))  # at the end of the run; 0: it stays
    whole_word: bool = False  # mask the tokens of a word together
    generator_weight: float = checked(1.0, at_least(0))  # of its loss in the sum
    discriminator_weight: float = checked(50.0, at_least(0))  # of the main network's loss
    temperature: float = checked(1.0, above(0))  # of the sampling
    final_temperature: float = checked(0.0, at_least(0))  # that it falls to; 0: it stays
    temperature_steps: int = checked(20_000, at_least(1))  # in which it falls by 63 %
    disallow_correct: bool = False  # never sample the original token

    def __post_init__(self) -> None:
        check_fields("objective", self)

    @property
    def largest_mask_rate(self) -> float:
        """Which rows have slots for."""
        return max(self.mask_rate, self.final_mask_rate)
